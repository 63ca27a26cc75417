"""Whole simulations with an allocator whose books are checked after every change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checks import same_bits

from servsim.memory.allocator import Allocator
from servsim.records import Records
from servsim.scenario import load_scenario
from servsim.simulation import Simulation

_CHANGES = ("commit", "join", "leave", "advance", "release")


def checked(memory: Allocator) -> None:
    """Let it check its integrity whenever it has changed."""
    for name in _CHANGES:
        change = getattr(memory, name)

        def then_check(*arguments: Any, change: Any = change) -> None:
            change(*arguments)
            memory.check_integrity()

        setattr(memory, name, then_check)


def run(scenario: Mapping[str, Any], *overrides: str) -> Records:
    """The records of a scenario, with checks after every change of its memories."""
    simulation = Simulation(load_scenario(dict(scenario), overrides))
    for instance in simulation.instances:
        checked(instance.memory)
    return simulation.run()


def strided_equals_single(scenario: Mapping[str, Any], *overrides: str) -> Records:
    """Whether steps are taken in strides or one by one changes no bit; the records."""
    strided = run(scenario, *overrides, "instance.stepping=strided")
    single = run(scenario, *overrides, "instance.stepping=single")
    same_bits(strided, single)
    assert strided.memory == single.memory
    return strided
