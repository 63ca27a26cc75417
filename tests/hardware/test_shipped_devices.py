"""The shipped device files: complete, sourced, and no faster than their data sheets."""

from pathlib import Path

import pytest

from servsim.hardware import Device, load_device, load_hardware

FOLDER = Path(__file__).parents[2] / "hardware"
FILES = sorted(FOLDER.glob("*.yaml"))
WANTED = {
    *("h100-sxm", "h200-sxm", "a100-80gb-sxm", "l40s", "l4", "rtx-4090", "rtx-pro-6000", "b200", "mi300x"),
    *("xeon-platinum-8480plus", "samsung-pm9a3"),
}


def shipped(name: str) -> Device:
    return load_device(FOLDER / f"{name}.yaml")


def test_every_device_asked_for_is_shipped() -> None:
    assert {path.stem for path in FILES} >= WANTED


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_loads_under_its_own_name_and_sources_every_number(path: Path) -> None:
    hardware = load_hardware(path)
    assert hardware.name == path.stem
    written = {key for key, value in hardware.model_dump().items() if isinstance(value, int | float)} - {"calibrated"}
    if isinstance(hardware, Device):
        written.add("peak_flops_per_s")
    assert written == set(hardware.sources)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_shipped_efficiency_exceeds_one(path: Path) -> None:
    hardware = load_hardware(path)
    if not isinstance(hardware, Device):
        return
    for entry in hardware.efficiencies:
        assert entry.compute is None or 0 < entry.compute <= 1
        assert 0 < entry.memory <= 1
    for row in hardware.interconnect.all_reduce if hardware.interconnect else ():
        assert 0 < row.efficiency <= 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_device_says_whether_it_is_calibrated(path: Path) -> None:
    hardware = load_hardware(path)
    if not isinstance(hardware, Device):
        return
    assert hardware.calibrated == any(entry.measured for entry in hardware.efficiencies)


def test_the_devices_that_nobody_measured_fall_back_to_the_defaults() -> None:
    for name in ("mi300x", "a10", "l4", "xeon-platinum-8480plus"):
        assert not shipped(name).calibrated
        assert shipped(name).efficiency("gemm").memory == 0.83


def test_memory_is_what_the_driver_reports() -> None:
    assert shipped("rtx-4090").memory_bytes == 25_250_627_584
    assert shipped("h100-sxm").memory_bytes == pytest.approx(85.0e9, rel=1e-3)
    assert shipped("h200-sxm").memory_bytes == pytest.approx(139.80 * 2**30, rel=1e-4)
    assert shipped("mi300x").memory_bytes == pytest.approx(191.98 * 2**30, rel=1e-4)


def test_a_bf16_gemm_of_the_h100_is_bound_by_compute_at_82_percent_of_989_tflops() -> None:
    h100 = shipped("h100-sxm")
    gemm = h100.efficiency("gemm", "bf16")
    assert gemm.compute is not None
    assert gemm.compute * h100.peak_flops("bf16") == pytest.approx(810e12, rel=1e-2)


def test_fp8_runs_at_the_rate_of_bf16_on_an_a100() -> None:
    assert shipped("a100-80gb-sxm").peak_flops("fp8") == 312e12


def test_the_amx_peak_follows_from_cores_and_clock() -> None:
    assert shipped("xeon-platinum-8480plus").peak_flops("bf16") == pytest.approx(56 * 2.0e9 * 1024, rel=1e-3)
