"""Along which axis a grid is drawn, and what that axis means."""

from __future__ import annotations

from collections.abc import Sequence

from servsim.errors import ScenarioError
from servsim.sweep.grid import Axis, number

__all__ = ["SCALES_RATE", "SETS_RATE", "check_target", "numeric_axis"]

SETS_RATE = "workload.arrivals.rate_per_s"
SCALES_RATE = ("workload.time_scale", "workload.arrivals.rate_scale")
"""Paths that move the request rate without being one: drawn over the rate at which requests came."""


def numeric_axis(axes: Sequence[Axis]) -> Axis:
    """The first axis with several values that are all numbers; raises ScenarioError where there is none.

    An axis of numbers but for a word is taken for a mistyped one.
    """
    for axis in axes:
        if axis.numbers is not None and len(axis.values) > 1:
            return axis
    for axis in axes:
        if 0 < len(words := [value for value in axis.values if number(value) is None]) < len(axis.values):
            raise ScenarioError(
                f"'{words[0]}' is no number", place=f"--vary {axis.path}", remedy="sweep over numbers alone"
            )
    raise ScenarioError(
        "no axis has several numbers to sweep over",
        place="--vary",
        remedy=f"add for example --vary {SETS_RATE}=5,10,20; servsim compare takes values of any kind",
    )


def check_target(target: float) -> None:
    """Raises ScenarioError unless a share of requests lies above 0 and at most at 1."""
    if not 0 < target <= 1:
        remedy = "give a share of the requests, such as 0.9"
        raise ScenarioError(f"{target:g} is no share", place="--target", remedy=remedy)
