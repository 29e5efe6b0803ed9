"""The tests themselves: from vLLM's source distribution, through the user's own pip, without building anything."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from artifact.errors import CommandError
from traces.files import exclusive, sha256_of

#: Released source distributions that `expected.yaml` has been written for.
SHA256 = {"0.32.0": "d2c957d5eee3d0985012151315ddc62cbe0cd368fc96a5fc3510438d9dddf2ad"}
#: Files of tests, below `tests/v1`.
TESTS = (
    "core/test_scheduler.py",
    "core/test_async_scheduler.py",
    "core/test_priority_preemption_bug.py",
    "core/test_deferred_block_free.py",
    "core/test_worker_slot_overflow.py",
    "core/test_swa_inflight_window_free.py",
    "streaming_input/test_scheduler_streaming.py",
    "kv_connector/unit/test_remote_prefill_lifecycle.py",
    "kv_connector/unit/test_remote_decode_lifecycle.py",
    "kv_connector/unit/test_kv_load_failure_recovery.py",
    "kv_connector/unit/test_invalid_blocks_correctness.py",
    "kv_connector/unit/test_cache_pollution_prevention.py",
    "kv_connector/unit/test_error_propagation.py",
)
# What those import. vLLM's own package stays behind: the installed one is tested.
_BESIDE = (
    "__init__.py",
    "v1/__init__.py",
    "v1/core/__init__.py",
    "v1/core/utils.py",
    "v1/core/test_prefix_caching.py",
    "v1/streaming_input/__init__.py",
    "v1/kv_connector/__init__.py",
    "v1/kv_connector/unit/__init__.py",
    "v1/kv_connector/unit/conftest.py",
    "v1/kv_connector/unit/utils.py",
)
_DOWNLOAD_S = 900
# pip wants to know the metadata of what it downloads, for which vLLM's build needs a compiler's worth of packages.
# This takes the place of the build's entry point (PEP 517), so that pip is content and nothing of vLLM is run.
_METADATA_ONLY = """
from pathlib import Path

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = Path(metadata_directory, "vllm-{version}.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: vllm\\nVersion: {version}\\n")
    return folder.name

def build_wheel(*arguments, **options):
    raise NotImplementedError("only downloaded, never built")
"""


class Unavailable(CommandError):
    """The tests cannot be had here; says why, and what to do."""


def installed_version() -> str:
    """The installed vLLM's release, such as 0.32.0. Raises Unavailable without one, or for one without a hash."""
    try:
        release = version("vllm").partition("+")[0]
    except PackageNotFoundError:
        raise Unavailable("vLLM is not installed; run `make setup ENGINE=cpu`") from None
    if release not in SHA256:
        raise Unavailable(f"the installed vLLM is {release}; its tests are known for {', '.join(SHA256)}")
    return release


def unpacked(release: str, cache: Path, sdist: Path | None = None) -> Path:
    """The folder below `cache` with `tests/` of that release, fetched unless it is there. Raises Unavailable.

    sdist: a copy of the source distribution that is at hand; without one, pip downloads it.
    """
    folder = cache / f"vllm-{release}"
    with exclusive(folder):
        if all((folder / "tests" / "v1" / name).is_file() for name in TESTS):
            return folder
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            archive = sdist or _downloaded(release, Path(scratch))
            if not archive.is_file():
                raise Unavailable(f"there is no file {archive}; give the path of vllm-{release}.tar.gz")
            if sha256_of(archive) != SHA256[release]:
                raise Unavailable(
                    f"{archive.name} is not vLLM's release: its sha256 differs; get it from another index"
                )
            _unpack(archive, release, folder)
    return folder


def _unpack(archive: Path, release: str, folder: Path) -> None:
    """Write the wanted files, each of them whole or not at all."""
    with tarfile.open(archive) as tar:
        for name in (*_BESIDE, *(f"v1/{test}" for test in TESTS)):
            content = tar.extractfile(f"vllm-{release}/tests/{name}").read()
            target = folder / "tests" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + ".part")
            part.write_bytes(content)
            part.replace(target)


def _downloaded(release: str, scratch: Path) -> Path:
    """The source distribution, by pip with the user's indexes, mirrors, certificates and log-ins."""
    backend = scratch / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(_METADATA_ONLY.format(version=release))
    wanted = scratch / "wanted.txt"
    wanted.write_text(f"vllm=={release} --hash=sha256:{SHA256[release]}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "vllm"]
    command += ["--no-build-isolation", "--use-pep517", "--dest", str(scratch), "-r", str(wanted)]
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": str(backend.parent)},
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_S,
        )
        reason = (done.stderr.strip() or "pip said nothing").splitlines()[-1]
    except subprocess.TimeoutExpired:
        reason = f"pip did not finish within {_DOWNLOAD_S} s"
    archive = scratch / f"vllm-{release}.tar.gz"
    if not archive.is_file():
        raise Unavailable(
            f"vLLM's source distribution cannot be downloaded ({reason}); "
            f"get vllm-{release}.tar.gz another way and give its path as --sdist"
        )
    return archive
