"""The KV that requests hold, in blocks: worked out by hand for layers that share it in several groups."""

import pytest

from niyama.kv import blocks_for, check_groups, kv_tokens
from niyama.state import NO_LIMIT, new_state

FULL = (16, 1, NO_LIMIT, NO_LIMIT, 0)
WINDOW = (16, 5, 417, 66, 0)  # five groups with a window of 1,024 tokens
LOCAL = (16, 3, 864, 864, 8192)  # three groups with chunks of 8,192 tokens


@pytest.mark.parametrize(
    ("groups", "tokens", "decoding", "blocks"),
    [
        (None, 6001, False, 376),
        (None, 6001, True, 376),
        ([FULL, WINDOW], 800, False, 50 * 6),
        ([FULL, WINDOW], 12_000, False, 750 + 5 * 417),
        ([FULL, WINDOW], 12_000, True, 750 + 5 * 66),
        ([FULL, LOCAL], 8192, True, 512 * 4),
        ([FULL, LOCAL], 8195, True, 513 + 3 * 1),  # the first chunk's blocks are free
        ([FULL, LOCAL], 16_000, False, 1000 + 3 * 864),
        ([(32, 1, NO_LIMIT, NO_LIMIT, 0), (16, 1, 20, 10, 0)], 1000, True, 32 + 10),
        ([(528, 1, NO_LIMIT, NO_LIMIT, 0), (4096, 3, 1, 1, 0)], 3000, True, 6 + 3),  # states without prefix caching
        ([(528, 1, NO_LIMIT, NO_LIMIT, 0), (528, 3, 2, 1, 0)], 3000, False, 6 + 6),  # and with it
    ],
)
def test_blocks_by_hand(groups, tokens, decoding, blocks):
    scheduler = new_state(1, 1, 1, 1 << 20, 0.0, kv_groups=groups)
    assert blocks_for(scheduler, tokens, decoding) == blocks


@pytest.mark.parametrize(
    ("groups", "free"),
    [([(528, 1, NO_LIMIT, NO_LIMIT, 0)], 5280 - 9000), ([(528, 1, 2, 1, 0)], 2640), ([(528, 1, 10, 3, 0)], 2640)],
)
def test_where_tokens_are_not_kept_free_blocks_count(groups, free):
    scheduler = new_state(1, 1, 1, 5280, 0.0, 528, kv_groups=groups)
    scheduler.totals["kv_held_tokens"], scheduler.totals["kv_free_blocks"] = 9000, 5
    assert kv_tokens(scheduler) == (5280, free)


@pytest.mark.parametrize("groups", [[(16, 1)], [(0, 1, 1, 1, 0)], [(16, 1, 1, 1, -1)], [16, 1, 1, 1, 0]])
def test_what_is_no_group_is_refused(groups):
    with pytest.raises(ValueError, match="kv_groups is"):
        check_groups(groups)
