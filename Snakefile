# The pipeline: traces -> experiments -> tables -> figures -> report.
#   snakemake --cores all                                    the paper's figures, vLLM's own engine, servers that start and serve
#   snakemake --cores all paper                              every figure and table of the paper, and the studies beyond it
#   snakemake --cores all servers                            the servers at length (26 minutes)
#   snakemake --cores all --config experiments=workflows/config/smoke.yaml results=results/smoke servers=none
#                                                            the same in a minute, too short to quote, and no servers
#   snakemake paper --report results/snakemake-report.html   what ran, how long it took, figures by part of the paper
# Rules only run `python -m artifact ...`: paste the line that a rule prints to run it by hand.
import os
import shlex
import sys
from pathlib import Path

from artifact.workflow import endings
from artifact.results import failures
from artifact.experiments.config import load_experiments
from artifact.workflow.run_lock import VARIABLE, guard
from artifact.workflow.config import as_text, exported, one_line, refuse_place, refuse_unknown

with one_line():
    refuse_unknown(config, Path(workflow.basedir))
    as_text(config)
    EXPERIMENTS = config.get("experiments", "workflows/config/paper.yaml")
    RESULTS = config.get("results", "results")
    refuse_place(RESULTS)
    CONFIG = load_experiments(Path(EXPERIMENTS))

os.environ.setdefault(failures.AGAIN, shlex.join(["snakemake", *sys.argv[1:]]))
# A killed run leaves its lock and its jobs: both end when the next one starts to execute.
variables = {VARIABLE: guard(workflow), failures.FOLDER: f"{RESULTS}/failures"}
# `python` in a rule is the one that runs Snakemake, also when its environment is not activated.
shell.prefix(exported(variables, Path(sys.executable).parent))


report: "workflows/report/workflow.rst"


include: "workflows/rules/traces.smk"
include: "workflows/rules/experiments.smk"
include: "workflows/rules/named.smk"
include: "workflows/rules/panels.smk"
include: "workflows/rules/scenarios.smk"
include: "workflows/rules/servers.smk"
include: "workflows/rules/engine.smk"
include: "workflows/rules/figures.smk"
include: "workflows/rules/claims.smk"


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        f"{RESULTS}/report.txt",


rule paper:
    input:
        f"{RESULTS}/paper.html",
        f"{RESULTS}/paper.txt",
        f"{RESULTS}/claims.md",


onstart:
    endings.begin(
        workflow,
        Path(RESULTS),
        EXPERIMENTS == "workflows/config/paper.yaml",
        SERVER_CYCLE_S,
    )


onerror:
    # a failed part costs its own figure only: the report is made all the same, of what there is
    endings.end(workflow, Path(RESULTS), PAPER, SHOWS_SERVERS)


onsuccess:
    # a run cycle of real servers that failed has noted it, and the tables hold the others: the run fails all the same
    if not endings.end(workflow, Path(RESULTS), PAPER, SHOWS_SERVERS):
        sys.exit(1)
