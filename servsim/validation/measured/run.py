"""A run that somebody measured, as a scenario, with what came out of it there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from servsim.simulation import Result

__all__ = ["Dataset", "MeasuredRun", "Role", "Statistic", "Target"]

Role = Literal["fit", "test"]
Statistic = Literal["median", "p90", "worst"]
Measure = Callable[[Result], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run (or stage of one) of a real engine.

    ``scenario`` rebuilds it; ``measured`` holds what was observed, by metric (seconds, tokens/s, blocks);
    ``peers`` what other simulators said about it, by their name and then by metric. ``group`` names the
    rows that are summed up together, apart from ``role``.
    """

    name: str
    dataset: str
    group: str
    role: Role
    scenario: Mapping[str, Any]
    measured: Mapping[str, float]
    peers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    requests: Path | None = None  # the measured requests, one by one
    samples: Path | None = None  # what the engine logged, second by second


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked: a statistic of the absolute relative errors of some metrics over some runs."""

    metrics: tuple[str, ...]
    statistic: Statistic
    at_most: float  # a share: 0.05 is 5 %
    peer: str | None = None  # only runs that carry this peer's prediction
    where: str = ""  # only runs with this in their group


@dataclass(frozen=True, slots=True)
class Dataset:
    """Measured runs of one origin: how to read them, what to compare, what is asked of the comparison."""

    name: str
    source: str
    folder: str  # under the data's ``serving``
    read: Callable[[Path], list[MeasuredRun]]
    measure: Measure
    engines: tuple[str, ...]  # the presets whose constants its runs named ``fit`` determine; none: all are the test
    fitted_on: str
    targets: tuple[Target, ...]
    notes: tuple[str, ...] = ()
