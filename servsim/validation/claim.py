"""What a claim is, what was found about it, and when it counts as coming out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from servsim.simulation import Result
from servsim.sweep import Variant

__all__ = [
    "Claim",
    "Finding",
    "Measured",
    "Verdict",
    "bounded",
    "change",
    "factor",
    "near",
    "policy_variant",
    "ratio",
    "together",
    "variant",
]

Measured = Mapping[str, Mapping[str, float]]
"""For each variant's label what was measured, by name: means over seeds; NaN where a figure is undefined."""

_CLOSE = 0.1  # a factor from a tenth below the published one has come out
_NEAR = 0.25  # a size or a time from a quarter below the published one
_MORE = 0.5  # or above it by up to a half
_SOME = 1.1  # from here on a factor points where the published one does
_SAME_SIZE = 2.0  # up to here a size or a time is of the published one's order
_CLOSE_SHARE = 0.1  # a change within ten percentage points of the published one has come out


class Verdict(StrEnum):
    """Whether a claim comes out in simulation."""

    COMES_OUT = "comes out"
    IN_PART = "in part"
    DOES_NOT = "does not come out"


@dataclass(frozen=True, slots=True)
class Finding:
    """A figure of a paper beside ours; the ranges that decide are fixed before anything is run."""

    what: str
    published: str
    ours: float  # NaN: undefined, and so not coming out
    shown: str  # ours, as people read it
    comes_out: tuple[float, float]  # bounds included
    in_part: tuple[float, float]

    @property
    def verdict(self) -> Verdict:
        """By the range that our figure lies in."""
        for verdict, (low, high) in ((Verdict.COMES_OUT, self.comes_out), (Verdict.IN_PART, self.in_part)):
            if low <= self.ours <= high:
                return verdict
        return Verdict.DOES_NOT


@dataclass(frozen=True, slots=True)
class Claim:
    """A published claim, and how it is tried.

    ``measure`` turns one run into named figures, in the process that ran it; ``find`` turns the means over
    seeds of all variants into findings.
    """

    name: str
    statement: str
    source: str
    scenario: str  # a name in the catalogue
    variants: tuple[Variant, ...]
    measure: Callable[[Result], Mapping[str, float]]
    find: Callable[[Measured], Sequence[Finding]]
    assumptions: tuple[str, ...]  # where the paper's setting is not known to us, or differs
    likely_reason: str | None = None  # why it does not come out, or not in full
    repeats: int = 1  # seeds that one run's worth takes, where a run is small


def together(findings: Sequence[Finding]) -> Verdict:
    """The verdict on a claim: that of all its findings where they agree, else ``in part``."""
    verdicts = {finding.verdict for finding in findings}
    return verdicts.pop() if len(verdicts) == 1 else Verdict.IN_PART if verdicts else Verdict.DOES_NOT


def factor(what: str, published: str, ours: float, low: float, high: float | None = None) -> Finding:
    """A figure that is so many times better; published is ``low``, or from ``low`` to ``high``.

    It comes out from a tenth below ``low`` to a half above ``high``; in part from 1.1 up.
    """
    comes_out = (low * (1 - _CLOSE), (low if high is None else high) * (1 + _MORE))
    shown = "∞" if ours == math.inf else "undefined" if math.isnan(ours) else f"{ours:.2f} x"
    return Finding(what, published, ours, shown, comes_out, (_SOME, math.inf))


def change(what: str, published: str, ours: float, low: float, high: float | None = None) -> Finding:
    """A relative change, as a share (-0.7 is 70 % less); published is ``low``, or from ``low`` to ``high``.

    It comes out within ten percentage points; in part if it has the same sign and is at least ten points.
    """
    first, last = low, low if high is None else high
    first, last = min(first, last), max(first, last)
    in_part = (-math.inf, -_CLOSE_SHARE) if low < 0 else (_CLOSE_SHARE, math.inf)
    shown = "undefined" if math.isnan(ours) else f"{100 * ours:+.1f} %".replace("-", "−")
    return Finding(what, published, ours, shown, (first - _CLOSE_SHARE, last + _CLOSE_SHARE), in_part)


def near(what: str, published: str, ours: float, expected: float, shown: str) -> Finding:
    """A figure with a unit of its own; ``ours`` and ``expected`` in the same one, above 0.

    It comes out from a quarter below to a half above; in part within a factor of two.
    """
    comes_out = (expected * (1 - _NEAR), expected * (1 + _MORE))
    return Finding(what, published, ours, shown, comes_out, (expected / _SAME_SIZE, expected * _SAME_SIZE))


def bounded(
    what: str, published: str, ours: float, shown: str, *, at_least: float = -math.inf, at_most: float = math.inf
) -> Finding:
    """A figure that keeps a bound, or does not; there is nothing in between."""
    return Finding(what, published, ours, shown, (at_least, at_most), (math.nan, math.nan))


def ratio(above: float, below: float) -> float:
    """How many times ``below`` goes into ``above``; infinite over 0, NaN where both are 0 or one is unknown."""
    if below:
        return above / below
    return math.inf if above > 0 else math.nan


def variant(label: str, paths: Mapping[str, str]) -> Variant:
    """What is called so and sets these paths; its folder has the same name, without blanks."""
    return Variant(label, label.replace(" ", "-"), dict(paths))


def policy_variant(label: str, scheduler: Mapping[str, object], **values: object) -> Variant:
    """A variant with the whole scheduler replaced; other keys have ``__`` for the dots of their path."""
    paths = {"instance.scheduler": "{" + ", ".join(f"{key}: {value}" for key, value in scheduler.items()) + "}"}
    paths.update({path.replace("__", "."): str(value) for path, value in values.items()})
    return variant(label, paths)
