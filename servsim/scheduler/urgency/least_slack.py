"""Least slack first."""

from __future__ import annotations

from collections.abc import Sequence as Many

from pydantic import Field

from servsim.request import Sequence
from servsim.scheduler.displacing import DisplacingBatching
from servsim.scheduler.orders import KeyOrder
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import Surroundings
from servsim.scheduler.urgency.deadlines import DeadlineParameters, Deadlines

__all__ = ["LeastSlack"]


class LeastSlack(DisplacingBatching):
    """Least slack (deadline - now - estimated service) first on vLLM v1's batching; classic least laxity.

    Without a deadline slack is infinite, so without ``slo`` this is first come, first served. The slacks of all who
    wait fall alike, so their order never changes. With ``bound: e2e`` and a ``hysteresis_s`` a waiting sequence
    displaces the decoder that has most slack, once its own is less by more than that: the switch needs a gain, or two
    equal jobs would take turns. The slack of a running sequence is taken to stay what it was when it was last
    let in, as if its service went as estimated. A sequence that still prefills is not displaced, so that each
    turn yields a token. By default nobody is displaced.
    """

    class Parameters(DeadlineParameters):
        """What a scenario may say about it."""

        hysteresis_s: float | None = Field(
            None,
            ge=0,
            le=1e9,
            description="displace a decoder for so much less slack; by default never (bound: e2e only)",
        )

    def __init__(self, surroundings: Surroundings) -> None:
        given = surroundings.parameters or self.Parameters()
        deadlines = Deadlines(surroundings, given.bound)
        hysteresis_s = given.hysteresis_s if given.bound == "e2e" else None
        super().__init__(surroundings, _SlackOrder(surroundings, deadlines, hysteresis_s))


class _SlackOrder(KeyOrder):
    """By the instant at which the slack is used up; remembers the slack of those who run."""

    def __init__(self, surroundings: Surroundings, deadlines: Deadlines, hysteresis_s: float | None) -> None:
        super().__init__(self._latest_start_s)
        self._running = surroundings.running
        self._deadlines = deadlines
        self._hysteresis_s = hysteresis_s
        self._now_s = 0.0
        self._latest_s: dict[Sequence, float] = {}  # of all sequences, as of their latest arrival in the line
        self._slack_s: dict[Sequence, float] = {}  # of the running, when they were let in

    def push(self, sequence: Sequence) -> None:
        """To where its slack belongs."""
        self._latest_s[sequence] = self._deadlines.first_due_s(sequence) - self._deadlines.service_s(sequence)
        super().push(sequence)

    def refresh(self, now_s: float) -> None:
        """Slack is counted from now."""
        self._now_s = now_s

    def began(self, plan: Plan) -> None:
        """Those let in keep the slack that they have now."""
        for sequence, _ in plan.prefills[len(plan.prefills) - plan.admitted :]:
            self._slack_s[sequence] = self._latest_s[sequence] - self._now_s
        for sequence in plan.preempted:
            self._slack_s.pop(sequence, None)

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """Forget it."""
        del self._latest_s[sequence], self._slack_s[sequence]

    def yielding(self, sequence: Sequence) -> Many[Sequence]:
        """Decoders with enough more slack, the most first, then the latest to arrive."""
        if self._hysteresis_s is None:
            return ()
        spent_s = self._latest_s[sequence] + self._hysteresis_s
        found = [one for one, slack_s in self._slack_s.items() if one.decoding and self._now_s > spent_s - slack_s]
        return sorted(found, key=lambda one: (self._slack_s[one], one.arrival_s, one.request_id), reverse=True)

    def newcomer_matters(self, sequence: Sequence, *, has_place: bool) -> bool:
        """Where it is the head, and finds a place or may make one."""
        return (has_place or self._hysteresis_s is not None) and self.peek(0) is sequence

    def timer_s(self) -> float:
        """When the head may displace the decoder that has most slack."""
        if self._hysteresis_s is None or not len(self):
            return float("inf")
        latest_s = self._latest_s[self.peek(0)]
        if latest_s == float("inf"):
            return latest_s
        most_s = max((slack_s for one, slack_s in self._slack_s.items() if one.decoding), default=float("-inf"))
        return latest_s + self._hysteresis_s - most_s

    def _latest_start_s(self, sequence: Sequence) -> float:
        return self._latest_s[sequence]
