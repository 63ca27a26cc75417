"""Links: what ships, what is refused with its line, and what a route costs with nothing else on it."""

from pathlib import Path

import pytest
from made_up_files import written

from servsim.errors import ScenarioError
from servsim.hardware import Drive, LinkSpec, Route, Tier, load_device, load_drive, load_hardware, load_link

FOLDER = Path(__file__).parents[2] / "hardware"
WANTED = {
    *("pcie-gen3-x16", "pcie-gen4-x16", "pcie-gen5-x16", "pcie-gen4-x4", "pcie-gen5-x4"),
    *("nvlink-c2c", "cxl-2.0-x8", "rdma-200g", "rdma-400g"),
}
LINK = """\
name: wire
kind: link
read_bandwidth_bytes_per_s: 20e9
write_bandwidth_bytes_per_s: 10e9
peak_bandwidth_bytes_per_s: 25e9
latency_s: 1e-6
launch_s: 5e-6
sources: {everything: made up}
"""
DRIVE = Drive(
    name="disk",
    kind="ssd",
    vendor="Nobody",
    capacity_bytes=10**12,
    read_bandwidth_bytes_per_s=6e9,
    write_bandwidth_bytes_per_s=12e9,
    latency_s=1e-4,
    queue_depth=64,
    read_iops=1e6,
    sources={"everything": "made up"},
)


def wire(folder: Path, *replaced: tuple[str, str]) -> LinkSpec:
    return load_link(written(folder, LINK, *replaced))


def test_every_link_asked_for_is_shipped_and_slower_than_its_wires() -> None:
    for name in WANTED:
        link = load_link(FOLDER / f"{name}.yaml")
        assert link.peak_bandwidth_bytes_per_s is not None
        assert 0 < link.write_bandwidth_bytes_per_s <= link.read_bandwidth_bytes_per_s
        assert link.read_bandwidth_bytes_per_s < link.peak_bandwidth_bytes_per_s


@pytest.mark.parametrize(
    ("name", "lanes", "transfers_per_s"),
    [
        ("pcie-gen3-x16", 16, 8e9),
        ("pcie-gen4-x16", 16, 16e9),
        ("pcie-gen5-x16", 16, 32e9),
        ("pcie-gen4-x4", 4, 16e9),
        ("pcie-gen5-x4", 4, 32e9),
        ("cxl-2.0-x8", 8, 32e9),
    ],
)
def test_the_peak_of_pcie_follows_from_lanes_rate_and_coding(name: str, lanes: int, transfers_per_s: float) -> None:
    peak = load_link(FOLDER / f"{name}.yaml").peak_bandwidth_bytes_per_s
    assert peak == pytest.approx(lanes * transfers_per_s * 128 / 130 / 8, rel=1e-4)


def test_one_pcie_generation_is_about_twice_the_one_before() -> None:
    read = [load_link(FOLDER / f"pcie-gen{n}-x16.yaml").read_bandwidth_bytes_per_s for n in (3, 4, 5)]
    assert read[1] / read[0] == pytest.approx(2, rel=0.15)
    assert read[2] / read[1] == pytest.approx(2, rel=0.15)


def test_a_link_is_told_apart_by_its_kind(tmp_path: Path) -> None:
    path = written(tmp_path, LINK)
    link = load_hardware(path)
    assert isinstance(link, LinkSpec)
    assert link == load_link(path)
    assert (link.duplex, link.queue_depth) == ("full", None)


def test_a_link_is_no_device_and_a_device_no_link(tmp_path: Path) -> None:
    path = written(tmp_path, LINK)
    with pytest.raises(ScenarioError, match=r"made-up.yaml:2: kind: wire is a link, which carries data and does not"):
        load_device(path)
    with pytest.raises(ScenarioError, match=r":2: kind: wire is a link, not an SSD\n  name a drive of kind ssd"):
        load_drive(path)
    with pytest.raises(ScenarioError, match=r"kind: samsung-pm9a3 is an SSD, not a link\n  name a link, for example"):
        load_link(FOLDER / "samsung-pm9a3.yaml")
    with pytest.raises(ScenarioError, match=r"kind: l4 is a GPU, not a link"):
        load_link(FOLDER / "l4.yaml")
    for load in (load_device, load_drive):
        with pytest.raises(ScenarioError, match=r"^chat.yaml:4: where: wire is a link, "):
            load(path, "chat.yaml:4: where")
    with pytest.raises(ScenarioError, match=r"^chat.yaml:4: where: l4 is a GPU, not a link"):
        load_link(FOLDER / "l4.yaml", "chat.yaml:4: where")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("read_bandwidth_bytes_per_s: 20e9", "read_bandwidth_bytes_per_s: 0", r":3: .*greater than 0, found 0"),
        ("write_bandwidth_bytes_per_s: 10e9", "write_bandwidth_bytes_per_s: 26e9", r":4: .*2.6e\+10 bytes/s, but the"),
        ("launch_s: 5e-6", "launch_s: -1", r":7: launch_s: must be at least 0"),
        ("latency_s: 1e-6", "latency_s: 1e-6\nduplex: simplex", r":7: duplex: must be 'full' or 'half', found"),
        ("latency_s: 1e-6", "latency_s: 1e-6\nqueue_depth: 0", r":7: queue_depth: must be greater than 0"),
        ("kind: link", "kind: lnk", r":2: kind: must be 'link', found 'lnk'\n  did you mean 'link'"),
        ("kind: link", "kind: [link]", r":2: kind: must be 'link'"),
        ("sources: {everything: made up}", "sources: {}", r":8: sources: must have at least 1 key, found none"),
        ("latency_s: 1e-6", "latencys: 1e-6", r":6: latencys: unknown key\n  did you mean 'latency_s'"),
    ],
)
def test_a_mistake_in_a_link_is_refused_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        wire(tmp_path, (old, new))


def test_alone_a_transfer_takes_launches_latency_and_its_bytes(tmp_path: Path) -> None:
    route = Route.over(wire(tmp_path))
    assert route.idle_time_s(20e9, 0, "in") == 1e-6 + 1.0
    assert route.idle_time_s(20e9, 100, "out") == pytest.approx(1e-6 + 100 * 5e-6 + 2.0, rel=1e-15)
    assert route.round_trip_s(20e9, 100) == pytest.approx(2 * (1e-6 + 100 * 5e-6) + 1.0 + 2.0, rel=1e-15)
    assert route.idle_time_s(0, 0, "in") == 1e-6


def test_a_tier_on_a_drive_is_as_slow_as_the_slower_of_link_and_drive(tmp_path: Path) -> None:
    route = Tier("ssd", "ssd", 10**12, wire(tmp_path, ("launch_s", "queue_depth: 32\nlaunch_s")), DRIVE).route
    assert (route.in_bytes_per_s, route.out_bytes_per_s) == (6e9, 10e9)
    assert (route.latency_s, route.launch_s, route.queue_depth) == (1e-4, 5e-6, 32)
    assert Tier("ssd", "ssd", 10**12, wire(tmp_path), DRIVE).route.queue_depth == 64
    assert Tier("cpu", "cpu", 10**12, wire(tmp_path)).route == Route.over(wire(tmp_path))


def test_small_operations_are_bound_by_the_drive_s_iops(tmp_path: Path) -> None:
    route = Tier("ssd", "ssd", 10**12, wire(tmp_path), DRIVE).route
    assert route.bytes_per_s("in", 4096) == 4096e6  # a million operations a second
    assert route.bytes_per_s("in", 6000) == 6e9
    assert route.bytes_per_s("in", 1 << 20) == route.bytes_per_s("in") == 6e9
    assert route.bytes_per_s("out", 4096) == 10e9  # its writes were given no IOPS
    assert route.work_s(4096e6, 1_000_000, "in") == 1.0
    assert route.work_s(6e9, 1_000, "in") == 1.0


def test_a_tier_holds_whole_blocks() -> None:
    link = load_link(FOLDER / "pcie-gen5-x16.yaml")
    assert Tier("cpu", "cpu", 10 * 2**20 - 1, link).blocks(2**20) == 9
