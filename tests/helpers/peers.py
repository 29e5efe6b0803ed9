"""The policies of `policies/` by name, each read when it is first asked for: their rules take seconds to compile."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from niyama import Policy, load_policy

FOLDER = Path(__file__).parents[2] / "policies"
#: Those with a rule `due`; here, so that nobody has to read them all to know it.
LEAVING_OUT = ("fair-batching", "scorpio", "slai", "slide-batching", "slos-serve-edf")


class Peers(Mapping[str, Policy]):
    """A policy is called like its file, with hyphens."""

    def __init__(self) -> None:
        self._files = {path.stem.replace("_", "-"): path for path in sorted(FOLDER.glob("*.py"))}
        self._read: dict[str, Policy] = {}

    def __getitem__(self, name: str) -> Policy:
        if name not in self._read:
            path = self._files[name]
            self._read[name] = load_policy(f"{path}:{path.stem}")
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


PEERS = Peers()
