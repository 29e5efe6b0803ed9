"""Fetching a data set: resumed, verified, and never half-written under its final name."""

from __future__ import annotations

import http.client
import logging
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from traces.catalog import Entry, embedded_path
from traces.errors import ChecksumError, DownloadError, TraceError
from traces.files import exclusive, sha256_of, whole_file

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 10.0
_PIECE_BYTES = 1 << 20


class _Meter(Protocol):
    """Told how many bytes are on disk and, if known, how many there will be."""

    def __call__(self, done_bytes: int, total_bytes: int | None) -> None: ...


def fetch(
    entry: Entry,
    cache_dir: Path | str,
    *,
    from_file: Path | str | None = None,
    urls: Sequence[str] | None = None,
    progress: bool = True,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Path:
    """Bring the bytes of `entry` into `cache_dir` and return their path.

    A file already there with the right SHA-256 is kept. `from_file` imports a file fetched by hand instead of
    downloading; `urls` replaces the catalog's addresses. `timeout_s` bounds the connection and every read.
    An interrupted transfer leaves `<name>.part`, from which the next call goes on.

    Raises DownloadError listing each address and its reason, ChecksumError for a wrong `from_file`.
    """
    embedded = embedded_path(entry)
    if embedded is not None:
        return embedded
    target = Path(cache_dir) / entry.local
    with exclusive(target):
        if from_file is not None:
            return _import_file(entry, Path(from_file), target)
        if target.exists():
            if sha256_of(target) == entry.sha256:
                return target
            log.warning("%s does not have the catalog's sha256 and will be replaced", target)
        _try_each(entry, target, tuple(urls or entry.urls), progress, timeout_s)
        return target


def _import_file(entry: Entry, source: Path, target: Path) -> Path:
    if not source.is_file():
        raise TraceError(f"{entry.name}: {source} is not a file; give the path of {entry.filename}")
    with whole_file(target) as scratch:
        shutil.copyfile(source, scratch)
        _require_digest(entry, scratch, str(source))
    return target


def _require_digest(entry: Entry, path: Path, origin: str) -> None:
    actual = sha256_of(path)
    if actual != entry.sha256:
        raise ChecksumError(
            f"{entry.filename} from {origin} has sha256 {actual}, expected {entry.sha256}: these are not the"
            f" catalog's bytes (changed upstream, or altered by a proxy or an editor); nothing was kept: get"
            f" the file from another address (--url) or import a good copy (--from-file)"
        )


def _try_each(entry: Entry, target: Path, urls: Sequence[str], progress: bool, timeout_s: float) -> None:
    part = target.with_name(target.name + ".part")
    reasons: list[str] = []
    for url in urls:
        try:
            with _meter(entry, progress) as meter:
                _download(entry, url, part, meter, timeout_s)
            os.replace(part, target)
            return
        except (DownloadError, http.client.HTTPException, OSError) as error:
            reason = str(error) or type(error).__name__
            reasons.append(f"{url}: {reason}")
            log.info("%s: %s failed: %s", entry.name, url, reason)
    raise DownloadError(
        f"{entry.name} could not be fetched: {'; '.join(reasons)}. Get {entry.filename} another way, then run"
        f" `python -m traces fetch {entry.name} --from-file FILE`"
    )


def _download(entry: Entry, url: str, part: Path, meter: _Meter, timeout_s: float) -> None:
    """Fill `part` with verified bytes from `url`; a part with wrong bytes is removed."""
    resumed = _stream(url, part, meter, timeout_s)
    try:
        _require_digest(entry, part, url)
    except ChecksumError:
        part.unlink()
        if not resumed:
            raise
        # The part's start came from an earlier call, maybe another server: this url gets a clean try.
        _download(entry, url, part, meter, timeout_s)


def _stream(url: str, part: Path, meter: _Meter, timeout_s: float) -> bool:
    """Append what is missing to `part`; True if bytes of an earlier call were kept. Raises OSError."""
    if not url.startswith(("http://", "https://")):
        raise DownloadError("only http and https addresses are fetched; use --from-file for a file")
    offset = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "niyama-traces"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            return True  # nothing is missing: the checksum says whether the part is right
        raise
    with response:
        kept = response.status == http.client.PARTIAL_CONTENT and _range_starts_at(response, offset)
        with part.open("ab" if kept else "wb") as sink:
            _copy(response, sink, offset if kept else 0, meter)
    return kept


def _range_starts_at(response: http.client.HTTPResponse, offset: int) -> bool:
    if (response.headers.get("Content-Range") or "").startswith(f"bytes {offset}-"):
        return True
    raise DownloadError(f"the server answered a range other than the one asked for (from byte {offset})")


def _copy(response: http.client.HTTPResponse, sink: IO[bytes], done_bytes: int, meter: _Meter) -> None:
    length = response.headers.get("Content-Length")
    total_bytes = None if length is None else done_bytes + int(length)
    meter(done_bytes, total_bytes)
    while piece := response.read(_PIECE_BYTES):
        sink.write(piece)
        done_bytes += len(piece)
        meter(done_bytes, total_bytes)
    # http.client does not complain about a body cut short when it is read in pieces.
    if total_bytes is not None and done_bytes < total_bytes:
        raise DownloadError(f"the connection closed after {done_bytes} of {total_bytes} bytes (kept for resuming)")


@contextmanager
def _meter(entry: Entry, progress: bool) -> Iterator[_Meter]:
    """A progress bar on stderr, or silence when that is not a terminal."""
    if not (progress and sys.stderr.isatty()):
        yield lambda done_bytes, total_bytes: None
        return
    from rich import progress as bars  # a fifth of a second, which only a download is worth
    from rich.console import Console

    sizes = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.DownloadColumn())
    times = (bars.TransferSpeedColumn(), bars.TimeRemainingColumn())
    with bars.Progress(*sizes, *times, console=Console(stderr=True)) as bar:
        task = bar.add_task(entry.name, total=entry.bytes)
        yield lambda done_bytes, total_bytes: bar.update(task, completed=done_bytes, total=total_bytes or entry.bytes)
