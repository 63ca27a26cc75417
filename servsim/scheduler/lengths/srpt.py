"""Shortest remaining processing time first, by predicted output length, with preemption."""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.displacing import DisplacingBatching
from servsim.scheduler.orders import KeyOrder
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import UNBOUNDED, Surroundings
from servsim.scheduler.progress import Progress
from servsim.scheduler.running import Running

__all__ = ["RemainingOrder", "Srpt", "worst_first"]


class RemainingOrder(KeyOrder):
    """The smallest predicted rest of the output first; of the running, the largest gives way first.

    Beyond its prediction a sequence counts as one token from its end (``beyond: one``) for ever, or is believed to be
    half done each time it reaches what was believed (``beyond: double``): twice the tokens at that moment.
    A running one gives way when its rest is larger than that of the waiting one by more than ``margin_tokens``.
    """

    def __init__(self, running: Running, margin_tokens: float = 0.0, beyond: Literal["one", "double"] = "one") -> None:
        super().__init__(lambda sequence: self._rest(sequence, running.generated_tokens(sequence)))
        self._margin_tokens = margin_tokens
        self._double = beyond == "double"
        self._progress = Progress(running, lambda sequence: sequence.predicted_tokens)

    def yielding(self, sequence: Sequence) -> Many[Sequence]:
        """Running ones with a rest that is larger by more than the margin, the largest first."""
        rests = self._rests()
        return worst_first(self._progress.members, rests, rests > self._key(sequence) + self._margin_tokens)

    def newcomer_matters(self, sequence: Sequence, *, has_place: bool) -> bool:
        """Only if it is the head, and there is a place or somebody gives way; rests only shrink until a belief ends."""
        return self.peek(0) is sequence and (has_place or self._double or len(self.yielding(sequence)) > 0)

    def stable_steps(self) -> int:
        """Until the first decoder reaches what is believed of it, where that makes its rest larger."""
        if not self._double or not len(self):
            return UNBOUNDED
        generated = self._progress.generated()
        left = np.ceil(_believed(self._progress.marks, generated)) - generated
        left = left[self._progress.decoding()]
        return max(1, int(left.min())) if len(left) else UNBOUNDED

    def began(self, plan: Plan) -> None:
        """Who runs has changed."""
        self._progress.began(plan)

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """It runs no more."""
        self._progress.finished(sequence)

    def _rest(self, sequence: Sequence, generated: int) -> float:
        predicted = sequence.predicted_tokens
        if not self._double:
            return max(1.0, predicted - generated)
        first = max(1, math.ceil(predicted))
        believed = first << (generated // first).bit_length() if generated >= first else max(1.0, predicted)
        return believed - generated

    def _rests(self) -> NDArray[np.float64]:
        """Of all that run, as :meth:`_rest`."""
        predicted, generated = self._progress.marks, self._progress.generated()
        if not self._double:
            return np.maximum(1.0, predicted - generated)
        return _believed(predicted, generated) - generated


def _believed(predicted: NDArray[np.float64], generated: NDArray[np.int64]) -> NDArray[np.float64]:
    """The total that is believed in when predictions double each time they are reached; always more than generated."""
    first = np.maximum(1, np.ceil(predicted)).astype(np.int64)
    doublings = np.frexp(generated // first)[1]  # the number of bits: the least k with first * 2**k > generated
    return np.where(doublings == 0, np.maximum(1.0, predicted), first * 2.0**doublings)


def worst_first(members: Many[Sequence], keys: NDArray[np.float64], chosen: NDArray[np.bool_]) -> list[Sequence]:
    """Those that are chosen by descending ``(key, arrival_s, request_id)``."""
    values = keys.tolist()
    places: list[int] = np.flatnonzero(chosen).tolist()
    places.sort(key=lambda place: (values[place], members[place].arrival_s, members[place].request_id), reverse=True)
    return [members[place] for place in places]


class Srpt(DisplacingBatching):
    """Shortest predicted rest of the output first, displacing longer ones that run, on vLLM v1's batching.

    The waiting one with the smallest predicted rest (:class:`RemainingOrder`) takes the place of the running one with
    the largest when it finds no place or no memory, by recompute (:class:`DisplacingBatching`). The generic policy of
    the field; no one system's code is imitated.
    """

    class Parameters(BaseModel):
        """What a scenario may say about it."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        margin_tokens: float = Field(
            0.0, ge=0, le=1e9, description="how much longer the rest of one that gives way must be, in tokens"
        )
        beyond: Literal["one", "double"] = Field(
            "one",
            description="rest beyond the prediction: one = a token, double = as much again, each time it is reached",
        )

    def __init__(self, surroundings: Surroundings) -> None:
        given = surroundings.parameters or self.Parameters()
        super().__init__(surroundings, RemainingOrder(surroundings.running, given.margin_tokens, given.beyond))
