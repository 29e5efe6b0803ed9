"""A running server as its clients see it: calls that must succeed, and what its metrics say."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping

from tests.helpers.waiting import HANG_S


def call(url: str, body: object = None, method: str = "POST", headers: Mapping[str, str] | None = None) -> bytes:
    """The body of the answer; an error for a status of 400 and above."""
    data = None if method == "GET" else json.dumps(body).encode() if body is not None else b""
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    with urllib.request.urlopen(asked, timeout=HANG_S) as answer:
        return answer.read()


def counted(url: str, name: str) -> float:
    """The sum of a metric over its labels."""
    text = call(f"{url}/metrics", method="GET").decode()
    return sum(map(float, re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))
