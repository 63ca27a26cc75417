"""What measured kernels take beside what a law says: factors on a small grid, interpolated in logarithms."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence as Many
from functools import cached_property
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from servsim.documents import Spec, refusal

__all__ = ["Axis", "Correction", "Grid"]


_log, _exp = math.log, math.exp


class Axis(Spec):
    """One variable of a grid: its ``name`` and the rising values ``knots`` at which factors are given."""

    name: str = Field(min_length=1)
    knots: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=2, strict=False)

    @model_validator(mode="after")
    def _check_rising(self) -> Axis:
        if list(self.knots) != sorted(set(self.knots)):
            raise refusal("the knots must rise, each given once", at=("knots",))
        return self


def _numbers(value: object) -> object:
    """Thousands of numbers read as one text: a YAML list of them would cost a second to check."""
    return tuple(int(word) for word in value.split()) if isinstance(value, str) and _whole_numbers(value) else value


def _whole_numbers(text: str) -> bool:
    return all(word.isdecimal() for word in text.split())


class Correction(Spec):
    """Factors on the grid of ``axes``, in thousandths, row by row with the last axis fastest.

    ``thousandths`` is written as one text of whole numbers; 1000 leaves the law as it is.
    """

    axes: tuple[Axis, ...] = Field(min_length=1, strict=False)
    thousandths: Annotated[tuple[Annotated[int, Field(gt=0)], ...], BeforeValidator(_numbers)]

    @property
    def names(self) -> tuple[str, ...]:
        """The variables, in the order in which :attr:`grid` takes them."""
        return tuple(axis.name for axis in self.axes)

    @cached_property
    def grid(self) -> Grid:
        """The factors, ready to be looked up."""
        knots = tuple(tuple(math.log(knot) for knot in axis.knots) for axis in self.axes)
        return Grid(knots, tuple(math.log(value / 1000) for value in self.thousandths))

    @model_validator(mode="after")
    def _check_count(self) -> Correction:
        wanted = math.prod(len(axis.knots) for axis in self.axes)
        if len(self.thousandths) != wanted:
            raise refusal(
                f"the axes have {wanted} points together, found {len(self.thousandths)} factors", at=("thousandths",)
            )
        return self


class Grid:
    """Logarithms of factors at the points of a grid in logarithms; linear in between, constant beyond its edges."""

    __slots__ = ("_knots", "_logs")

    def __init__(self, knots: tuple[tuple[float, ...], ...], logs: tuple[float, ...]) -> None:
        self._knots = knots
        self._logs = logs

    def factor(self, *values: float) -> float:
        """The factor at a point, a positive value for each axis."""
        logs: Many[float] = self._logs
        for knots, value in zip(self._knots, values, strict=True):
            logs = _between(knots, math.log(value), logs)
        return math.exp(logs[0])

    def factor_on_line(self, value: float) -> float:
        """:meth:`factor` of a grid with one axis, without its lists: it is asked for every number of tokens."""
        knots, logs = self._knots[0], self._logs
        place = math.log(value)
        if place <= knots[0]:
            return math.exp(logs[0])
        if place >= knots[-1]:
            return math.exp(logs[-1])
        index = bisect_right(knots, place)
        low, start = logs[index - 1], knots[index - 1]
        return math.exp(low + (logs[index] - low) * (place - start) / (knots[index] - start))

    def factor_on_plane(self, first: float, second: float) -> float:
        """:meth:`factor` of a grid with two axes, without its lists: it is asked in every step with prefill."""
        rows, columns = self._knots
        logs, width = self._logs, len(columns)
        row, share = _edge(rows, _log(first))
        column, share_2 = _edge(columns, _log(second))
        at = row * width + column
        start = logs[at]
        below = start + share_2 * (logs[at + 1] - start)
        at += width
        start = logs[at]
        return _exp(below + share * (start + share_2 * (logs[at + 1] - start) - below))

    def at_last(self, *values: float) -> Grid:
        """The grid of the first axes where the last ones are held at ``values``."""
        kept = len(self._knots) - len(values)
        logs: list[float] = []
        block = math.prod(len(knots) for knots in self._knots[kept:])
        for start in range(0, len(self._logs), block):
            part: Many[float] = self._logs[start : start + block]
            for knots, value in zip(self._knots[kept:], values, strict=True):
                part = _between(knots, math.log(value), part)
            logs.append(part[0])
        return Grid(self._knots[:kept], tuple(logs))

    def limits(self, axis: int) -> tuple[float, float]:
        """The least and the largest knot of an axis."""
        return math.exp(self._knots[axis][0]), math.exp(self._knots[axis][-1])

    def knots(self, axis: int) -> list[float]:
        """The knots of an axis."""
        return [math.exp(knot) for knot in self._knots[axis]]


def _edge(knots: tuple[float, ...], place: float) -> tuple[int, float]:
    """The knot below a place, and how far the place is on the way to the next."""
    if place <= knots[0]:
        return 0, 0.0
    if place >= knots[-1]:
        return len(knots) - 2, 1.0
    index = bisect_right(knots, place) - 1
    start = knots[index]
    return index, (place - start) / (knots[index + 1] - start)


def _between(knots: tuple[float, ...], place: float, logs: Many[float]) -> list[float]:
    """The values at ``place`` on the first axis, for all points of the others."""
    stride = len(logs) // len(knots)
    if place <= knots[0]:
        return list(logs[:stride])
    if place >= knots[-1]:
        return list(logs[-stride:])
    index = bisect_right(knots, place) - 1
    share = (place - knots[index]) / (knots[index + 1] - knots[index])
    low = logs[index * stride : (index + 1) * stride]
    high = logs[(index + 1) * stride : (index + 2) * stride]
    return [a + share * (b - a) for a, b in zip(low, high, strict=True)]
