"""What other rooms refuse without knowing the scenario, said with its place in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from servsim.errors import CapacityError, ScenarioError, ServsimError
from servsim.scenario import Scenario

__all__ = ["placed"]


@contextmanager
def placed(scenario: Scenario, *path: str) -> Iterator[None]:
    """What is refused without a place is refused at this one."""
    try:
        yield
    except (ScenarioError, CapacityError) as error:
        # SimPy raises a copy of what a process raised, made of its text alone.
        told = error.__cause__ if isinstance(error.__cause__, ServsimError) else error
        raise type(error)(told.message, place=told.place or scenario.place(path), remedy=told.remedy) from None
