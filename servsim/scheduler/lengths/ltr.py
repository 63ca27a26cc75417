"""LTR: by predicted rank, with a boost for those who were left out for many steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Many

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.displacing import DisplacingBatching
from servsim.scheduler.lengths.srpt import worst_first
from servsim.scheduler.orders import KeyOrder, Order
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import UNBOUNDED, Surroundings
from servsim.scheduler.progress import Progress
from servsim.scheduler.running import Running

__all__ = ["BoostedRankOrder", "Ltr"]


class BoostedRankOrder(Order):
    """Boosted ones first, then by the smallest prediction; running ones give way to whoever is before them.

    A sequence that was not scheduled in ``starvation_steps`` steps in a row is boosted until it has been in
    ``boost_steps`` steps. A running one counts as scheduled in every step. One that prefills gives way to nobody:
    coming back costs it a prefill, and it would never emit a token if it were sent away before.
    """

    def __init__(self, running: Running, starvation_steps: int, boost_steps: int) -> None:
        self._running = running
        self._starvation_steps = starvation_steps
        self._boost_steps = boost_steps
        self._boosted = KeyOrder(lambda sequence: sequence.predicted_tokens)
        self._others = KeyOrder(lambda sequence: sequence.predicted_tokens)
        self._arrived: list[Sequence] = []  # since the last plan
        self._since: dict[Sequence, int] = {}  # step from which a waiting one that is not boosted has been left out
        self._starving: deque[tuple[int, Sequence]] = deque()  # the same by step, with some that wait no more
        self._steps_left: dict[Sequence, int] = {}  # of the boost of a waiting one
        self._boost_ends: dict[Sequence, int] = {}  # step at which the boost of a running one is over
        self._stalled_steps = 0  # steps in which no decoder moved
        self._progress = Progress(running, lambda sequence: sequence.predicted_tokens)

    def __len__(self) -> int:
        return len(self._boosted) + len(self._others)

    def push(self, sequence: Sequence) -> None:
        """It is left out from the next step on."""
        self._others.push(sequence)
        self._arrived.append(sequence)

    def push_preempted(self, sequence: Sequence) -> None:
        """It is left out from this step on, and keeps what is left of its boost."""
        left = self._boost_ends.pop(sequence, 0) - self._step
        if left > 0:
            self._steps_left[sequence] = left
            self._boosted.push(sequence)
        else:
            self._others.push(sequence)
            self._left_out(sequence)

    def peek(self, index: int) -> Sequence:
        """The sequence at a place in line, 0 for the head."""
        boosted = len(self._boosted)
        return self._boosted.peek(index) if index < boosted else self._others.peek(index - boosted)

    def drop(self, count: int) -> None:
        """The first ``count`` sequences leave."""
        boosted = min(count, len(self._boosted))
        for index in range(count - boosted):
            self._since.pop(self._others.peek(index), None)
        self._boosted.drop(boosted)
        self._others.drop(count - boosted)

    def urgency(self, sequence: Sequence) -> tuple[float, ...]:
        """Boosted ones go last, others by their prediction."""
        return (not self._runs_boosted(sequence), sequence.predicted_tokens, sequence.arrival_s, sequence.request_id)

    def yielding(self, sequence: Sequence) -> Many[Sequence]:
        """Decoders that come after a waiting one, the last first."""
        progress = self._progress
        if not progress.members:
            return ()
        progress.generated()
        level = 0 if sequence in self._steps_left else 1
        levels = np.ones(len(progress.members), dtype=np.int64)
        if self._boost_ends:
            levels[[place for place, one in enumerate(progress.members) if self._runs_boosted(one)]] = 0
        behind = (levels > level) | ((levels == level) & (progress.marks > sequence.predicted_tokens))
        # The level outweighs every prediction; ties are few, and broken one by one.
        heaviest = float(progress.marks.max()) + 1.0
        return worst_first(progress.members, progress.marks + levels * heaviest, behind & progress.decoding())

    def newcomer_matters(self, sequence: Sequence, *, has_place: bool) -> bool:
        """Always: its steps are counted from the next plan on."""
        return True

    def refresh(self, now_s: float) -> None:
        """Count the steps of those who came, and boost those who starve."""
        for sequence in self._arrived:
            self._left_out(sequence)
        self._arrived.clear()
        step = self._step
        while self._starving and self._starving[0][0] + self._starvation_steps <= step:
            since, sequence = self._starving.popleft()
            if self._since.get(sequence) == since:
                del self._since[sequence]
                self._others.remove(sequence)
                self._boosted.push(sequence)
                self._steps_left[sequence] = self._boost_steps

    def stable_steps(self) -> int:
        """Until somebody starves, or a running one's boost is over, if anybody waits."""
        if not len(self):
            return UNBOUNDED
        while self._starving and self._since.get(self._starving[0][1]) != self._starving[0][0]:
            self._starving.popleft()
        step = self._step
        ends = [end for end in self._boost_ends.values() if end > step]
        if self._starving:
            ends.append(self._starving[0][0] + self._starvation_steps)
        return max(1, min(ends) - step) if ends else UNBOUNDED

    def began(self, plan: Plan) -> None:
        """A boost runs down while its sequence runs; a step without decoders is a step as well."""
        self._progress.began(plan)
        step = self._step
        for sequence, _ in plan.prefills[len(plan.prefills) - plan.admitted :]:
            left = self._steps_left.pop(sequence, 0)
            if left:
                self._boost_ends[sequence] = step + left
        if not plan.decode and not plan.instant:
            self._stalled_steps += 1

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """It runs no more."""
        self._progress.finished(sequence)
        self._boost_ends.pop(sequence, None)

    @property
    def _step(self) -> int:
        return self._running.step + self._stalled_steps

    def _left_out(self, sequence: Sequence) -> None:
        self._since[sequence] = self._step
        self._starving.append((self._step, sequence))

    def _runs_boosted(self, sequence: Sequence) -> bool:
        return self._boost_ends.get(sequence, 0) > self._step


class Ltr(DisplacingBatching):
    """Smallest predicted rank first, those left out for starvation_steps boosted for boost_steps steps (vllm-ltr).

    Order by (boost, prediction) over waiting and running ones alike: a running one behind a waiting one gives way to
    it when the batch is full. The prediction stands for the rank and is made once. In vllm-ltr those who give way
    keep their KV while it fits and are swapped otherwise; here they are recomputed, one for one
    (:class:`DisplacingBatching`), and a prefill is not broken off. The source has no default for
    the two counts that we could read; these are ours.
    """

    class Parameters(BaseModel):
        """What a scenario may say about it."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        starvation_steps: int = Field(500, ge=1, le=1 << 40, description="steps without being scheduled until a boost")
        boost_steps: int = Field(100, ge=1, le=1 << 40, description="scheduled steps that a boost lasts")

    def __init__(self, surroundings: Surroundings) -> None:
        given = surroundings.parameters or self.Parameters()
        order = BoostedRankOrder(surroundings.running, given.starvation_steps, given.boost_steps)
        super().__init__(surroundings, order)
