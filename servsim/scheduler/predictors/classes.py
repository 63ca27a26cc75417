"""Predictors that name a class of lengths, and the wrong one as often as a confusion matrix says."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate, pairwise
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from servsim.request import Request
from servsim.scheduler.predictors.chance import Chance
from servsim.scheduler.predictors.predictor import Predictor, Timed

__all__ = ["Bucket", "ClairvoyantClasses"]

Matrix = tuple[tuple[float, ...], ...]


class _Confusion:
    """Which class is named for a true one: row = true class, entry = probability of naming that column."""

    def __init__(self, rows: Matrix) -> None:
        self._bounds = [list(accumulate(row))[:-1] for row in rows]

    def named(self, true_class: int, uniform: float) -> int:
        return bisect_right(self._bounds[true_class], uniform)


class _Confused(Timed):
    """How often a class is mistaken."""

    accuracy: float = Field(
        1.0, ge=0, le=1, description="probability of the right class; the next ones below and above share the rest"
    )
    confusion: Matrix | None = Field(
        None, description="instead: a row a true class, in it the probability of each predicted class; rows sum to 1"
    )

    def matrix(self, classes: int) -> Matrix:
        return self.confusion or _neighbours(classes, self.accuracy)


def _check(confusion: Matrix | None, classes: int) -> None:
    if confusion is None:
        return
    if len(confusion) != classes or any(len(row) != classes for row in confusion):
        raise ValueError(f"confusion needs {classes} rows of {classes} probabilities, one for each class")
    for row in confusion:
        if min(row) < 0 or abs(sum(row) - 1) > 1e-6:
            raise ValueError(f"a row of confusion holds probabilities that sum to 1, and {list(row)} do not")


def _neighbours(classes: int, accuracy: float) -> Matrix:
    rows = []
    for true_class in range(classes):
        beside = [other for other in (true_class - 1, true_class + 1) if 0 <= other < classes]
        row = [0.0] * classes
        row[true_class] = accuracy
        for other in beside:
            row[other] = (1 - accuracy) / len(beside)
        rows.append(tuple(row))
    return tuple(rows)


class Bucket(Predictor):
    """One of k+1 classes of output lengths, mistaken as a confusion matrix says (as S3's and TRAIL's classifiers).

    Class i holds the lengths above edge i-1 up to and including edge i; a last, open one holds what is longer than the
    last edge, up to the request's declared ``max_tokens``. The prediction is the class's upper edge or
    its midpoint. The default edges are ours; S3's and TRAIL's are ten equal ones over their model's range.
    """

    class Parameters(_Confused):
        """What a scenario may say under ``predictor`` besides its name."""

        edges: tuple[int, ...] = Field(
            (32, 64, 128, 256, 384, 512, 768, 1024, 2048), min_length=1, description="upper edges, in tokens, rising"
        )
        key: Literal["upper_edge", "midpoint"] = Field("upper_edge", description="the length that stands for a class")

        @model_validator(mode="after")
        def _check_matrix(self) -> Self:
            if self.edges[0] < 1 or any(low >= high for low, high in pairwise(self.edges)):
                raise ValueError("edges are whole numbers from 1 on, each larger than the one before")
            _check(self.confusion, len(self.edges) + 1)
            return self

    def __init__(self, parameters: Parameters | None, stream: np.random.Generator) -> None:
        settings = parameters or self.Parameters()
        self.latency_s = settings.latency_s
        self._edges = settings.edges
        self._midpoint = settings.key == "midpoint"
        self._confusion = _Confusion(settings.matrix(len(self._edges) + 1))
        self._chance = Chance(stream.random)

    def predict(self, request: Request) -> float:
        """The length that stands for the class that is named."""
        true_class = bisect_left(self._edges, request.output_tokens)
        named = self._confusion.named(true_class, self._chance.of(request.request_id))
        below = self._edges[named - 1] if named else 0
        upper = self._edges[named] if named < len(self._edges) else max(below, request.max_tokens)
        return (below + upper) / 2 if self._midpoint else float(upper)


class ClairvoyantClasses(Predictor):
    """Clairvoyant's three classes, mistaken as a confusion matrix says: short < 200, medium < 800, long >= 800 tokens.

    A class is told by one length, so that within a class requests keep the order of their arrival: 100, 500 and
    ``long_tokens``. Source: clairvoyant-scheduler; its own classifiers' confusion matrices are not known to us, and the
    default makes no mistake.
    """

    class Parameters(_Confused):
        """What a scenario may say under ``predictor`` besides its name."""

        long_tokens: float = Field(
            1200.0, ge=800, le=1e9, description="what a long output is taken to have; only its rank is Clairvoyant's"
        )

        @model_validator(mode="after")
        def _check_matrix(self) -> Self:
            _check(self.confusion, 3)
            return self

    def __init__(self, parameters: Parameters | None, stream: np.random.Generator) -> None:
        settings = parameters or self.Parameters()
        self.latency_s = settings.latency_s
        self._lengths = (100.0, 500.0, settings.long_tokens)
        self._confusion = _Confusion(settings.matrix(3))
        self._chance = Chance(stream.random)

    def predict(self, request: Request) -> float:
        """The length that stands for the class that is named."""
        true_class = bisect_right((200, 800), request.output_tokens)
        return self._lengths[self._confusion.named(true_class, self._chance.of(request.request_id))]
