"""The law and the correction that fit measured kernels best, judged on rows that the fit did not see."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servsim.calibration.terms import Terms, searched
from servsim.calibration.works import TILE_ROWS, Array, Work
from servsim.hardware import AllReduce, Efficiency

__all__ = ["Fit", "fitted", "predicted_s"]

_RIDGE = 0.05  # pulls a point of the grid that few rows touch towards the law
_ROUNDS = 20
_SEARCH_ROUNDS = 4  # while terms are searched


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted law. Errors are relative, on held-back rows; ``law_*`` are those of the law without its correction."""

    work: Work
    compute: float | None
    memory: float
    overhead_s: float
    exponent: float | None
    thousandths: tuple[int, ...]
    terms: Terms
    law_median_error: float
    law_p90_error: float
    median_error: float
    p90_error: float

    @property
    def rows(self) -> int:
        """Rows that the fit saw."""
        return int((~self.work.held_back).sum())

    @property
    def held_back(self) -> int:
        """Rows that it was judged on."""
        return int(self.work.held_back.sum())

    def block(self, source: str) -> dict[str, Any]:
        """The fit as a device's YAML says it."""
        work = self.work
        fields: dict[str, Any] = (
            {"group": work.group}
            if work.group
            else {"operator": work.operator, "dtype": work.dtype, "law": work.law, "exponent": self.exponent}
        )
        efficiency: dict[str, Any] = {"compute": self.compute, "memory": self.memory}
        if work.group:
            efficiency = {"efficiency": self.memory}
        axes = [{"name": name, "knots": list(knots)} for name, knots in zip(work.axes, work.knots, strict=True)]
        fields |= efficiency | {
            "overhead_s": self.overhead_s,
            "tile_rows": TILE_ROWS if work.operator == "experts" else None,
            "wave_share": self.terms.wave_share or None,
            "regrouping_s": self.terms.regrouping_s or None,
            "several_heads_s": self.terms.several_heads_s or None,
            "median_error": round(self.median_error, 4),
            "p90_error": round(self.p90_error, 4),
            "rows": self.rows,
            "held_back": self.held_back,
            "covers": {name: [float(values.min()), float(values.max())] for name, values in work.covers.items()},
            "one_stage_below_bytes": work.one_stage_below or None,
            "switches_bytes": work.switches or None,
            "source": None if work.group else f"fit to {work.what}; {source}; measured with {work.measured_with}",
            "correction": {"axes": axes, "thousandths": self.thousandths},
        }
        return {
            key: value for key, value in fields.items() if value is not None or (key == "compute" and not work.group)
        }


def fitted(work: Work) -> Fit:
    """Fit the law's numbers, then the factors of its correction, to the rows that are not held back.

    Both minimise the mean absolute error of the logarithm, which is that of the relative error where it is small. The
    further terms of a law (:class:`Terms`) are searched first, on the same rows.
    """
    terms = searched(lambda terms: _attempt(work, terms, _SEARCH_ROUNDS).missed, work)
    found = _attempt(work, terms, _ROUNDS)
    plain, final = _errors(found.law_s, work), _errors(found.corrected_s, work)
    return Fit(work, *_named(work, found.parameters), found.thousandths, terms, *plain, *final)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A law and its correction with certain terms, what they predict, and the mean absolute error on rows seen."""

    parameters: Array
    thousandths: tuple[int, ...]
    law_s: Array
    corrected_s: Array
    missed: float


def _attempt(work: Work, terms: Terms, rounds: int) -> _Attempt:
    seen, seconds = ~work.held_back, work.seconds
    work, extra_s = terms.worked(work), terms.extra_s(work)
    # What is left for the law; no constant takes more than half of a time.
    left_s = np.maximum(seconds - extra_s, 0.5 * seconds)
    start, bounds = _start(work)

    def missed(parameters: Array) -> float:
        predicted = _law_s(work, parameters, seen)
        return float(np.mean(np.abs(np.log(predicted / left_s[seen]))))

    parameters = _rounded(_least(missed, start, bounds))
    law_s = _law_s(work, parameters, slice(None))
    weights = _Weights(work)
    logs = weights.fit(np.log(left_s / law_s), seen, rounds)
    thousandths = tuple(max(1, round(1000 * math.exp(value))) for value in logs)
    factors = np.exp(weights.apply(np.log(np.array(thousandths) / 1000)))
    corrected_s = np.maximum(law_s * factors, _floor_s(work)) + extra_s
    error = float(np.mean(np.abs(np.log(corrected_s[seen] / seconds[seen]))))
    return _Attempt(parameters, thousandths, law_s + extra_s, corrected_s, error)


def predicted_s(work: Work, entry: Efficiency | AllReduce, rows: NDArray[np.bool_]) -> Array:
    """Seconds that a device's entry predicts for some rows of a work, looked up as the cost model does."""
    extra_s: Array | float = 0.0
    if isinstance(entry, AllReduce):
        law = np.array([entry.efficiency, entry.overhead_s, 1.0, 1.0])
    else:
        law = np.array([entry.memory, entry.overhead_s, entry.compute or 1.0, entry.exponent or 1.0])
        terms = Terms(entry.wave_share or 0.0, entry.regrouping_s or 0.0, entry.several_heads_s or 0.0)
        work, extra_s = terms.worked(work), terms.extra_s(work)[rows]
    found = _law_s(work, law, rows)
    if entry.correction is not None:
        places = zip(*(values[rows] for values in work.axes.values()), strict=True)
        found = found * np.array([entry.correction.grid.factor(*place) for place in places])
    predicted: Array = np.maximum(found, _floor_s(work)[rows]) + extra_s
    return predicted


def _start(work: Work) -> tuple[Array, list[tuple[float, float]]]:
    """Memory, overhead, compute and exponent to begin with, and their bounds."""
    start = np.array([0.8, 8e-6, 0.6, 3.0])
    compute = (1e-3, 1.0)
    if work.operator in ("attention_decode", "all_reduce"):
        start[2], compute = 1.0, (1.0, 1.0)
    exponent = (1.0, 10.0) if work.law == "p_norm" else (3.0, 3.0)
    return start, [(1e-3, 1.0), (1e-7, 1e-3), compute, exponent]


def _law_s(work: Work, parameters: Array, rows: Any) -> Array:
    memory, overhead_s, compute, exponent = parameters
    moving = work.size_bytes[rows] / (memory * work.bandwidth[rows])
    computing = work.worked[rows] / (compute * work.peak_flops)
    if work.law == "sum":
        together = moving + computing
    elif work.law == "maximum":
        together = np.maximum(moving, computing)
    else:
        together = (moving**exponent + computing**exponent) ** (1 / exponent)
    prepared = work.prepared_bytes[rows] / (memory * work.bandwidth[rows])
    found: Array = together + prepared + overhead_s
    return found


def _floor_s(work: Work) -> Array:
    floor: Array = np.maximum(work.flops / work.peak_flops, work.size_bytes / work.bandwidth)
    return floor


def _errors(predicted_s: Array, work: Work) -> tuple[float, float]:
    held = work.held_back
    relative = np.abs(predicted_s[held] / work.seconds[held] - 1)
    return float(np.median(relative)), float(np.percentile(relative, 90))


def _named(work: Work, parameters: Array) -> tuple[float | None, float, float, float | None]:
    memory, overhead_s, compute, exponent = (float(value) for value in parameters)
    bound_by_memory = work.operator in ("attention_decode", "all_reduce")
    return None if bound_by_memory else compute, memory, overhead_s, exponent if work.law == "p_norm" else None


def _rounded(parameters: Array) -> Array:
    """As many digits as a YAML file shows: memory and compute to 3, the overhead to 0.1 us, the exponent to 2."""
    memory, overhead_s, compute, exponent = parameters
    return np.array([round(memory, 3), round(overhead_s, 7), round(compute, 3), round(exponent, 2)])


def _least(missed: Callable[[Array], float], start: Array, bounds: Many[tuple[float, float]]) -> Array:
    """A compass search in logarithms: a step along each axis either way, halved when none helps."""
    low, high = (np.log(np.array(side)) for side in zip(*bounds, strict=True))
    place, step = np.clip(np.log(start), low, high), 0.4
    best = missed(np.exp(place))
    while step > 1e-3:
        for axis, sign in product(range(len(place)), (1.0, -1.0)):
            tried = place.copy()
            tried[axis] = np.clip(tried[axis] + sign * step, low[axis], high[axis])
            if tried[axis] != place[axis] and (found := missed(np.exp(tried))) < best:
                place, best = tried, found
                break
        else:
            step /= 2
    return np.asarray(np.exp(place))


class _Weights:
    """How much each point of a correction's grid counts for each row: linear between neighbours in logarithms."""

    def __init__(self, work: Work) -> None:
        sides = [_side(values, knots) for values, knots in zip(work.axes.values(), work.knots, strict=True)]
        self._size = math.prod(len(knots) for knots in work.knots)
        self._corners: list[tuple[NDArray[np.int64], Array]] = []
        for corner in product((0, 1), repeat=len(sides)):
            index = np.zeros(len(work.seconds), dtype=np.int64)
            weight = np.ones(len(work.seconds))
            for upper, (below, share), knots in zip(corner, sides, work.knots, strict=True):
                index = index * len(knots) + below + upper
                weight = weight * (share if upper else 1 - share)
            self._corners.append((index, weight))

    def apply(self, logs: Array) -> Array:
        """The interpolated logarithm of each row."""
        found: Array = sum((weight * logs[index] for index, weight in self._corners), start=np.zeros(1))
        return found

    def fit(self, wanted: Array, seen: NDArray[np.bool_], rounds: int) -> Array:
        """The logarithms at the grid's points that miss ``wanted`` least, by reweighted least squares."""
        corners = [(index[seen], weight[seen]) for index, weight in self._corners]
        wanted = wanted[seen]
        logs: Array = np.zeros(self._size)
        trust = np.ones(len(wanted))
        for _ in range(rounds):
            normal = np.zeros(self._size * self._size)
            right = np.zeros(self._size)
            for index, weight in corners:
                right += np.bincount(index, weight * trust * wanted, self._size)
                for other, weight_2 in corners:
                    both = index * self._size + other
                    normal += np.bincount(both, weight * weight_2 * trust, self._size * self._size)
            square = normal.reshape(self._size, self._size)
            square[np.diag_indices(self._size)] += _RIDGE
            logs = np.asarray(np.linalg.solve(square, right), dtype=np.float64)
            missed = wanted - sum((weight * logs[index] for index, weight in corners), start=np.zeros(1))
            trust = 0.03 / np.maximum(np.abs(missed), 0.01)
        return logs


def _side(values: Array, knots: Many[float]) -> tuple[NDArray[np.int64], Array]:
    """The knot below each value, and how far it is to the next; values beyond the edges are held at them."""
    logs = np.log(np.asarray(knots, dtype=float))
    below = np.clip(np.searchsorted(logs, np.log(values), side="right") - 1, 0, len(logs) - 2)
    share = np.clip((np.log(values) - logs[below]) / (logs[below + 1] - logs[below]), 0.0, 1.0)
    return below, share
