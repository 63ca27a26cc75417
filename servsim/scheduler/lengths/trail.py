"""TRAIL: shortest remaining time first with estimates refreshed as it goes, and limited preemption."""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.displacing import DisplacingBatching
from servsim.scheduler.lengths.srpt import worst_first
from servsim.scheduler.orders import KeyOrder
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import UNBOUNDED, Surroundings
from servsim.scheduler.progress import Progress

__all__ = ["RefreshedOrder", "Trail", "TrailParameters"]

_NOISES = 4096


class TrailParameters(BaseModel):
    """What a scenario may say about TRAIL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    c: float = Field(
        0.8, ge=0, le=1e9, description="share of its first prediction until which a sequence may be displaced; 0: never"
    )
    margin_tokens: float = Field(0.0, ge=0, le=1e9, description="how much larger the estimate of one displaced must be")
    refresh_steps: int = Field(8, ge=1, le=1 << 30, description="tokens between two refreshed estimates")
    bins: int = Field(10, ge=1, le=1 << 20, description="equal bins of the estimating classifier")
    longest_tokens: float = Field(512.0, gt=0, le=1e9, description="upper edge of the last bin")
    refresh_mae_tokens: float = Field(
        0.0, ge=0, le=1e9, description="mean absolute error of a refreshed estimate before it is binned (normal)"
    )
    late_goes_last: bool = Field(
        False, description="as the published patch: one past its cutoff that waits (no memory) sorts behind all others"
    )


class RefreshedOrder(KeyOrder):
    """The smallest estimate of the rest first; of the running only those before their cutoff give way.

    The first estimate is the prediction. Every ``refresh_steps`` tokens it is replaced, and in between it counts down
    with each token. A new one is what the prediction leaves, with an error, put into one of the ``bins``:
    its middle. The error is that of request and refresh, whatever the policy does meanwhile.
    """

    def __init__(self, surroundings: Surroundings, given: TrailParameters) -> None:
        running = surroundings.running
        super().__init__(self._waiting_key)
        self._running = running
        self._given = given
        self._width = given.longest_tokens / given.bins
        self._noise = np.zeros(_NOISES)
        if given.refresh_mae_tokens:
            spread = given.refresh_mae_tokens * math.sqrt(math.pi / 2)
            uniform = np.clip(surroundings.stream("trail").random(_NOISES), 1e-12, 1 - 1e-12)
            self._noise = np.array([NormalDist(0.0, spread).inv_cdf(float(one)) for one in uniform])
        self._progress = Progress(running, lambda sequence: sequence.predicted_tokens)

    def yielding(self, sequence: Sequence) -> Many[Sequence]:
        """Running ones before their cutoff whose estimate is larger by more than the margin, the largest first."""
        members = self._progress.members
        if not members:
            return ()
        generated = self._progress.generated()
        rests = self._rests(generated, generated // self._given.refresh_steps)
        chosen = self._displaceable(generated) & (rests > self._waiting_key(sequence) + self._given.margin_tokens)
        return worst_first(members, rests, chosen)

    def newcomer_matters(self, sequence: Sequence, *, has_place: bool) -> bool:
        """If it is the head: for how long nobody gives way depends on who asks."""
        return self.peek(0) is sequence

    def urgency(self, sequence: Sequence) -> tuple[float, ...]:
        """First those before their cutoff, by their estimates."""
        generated = self._running.generated_tokens(sequence)
        before = not self._past_cutoff(sequence, generated)
        return (before, self._rest(sequence, generated), sequence.arrival_s, sequence.request_id)

    def stable_steps(self) -> int:
        """Until a new estimate of one that could be displaced is larger than the head's."""
        if not len(self) or not self._progress.members:
            return UNBOUNDED
        generated = self._progress.generated()
        period = self._given.refresh_steps
        refreshes = generated // period + 1
        at = refreshes * period  # tokens at the next refresh
        within = self._displaceable(at) & self._progress.decoding()
        if not within.any():
            return UNBOUNDED
        if self.yielding(self.peek(0)):
            return 1  # somebody gave way in vain: the head did not fit; it may be somebody else the next time
        if self._given.refresh_mae_tokens:
            beyond = at + period - generated  # errors of later refreshes are not looked at
            steps = int(beyond[within].min())
        else:
            steps = UNBOUNDED  # estimates without errors never grow from one refresh to the next
        head = self._waiting_key(self.peek(0)) + self._given.margin_tokens
        growing = within & (self._rests(at, refreshes) > head)
        if growing.any():
            steps = min(steps, int((at - generated)[growing].min()))
        return max(1, steps)

    def began(self, plan: Plan) -> None:
        """Who runs has changed."""
        self._progress.began(plan)

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """It runs no more."""
        self._progress.finished(sequence)

    def _waiting_key(self, sequence: Sequence) -> float:
        generated = sequence.generated_tokens
        if generated and self._past_cutoff(sequence, generated):
            return math.inf if self._given.late_goes_last else -math.inf
        return self._rest(sequence, generated)

    def _past_cutoff(self, sequence: Sequence, generated: int) -> bool:
        return generated > self._given.c * max(1.0, sequence.predicted_tokens)

    def _displaceable(self, generated: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of those that run, when they will have emitted so much."""
        if self._given.c == 0:
            return np.zeros(len(generated), dtype=bool)
        return np.asarray(generated <= self._given.c * np.maximum(1.0, self._progress.marks))

    def _rest(self, sequence: Sequence, generated: int) -> float:
        """The estimate for one sequence when it has emitted so much."""
        refresh = generated // self._given.refresh_steps
        if refresh == 0:
            return max(0.0, sequence.predicted_tokens - generated)
        at = refresh * self._given.refresh_steps
        error = float(self._noise[_place(sequence.request_id, refresh) % _NOISES])
        bin_ = min(max(0.0, sequence.predicted_tokens - at + error) // self._width, self._given.bins - 1)
        return max(0.0, (bin_ + 0.5) * self._width - (generated - at))

    def _rests(self, generated: NDArray[np.int64], refresh: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same for all that run."""
        predicted = self._progress.marks
        at = refresh * self._given.refresh_steps
        left = predicted - at
        if self._given.refresh_mae_tokens:
            numbers = np.fromiter((one.request_id for one in self._progress.members), dtype=np.int64)
            left = left + self._noise[_place(numbers, refresh) % _NOISES]
        bins = np.minimum(np.maximum(0.0, left) // self._width, self._given.bins - 1)
        binned = (bins + 0.5) * self._width - (generated - at)
        return np.maximum(0.0, np.where(refresh == 0, predicted - generated, binned))


def _place(number: int | NDArray[np.int64], refresh: int | NDArray[np.int64]) -> int | NDArray[np.int64]:
    """Where the error of a request's refresh stands among the errors that were drawn."""
    return number * 1009 + refresh * 37


class Trail(DisplacingBatching):
    """Shortest estimated rest first, estimates refreshed, displacing only those not past c of their prediction (TRAIL).

    When the batch is full, of places or of memory, the waiting one with the smallest estimate takes the place of the
    running one with the largest, one for one, but only of those that have emitted at most ``c`` times their first
    prediction. In the paper the cutoff protects running ones; one past it that lost its memory all the same goes
    first here, and last with ``late_goes_last``, as the published patch for SGLang has it by accident. The patch's
    launcher has c = 0 by default, the paper 0.8.

    The estimates are those of :class:`RefreshedOrder`: a classifier's without its network, from the request's
    prediction. The patch's own noise mode has ``refresh_mae_tokens: 46.1``. Its victims' KV goes into a
    prefix cache, and may be found again there; here they are recomputed.
    """

    Parameters = TrailParameters

    def __init__(self, surroundings: Surroundings) -> None:
        given = surroundings.parameters or TrailParameters()
        super().__init__(surroundings, RefreshedOrder(surroundings, given))
