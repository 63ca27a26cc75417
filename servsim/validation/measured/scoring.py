"""Errors summed up: median, p90 and bias by dataset, role and metric, beside every peer's on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from servsim.validation.measured.comparing import Comparison
from servsim.validation.measured.run import Dataset, Target

__all__ = ["METRICS", "Line", "Reached", "lines_of", "reached"]

METRICS = (
    *(f"{name}_{key}" for name in ("ttft", "tpot", "e2e") for key in ("mean", "p50", "p90", "p99")),
    "tpot_generated",
    "each_e2e",
    "output_tokens_per_s",
    "kv_blocks",
)
"""In the order in which tables show them."""


_SHARES = {"median": 0.5, "p90": 0.9, "worst": 1.0}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table: whose errors over which rows. Errors are shares."""

    rows_are: str  # "fit", "test", "with X's prediction", ...
    metric: str
    who: str
    rows: int
    median: float
    p90: float
    bias: float  # the median of the signed errors


@dataclass(frozen=True, slots=True)
class Reached:
    """A target and what came out."""

    target: Target
    metric: str
    rows: int
    value: float

    @property
    def met(self) -> bool:
        """Whether the statistic is within the bound."""
        return self.value <= self.target.at_most


def lines_of(comparisons: Sequence[Comparison]) -> list[Line]:
    """Ours by role; then, for each peer, both of us on the rows that carry its prediction; then ours on the rest."""
    lines: list[Line] = []
    peers = sorted({peer for one in comparisons for peer in one.run.peers})
    for metric in METRICS:
        for role in ("fit", "test"):
            lines += _line(role, metric, "servsim", [one.error(metric) for one in comparisons if one.run.role == role])
        for peer in peers:
            theirs = [one for one in comparisons if one.peer_error(peer, metric) is not None]
            if len(peers) == 1 and theirs and len(theirs) < len(comparisons):
                rest = [one for one in comparisons if one not in theirs]
                lines += _line(f"without {peer}", metric, "servsim", [one.error(metric) for one in rest])
            lines += _line(f"with {peer}", metric, "servsim", [one.error(metric) for one in theirs])
            lines += _line(f"with {peer}", metric, peer, [one.peer_error(peer, metric) for one in theirs])
    return lines


def reached(dataset: Dataset, comparisons: Sequence[Comparison]) -> list[Reached]:
    """What came of the dataset's targets, metric by metric; nothing where no row counts."""
    found = []
    for target in dataset.targets:
        rows = [one for one in comparisons if target.where in one.run.group]
        if target.peer is not None:
            rows = [one for one in rows if target.peer in one.run.peers]
        for metric in target.metrics:
            errors = np.array([abs(error) for one in rows if (error := one.error(metric)) is not None])
            if len(errors):
                value = float(np.quantile(errors, _SHARES[target.statistic]))
                found.append(Reached(target, metric, len(errors), value))
    return found


def _line(rows_are: str, metric: str, who: str, errors: Sequence[float | None]) -> list[Line]:
    known = np.array([error for error in errors if error is not None])
    if not len(known):
        return []
    size = np.abs(known)
    return [
        Line(
            rows_are, metric, who, len(known), float(np.median(size)), float(np.quantile(size, 0.9)),
            float(np.median(known)),
        )
    ]  # fmt: skip
