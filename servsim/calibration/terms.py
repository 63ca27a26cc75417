"""What some kernels take beyond a roofline law: whole waves of tiles, copies of queries, several key-value heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from servsim.calibration.works import Array, Work

__all__ = ["Terms", "searched"]

_WORTH = 0.01  # a step is taken where the mean error falls by that share
_STEP = 0.2
_STEPS_S = (1e-6, 0.5e-6)
_MOST = {"wave_share": 1.0, "regrouping_s": 10e-6, "several_heads_s": 10e-6}


@dataclass(frozen=True, slots=True)
class Terms:
    """The further terms of a law, as :class:`~servsim.hardware.Efficiency` has them; 0 where there is none."""

    wave_share: float = 0.0
    regrouping_s: float = 0.0
    several_heads_s: float = 0.0

    def worked(self, work: Work) -> Work:
        """The work with the FLOPs of its waves."""
        if not self.wave_share or work.waves is None:
            return work
        return replace(work, worked=work.worked * work.waves**self.wave_share)

    def extra_s(self, work: Work) -> Array:
        """Seconds of each row on top of law and correction."""
        extra_s: Array = np.zeros(len(work.seconds))
        if work.regrouped is not None:
            extra_s = extra_s + self.regrouping_s * work.regrouped
        if work.several_heads is not None:
            extra_s = extra_s + self.several_heads_s * work.several_heads
        return extra_s


def searched(missed: Callable[[Terms], float], work: Work) -> Terms:
    """The terms with which a fit misses the rows that it sees least, as far as each step towards them is worth it."""
    steps: list[list[tuple[str, float]]] = []
    if work.waves is not None:
        steps.append([("wave_share", _STEP)])
    constants = {"regrouping_s": work.regrouped, "several_heads_s": work.several_heads}
    names = [name for name, where in constants.items() if where is not None and where.any()]
    if names:
        steps += [[(name, by) for name in names for by in (step_s, -step_s)] for step_s in _STEPS_S]
    terms = Terms()
    best = missed(terms) if steps else 0.0
    for ways in steps:
        before = None
        while terms != before:  # a step of one constant may make another's worth it
            before = terms
            for name, by in ways:
                terms, best = _walked(missed, terms, best, name, by)
    return terms


def _walked(missed: Callable[[Terms], float], terms: Terms, best: float, name: str, by: float) -> tuple[Terms, float]:
    """Steps one way while they are worth it."""
    while True:
        value = round(getattr(terms, name) + by, 7)
        if not 0 <= value <= _MOST[name]:
            return terms, best
        tried = replace(terms, **{name: value})
        found = missed(tried)
        if found >= best * (1 - _WORTH):
            return terms, best
        terms, best = tried, found
