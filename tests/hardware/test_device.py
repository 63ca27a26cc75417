"""Devices: what is looked up, what is derived, and what is refused with its line."""

from pathlib import Path

import pytest
from made_up_files import written

from servsim.errors import ScenarioError
from servsim.hardware import Device, default_efficiency, load_device, load_drive, load_hardware

DEVICE = """\
name: made-up
kind: gpu
vendor: Nobody
memory_bytes: 80e9
memory_bandwidth_bytes_per_s: 2e12
peak_flops_per_s: {bf16: 300e12, fp16: 300e12, fp32: 20e12}
interconnect:
  name: bus
  bandwidth_bytes_per_s: 100e9
  all_reduce:
    - {group: 2, overhead_s: 5e-6, efficiency: 0.5}
    - {group: 8, overhead_s: 8e-6, efficiency: 0.25}
  measured: true
  source: made up
calibrated: true
efficiencies:
  - {operator: gemm, dtype: bf16, compute: 0.8, memory: 0.9, overhead_s: 4e-6, median_error: 0.05, source: made up}
  - {operator: attention_decode, dtype: any, compute: null, memory: 0.7, overhead_s: 12e-6, source: made up}
sources: {everything: made up}
"""
DRIVE = """\
name: disk
kind: ssd
vendor: Nobody
capacity_bytes: 1e12
read_bandwidth_bytes_per_s: 6e9
write_bandwidth_bytes_per_s: 3e9
latency_s: 1e-4
queue_depth: 64
sources: {everything: made up}
"""


def device(folder: Path, *replaced: tuple[str, str]) -> Device:
    return load_device(written(folder, DEVICE, *replaced))


def test_a_written_efficiency_is_found_by_operator_and_dtype(tmp_path: Path) -> None:
    found = device(tmp_path).efficiency("gemm", "bf16")
    assert (found.compute, found.memory, found.overhead_s, found.law) == (0.8, 0.9, 4e-6, "maximum")
    assert found.measured


@pytest.mark.parametrize("dtype", ["fp16", "int4", "fp8"])
def test_other_dtypes_fall_back_to_bf16(tmp_path: Path, dtype: str) -> None:
    assert device(tmp_path).efficiency("gemm", dtype).dtype == "bf16"  # type: ignore[arg-type]


def test_an_entry_for_any_dtype_serves_every_dtype(tmp_path: Path) -> None:
    assert device(tmp_path).efficiency("attention_decode", "fp8").memory == 0.7


def test_an_operator_without_entry_falls_back_to_the_stated_default(tmp_path: Path) -> None:
    found = device(tmp_path).efficiency("attention_prefill")
    assert found == default_efficiency("attention_prefill")
    assert (found.compute, found.memory, found.overhead_s) == (0.80, 0.83, 4e-6)
    assert not found.measured
    assert default_efficiency("elementwise").compute is None


def test_narrow_weights_are_multiplied_in_16_bits_where_no_unit_is_narrower(tmp_path: Path) -> None:
    made_up = device(tmp_path)
    assert made_up.compute_dtype("int4") == "bf16"
    assert made_up.peak_flops("fp8") == 300e12
    with_fp8 = device(tmp_path, ("fp32: 20e12", "fp32: 20e12, fp8: 600e12"))
    assert with_fp8.peak_flops("fp8") == 600e12
    assert with_fp8.peak_flops("int4") == 300e12


def test_a_dtype_without_any_unit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="made-up has no peak rate for bf16\n  it has fp16, fp32"):
        device(tmp_path, ("bf16: 300e12, ", "")).peak_flops("bf16")


def test_an_all_reduce_moves_twice_the_share_of_the_others(tmp_path: Path) -> None:
    interconnect = device(tmp_path).interconnect
    assert interconnect is not None
    assert interconnect.all_reduce_s(1e6, 1) == 0
    assert interconnect.all_reduce_s(1e6, 2) == pytest.approx(5e-6 + 1e6 / 50e9)
    assert interconnect.all_reduce_s(1e6, 8) == pytest.approx(8e-6 + 1.75e6 / 25e9)


def test_a_small_message_is_read_whole_from_every_other_device(tmp_path: Path) -> None:
    row = "{group: 8, overhead_s: 8e-6, efficiency: 0.25}"
    one_stage = row.replace("}", ", one_stage_below_bytes: 262144}")
    interconnect = device(tmp_path, (row, one_stage)).interconnect
    assert interconnect is not None
    assert interconnect.all_reduce_s(262143, 8) == pytest.approx(8e-6 + 7 * 262143 / 25e9)
    assert interconnect.all_reduce_s(262144, 8) == pytest.approx(8e-6 + 1.75 * 262144 / 25e9)


def test_waves_need_a_number_of_processors(tmp_path: Path) -> None:
    waved = ("compute: 0.8", "wave_share: 0.5, compute: 0.8")
    with pytest.raises(ScenarioError, match="a wave_share needs the device's processors"):
        device(tmp_path, waved)
    known = ("memory_bytes: 80e9", "memory_bytes: 80e9\nprocessors: 100")
    assert device(tmp_path, waved, known).efficiency("gemm").wave_share == 0.5


def test_a_group_between_two_rows_takes_the_larger_and_a_group_beyond_is_refused(tmp_path: Path) -> None:
    interconnect = device(tmp_path).interconnect
    assert interconnect is not None
    assert interconnect.all_reduce_for(4).group == 8
    with pytest.raises(ScenarioError, match=r"bus has no all-reduce over 16 devices\n  its largest group is 8"):
        interconnect.all_reduce_for(16)


def test_the_l2_counts_only_where_its_bandwidth_is_given(tmp_path: Path) -> None:
    memory = "memory_bandwidth_bytes_per_s: 2e12"
    assert device(tmp_path).l2_resident_bytes == 0
    assert device(tmp_path, (memory, f"{memory}\nl2_bytes: 100e6")).l2_resident_bytes == 0
    with_l2 = device(tmp_path, (memory, f"{memory}\nl2_bytes: 100e6\nl2_bandwidth_bytes_per_s: 4e12"))
    assert with_l2.l2_resident_bytes == 100_000_000


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("memory_bytes: 80e9", "memory_bytes: 0", r"yaml:4: memory_bytes: must be greater than 0, found 0"),
        ("memory_bytes: 80e9", "memory_bytes: .nan", r"yaml:4: memory_bytes: "),
        ("memory_bytes: 80e9", "memory_byte: 80e9", r"yaml:4: memory_byte: unknown key\n  did you mean 'memory_bytes'"),
        ("2e12", ".inf", r"yaml:5: memory_bandwidth_bytes_per_s: must be a finite number"),
        ("bf16: 300e12, fp16: 300e12, fp32", "int8", r"yaml:6: peak_flops_per_s: a device needs a peak"),
        ("bf16: 300e12", "bf61: 300e12", r"yaml:6: peak_flops_per_s.bf61: unknown key\n  did you mean 'bf16'"),
        ("group: 8", "group: 2", r"yaml:10: interconnect.all_reduce: the groups \[2, 2\] must rise"),
        ("calibrated: true", "calibrated: yes", r"yaml:15: calibrated: must be true or false, found 'yes'"),
        ("memory: 0.9", "memory: 1.2", r"yaml:17: efficiencies.0.memory: must be at most 1"),
        ("compute: 0.8", "compute: 1.01", r"yaml:17: efficiencies.0.compute: must be at most 1"),
        ("compute: 0.8", "law: p_norm, compute: 0.8", r"yaml:17: efficiencies.0.law: the law p_norm needs an exponent"),
        ("compute: 0.8", "exponent: 2, compute: 0.8", r"efficiencies.0.exponent: the law maximum has no exponent"),
        ("operator: gemm", "operator: gemn", r"yaml:17: efficiencies.0.operator: must be .*\n  did you mean 'gemm'"),
        (
            "operator: attention_decode, dtype: any",
            "operator: gemm, dtype: bf16",
            r"yaml:18: .*gemm in bf16 is given twice",
        ),
        (", median_error: 0.05", "", r"yaml:15: calibrated: a calibrated device needs an efficiency with"),
        ("kind: gpu", "kind: ssd", r"yaml:2: kind: .* is an SSD, which stores data and does not compute"),
        ("kind: gpu", "kind: fpga", r"yaml:2: kind: must be 'gpu' or 'cpu', found 'fpga'"),
        ("calibrated: true", "l2_bandwidth_bytes_per_s: 9e12\ncalibrated: true", r"yaml:15: .* needs l2_bytes"),
    ],
)
def test_a_mistake_is_one_error_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        device(tmp_path, (old, new))


def test_a_list_is_no_device(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="holds keys and values, found a list"):
        load_device(written(tmp_path, "- 1\n"))


def test_a_drive_is_read_and_told_from_a_device_by_its_kind(tmp_path: Path) -> None:
    path = written(tmp_path, DRIVE)
    assert load_hardware(path) == load_drive(path)
    assert load_drive(path).capacity_bytes == 10**12
    with pytest.raises(ScenarioError, match="latency_s: must be greater than 0"):
        load_drive(written(tmp_path, DRIVE.replace("1e-4", "0")))
