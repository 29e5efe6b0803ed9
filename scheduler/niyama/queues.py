"""Five binary heaps of waiting requests, ordered by (key, id).

Relegated requests come after all others: first late ones (`niyama.late`), then by importance. An entry is stale, and is
skipped, when its request has left the queue or was given another key since.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from niyama.jit import compiled

IMPORTANT, LOW, LATE, RELEGATED_IMPORTANT, RELEGATED_LOW = 0, 1, 2, 3, 4
QUEUES = 5
NONE = 255


class Queues(NamedTuple):
    """keys float64[5, cap], ids int32[5, cap], size int64[5]."""

    keys: np.ndarray
    ids: np.ndarray
    size: np.ndarray


def new_queues(capacity: int) -> Queues:
    """Empty queues with room for `capacity` live requests."""
    room = 2 * capacity + 16  # stale entries are cleared when this is reached
    return Queues(np.zeros((QUEUES, room)), np.zeros((QUEUES, room), np.int32), np.zeros(QUEUES, np.int64))


@compiled
def queue_index(important, relegated):
    """The queue for a request of this importance, relegated or not."""
    return (RELEGATED_IMPORTANT if relegated else 0) + (0 if important else 1)


@compiled
def push(queues, table, q, request):
    """Put `request` into queue `q` under its current key."""
    if queues.size[q] == queues.keys.shape[1]:
        rebuild(queues, table, q)
    table.queue[request] = q
    position = queues.size[q]
    queues.size[q] += 1
    _sift_up(queues.keys[q], queues.ids[q], position, table.key[request], request)


@compiled
def has_head(queues, table, q):
    """Whether queue `q` has a live head (then `queues.ids[q, 0]`); drops stale entries on the way."""
    while queues.size[q] > 0:
        request = queues.ids[q, 0]
        if table.queue[request] == q and table.key[request] == queues.keys[q, 0]:
            return True
        _drop_root(queues, q)
    return False


@compiled
def first_queue(queues, table):
    """The queue whose head is next: normal ones merged by (key, id), then the others in turn."""
    important, low = has_head(queues, table, IMPORTANT), has_head(queues, table, LOW)
    if important and low:
        a, b = queues.ids[IMPORTANT, 0], queues.ids[LOW, 0]
        important = table.key[a] < table.key[b] or (table.key[a] == table.key[b] and a < b)
    if important or low:
        return IMPORTANT if important else LOW
    if has_head(queues, table, LATE):
        return LATE
    return RELEGATED_IMPORTANT if has_head(queues, table, RELEGATED_IMPORTANT) else RELEGATED_LOW


@compiled
def pop(queues, table, q):
    """Remove and return the head; ask `has_head` first."""
    request = queues.ids[q, 0]
    _drop_root(queues, q)
    table.queue[request] = NONE
    return request


@compiled
def rebuild(queues, table, q):
    """Clear stale entries and order the rest by their current keys (after alpha changed, say)."""
    keys, ids, size = queues.keys[q], queues.ids[q], queues.size[q]
    queues.size[q] = 0
    for i in range(size):  # the heap grows behind the reading position, never past it
        request = ids[i]
        if table.queue[request] == q:
            table.queue[request] = NONE  # a second, stale entry of the same request is dropped
            position = queues.size[q]
            queues.size[q] += 1
            _sift_up(keys, ids, position, table.key[request], request)
            table.queue[request] = q + QUEUES  # seen
    for i in range(queues.size[q]):
        table.queue[ids[i]] = q


@compiled
def _sift_up(keys, ids, position, key, request):
    while position > 0:
        parent = (position - 1) >> 1
        if not (key < keys[parent] or (key == keys[parent] and request < ids[parent])):
            break
        keys[position], ids[position] = keys[parent], ids[parent]
        position = parent
    keys[position], ids[position] = key, request


@compiled
def _drop_root(queues, q):
    keys, ids = queues.keys[q], queues.ids[q]
    queues.size[q] -= 1
    size = queues.size[q]
    key, request = keys[size], ids[size]
    position = 0
    while 2 * position + 1 < size:
        child = 2 * position + 1
        right = child + 1
        if right < size and (keys[right] < keys[child] or (keys[right] == keys[child] and ids[right] < ids[child])):
            child = right
        if not (keys[child] < key or (keys[child] == key and ids[child] < request)):
            break
        keys[position], ids[position] = keys[child], ids[child]
        position = child
    keys[position], ids[position] = key, request
