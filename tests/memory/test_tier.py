"""Tiers of a scenario looked up: links and drives read, and what does not go together refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from servsim.errors import CapacityError, ScenarioError
from servsim.hardware import Route
from servsim.memory.tier import resolve_tiers
from servsim.scenario.tier_spec import TierSpec

CPU = TierSpec(kind="cpu", capacity=512 << 30, link="pcie-gen5-x16")
SSD = TierSpec(kind="ssd", capacity=4 << 40, link="pcie-gen4-x4", device="samsung-pm9a3")


def test_tiers_come_from_near_to_far_with_link_and_drive() -> None:
    cpu, ssd = resolve_tiers({"cpu": CPU, "ssd": SSD})
    assert (cpu.name, cpu.kind, cpu.capacity_bytes, cpu.link.name, cpu.drive) == (
        *("cpu", "cpu", 512 << 30, "pcie-gen5-x16"),
        None,
    )
    assert cpu.route == Route.over(cpu.link)
    assert ssd.drive is not None
    assert ssd.route.in_bytes_per_s == ssd.drive.read_bandwidth_bytes_per_s < ssd.link.read_bandwidth_bytes_per_s
    assert ssd.route.latency_s == ssd.drive.latency_s > ssd.link.latency_s


def test_a_4_kib_page_from_the_ssd_costs_an_operation_and_a_megabyte_costs_bytes() -> None:
    (ssd,) = resolve_tiers({"ssd": SSD})
    assert ssd.route.bytes_per_s("in", 4096) == 9e5 * 4096
    assert ssd.route.bytes_per_s("out", 4096) == 2e5 * 4096
    assert ssd.route.bytes_per_s("in", 1 << 20) == 6.5e9


def test_a_path_wins_over_the_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "wire.yaml"
    path.write_text(
        "name: wire\nkind: link\nread_bandwidth_bytes_per_s: 1e9\nwrite_bandwidth_bytes_per_s: 1e9\n"
        "latency_s: 0\nlaunch_s: 0\nsources: {everything: made up}\n"
    )
    (cpu,) = resolve_tiers({"cpu": CPU.model_copy(update={"link": str(path)})})
    assert cpu.route.idle_time_s(1e9, 10, "out") == 1.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            CPU.model_copy(update={"link": "pcie-gen5-x15"}),
            r"t\.link: unknown link 'pcie-gen5-x15'\n  did you mean",
        ),
        (CPU.model_copy(update={"link": "./no.yaml"}), r"tiers\.t\.link: no such file"),
        (
            CPU.model_copy(update={"link": "h100-sxm"}),
            r"^instance\.memory\.tiers\.t\.link: h100-sxm is a GPU, not a link\n  name a link",
        ),
        (
            SSD.model_copy(update={"device": "h100-sxm"}),
            r"tiers\.t\.device: h100-sxm is a GPU, not an SSD\n  name a drive",
        ),
        (SSD.model_copy(update={"device": "pcie-gen4-x4"}), r"tiers\.t\.device: pcie-gen4-x4 is a link, not an SSD"),
        (SSD.model_copy(update={"device": "samsung"}), r"instance\.memory\.tiers\.t\.device: unknown drive"),
    ],
)
def test_what_is_unknown_or_something_else_is_refused(spec: TierSpec, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        resolve_tiers({"t": spec})


def test_a_tier_larger_than_its_drive_is_refused_with_both_sizes() -> None:
    with pytest.raises(CapacityError, match=r"ssd\.capacity: 8\.00 TiB do not fit samsung-pm9a3, which has 6\.99 TiB"):
        resolve_tiers({"ssd": SSD.model_copy(update={"capacity": 8 << 40})})


def test_the_place_is_worded_by_the_scenario() -> None:
    with pytest.raises(ScenarioError, match=r"^chat\.yaml:9: unknown link 'wire'"):
        resolve_tiers({"cpu": CPU.model_copy(update={"link": "wire"})}, lambda path: "chat.yaml:9")
