"""Continuous batching with a token budget and chunked prefill, as vLLM v1 (0.19) does it."""

from __future__ import annotations

from collections.abc import Callable

from servsim.memory.allocator import Round
from servsim.request import Sequence
from servsim.scheduler.admissions import Admission
from servsim.scheduler.line import LinePolicy
from servsim.scheduler.orders import KeyOrder, Order
from servsim.scheduler.plan import DECODE, IDLE, Plan
from servsim.scheduler.policy import UNBOUNDED, Surroundings

__all__ = ["VllmV1Batching"]


class VllmV1Batching(LinePolicy):
    """vLLM v1's token-budget scheduler; a subclass gives the order and may refuse admissions.

    Each step walks the running list in order of admission (there is no decode-first rule: a running
    prefill is simply last in the list) and gives every sequence the tokens it lacks, within
    ``max_num_batched_tokens``. Without memory for one, the running sequence that is last in order
    is preempted by recompute: its KV is dropped and it waits again. Only in a step without
    preemption are waiting sequences admitted, from the head, until the budget, ``max_num_seqs``, the
    memory or :meth:`admits` ends it; a head that is refused is not skipped.

    Source: vllm/v1/core/sched/scheduler.py. Unless a subclass has an :meth:`order_key` this is its FCFS mode
    (the victim is the tail of the list, preempted sequences go to the front of the queue); with one it is
    its priority mode with that key as the priority. ``long_prefill_token_threshold`` (0, its default: none) bounds
    the chunk of any prefill, so that several prefills may stand half done at once; where the budget does not
    last for all, it goes down the list, and those at its end, decoders too, miss the step. A prefix cache is
    the allocator's (``prefix_blocks``). Not modelled here: LoRA and grammar limits, encoder budgets.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        order: Order | None = None,
        admission: Admission | None = None,
        *,
        long_prefill_token_threshold: int = 0,
    ) -> None:
        kind = type(self)
        if order is None and kind.order_key is not VllmV1Batching.order_key:
            order = KeyOrder(self.order_key)
        if admission is None and kind.admits is not VllmV1Batching.admits:
            admission = _OwnRule(self.admits)
        super().__init__(surroundings, order, admission)
        self._threshold = long_prefill_token_threshold
        self._longest_chunk = long_prefill_token_threshold or UNBOUNDED
        # What a subclass plans by itself may change with every step, for all that is known here.
        self._steady = kind.plan is VllmV1Batching.plan

    def order_key(self, sequence: Sequence) -> float:
        """Smaller goes first, and is preempted last; must not change while a sequence waits.

        Not overridden, it is not asked: first come, first served.
        """
        return sequence.arrival_s

    def admits(self, sequence: Sequence, admitted: int) -> bool:
        """A further condition on the head of the line, as :meth:`Admission.admits`; not overridden, it is not asked.

        A policy with a condition of its own takes every step by itself, since nobody knows when it changes.
        """
        return True

    def stable_steps(self) -> int:
        """As long as order and rule keep; 1 where a subclass plans by itself."""
        return super().stable_steps() if self._steady else 1

    def arrival_matters(self, sequence: Sequence) -> bool:
        """Only where a place is free and the newcomer is the head; always where a subclass plans by itself."""
        return not self._steady or super().arrival_matters(sequence)

    def plan(self, now_s: float) -> Plan:
        """The next step: every running sequence, then the waiting ones that fit."""
        running = self.running
        self.queue.refresh(now_s)
        may_admit = len(self.queue) > 0 and len(running.sequences) < self.max_num_seqs
        if not running.prefilling and not may_admit:
            if not running.decoders:
                return IDLE
            if self.memory.steps_until_full(1):
                return DECODE
            return self._walk()
        round_ = self.memory.round()
        if self._threshold and self._over_budget():
            return self._walk()
        if not round_.grow_decoders():
            return self._walk()
        budget = self.max_num_batched_tokens - running.decoders
        prefills: list[tuple[Sequence, int]] = []
        for sequence in running.prefilling:
            tokens = min(sequence.total_tokens - sequence.kv_tokens, self._longest_chunk, budget)
            if not round_.extend(sequence, tokens):
                return self._walk()
            prefills.append((sequence, tokens))
            budget -= tokens
        admitted = self._admit(round_, prefills, budget) if may_admit else 0
        if not prefills:
            return DECODE if running.decoders else IDLE
        return Plan(prefills, admitted, decode=running.decoders > 0, round=round_)

    def _admit(self, round_: Round, prefills: list[tuple[Sequence, int]], budget: int) -> int:
        """Take waiting sequences from the head into ``prefills`` while everything fits; how many."""
        queue = self.queue
        places = min(self.max_num_seqs - len(self.running.sequences), len(queue))
        admitted = 0
        while budget > 0 and admitted < places:
            sequence = queue.peek(admitted)
            tokens = min(round_.lacking(sequence), self._longest_chunk, budget)
            alone = not admitted and not self.running.sequences
            if not self.admission.admits(sequence, admitted) or not round_.admit(sequence, tokens, alone=alone):
                break
            prefills.append((sequence, tokens))
            budget -= tokens
            admitted += 1
        return admitted

    def _over_budget(self) -> bool:
        """Whether the budget does not last for the running list; then nothing is left for the waiting either."""
        running = self.running
        wanted = running.decoders + sum(self._lacking(sequence) for sequence in running.prefilling)
        return wanted > self.max_num_batched_tokens

    def _walk(self) -> Plan:
        """Go through the running list one by one and preempt until the rest fits; nothing is admitted.

        In priority mode a sequence may turn out to be its own victim in mid-list. vLLM then ends the walk,
        and those behind it do nothing in this step.
        """
        round_ = self.memory.round()
        budget = self.max_num_batched_tokens
        todo = list(self.running.sequences)
        scheduled: dict[Sequence, int] = {}
        preempted: list[Sequence] = []
        place = 0
        while place < len(todo) and budget > 0:
            sequence = todo[place]
            if sequence in self.memory.loading:
                place += 1
                continue
            tokens = min(self._lacking(sequence), budget)
            while not self._grant(round_, sequence, tokens):
                victim = self._victim(todo)
                budget += scheduled.pop(victim, 0)
                place -= todo.index(victim) < place
                todo.remove(victim)
                round_.release(victim, self.running.kv_tokens(victim))
                preempted.append(victim)
                if victim is sequence:
                    return self._walked(round_, scheduled, todo, preempted)
            scheduled[sequence] = tokens
            budget -= tokens
            place += 1
        return self._walked(round_, scheduled, todo, preempted)

    def _walked(
        self, round_: Round, scheduled: dict[Sequence, int], kept: list[Sequence], preempted: list[Sequence]
    ) -> Plan:
        """The plan that a walk came to."""
        prefilling = self.running.prefilling
        prefills = [(sequence, tokens) for sequence, tokens in scheduled.items() if sequence in prefilling]
        decoding = len(scheduled) > len(prefills)
        left_out = [one for one in kept if one.decoding and one not in scheduled] if decoding else []
        return Plan(prefills, 0, decoding, left_out, preempted, round=round_)

    def _lacking(self, sequence: Sequence) -> int:
        if sequence.decoding:
            return 1
        return min(sequence.total_tokens - sequence.kv_tokens, self._longest_chunk)

    def _grant(self, round_: Round, sequence: Sequence, tokens: int) -> bool:
        if sequence.decoding:
            return round_.grow(sequence, self.running.kv_tokens(sequence))
        return round_.extend(sequence, tokens)

    def _victim(self, running: list[Sequence]) -> Sequence:
        """The one to preempt."""
        urgency = self.queue.urgency
        if urgency(running[-1]) is None:
            return running[-1]
        return max(running, key=lambda sequence: urgency(sequence) or ())


class _OwnRule(Admission):
    """A subclass's own ``admits``, good for one step."""

    def __init__(self, admits: Callable[[Sequence, int], bool]) -> None:
        self._admits = admits

    def admits(self, sequence: Sequence, admitted: int) -> bool:
        """As the subclass says."""
        return self._admits(sequence, admitted)

    def stable_steps(self) -> int:
        """Nobody knows."""
        return 1
