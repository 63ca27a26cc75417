"""The highest request rate that keeps an SLO, by bracketing and bisection."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Bracket", "Probe", "Search", "search_capacity"]

_MOST_DOUBLINGS = 12  # 4,096 times the rate, up or down


@dataclass(frozen=True, slots=True)
class Probe:
    """One rate that was tried, and the attainment (a share) found there."""

    rate_per_s: float
    attainment: float


@dataclass(frozen=True, slots=True)
class Bracket:
    """The highest rate known to keep the target and the lowest known not to; None where none was found."""

    keeps_per_s: float | None
    fails_per_s: float | None


@dataclass(slots=True)
class Search:
    """A search under way or done: its probes in the order they were made.

    It assumes that attainment falls as the rate rises, which equal seeds make nearly true;
    :attr:`monotone` says whether the probes bear it out.
    """

    target: float
    probes: list[Probe] = field(default_factory=list)

    @property
    def bracket(self) -> Bracket:
        """Where the probes leave the answer: below the lowest rate that failed."""
        failing = [probe.rate_per_s for probe in self.probes if probe.attainment < self.target]
        fails = min(failing, default=None)
        keeping = [
            probe.rate_per_s
            for probe in self.probes
            if probe.attainment >= self.target and (fails is None or probe.rate_per_s < fails)
        ]
        return Bracket(max(keeping, default=None), fails)

    @property
    def monotone(self) -> bool:
        """Whether no rate was found to attain more than a lower one."""
        attained = [probe.attainment for probe in sorted(self.probes, key=lambda probe: probe.rate_per_s)]
        return all(after <= before for before, after in itertools.pairwise(attained))


def search_capacity(
    search: Search,
    measure: Callable[[float], float],
    start_per_s: float,
    *,
    low_per_s: float | None = None,
    high_per_s: float | None = None,
    tolerance: float = 0.02,
) -> None:
    """Add probes until the bracket's ends differ by no more than ``tolerance`` of the upper one.

    ``measure`` gives the attainment at a rate. Starting at ``start_per_s`` (or at the given ends) the rate is
    doubled while the target is kept and halved while it is not. A given end is never passed: if the target
    is kept at ``high_per_s`` or missed at ``low_per_s`` the search ends there, with one side of the bracket open.
    What ``measure`` raises ends it too, and the probes so far stand.
    """

    def probe(rate_per_s: float) -> None:
        search.probes.append(Probe(rate_per_s, measure(rate_per_s)))

    for end in (low_per_s, high_per_s):
        if end is not None:
            probe(end)
    if not search.probes:
        probe(start_per_s)
    for _ in range(_MOST_DOUBLINGS):
        bracket = search.bracket
        if bracket.keeps_per_s is None and bracket.fails_per_s is not None and low_per_s is None:
            probe(bracket.fails_per_s / 2)
        elif bracket.fails_per_s is None and bracket.keeps_per_s is not None and high_per_s is None:
            probe(bracket.keeps_per_s * 2)
        else:
            break
    while True:
        bracket = search.bracket
        low, high = bracket.keeps_per_s, bracket.fails_per_s
        if low is None or high is None or high - low <= tolerance * high:
            return
        middle = (low + high) / 2
        if middle in (low, high):  # the ends are neighbouring floats
            return
        probe(middle)
