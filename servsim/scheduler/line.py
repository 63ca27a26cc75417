"""What all batch composers share: a waiting line, an admission rule, and what the engine tells them."""

from __future__ import annotations

from servsim.request import Sequence
from servsim.scheduler.admissions import Admission, Anyone
from servsim.scheduler.orders import ArrivalOrder, Order
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import Surroundings

__all__ = ["LinePolicy"]


class LinePolicy:
    """A policy but for its ``plan``: sequences wait in an :class:`Order`, its head is let in by an :class:`Admission`.

    Batch composers derive from it, and a user's policy from one of them: two steps of inheritance, so that a policy
    of one's own is an order or an admission rule and nothing else.
    """

    asynchronous = False

    def __init__(
        self, surroundings: Surroundings, order: Order | None = None, admission: Admission | None = None
    ) -> None:
        self.surroundings = surroundings
        self.running = surroundings.running
        self.memory = surroundings.memory
        self.max_num_seqs = surroundings.max_num_seqs
        self.max_num_batched_tokens = surroundings.max_num_batched_tokens
        self.queue: Order = ArrivalOrder() if order is None else order
        self.admission: Admission = Anyone() if admission is None else admission

    @property
    def waiting(self) -> int:
        """How many sequences wait."""
        return len(self.queue)

    def head(self) -> Sequence | None:
        """The sequence that would be admitted next."""
        return self.queue.peek(0) if len(self.queue) else None

    def accepts(self, sequence: Sequence) -> bool:
        """Every request is taken."""
        return True

    def add(self, sequence: Sequence) -> None:
        """A sequence arrives."""
        self.queue.push(sequence)

    def begin(self, plan: Plan) -> None:
        """The admitted leave the line, the preempted return to it."""
        if plan.admitted:
            self.queue.drop(plan.admitted)
        for sequence in plan.preempted:
            self.queue.push_preempted(sequence)
        self.queue.began(plan)
        self.admission.began(plan)

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """A sequence ended: the order and the rule may learn from it."""
        self.queue.finished(sequence, output_tokens)
        self.admission.finished(sequence, output_tokens)

    def stable_steps(self) -> int:
        """A refused head stays refused while decoders only take memory, as far as order and rule say so."""
        return min(self.queue.stable_steps(), self.admission.stable_steps())

    def timer_s(self) -> float:
        """When order or rule change by themselves."""
        return min(self.queue.timer_s(), self.admission.timer_s())

    def arrival_matters(self, sequence: Sequence) -> bool:
        """As the order says; usually only where a place is free and the newcomer is the head."""
        return self.queue.newcomer_matters(sequence, has_place=len(self.running) < self.max_num_seqs)
