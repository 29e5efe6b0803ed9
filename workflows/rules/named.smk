# The experiments under `grids` and `searches`: one job per name, trace and latency model, one table per name, or joined
# to that of the search which they continue.
# What a job depends on is its own entry, not the whole file: a new entry leaves finished ones as they are.
NO_NAME = "(?!)"  # matches nothing: a configuration need not have any


wildcard_constraints:
    grid="|".join(CONFIG.grids) or NO_NAME,
    search="|".join(CONFIG.searches) or NO_NAME,
    named="|".join(CONFIG.named_tables) or NO_NAME,


def earlier_answers(w):
    """What the jobs of a search start from: those of the search that it continues, if any."""
    earlier = CONFIG.searches[w.search].continues
    return f"{RESULTS}/searches/{earlier}/{w.trace}/{w.latency}.parquet" if earlier else []


rule grid:
    input:
        KERNEL,
        trace=TRACE,
    output:
        f"{RESULTS}/grids/{{grid}}/{{trace}}/{{latency}}.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/grid/{{grid}}-{{trace}}-{{latency}}.tsv"
    params:
        settings=lambda w: CONFIG.grids[w.grid].model_dump_json(),
        code=lambda w: code_digest("grid", w.latency, settings=CONFIG.grids[w.grid]),
    shell:
        "python -m artifact grid {wildcards.grid:q} --config {EXPERIMENTS:q} --trace {wildcards.trace:q} --described {input.trace:q}"
        " --latency {wildcards.latency:q} --out {output:q}"


rule search:
    input:
        KERNEL,
        trace=TRACE,
        guesses=earlier_answers,
    output:
        f"{RESULTS}/searches/{{search}}/{{trace}}/{{latency}}.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/search/{{search}}-{{trace}}-{{latency}}.tsv"
    params:
        guesses=lambda w, input: (["--guesses", input.guesses] if input.guesses else []),
        settings=lambda w: CONFIG.searches[w.search].model_dump_json(),
        code=lambda w: code_digest(
            "search", w.latency, settings=CONFIG.searches[w.search]
        ),
    shell:
        "python -m artifact search {wildcards.search:q} --config {EXPERIMENTS:q} --trace {wildcards.trace:q} --described {input.trace:q}"
        " --latency {wildcards.latency:q} {params.guesses:q} --out {output:q}"


# What another search waits for comes first, then what takes longest; profiles give the latter more memory and time.
AWAITED = [found.continues for found in CONFIG.searches.values() if found.continues]
LONG_RUN = 100_000  # requests
LONG = [
    name
    for name, found in CONFIG.searches.items()
    if any(spec.requests > LONG_RUN for _, spec in found.first_cases())
]


use rule search as awaited_search with:
    wildcard_constraints:
        search="|".join(AWAITED) or NO_NAME,
    priority: 2


use rule search as long_search with:
    wildcard_constraints:
        search="|".join(LONG) or NO_NAME,
    priority: 1


ruleorder: long_search > awaited_search > search


rule named_table:
    input:
        lambda w: [
            f"{RESULTS}/{'grids' if name in CONFIG.grids else 'searches'}/{name}/{trace}/{latency}.parquet"
            for name in CONFIG.entries_of(w.named)
            for trace in CONFIG.named[name].traces
            for latency in CONFIG.latencies_of(CONFIG.named[name])
        ],
    output:
        f"{RESULTS}/tables/{{named}}.parquet",
    shell:
        "python -m artifact merge {input:q} --out {output:q}"


rule predictor_accuracy:
    # of profiles that are there or add up from measured kernels: no trace, no simulation
    output:
        f"{RESULTS}/tables/predictor_accuracy.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/predictor_accuracy/predictor_accuracy.tsv"
    params:
        code=lambda w: code_digest("predictor-accuracy"),
    shell:
        "python -m artifact predictor-accuracy --out {output:q}"
