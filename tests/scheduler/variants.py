"""Policies with parameters, under names of their own, so that drawn cases can be run with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from servsim import registry
from servsim.scheduler.policy import Surroundings


@contextmanager
def variant(kinds: dict[str, tuple[Any, Any, int]], **surrounding: Any) -> Iterator[dict[str, str]]:
    """``kinds``: a name to policy, parameters and longest request; registered for as long as this lasts."""
    schedulers = registry._registered["schedulers"]

    def made(policy: Any, parameters: Any, longest: int) -> Any:
        return lambda given: policy(_with(given, parameters, longest, surrounding))

    for name, (policy, parameters, longest) in kinds.items():
        schedulers[f"test {name}"] = made(policy, parameters, longest)
    yield {name: f"test {name}" for name in kinds}
    for name in kinds:
        del schedulers[f"test {name}"]


def _with(given: Surroundings, parameters: Any, longest: int, surrounding: dict[str, Any]) -> Surroundings:
    return replace(given, parameters=parameters, max_model_len=longest, **surrounding)
