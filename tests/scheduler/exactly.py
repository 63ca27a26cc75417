"""What every policy must hold on drawn cases: strides change nothing, nothing is lost, plans leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from case import Case
from checks import (
    cutting_is_harmless,
    nothing_is_lost,
    planning_leaves_no_trace,
    strided_equals_single,
    with_arrivals_on_boundaries,
)
from drawn import cases, picks
from hypothesis import given
from profiles import examples

from servsim import registry
from servsim.scheduler.policy import Surroundings


@contextmanager
def registered(policy: Any, **parameters: Any) -> Iterator[str]:
    """The policy with these parameters under a name of its own."""
    schedulers = registry._registered["schedulers"]

    def made(surroundings: Surroundings) -> Any:
        return policy(replace(surroundings, parameters=policy.Parameters(**parameters)))

    schedulers["in test"] = made
    yield "in test"
    del schedulers["in test"]


def holds_however_cut(policy: str, count: int = 10) -> None:
    """Over drawn cases, and a cut at every arrival."""

    @examples(count)
    @given(cases())
    def hold(case: Case) -> None:
        case = replace(case, policy=policy)
        strided_equals_single(case)
        cutting_is_harmless(case)
        planning_leaves_no_trace(case)
        nothing_is_lost(case)

    hold()


def holds(policy: str, count: int = 10) -> None:
    """Over drawn cases, with noisy predictions in most, and arrivals on step boundaries."""

    @examples(count)
    @given(cases(policy="sjf"), picks)
    def hold(case: Case, chosen: list[Any]) -> None:
        case = replace(case, policy=policy)
        strided_equals_single(with_arrivals_on_boundaries(case, chosen[:1]))
        nothing_is_lost(case)
        planning_leaves_no_trace(case)

    hold()
