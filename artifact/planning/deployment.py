"""The files that run a plan: Niyama's configuration, the command of one server, and a Kubernetes manifest of them all.

The manifest is that of deploy/kubernetes with the plan's classes, replicas, GPUs, model and longest answer in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from artifact.config import ConfigError
from artifact.planning.answer import Plan
from artifact.planning.outcome import Outcome
from artifact.planning.question import Question
from artifact.servers.command_line import DELIVERY_S
from artifact.servers.systems import NIYAMA_SCHEDULER, NIYAMA_TOKENS, by_urgency
from niyama.latency import is_card_file

DEPLOY = Path(__file__).parents[2] / "deploy" / "kubernetes"
CONFIG, COMMAND, MANIFEST, CARD = "niyama.yaml", "serve.sh", "kubernetes.yaml", "card.json"
MOUNT = "/etc/niyama"
#: First word of a card's model -> what vLLM serves.
MODELS = {
    "Llama-3-8B": "meta-llama/Meta-Llama-3-8B-Instruct",
    "Llama-3-70B": "meta-llama/Meta-Llama-3-70B-Instruct",
    "Qwen3-32B": "Qwen/Qwen3-32B",
    "gpt-oss-120b": "openai/gpt-oss-120b",
    "DeepSeek-V3": "deepseek-ai/DeepSeek-V3",
}
UNKNOWN_MODEL = "MODEL"
#: Seconds: preStop, an answer without a TTLT, and what a start may take.
PRE_STOP_S, LEAST_DRAIN_S, MINUTE_S, START_S = 20, 600, 60, 2320
GIB_PER_GPU = 32


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block."""


def _block(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _block)


def deployment(plan: Plan) -> dict[str, str]:
    """File name -> content; none where no Niyama was planned. The manifest where this is a checkout."""
    best, question = plan.best, plan.question
    if best is None or best.sized is None:
        return {}
    files = {CONFIG: configuration(question, best), COMMAND: command(question, best)}
    if is_card_file(question.latency):
        files[CARD] = Path(question.latency).read_text(encoding="utf-8")
    if DEPLOY.is_dir():
        files[MANIFEST] = manifest(question, best, files)
    return files


def configuration(question: Question, best: Outcome) -> str:
    """What NIYAMA_CONFIG names. Requests without a class get the least urgent one."""
    fields = ("name", "ttft_s", "tbt_s", "ttlt_s")
    urgent = [c.name for c in by_urgency(question.classes)]
    found = {
        "policy": best.system,
        "latency": CARD if is_card_file(question.latency) else question.latency,
        "delivery_s": DELIVERY_S,
        "classes": [{f: v for f in fields if (v := getattr(c, f)) is not None} for c in question.classes],
        "default_class": urgent[-1],
        "service_tiers": {"priority": urgent[0], "default": urgent[-1], "flex": urgent[-1]},
    }
    head = "# Of `python -m artifact plan`; check it after an edit: python -m niyama.vllm check niyama.yaml\n"
    return head + yaml.safe_dump(found, sort_keys=False)


def model_name(question: Question) -> str:
    """What vLLM is to serve."""
    return question.model or MODELS.get(question.card.model.split()[0], UNKNOWN_MODEL)


def arguments(question: Question) -> list[str]:
    """Of `vllm serve`."""
    found = [
        model_name(question),
        f"--scheduler-cls={NIYAMA_SCHEDULER}",
        "--middleware=niyama.vllm.QoSMiddleware",
        f"--max-num-batched-tokens={NIYAMA_TOKENS}",
        f"--shutdown-timeout={drain_s(question)}",
    ]
    return found + ([f"--tensor-parallel-size={question.card.gpus}"] if question.card.gpus > 1 else [])


def drain_s(question: Question) -> int:
    """The longest TTLT: whoever is being served is served to the end."""
    return max(LEAST_DRAIN_S, *(ceil(c.ttlt_s or 0) for c in question.classes))


def command(question: Question, best: Outcome) -> str:
    """The command of one server."""
    assert best.sized is not None
    servers = sum(best.sized.sizes)
    lines = [
        "#!/bin/sh",
        f"# One of {servers} servers, with {question.card.gpus} x {question.card.gpu} each; in front of them a load",
        "# balancer that sends requests to each in turn, as the plan has it. Run it beside niyama.yaml.",
    ]
    if model_name(question) == UNKNOWN_MODEL:
        lines.append(f"# {UNKNOWN_MODEL}: the name or folder of your {question.card.model}")
    lines.append(f"NIYAMA_CONFIG={CONFIG} exec vllm serve " + " \\\n    ".join(arguments(question)))
    return "\n".join(lines) + "\n"


def manifest(question: Question, best: Outcome, files: Mapping[str, str]) -> str:
    """deploy/kubernetes/config.yaml and server.yaml with the plan in them."""
    assert best.sized is not None
    documents = [d for name in ("config", "server") for d in yaml.safe_load_all((DEPLOY / f"{name}.yaml").read_text())]
    by_kind = {document["kind"]: document for document in documents}
    if not {"ConfigMap", "Deployment"} <= by_kind.keys():
        raise ConfigError(f"{DEPLOY}: has no ConfigMap or no Deployment; restore it from the repository")
    by_kind["ConfigMap"]["data"] = {name: text for name, text in files.items() if name in (CONFIG, CARD)}
    spec = by_kind["Deployment"]["spec"]
    _fit(spec, question, sum(best.sized.sizes))
    head = (
        "# Of `python -m artifact plan` and deploy/kubernetes, which explains it. Image and volume `cache` are yours.\n"
    )
    return head + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False)


def _fit(spec: dict[str, Any], question: Question, replicas: int) -> None:
    """Put the plan into a Deployment's spec."""
    gpus, drain, pod = question.card.gpus, drain_s(question), spec["template"]["spec"]
    grace = PRE_STOP_S + drain + MINUTE_S
    spec |= {"replicas": replicas, "progressDeadlineSeconds": grace + START_S}
    pod["terminationGracePeriodSeconds"] = grace
    (container,) = pod["containers"]
    container["args"] = arguments(question)
    memory = f"{GIB_PER_GPU * gpus}Gi"
    container["resources"]["requests"]["memory"] = memory
    container["resources"]["limits"] = {"memory": memory, "nvidia.com/gpu": gpus}
