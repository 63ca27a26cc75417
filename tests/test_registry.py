"""Plug-ins by name: built in, registered by a script, or of another package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servsim import registry
from servsim.errors import ScenarioError
from servsim.scenario import load_scenario
from servsim.scheduler.engines.fcfs import Fcfs

PLUG_IN = """
from servsim import VllmV1Batching


class LastComeFirstServed(VllmV1Batching):
    def order_key(self, sequence):
        return -sequence.arrival_s
"""


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_registered", {kind: {} for kind in registry.KINDS})
    monkeypatch.setattr(registry, "_entry_points", {})


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package on the path that offers the scheduler ``lcfs`` and its own ``sjf``."""
    (tmp_path / "someones_policies.py").write_text(PLUG_IN)
    information = tmp_path / "someones_policies-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-policies\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[servsim.schedulers]\n"
        "lcfs = someones_policies:LastComeFirstServed\n"
        "sjf = someones_policies:LastComeFirstServed\n"
        "broken = someones_policies:NotThere\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("someones_policies", None)


def test_every_built_in_plug_in_can_be_loaded() -> None:
    for kind in registry.KINDS:
        for name in registry.names(kind):
            assert callable(registry.resolve(kind, name)), (kind, name)


def test_the_kinds_are_those_that_entry_points_serve() -> None:
    parts = {"orders", "admissions", "batchings"}
    assert set(registry.KINDS) - parts == {"schedulers", "allocators", "predictors", "trace_readers", "routers"}


def test_an_unknown_name_is_refused_with_the_closest_or_all_known() -> None:
    with pytest.raises(ScenarioError, match="unknown scheduler 'fcsf'") as raised:
        registry.resolve("schedulers", "fcsf")
    assert "did you mean 'fcfs'?" in str(raised.value)
    with pytest.raises(ScenarioError, match="unknown trace reader 'zzzz'") as raised:
        registry.resolve("trace_readers", "zzzz")
    assert "azure" in str(raised.value) and "mooncake" in str(raised.value)


def test_an_unknown_kind_is_a_programmer_s_mistake() -> None:
    with pytest.raises(ValueError, match="'planners' is no kind of plug-in"):
        registry.names("planners")


def test_a_script_registers_an_object_or_where_it_is() -> None:
    registry.register("schedulers", "mine", Fcfs)
    registry.register("schedulers", "also_mine", "servsim.scheduler.engines.fcfs:Fcfs")
    assert registry.resolve("schedulers", "mine") is registry.resolve("schedulers", "also_mine") is Fcfs
    assert {"mine", "also_mine"} < set(registry.names("schedulers"))


def test_a_later_registration_wins_also_over_a_built_in_name() -> None:
    registry.register("schedulers", "sjf", Fcfs)
    assert registry.resolve("schedulers", "sjf") is Fcfs


@pytest.mark.usefixtures("installed")
def test_a_package_adds_a_policy_and_replaces_one_through_entry_points() -> None:
    for name in ("lcfs", "sjf"):
        assert registry.resolve("schedulers", name).__name__ == "LastComeFirstServed"
    assert "lcfs" in registry.names("schedulers")
    registry.register("schedulers", "sjf", Fcfs)
    assert registry.resolve("schedulers", "sjf") is Fcfs  # a script has the last word


@pytest.mark.usefixtures("installed")
def test_a_plug_in_that_cannot_be_imported_is_the_user_s_error_at_its_place() -> None:
    scenario = {
        "model": "llama-3.1-8b",
        "instance": {"hardware": "h100-sxm", "scheduler": {"policy": "broken"}},
        "workload": {
            "arrivals": {"process": "constant", "rate_per_s": 1},
            "lengths": {"prompt_tokens": 1, "output_tokens": 1},
            "num_requests": 1,
        },
    }
    with pytest.raises(ScenarioError, match="the plug-in 'broken' cannot be imported") as raised:
        load_scenario(scenario)
    assert "instance.scheduler.policy" in str(raised.value)
