"""The emulated device's memory of its requests: what vLLM's scheduler tells it becomes a batch and made-up tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vllm.v1.core.sched.output import GrammarOutput, NewRequestData, SchedulerOutput

from niyama.latency import Batch, empty_batch, with_prefill
from niyama.vllm.emulated.made_up_tokens import accepted_drafts, allowed_token, fingerprint, token_at


class _Resident(NamedTuple):
    prompt_tokens: int
    key: int  # of its output
    alphabet: tuple[int, ...]


class Device:
    """Knows every request that was sent and has not been reported finished.

    right_drafts: with speculative decoding, the share of drafted tokens that are right.
    """

    def __init__(self, alphabet: tuple[int, ...], special: frozenset[int], right_drafts: float = 0.0) -> None:
        self._alphabet, self._special, self._right_drafts = alphabet, special, right_drafts
        self._residents: dict[str, _Resident] = {}
        self._made: dict[str, int] = {}  # output tokens so far; vLLM may count drafts that have been rejected since

    def __len__(self) -> int:
        return len(self._residents)

    def read(self, step: SchedulerOutput) -> tuple[Batch, dict[str, list[int]]]:
        """The step's batch, chunks in scheduling order, and each scheduled request's new tokens.

        A token comes out of a request when the step computes the last token that is known of it, and one more for each
        drafted token that is right. With one known token left behind at least one output it is a decode; everything
        else is a prefill chunk, also after a preemption.
        """
        progress = self._progress(step)
        begun = {new.req_id for new in step.scheduled_new_reqs} | set(step.scheduled_cached_reqs.resumed_req_ids)
        decodes = context = 0
        chunks, tokens = [], {}
        for request_id, scheduled in step.num_scheduled_tokens.items():
            resident, computed, known = progress[request_id]
            position = known - resident.prompt_tokens
            drafts = len(step.scheduled_spec_decode_tokens.get(request_id, ()))
            decodes += drafts
            if computed == known - 1 and position > 0:
                decodes += 1
                context += computed
                position = position if request_id in begun else self._made.get(request_id, position)
            else:
                chunks.append((computed, scheduled - drafts))
            tokens[request_id] = []
            if computed + scheduled - drafts >= known:
                padding = request_id in begun
                count = 1 + (0 if padding else accepted_drafts(resident.key, position, drafts, self._right_drafts))
                tokens[request_id] = [token_at(resident.alphabet, resident.key, position + i) for i in range(count)]
                self._made[request_id] = position + count
        batch = empty_batch(decodes, context)
        for prefix, chunk in chunks:
            batch = with_prefill(batch, prefix, chunk)
        return batch, tokens

    def _progress(self, step: SchedulerOutput) -> dict[str, tuple[_Resident, int, int]]:
        """Request id -> (what is remembered of it, tokens computed, tokens known) of the step's requests."""
        for request_id in step.finished_req_ids:
            self._residents.pop(request_id, None)
            self._made.pop(request_id, None)
        progress = {}
        for new in step.scheduled_new_reqs:
            resident = self._residents[new.req_id] = self._admit(new)
            # one runner's engine sends a resumed request as a new one, with its output behind the prompt
            known = resident.prompt_tokens if new.prefill_token_ids is None else len(new.prefill_token_ids)
            progress[new.req_id] = resident, new.num_computed_tokens, known
        cached = step.scheduled_cached_reqs
        for request_id, computed, outputs in zip(
            cached.req_ids, cached.num_computed_tokens, cached.num_output_tokens, strict=True
        ):
            resident = self._residents[request_id]
            progress[request_id] = resident, computed, resident.prompt_tokens + outputs
        return progress

    def _admit(self, new: NewRequestData) -> _Resident:
        params = new.sampling_params
        allowed = tuple(params.allowed_token_ids or ()) if params is not None else ()
        seed = params.seed if params is not None else None
        prompt = new.prompt_token_ids
        if prompt is None:  # embeddings: only their number is known
            prompt = [0] * len(new.prompt_embeds)
        return _Resident(len(prompt), fingerprint(prompt, seed), allowed or self._alphabet)

    def constrain(
        self, tokens: dict[str, list[int]], grammar: GrammarOutput, drafted: Mapping[str, Sequence[int]]
    ) -> None:
        """Replace tokens that a request's grammar forbids by some that it allows; its drafts are all wrong."""
        row = 0
        for request_id in grammar.structured_output_request_ids:
            made = tokens.get(request_id)
            if made:
                tokens[request_id] = [allowed_token(grammar.grammar_bitmask[row], made[0], self._special)]
                self._made[request_id] -= len(made) - 1
            row += 1 + len(drafted.get(request_id, ()))
