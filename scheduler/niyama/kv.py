"""KV: how many blocks a request needs, who gets them, and who loses them when they run short.

Layers with one kind of attention form a group, and groups share the blocks. A group of full attention
holds every token. With a sliding window or local chunks older blocks come free: while a prompt is computed a request
holds at most `PROMPT_CAP` of them, while it decodes `DECODE_CAP`, or what lies in its last local chunk. A state
(Mamba) is a block, too: one of a request, or two while the next is computed from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from niyama.jit import compiled, compiled_apart
from niyama.requests import DECODING
from niyama.state import NO_LIMIT, remove, stop_decoding
from niyama.waiting import enqueue, kv_line_of, unqueue

# columns of State.kv_groups, one row for all groups of a kind
GROUP_BLOCK_TOKENS, GROUPS, PROMPT_CAP, DECODE_CAP, LOCAL_CHUNK = range(5)  # LOCAL_CHUNK: tokens, 0 for none
IN_FLIGHT = 3  # tokens past the last whose end an engine has seen, the next one included


@compiled
def blocks_for(s, tokens, decoding):
    """Blocks that a request of `tokens` tokens holds."""
    total, ahead = 0, s.totals.ahead_tokens
    for g in range(s.kv_groups.shape[0]):
        size, chunk = s.kv_groups[g, GROUP_BLOCK_TOKENS], s.kv_groups[g, LOCAL_CHUNK]
        blocks = (tokens + ahead + size - 1) // size
        if decoding and chunk > 0:
            blocks -= max(0, tokens - IN_FLIGHT) // chunk * chunk // size
        else:
            blocks = min(blocks, s.kv_groups[g, DECODE_CAP if decoding else PROMPT_CAP])
        total += s.kv_groups[g, GROUPS] * blocks
    return total


@compiled
def _room(s, now_tokens, tokens, decoding):
    """Up to how many tokens the blocks for `tokens` suffice, from `now_tokens` on."""
    room, ahead = np.int64(1) << 40, s.totals.ahead_tokens
    for g in range(s.kv_groups.shape[0]):
        size, chunk = s.kv_groups[g, GROUP_BLOCK_TOKENS], s.kv_groups[g, LOCAL_CHUNK]
        room = min(room, (tokens + ahead + size - 1) // size * size - ahead)
        if decoding and chunk > 0:  # blocks come free at its end
            room = min(room, (max(0, now_tokens - IN_FLIGHT) // chunk + 1) * chunk + IN_FLIGHT - 1)
    return room


@compiled_apart
def blocks_to_grow(s, t, r):
    """Blocks that decoding request `r` needs for its next token beside those it has; negative when some come free."""
    tokens = np.int64(t.computed_tokens[r]) + 1
    return blocks_for(s, _room(s, tokens, tokens, True), True) - t.kv_blocks[r]


@compiled_apart
def hold(s, t, r, now_tokens, tokens, decoding):
    """Give `r`, of `now_tokens` tokens, the blocks for `tokens`, in place of those it has."""
    room = _room(s, now_tokens, tokens, decoding)
    blocks = blocks_for(s, room, decoding)
    s.totals.kv_free_blocks += t.kv_blocks[r] - blocks
    t.kv_blocks[r], t.kv_room_tokens[r] = blocks, room


@compiled_apart
def kv_tokens_wanted(s, t, p, r):
    """Tokens to reserve KV for on admission: the whole prompt and the policy's share of the estimated output."""
    output = p.kv_reserve * max(1.0, t.decode_estimate[r] - t.emitted_tokens[r])
    total_tokens = s.totals.kv_total_blocks * s.totals.block_tokens
    tokens = int(min(float(total_tokens), t.target_tokens[r] + np.ceil(output)))
    if blocks_for(s, tokens, False) > s.totals.kv_total_blocks:  # never more than there is, while the prompt fits
        tokens = min(tokens, np.int64(t.target_tokens[r]) + 1)
    return tokens


@compiled_apart
def kv_blocks_wanted(s, t, p, r):
    """The same in blocks."""
    return blocks_for(s, kv_tokens_wanted(s, t, p, r), False)


@compiled
def kv_tokens(s):
    """Tokens of KV in all and free, as `Limits` counts them; of several groups, those that every group would hold.

    Where a request does not keep all its tokens, the free share of the blocks counts.
    """
    groups = 0
    for g in range(s.kv_groups.shape[0]):
        groups += s.kv_groups[g, GROUPS]
    total = s.totals.kv_total_blocks * s.totals.block_tokens // groups
    if groups == 1 and s.kv_groups[0, DECODE_CAP] == NO_LIMIT:
        return total, total - s.totals.kv_held_tokens - s.totals.kv_taken_blocks * s.totals.block_tokens
    return total, total * s.totals.kv_free_blocks // max(1, s.totals.kv_total_blocks)


@compiled
def free(s, t, r):
    """Give back all KV of `r`."""
    if t.kv_blocks[r] > 0:  # else some of it lies elsewhere
        s.totals.kv_held_tokens -= t.computed_tokens[r]
    s.totals.kv_free_blocks += t.kv_blocks[r]
    t.kv_blocks[r] = t.kv_room_tokens[r] = 0
    t.computed_tokens[r] = 0


@compiled
def secure_decode_blocks(k):
    """Give every decode the KV for its next token, dropping the KV of the lowest-ranked holders if need be."""
    s, t = k.state, k.table
    i = 0 if s.totals.kv_short else s.totals.running
    s.totals.kv_short = False
    while i < s.totals.running:
        r = s.running[i]
        alone = s.totals.running + s.totals.prefilling == 1  # it would be prefilled again for the very same KV
        if t.computed_tokens[r] < t.kv_room_tokens[r]:
            i += 1
        elif blocks_to_grow(s, t, r) <= s.totals.kv_free_blocks or alone or s.totals.slots == 0:
            tokens = np.int64(t.computed_tokens[r]) + 1
            hold(s, t, r, tokens, tokens, True)
        else:
            preempt(k, _victim(s, t), 0)
            i = 0  # the list has changed; those already served are passed at once


@compiled
def _victim(s, t):
    """The KV holder to give up: by line, relegated ones and low importance first, then the one with the highest key."""
    worst = s.running[0]
    for i in range(s.totals.running + s.totals.prefilling):
        r = s.running[i] if i < s.totals.running else s.prefilling[i - s.totals.running]
        a, b = kv_line_of(t, r), kv_line_of(t, worst)
        if a > b or (a == b and (t.key[r] > t.key[worst] or (t.key[r] == t.key[worst] and r > worst))):
            worst = r
    return worst


@compiled
def preempt(k, r, unseen_tokens):
    """Drop the request's KV; it is prefilled again, with the output it had (recompute).

    unseen_tokens: of its output, those that the engine drops before anybody has seen them; they come out again.
    """
    s, t = k.state, k.table
    if t.state[r] == DECODING:
        stop_decoding(s, t, r)
        t.target_tokens[r] = t.computed_tokens[r] + 1
    else:
        unqueue(s, t, r)
    t.target_tokens[r] -= unseen_tokens
    t.emitted_tokens[r] -= unseen_tokens
    drop_prefill(s, t, r)
    enqueue(k, r)


@compiled
def drop_prefill(s, t, r):
    """Drop the KV of a request that does not decode, or no longer."""
    t.preemptions[r] += 1
    s.totals.preemptions += 1
    s.totals.prefilling = remove(s.prefilling, s.totals.prefilling, r)
    free(s, t, r)


def check_groups(groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """The same as rows for State.kv_groups. Raises ValueError for what cannot be one."""
    rows = np.array(groups, np.int64)
    if rows.ndim != 2 or rows.shape[1] != 5 or not np.all(rows[:, :4] >= 1) or not np.all(rows[:, 4] >= 0):
        raise ValueError(f"kv_groups is {groups!r}; give rows of block tokens, groups, two caps >= 1 and a local chunk")
    return rows.tolist()
