# Real vLLM servers against the simulator. One job is one run cycle: start, warm up, every load, stop, all in one
# process tree. Each load's raw times stay in raw/, so a killed job goes on with the loads that are left. A cycle that fails
# notes it, so that tables and figures hold the others; it makes the whole run fail when that ends (artifact/workflow/endings.py).
from shlex import quote

from artifact.workflow.costs import run_cycle_s
from artifact.report.figure_sources import figure_code
from artifact.servers.command_line import backend_of
from artifact.servers.config import load_server_experiment, servers_form

SERVERS_CONFIG = config.get("servers_config", "workflows/config/servers.yaml")
# another latency model than the configuration's: a name, or the file of a card that was fitted to this machine
SERVERS_LATENCY = config.get("servers_latency")
# gpu, cpu or emulated; without: a GPU where there is one, else emulated
SERVERS_BACKEND = config.get("servers_backend")
with one_line():
    backend_of(SERVERS_BACKEND or "auto")
    SERVERS = load_server_experiment(Path(SERVERS_CONFIG), SERVERS_LATENCY)
    # short, full or none: what the report shows; none where vLLM is not installed, and the report says so
    SERVERS_FORM = servers_form(config.get("servers", "short"), SERVERS)
SERVERS_CARD = [SERVERS.latency] if SERVERS.latency.endswith(".json") else []
BACKEND_OPTION = f" --backend {quote(SERVERS_BACKEND)}" if SERVERS_BACKEND else ""
LATENCY_OPTION = f" --latency {quote(SERVERS_LATENCY)}" if SERVERS_LATENCY else ""
SERVER_CYCLE_S = run_cycle_s(
    SERVERS, SERVERS.forms.get(SERVERS_FORM) or next(iter(SERVERS.forms.values()))
)
SERVER_TRACE = f"{RESULTS}/traces/{SERVERS.trace}.json"


wildcard_constraints:
    form="|".join(SERVERS.forms),
    server_system="|".join(SERVERS.systems),
    seed=r"\d+",  # else niyama-steady-0 could be system niyama with seed steady-0


def measured_in_turn(w):
    """What a system's run cycle waits for: where systems are measured in turn, that this is done."""
    return [f"{RESULTS}/servers/{w.form}/in_turn.txt"] if SERVERS.form(w.form).systems_in_turn else []


rule server_turns:
    input:
        KERNEL,
        SERVERS_CONFIG,
        SERVERS_CARD,
        trace=SERVER_TRACE,
    output:
        f"{RESULTS}/servers/{{form}}/in_turn.txt",
    benchmark:
        f"{RESULTS}/benchmarks/server_turns/{{form}}.tsv"
    threads: workflow.cores # as server_sweep
    params:
        code=lambda w: code_digest("server-sweep", SERVERS.latency),
        raw=lambda w: f"{RESULTS}/servers/{w.form}/raw",
    shell:
        "python -m artifact server-turns --config {SERVERS_CONFIG:q} --form {wildcards.form:q}"
        " --described {input.trace:q} --folder {params.raw:q} --out {output:q}{BACKEND_OPTION}{LATENCY_OPTION}"


rule server_sweep:
    input:
        KERNEL,
        SERVERS_CONFIG,
        SERVERS_CARD,
        measured_in_turn,
        trace=SERVER_TRACE,
    output:
        f"{RESULTS}/servers/{{form}}/{{server_system}}-{{seed}}.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/server_sweep/{{form}}-{{server_system}}-{{seed}}.tsv"
    # the clock is real: nothing else may run beside it
    threads: workflow.cores
    params:
        code=lambda w: code_digest("server-sweep", SERVERS.latency),
        raw=lambda w: f"{RESULTS}/servers/{w.form}/raw/{w.server_system}-{w.seed}",
    shell:
        "python -m artifact server-sweep --config {SERVERS_CONFIG:q} --form {wildcards.form:q}"
        " --system {wildcards.server_system:q} --seed {wildcards.seed:q} --described {input.trace:q}"
        " --folder {params.raw:q} --note-failure --out {output:q}{BACKEND_OPTION}{LATENCY_OPTION}"


rule server_simulated:
    input:
        KERNEL,
        SERVERS_CONFIG,
        SERVERS_CARD,
        trace=SERVER_TRACE,
    output:
        f"{RESULTS}/servers/{{form}}/simulated.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/server_simulated/{{form}}.tsv"
    params:
        code=lambda w: code_digest("server-simulated", SERVERS.latency),
    shell:
        "python -m artifact server-simulated --config {SERVERS_CONFIG:q} --form {wildcards.form:q} --described {input.trace:q}"
        " --out {output:q}{BACKEND_OPTION}{LATENCY_OPTION}"


def server_parts(w):
    """What each run cycle of a form leaves."""
    return expand(
        f"{RESULTS}/servers/{w.form}/{{system}}-{{seed}}.parquet",
        system=SERVERS.systems,
        seed=range(SERVERS.form(w.form).seeds),
    )


rule server_table:
    input:
        server_parts,
        rules.server_simulated.output,
    output:
        f"{RESULTS}/servers/{{form}}/tables/servers.parquet",
    shell:
        "python -m artifact server-table {input:q} --out {output:q}"


rule server_figure:
    input:
        rules.server_table.output,
        figure_code("fig_servers"),
    output:
        f"{RESULTS}/servers/{{form}}/figures/fig_servers.txt",
    shell:
        "python -m artifact figure fig_servers --results {RESULTS:q}/servers/{wildcards.form:q} --stamp {output:q}"


rule shown_servers:
    # the form that the report shows
    input:
        f"{RESULTS}/servers/{SERVERS_FORM}/tables/servers.parquet",
    output:
        f"{RESULTS}/tables/servers.parquet",
    shell:
        "cp {input:q} {output:q}"


FIDELITY_TRACES = ("azure-code-2023", "azure-conv-2023")
FIDELITY_CARDS = ("a100-llama3-8b-linear", "a100-llama3-8b-roofline")


rule fidelity:
    # not part of any target: by itself, with `snakemake --cores all results/tables/fidelity.parquet`
    input:
        KERNEL,
    output:
        f"{RESULTS}/tables/fidelity.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/fidelity/fidelity.tsv"
    params:
        code=lambda w: code_digest("fidelity", *FIDELITY_TRACES, *FIDELITY_CARDS),
        traces=",".join(FIDELITY_TRACES),
        cards=",".join(FIDELITY_CARDS),
    # status 1: a pair differs; the table says which, and the claim fails
    shell:
        "python -m artifact fidelity --trace {params.traces:q} --latency {params.cards:q} --slos paper,tight"
        " --loads 0.7,1.0,1.3 --requests 1000 --out {output:q} || test $? -eq 1"


rule overhead:
    # not part of any target either: it times real code, so nothing may run beside it and no two runs give the same bytes
    output:
        f"{RESULTS}/tables/overhead.parquet",
    threads: workflow.cores
    params:
        code=lambda w: code_digest("overhead"),
    shell:
        "python -m artifact overhead --repeats 5 --out {output:q}"


rule servers:
    # the full form by itself; `--config servers=full` puts it into the report
    input:
        f"{RESULTS}/servers/full/figures/fig_servers.txt",
