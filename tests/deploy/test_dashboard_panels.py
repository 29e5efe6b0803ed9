"""Each panel of the dashboard shows something, in a real Prometheus that scrapes a busy server and has the rules."""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="prometheus_client comes with vLLM")

import yaml
from prometheus_client import start_http_server

from tests.helpers.observed import RULES, BusyServer, panel_expressions
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not on the PATH")
VARIABLES = {"$__rate_interval": "30s", "$class": ".*", "$instance": ".*"}


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """The URL of a Prometheus that scrapes a busy server twice a second, with the rules once a second."""
    (tmp_path / "metrics").mkdir()
    http, thread = start_http_server(0, "127.0.0.1", BusyServer(tmp_path / "metrics").registry)
    groups = [{**group, "interval": "1s"} for group in RULES]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    target = f"127.0.0.1:{http.server_port}"
    scrape = {"job_name": "vllm", "scrape_interval": "500ms", "scrape_timeout": "500ms"}
    config = {
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{**scrape, "static_configs": [{"targets": [target]}]}],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    arguments = ["--config.file=prometheus.yaml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(["prometheus", *arguments], cwd=tmp_path, stdout=log, stderr=log)
        try:
            yield f"http://{address}"
        finally:
            process.kill()
            process.wait()
            http.shutdown()
            thread.join()
            http.server_close()


def has_data(url: str, expression: str) -> bool:
    """Whether Prometheus answers with a number."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=60) as answer:
            found = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        if error.code == 503:  # still starting
            return False
        raise AssertionError(f"{expression}: {error.read().decode()}") from None
    except urllib.error.URLError:  # not there yet
        return False
    return any(not math.isnan(float(series["value"][1])) for series in found)


def test_every_panel_shows_data(prometheus: str) -> None:
    waiting = panel_expressions()

    def all_have() -> bool:
        for name in [name for name, expression in waiting.items() if has_data(prometheus, expression)]:
            del waiting[name]
        return not waiting

    wait_for(all_have, f"data for {waiting}")
