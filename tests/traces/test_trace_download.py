"""Downloads: verified, resumed, whole or absent."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest

from tests.helpers.trace_server import make_entry
from traces.download import fetch
from traces.errors import ChecksumError, DownloadError, TraceError

BODY = np.random.default_rng(0).bytes(3_000_000)


def entry_at(*urls, **changes):
    return make_entry(BODY, url=urls[0], mirrors=urls[1:], **changes)


def files_in(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock"))


def test_fetches_and_then_keeps(server, tmp_path):
    url = server.serve("/a", BODY)
    path = fetch(entry_at(url), tmp_path)
    assert path.read_bytes() == BODY
    assert files_in(tmp_path) == ["tiny.csv"]
    assert fetch(entry_at(url), tmp_path) == path
    assert len(server.paths["/a"].seen_ranges) == 1  # the second call asked nobody


def test_resumes_where_the_connection_broke(server, tmp_path):
    url = server.serve("/a", BODY, cut_after=1_000_000)
    with pytest.raises(DownloadError, match="closed after 1000000 of 3000000 bytes"):
        fetch(entry_at(url), tmp_path)
    assert files_in(tmp_path) == ["tiny.csv.part"]
    server.paths["/a"].cut_after = None
    assert fetch(entry_at(url), tmp_path).read_bytes() == BODY
    assert server.paths["/a"].seen_ranges == [None, "bytes=1000000-"]
    assert files_in(tmp_path) == ["tiny.csv"]


def test_restarts_when_the_server_knows_no_ranges(server, tmp_path):
    url = server.serve("/a", BODY, ranges=False, cut_after=1_000_000)
    with pytest.raises(DownloadError):
        fetch(entry_at(url), tmp_path)
    server.paths["/a"].cut_after = None
    assert fetch(entry_at(url), tmp_path).read_bytes() == BODY


def test_the_mirror_goes_on_from_the_broken_part(server, tmp_path):
    first, second = server.serve("/a", BODY, cut_after=10_000), server.serve("/b", BODY)
    assert fetch(entry_at(first, second), tmp_path).read_bytes() == BODY
    assert server.paths["/b"].seen_ranges == ["bytes=10000-"]


@pytest.mark.parametrize("behaviour", [{"status": 404}, {"status": 503}])
def test_falls_back_to_the_mirror(server, tmp_path, behaviour):
    bad, good = server.serve("/a", BODY, **behaviour), server.serve("/b", BODY)
    assert fetch(entry_at(bad, good), tmp_path).read_bytes() == BODY


def test_wrong_bytes_name_both_digests_and_leave_nothing(server, tmp_path):
    wrong = BODY[:-1] + b"!"
    url = server.serve("/a", wrong)
    with pytest.raises(DownloadError) as caught:
        fetch(entry_at(url), tmp_path)
    message = str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in message
    assert hashlib.sha256(BODY).hexdigest() in message
    assert "tiny.csv" in message and "--from-file" in message and "\n" not in message
    assert files_in(tmp_path) == []


def test_wrong_bytes_then_a_good_mirror(server, tmp_path):
    wrong, good = server.serve("/a", b"<html>not found</html>"), server.serve("/b", BODY)
    assert fetch(entry_at(wrong, good), tmp_path).read_bytes() == BODY


def test_a_poisoned_part_is_thrown_away_and_fetched_afresh(server, tmp_path):
    url = server.serve("/a", BODY)
    part = tmp_path / "tiny" / "tiny.csv.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * 500)
    assert fetch(entry_at(url), tmp_path).read_bytes() == BODY
    assert server.paths["/a"].seen_ranges == ["bytes=500-", None]


@pytest.mark.parametrize("extra", [b"", b"too long"])
def test_a_part_with_nothing_missing(server, tmp_path, extra):
    url = server.serve("/a", BODY)
    part = tmp_path / "tiny" / "tiny.csv.part"
    part.parent.mkdir()
    part.write_bytes(BODY + extra)
    assert fetch(entry_at(url), tmp_path).read_bytes() == BODY


def test_a_damaged_file_in_the_cache_is_replaced(server, tmp_path, caplog):
    url = server.serve("/a", BODY)
    path = fetch(entry_at(url), tmp_path)
    path.write_bytes(b"damaged")
    assert fetch(entry_at(url), tmp_path).read_bytes() == BODY
    assert "will be replaced" in caplog.text


def test_the_error_lists_every_address_with_its_reason(server, tmp_path):
    gone, refused = server.serve("/a", BODY, status=410), "http://127.0.0.1:9/x"
    with pytest.raises(DownloadError) as caught:
        fetch(entry_at(gone, refused), tmp_path, timeout_s=60.0)
    assert f"{gone}: HTTP Error 410" in str(caught.value)
    assert f"{refused}: " in str(caught.value)
    assert "fetch tiny --from-file FILE" in str(caught.value)


def test_urls_replace_the_catalogs(server, tmp_path):
    path = fetch(entry_at("http://127.0.0.1:9/x"), tmp_path, urls=[server.serve("/b", BODY)])
    assert path.read_bytes() == BODY


def test_only_http_is_fetched(tmp_path):
    with pytest.raises(DownloadError, match="only http and https"):
        fetch(entry_at("http://127.0.0.1:9/x"), tmp_path, urls=["file:///etc/hostname"])


def test_a_silent_server_times_out(tmp_path):
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(DownloadError, match="timed out"):
            fetch(entry_at(url), tmp_path, timeout_s=0.3)


def test_from_file_copies_the_good_and_refuses_the_bad(tmp_path):
    entry = entry_at("http://127.0.0.1:9/x")
    source = tmp_path / "by-hand.csv"
    source.write_bytes(BODY)
    path = fetch(entry, tmp_path / "cache", from_file=source)
    assert path.read_bytes() == BODY and source.read_bytes() == BODY
    source.write_bytes(b"edited")
    with pytest.raises(ChecksumError, match=r"by-hand\.csv has sha256"):
        fetch(entry, tmp_path / "cache", from_file=source)
    assert path.read_bytes() == BODY  # the good import is still there
    with pytest.raises(TraceError, match="is not a file"):
        fetch(entry, tmp_path / "cache", from_file=tmp_path / "absent")
    assert files_in(tmp_path / "cache") == ["tiny.csv"]


def test_two_fetches_at_once_download_once(server, tmp_path):
    url = server.serve("/a", BODY)
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(fetch(entry_at(url), tmp_path).read_bytes())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [BODY] * 4
    assert len(server.paths["/a"].seen_ranges) == 1
