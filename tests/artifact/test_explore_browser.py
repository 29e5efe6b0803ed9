"""`python -m artifact explore` in a real browser: it answers, again when a slider is moved, and refuses in a line."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.waiting import wait_for

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly("artifact/explore", "artifact/planning", "notebooks"),
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium; install one to run this"),
]
ROOT = Path(__file__).parents[2]
PATIENCE_MS = 600_000  # a busy machine


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "artifact", "explore", "--port", str(port), "--no-browser"]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


def test_it_answers_moves_and_refuses(address):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address, timeout=PATIENCE_MS)
        headline = page.locator("h3")
        headline.wait_for(timeout=PATIENCE_MS)
        first = headline.inner_text()
        assert re.match(r"Niyama\S* holds 20 requests/s on \d+ GPUs, USD [\d,]+ a month", first)
        assert page.locator("img").first.evaluate("picture => picture.naturalWidth") > 100

        page.get_by_role("slider").first.press("ArrowRight")
        page.wait_for_function("old => document.querySelector('h3')?.innerText !== old", arg=first, timeout=PATIENCE_MS)
        trace = page.get_by_label("trace").first
        trace.fill("nobody-knows-it")
        trace.press("Enter")
        page.get_by_text("unknown trace 'nobody-knows-it'").wait_for(timeout=PATIENCE_MS)
        browser.close()
