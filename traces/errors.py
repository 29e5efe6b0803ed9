"""The errors of this package: each message is one line that names the thing, its value and the way out."""

from __future__ import annotations


class TraceError(ValueError):
    """A trace, a catalog name or a workload specification is not usable as it stands."""


class DownloadError(TraceError):
    """A data set could not be fetched; the message lists every address tried with its reason."""


class ChecksumError(DownloadError):
    """The bytes obtained are not the bytes the catalog promises."""
