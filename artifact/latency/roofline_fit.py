"""Fit the roofline latency model to the authors' linear model, and say how well it fits.

    python -m artifact.latency.roofline_fit          # rewrites the two files in artifact/reference/latency/

The authors' predictor (A100-80GB, Llama-3-8B, TP1) is linear in two bins of batch size. It jumps *down* from
512 to 513 tokens and asks nothing more for a longer chunk on the same prefix, so a scheduler that searches it
finds bargains that no GPU offers. The roofline model is continuous and monotone. In seconds,

    t = overhead_s + max(c_tok * n, floor_s) + c_attn * work + c_ctx * decode_context

n = prefill tokens + decodes; work = sum over prefill chunks of c * (k + c/2), for c tokens behind k tokens of
prefix; decode_context = tokens the decodes attend to. `coefficients` derives these five from four physical
parameters, which `fit` finds by least squares on the relative error. In the reciprocals of the efficiencies
the model is linear but for the `max`, so every machine reaches the same 10 digits.
"""

import itertools
import json
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from niyama.latency import load_card

FOLDER = Path(__file__).parents[1] / "reference" / "latency"
GRID_NAME = "a100-llama3-8b-linear-grid.csv"
FIT_NAME = "a100-llama3-8b-roofline.json"
LINEAR = load_card("a100-llama3-8b-linear")

# A100-SXM-80GB, dense bf16; Llama-3-8B without its embeddings, bf16, grouped-query attention.
PEAK_FLOP_PER_S = 312e12
PEAK_BYTES_PER_S = 2.04e12
LINEAR_PARAMETERS = 6.98e9
WEIGHT_BYTES = 2 * LINEAR_PARAMETERS
KV_BYTES_PER_TOKEN = 131072
ATTENTION_FLOP_PER_PAIR = 4 * 32 * 4096  # 4 * layers * hidden, per pair of query and context token

BATCH = ("prefill_tokens", "prefix_tokens", "decodes", "decode_context_tokens")  # columns of a batch array
PARAMETERS = ("mfu", "bandwidth_utilisation", "attention_efficiency", "overhead_s")

BIN_EDGE_TOKENS = 512
PREFILL_TOKENS = (64, 128, 256, 384, 512, 768, 1024, 1280, 1536, 2048, 2500)
PREFIX_TOKENS = (0, 2048, 4096, 8192)
DECODES = (1, 4, 8, 16, 32, 64, 96, 128, 192, 256)
CONTEXT_TOKENS = (1024, 2048, 4096, 8192)  # of each decode

# Numbers the fit never sees: (source, *batch, seconds).
VIDUR, AICONFIGURATOR = "vidur", "aiconfigurator"
MEASURED = (
    (VIDUR, 1, 0, 0, 0, 0.0097),
    (VIDUR, 128, 0, 0, 0, 0.0132),
    (VIDUR, 512, 0, 0, 0, 0.0346),
    (VIDUR, 1024, 0, 0, 0, 0.0751),
    (VIDUR, 2048, 0, 0, 0, 0.1437),
    (VIDUR, 4096, 0, 0, 0, 0.273),
    (AICONFIGURATOR, 512, 0, 0, 0, 0.0360),
    (AICONFIGURATOR, 2048, 0, 0, 0, 0.1252),
    (AICONFIGURATOR, 0, 0, 1, 2048, 0.0120),
    (AICONFIGURATOR, 0, 0, 64, 64 * 2048, 0.0231),
    (AICONFIGURATOR, 0, 0, 256, 256 * 2048, 0.0630),
)
ENGINE_SCALE, ENGINE_OFFSET_S = 1.471, 0.0013  # the authors' engine over aiconfigurator's kernels, to 5.5 %

PROVENANCE = {
    "fitted_to": f"model card {LINEAR.name} on the batches of {GRID_NAME}",
    VIDUR: "profile of Llama-3-8B on A100, linear and elementwise layers only: no attention and no engine; "
    "roofline_s is max(c_tok * n, floor_s) alone, linear_s still the whole iteration",
    AICONFIGURATOR: "NVIDIA aiconfigurator 0.12, kernel tables of vLLM 0.14.0 on A100-SXM-80GB: no engine; "
    f"engine_s = {ENGINE_SCALE} * measured_s + {ENGINE_OFFSET_S} maps them to the authors' engine, a map "
    "that was itself fitted to the linear model",
    "written_by": "python -m artifact.latency.roofline_fit",
}
CAVEATS = [
    "The target is a model, not a measurement: the errors say how far apart the two models are.",
    "The authors' engine is about 1.5 times slower than today's kernels, and so are both models of it.",
    "The grid is a full factorial; some of it exceeds the KV memory of one A100-80GB. kv_feasible_fit is the "
    "fit without those points.",
    "A few decodes without prefill come out too slow: overhead plus reading the weights is 23 ms, the linear "
    "model says 15 ms, kernel measurements 12 ms.",
    "The linear model jumps at 512 tokens and charges a prefix the same for any chunk; a continuous model of "
    "attention can follow neither.",
]


def grid():
    """The batches of the fit as a float array [batch, BATCH]; none is empty."""
    prefills = [(0, 0), *itertools.product(PREFILL_TOKENS, PREFIX_TOKENS)]
    decodes = [(0, 0), *((d, d * context) for d in DECODES for context in CONTEXT_TOKENS)]
    return np.array([p + d for p, d in itertools.product(prefills, decodes) if p[0] or d[0]], dtype=float)


def linear_seconds(batches):
    """Seconds of the authors' model for an array [batch, BATCH]."""
    prefill, prefix, decodes, context = batches.T
    features = np.column_stack([np.ones(len(batches)), prefill + decodes, prefill, decodes, context, prefix])
    below, above = np.array(LINEAR.coefficients).reshape(2, 6)
    return np.where(prefill + decodes <= BIN_EDGE_TOKENS, features @ below, features @ above)


def attention_work(batches):
    """Pairs of prefill and context token, c * (k + c/2), of each batch's one chunk."""
    return batches[:, 0] * (batches[:, 1] + batches[:, 0] / 2)


def coefficients(parameters):
    """The model's five coefficients in seconds per unit, in the order of the model cards."""
    flop_per_s = PEAK_FLOP_PER_S * parameters["mfu"]
    bytes_per_s = PEAK_BYTES_PER_S * parameters["bandwidth_utilisation"]
    attention_flop_per_s = PEAK_FLOP_PER_S * parameters["attention_efficiency"]
    return {
        "overhead_s": parameters["overhead_s"],
        "c_tok": 2 * LINEAR_PARAMETERS / flop_per_s,
        "floor_s": WEIGHT_BYTES / bytes_per_s,
        "c_attn": ATTENTION_FLOP_PER_PAIR / attention_flop_per_s,
        "c_ctx": KV_BYTES_PER_TOKEN / bytes_per_s,
    }


def roofline_seconds(batches, parameters):
    """Seconds of the roofline model for an array [batch, BATCH] and a dict of PARAMETERS."""
    c = coefficients(parameters)
    layers_s = np.maximum(c["c_tok"] * (batches[:, 0] + batches[:, 2]), c["floor_s"])
    return c["overhead_s"] + layers_s + c["c_attn"] * attention_work(batches) + c["c_ctx"] * batches[:, 3]


def fit(batches, seconds):
    """The dict of PARAMETERS with the least squared relative error; efficiencies stay in (0, 1]."""
    compute_s = 2 * LINEAR_PARAMETERS * (batches[:, 0] + batches[:, 2]) / PEAK_FLOP_PER_S
    weights_s = WEIGHT_BYTES / PEAK_BYTES_PER_S
    context_s = KV_BYTES_PER_TOKEN * batches[:, 3] / PEAK_BYTES_PER_S
    attention_s = ATTENTION_FLOP_PER_PAIR * attention_work(batches) / PEAK_FLOP_PER_S

    def named(x):
        return dict(zip(PARAMETERS, (*(1 / x[:3]).tolist(), float(x[3])), strict=True))

    def error(x):
        return roofline_seconds(batches, named(x)) / seconds - 1

    def gradient(x):
        computes = compute_s * x[0] > weights_s * x[1]
        by_compute = np.where(computes, compute_s, 0.0)
        by_bandwidth = np.where(computes, 0.0, weights_s) + context_s
        columns = [by_compute, by_bandwidth, attention_s, np.ones_like(seconds)]
        return np.column_stack(columns) / seconds[:, None]

    start, lower = (2.0, 2.0, 1.5, 0.010), (1, 1, 1, 0)
    exact = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}
    found = least_squares(error, start, gradient, bounds=(lower, np.inf), x_scale=(1, 1, 1, 0.01), **exact)
    if not found.success:
        raise RuntimeError(f"the fit did not converge: {found.message}")
    return named(found.x)


def summary(relative):
    """Summary of relative errors; mean_signed is positive where the roofline is the slower of the two."""
    size = np.abs(relative)
    return {
        "points": len(size),
        "mean_abs": float(size.mean()),
        "p90_abs": float(np.quantile(size, 0.9)),
        "max_abs": float(size.max()),
        "mean_signed": float(relative.mean()),
    }


def kv_feasible(batches):
    """Which batches fit the KV memory of one replica."""
    return batches[:, [0, 1, 3]].sum(axis=1) <= LINEAR.kv_tokens


def summary_by_region(batches, relative):
    """A summary of all relative errors and one for each region of the grid."""
    prefill, decodes = batches[:, 0], batches[:, 2]
    regions = {
        "all": np.ones(len(batches), dtype=bool),
        "decode_only": prefill == 0,
        "prefill_only": decodes == 0,
        "mixed": (prefill > 0) & (decodes > 0),
        "up_to_512_tokens": prefill + decodes <= BIN_EDGE_TOKENS,
        "above_512_tokens": prefill + decodes > BIN_EDGE_TOKENS,
        "kv_feasible": kv_feasible(batches),
    }
    return {name: summary(relative[rows]) for name, rows in regions.items()}


def measurement_rows(parameters):
    """One row for each number of MEASURED with both models' seconds; see PROVENANCE for what they cover."""
    c, rows = coefficients(parameters), []
    for source, *batch, measured_s in MEASURED:
        batches = np.array([batch], dtype=float)
        row = {"source": source, **dict(zip(BATCH, batch, strict=True)), "measured_s": measured_s}
        row["linear_s"] = float(linear_seconds(batches)[0])
        if source == VIDUR:
            row["roofline_s"] = max(c["c_tok"] * (batch[0] + batch[2]), c["floor_s"])
        else:
            row["roofline_s"] = float(roofline_seconds(batches, parameters)[0])
            row["engine_s"] = ENGINE_SCALE * measured_s + ENGINE_OFFSET_S
            row["roofline_over_engine"] = row["roofline_s"] / row["engine_s"]
        rows.append({**row, "roofline_over_measured": row["roofline_s"] / measured_s})
    return rows


def report(batches, seconds):
    """Everything the reference file says, unrounded."""

    def fitted(rows):
        parameters = fit(batches[rows], seconds[rows])
        return parameters, roofline_seconds(batches[rows], parameters) / seconds[rows] - 1

    parameters, relative = fitted(slice(None))
    feasible_parameters, feasible_relative = fitted(kv_feasible(batches))
    return {
        "model": "t = overhead_s + max(c_tok * n, floor_s) + c_attn * work + c_ctx * decode_context",
        "hardware": LINEAR.hardware,
        "llm": LINEAR.model,
        "parameters": parameters,
        "coefficients": coefficients(parameters),
        "relative_error": summary_by_region(batches, relative),
        "kv_feasible_fit": {"parameters": feasible_parameters, "relative_error": summary(feasible_relative)},
        "measurements": measurement_rows(parameters),
        "caveats": CAVEATS,
        "provenance": PROVENANCE,
    }


def rounded(value):
    """The same structure, its floats rounded to 10 significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.10g}") if isinstance(value, float) else value


def main(folder=FOLDER):
    """Write the grid and the fit into `folder` and print the result."""
    batches = grid()
    seconds = linear_seconds(batches)
    result = rounded(report(batches, seconds))
    folder.mkdir(parents=True, exist_ok=True)
    table, formats = np.column_stack([batches, seconds]), ["%d"] * len(BATCH) + ["%.10g"]
    header = ",".join([*BATCH, "linear_s"])
    np.savetxt(folder / GRID_NAME, table, fmt=formats, delimiter=",", header=header, comments="")
    (folder / FIT_NAME).write_text(json.dumps(result, indent=1) + "\n")
    error = result["relative_error"]["all"]
    print(f"{error['points']} points:", ", ".join(f"{n} {v:.4g}" for n, v in result["parameters"].items()))
    print("relative error:", ", ".join(f"{n} {error[n]:.1%}" for n in ("mean_abs", "p90_abs", "max_abs")))


if __name__ == "__main__":
    main()
