"""vLLM v1's batching, with waiting sequences that may take the place of running ones."""

from __future__ import annotations

from servsim.request import Sequence
from servsim.scheduler.admissions import Admission
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.orders import Order
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import Surroundings

__all__ = ["DisplacingBatching"]


class DisplacingBatching(VllmV1Batching):
    """vLLM v1's token-budget batching, in which the head of the line may displace a running sequence.

    When the head finds no place or no memory, the order names the running ones that give way to it
    (:meth:`Order.yielding`). The first of them is preempted by recompute and the head let in, in the same step, one
    for one; if the head does not fit even then, nobody is displaced for it. That goes on with the next
    head while the token budget lasts. A step in which memory is short for those who run displaces nobody.

    vLLM itself has nothing like it: in its priority mode only a lack of memory preempts.
    """

    def __init__(
        self, surroundings: Surroundings, order: Order | None = None, admission: Admission | None = None
    ) -> None:
        super().__init__(surroundings, order, admission)
        self._steady = type(self).plan is DisplacingBatching.plan

    def plan(self, now_s: float) -> Plan:
        """The step that vLLM would take; then the displacements."""
        plan = super().plan(now_s)
        if plan.preempted or plan.left_out:
            return plan
        victims: list[Sequence] = []
        while plan.admitted < len(self.queue) and self._budget_left(plan, victims) > 0:
            candidates = self.queue.yielding(self.queue.peek(plan.admitted))
            victim = next((one for one in candidates if one not in victims), None)
            if victim is None:
                break
            better = self._without([*victims, victim], exactly=False)
            if better is None or better.admitted <= plan.admitted:
                better = self._without([*victims, victim], exactly=True)
            if better is None or better.admitted <= plan.admitted:
                break
            victims.append(victim)
            plan = better
        return plan

    def _budget_left(self, plan: Plan, victims: list[Sequence]) -> int:
        decoders = self.running.decoders - sum(one.decoding for one in victims)
        return self.max_num_batched_tokens - decoders - sum(tokens for _, tokens in plan.prefills)

    def _without(self, victims: list[Sequence], *, exactly: bool) -> Plan | None:
        """The step without these running ones, and with as many from the head of the line as fit then.

        All decoders' growth is counted together where that is enough; ``exactly``, only that of those who stay. Whoever
        does not fit by that count does not fit after more decode steps either, so that a stride may be long.
        """
        running = self.running
        round_ = self.memory.round()
        if not exactly and not round_.grow_decoders():
            return None
        for victim in victims:
            round_.release(victim, running.kv_tokens(victim))
        if exactly:
            for one in running.sequences:
                if one.decoding and one not in victims and not round_.grow(one, running.kv_tokens(one)):
                    return None
        decoders = running.decoders - sum(victim.decoding for victim in victims)
        budget = self.max_num_batched_tokens - decoders
        prefills: list[tuple[Sequence, int]] = []
        for sequence in running.prefilling:
            if sequence not in victims:
                tokens = min(self._lacking(sequence), budget)
                if not round_.extend(sequence, tokens):
                    return None
                prefills.append((sequence, tokens))
                budget -= tokens
        kept = len(running) - len(victims)
        admitted = 0
        while budget > 0 and admitted < min(self.max_num_seqs - kept, len(self.queue)):
            sequence = self.queue.peek(admitted)
            tokens = min(round_.lacking(sequence), self._longest_chunk, budget)
            alone = not admitted and not kept
            if not self.admission.admits(sequence, admitted) or not round_.admit(sequence, tokens, alone=alone):
                break
            prefills.append((sequence, tokens))
            budget -= tokens
            admitted += 1
        return Plan(prefills, admitted, decoders > 0, preempted=victims, round=round_)
