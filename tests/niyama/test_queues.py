"""The four heaps against a plain sorted list, stale entries and rebuilds included."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from niyama.queues import (
    IMPORTANT,
    LATE,
    LOW,
    NONE,
    QUEUES,
    RELEGATED_IMPORTANT,
    RELEGATED_LOW,
    has_head,
    new_queues,
    pop,
    push,
    queue_index,
    rebuild,
)
from niyama.requests import new_table

CAPACITY = 6
operations = st.lists(
    st.tuples(
        st.sampled_from(("push", "push", "push", "pop", "pop", "take", "rekey")),
        st.integers(0, CAPACITY - 1),
        st.sampled_from((-1.5, 0.0, 0.25, 1.0, 1e300, np.inf)),
    ),
    max_size=150,
)


@settings(max_examples=80)
@given(operations=operations, q=st.integers(0, 3))
def test_a_queue_pops_in_order_of_key_then_id(operations, q):
    """Also when requests left it unasked (planned out of turn), came back, or got other keys; and when it is full."""
    queues, table, live = new_queues(CAPACITY), new_table(CAPACITY), {}
    table.queue[:] = NONE
    for operation, request, key in operations:
        if operation == "push" and request not in live:
            live[request] = table.key[request] = key
            push(queues, table, q, request)
        elif operation == "take" and request in live:
            del live[request]
            table.queue[request] = NONE
        elif operation == "rekey":
            table.key[:] = np.roll(table.key, 1) + request
            live = {r: table.key[r] for r in live}
            rebuild(queues, table, q)
        elif operation == "pop":
            assert has_head(queues, table, q) == bool(live)
            if live:
                expected = sorted((k, r) for r, k in live.items())[0][1]
                assert queues.ids[q, 0] == expected == pop(queues, table, q)
                del live[expected]
    drained = []
    while has_head(queues, table, q):
        drained.append(pop(queues, table, q))
    assert drained == [r for _, r in sorted((k, r) for r, k in live.items())]


def test_queues_order_relegated_after_others_and_low_after_important():
    order = [queue_index(important, relegated) for relegated in (False, True) for important in (True, False)]
    assert order == [IMPORTANT, LOW, RELEGATED_IMPORTANT, RELEGATED_LOW]
    assert [*order[:2], LATE, *order[2:]] == list(range(QUEUES))  # late requests come before others that are relegated
