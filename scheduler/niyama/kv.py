"""How many blocks of KV a request needs: layers with one kind of attention form a group, and groups share the blocks.

A group of full attention holds every token. Beside such groups, a sliding window or local chunks let older blocks go:
while a prompt is computed a request holds at most `PROMPT_CAP` of theirs, while it decodes `DECODE_CAP`, or what lies
in its last local chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from niyama.compiled import compiled, compiled_apart
from niyama.scheduler import BLOCK_TOKENS, KV_FREE_BLOCKS, KV_HELD_TOKENS, KV_TOTAL_BLOCKS

# columns of Scheduler.kv_groups, one row for all groups of a kind
GROUP_BLOCK_TOKENS, GROUPS, PROMPT_CAP, DECODE_CAP, LOCAL_CHUNK = range(5)  # LOCAL_CHUNK: tokens, 0 for none
IN_FLIGHT = 3  # tokens past the last whose end an engine has seen, the next one included


@compiled
def blocks_for(s, tokens, decoding):
    """Blocks that a request of `tokens` tokens holds."""
    total = 0
    for g in range(s.kv_groups.shape[0]):
        size, chunk = s.kv_groups[g, GROUP_BLOCK_TOKENS], s.kv_groups[g, LOCAL_CHUNK]
        blocks = (tokens + size - 1) // size
        if decoding and chunk > 0:
            blocks -= max(0, tokens - IN_FLIGHT) // chunk * chunk // size
        else:
            blocks = min(blocks, s.kv_groups[g, DECODE_CAP if decoding else PROMPT_CAP])
        total += s.kv_groups[g, GROUPS] * blocks
    return total


@compiled
def _room(s, now_tokens, tokens, decoding):
    """Up to how many tokens the blocks for `tokens` suffice, from `now_tokens` on."""
    room = np.int64(1) << 40
    for g in range(s.kv_groups.shape[0]):
        size, chunk = s.kv_groups[g, GROUP_BLOCK_TOKENS], s.kv_groups[g, LOCAL_CHUNK]
        room = min(room, (tokens + size - 1) // size * size)
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
    s.count[KV_FREE_BLOCKS] += t.kv_blocks[r] - blocks
    t.kv_blocks[r], t.kv_room_tokens[r] = blocks, room


@compiled_apart
def kv_tokens_wanted(s, t, p, r):
    """Tokens to reserve KV for on admission: the whole prompt and the policy's share of the estimated output."""
    output = p.kv_reserve * max(1.0, t.decode_estimate[r] - t.emitted_tokens[r])
    total_tokens = s.count[KV_TOTAL_BLOCKS] * s.count[BLOCK_TOKENS]
    tokens = int(min(float(total_tokens), t.target_tokens[r] + np.ceil(output)))
    if blocks_for(s, tokens, False) > s.count[KV_TOTAL_BLOCKS]:  # never more than there is, while the prompt fits
        tokens = min(tokens, np.int64(t.target_tokens[r]) + 1)
    return tokens


@compiled_apart
def kv_blocks_wanted(s, t, p, r):
    """The same in blocks."""
    return blocks_for(s, kv_tokens_wanted(s, t, p, r), False)


@compiled
def kv_tokens(s):
    """Tokens of KV in all and free, as `Limits` counts them; of several groups, those that every group would hold."""
    groups = 0
    for g in range(s.kv_groups.shape[0]):
        groups += s.kv_groups[g, GROUPS]
    total = s.count[KV_TOTAL_BLOCKS] * s.count[BLOCK_TOKENS] // groups
    if groups == 1:
        return total, total - s.count[KV_HELD_TOKENS]
    return total, total * s.count[KV_FREE_BLOCKS] // max(1, s.count[KV_TOTAL_BLOCKS])


def check_groups(groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """The same as rows for Scheduler.kv_groups. Raises ValueError for what cannot be one."""
    rows = np.array(groups, np.int64)
    if rows.ndim != 2 or rows.shape[1] != 5 or not np.all(rows[:, :4] >= 1) or not np.all(rows[:, 4] >= 0):
        raise ValueError(f"kv_groups is {groups!r}; give rows of block tokens, groups, two caps >= 1 and a local chunk")
    return rows.tolist()
