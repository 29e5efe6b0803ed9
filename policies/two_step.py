"""Two-step chunk, after SlidingServe (arXiv 2606.05933): the chunk that makes this step and the next cheapest a token.

Source: a third-party summary; no code was found, and its objective cannot be verified, hence not its name. Of a grid of
chunks that fit the decodes' slack, the one is taken whose predicted time, together with that of the next step, which
prefills what is left of the queue or what the next tokens' slack allows, is the least per token of both. Prompts whose
work still fits before their deadline come first, by work over time left; then the others, the shortest first.

Ours: a grid of GRID chunks where the source searches by thirds; no knapsack over prompts when misses are predicted.
"""

from niyama import Policy
from niyama.latency.model import empty_batch, fit_tokens, seconds, with_prefill
from niyama.rules import budget_rule, never, rank_rule

CHUNK_TOKENS, GRID = 2500, 8


@rank_rule
def work_over_slack(job, alpha):
    """The share of the time left that the work needs, the highest first, where it still fits."""
    work_s, left_s = job.prefill_left * job.step_s / CHUNK_TOKENS, job.deadline_s - job.now_s
    return -work_s / left_s if work_s < left_s else 1.0 + work_s


@budget_rule
def two_step_chunk(model, batch, limits, prefix, slack_s):
    """The chunk, of the whole step, that is cheapest per token over two steps."""
    decodes = empty_batch(batch.decodes, batch.decode_context)
    if batch.prefill_tokens > 0:
        prefix = batch.top_prefix
    if slack_s > 1e300:
        return max(0, limits.max_chunk_tokens - batch.prefill_tokens)
    most = fit_tokens(model, decodes, prefix, slack_s / limits.margin, limits.max_chunk_tokens)
    best, least_s = 0, 1e300
    for part in range(1, GRID + 1):
        chunk = most * part // GRID
        if chunk > 0:
            first_s = seconds(model, with_prefill(decodes, prefix, chunk))
            after = max(0, min(limits.queued_prefill_tokens - chunk, limits.max_chunk_tokens))
            left_s = limits.next_slack_s / limits.margin - first_s
            after = fit_tokens(model, decodes, prefix + chunk, left_s, after)
            both_s = first_s + seconds(model, with_prefill(decodes, prefix + chunk, after))
            if both_s / (chunk + after) <= least_s:
                best, least_s = chunk, both_s / (chunk + after)
    return max(0, max(best, limits.min_chunk_tokens) - batch.prefill_tokens)


two_step = Policy(
    "two-step",
    rank=work_over_slack,
    prefill_budget=two_step_chunk,
    doomed=never,
    max_chunk_tokens=CHUNK_TOKENS,
    rerank_s=0.001,
    protect_started=False,
    make_room=False,
)
