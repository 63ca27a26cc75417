"""The shipped efficiencies reach, on the kernels they were fitted to, the errors that they state."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servsim.hardware import Device, Efficiency, load_device

FOLDER = Path(__file__).parents[2] / "hardware"
TABLES = {
    "h100-sxm": "h100_sxm",
    "h200-sxm": "h200_sxm",
    "a100-80gb-sxm": "a100_sxm",
    "l40s": "l40s",
    "b200": "b200_sxm",
    "rtx-pro-6000": "rtx_pro_6000_server",
}
WITH_LINKS = [name for name in TABLES if name != "l40s"]


def rows(data: Path, device: str, table: str, **kept: Any) -> dict[str, np.ndarray]:
    """Columns of a kernel table, cut to the rows whose columns equal what is given."""
    parquet = pytest.importorskip("pyarrow.parquet")
    path = data / "kernels" / TABLES[device] / f"{table}.parquet"
    read = parquet.read_table(path)
    keep = np.ones(read.num_rows, dtype=bool)
    for column, value in kept.items():
        if column in read.column_names:
            keep &= np.asarray(read[column].to_numpy(zero_copy_only=False) == value)
    return {name: read[name].to_numpy(zero_copy_only=False)[keep] for name in read.column_names}


def cut(columns: dict[str, np.ndarray], keep: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[keep] for name, values in columns.items()}


def errors(
    device: Device, fit: Efficiency, flops: np.ndarray, size: np.ndarray, bandwidth: Any, seconds: np.ndarray
) -> tuple[float, float]:
    """Median and 90th percentile of the relative error."""
    moving = size / (fit.memory * bandwidth)
    computing = flops / (fit.compute * device.peak_flops("bf16")) if fit.compute else np.zeros_like(moving)
    predicted = (computing + moving if fit.law == "sum" else np.maximum(computing, moving)) + fit.overhead_s
    relative = np.abs(predicted / seconds - 1)
    return float(np.median(relative)), float(np.percentile(relative, 90))


def check(stated: Efficiency, median: float, p90: float) -> None:
    assert stated.median_error == pytest.approx(median, abs=0.005)
    assert stated.p90_error == pytest.approx(p90, abs=0.02)


@pytest.mark.parametrize("name", TABLES)
def test_gemm_in_bf16(servsim_data: Path, name: str) -> None:
    device = load_device(FOLDER / f"{name}.yaml")
    table = rows(servsim_data, name, "gemm_perf", gemm_dtype="bfloat16")
    table = cut(table, (table["n"] >= 1024) & (table["k"] >= 1024) & (table["m"] <= 8192))
    m, n, k = (table[key].astype(float) for key in "mnk")
    fit = device.efficiency("gemm")
    size = 2 * (n * k + m * k + m * n)
    check(fit, *errors(device, fit, 2 * m * n * k, size, device.memory_bandwidth_bytes_per_s, table["latency"] / 1e3))


@pytest.mark.parametrize("name", TABLES)
def test_decode_attention(servsim_data: Path, name: str) -> None:
    device = load_device(FOLDER / f"{name}.yaml")
    table = rows(
        servsim_data, name, "generation_attention_perf", head_dim=128, kv_cache_dtype="bfloat16", window_size=0
    )
    context = table["isl"] + table["step"]
    triton = np.char.find(table["kernel_source"].astype(str), "triton") >= 0
    keep = (context >= 128) & (table["batch_size"] <= 256) & ~triton
    table, context = cut(table, keep), context[keep]
    size = 512.0 * table["batch_size"] * context * table["num_key_value_heads"]
    bandwidth: Any = device.memory_bandwidth_bytes_per_s
    if device.l2_resident_bytes:
        bandwidth = np.where(size <= device.l2_resident_bytes, device.l2_bandwidth_bytes_per_s, bandwidth)
    fit = device.efficiency("attention_decode")
    check(fit, *errors(device, fit, size, size, bandwidth, table["latency"] / 1e3))


@pytest.mark.parametrize("name", TABLES)
def test_prefill_attention(servsim_data: Path, name: str) -> None:
    device = load_device(FOLDER / f"{name}.yaml")
    table = rows(servsim_data, name, "context_attention_perf", head_dim=128, kv_cache_dtype="bfloat16", window_size=0)
    triton = np.char.find(table["kernel_source"].astype(str), "triton") >= 0
    table = cut(table, (table["isl"] >= 128) & (table["num_heads"] >= 8) & ~triton)
    batch, length = table["batch_size"].astype(float), table["isl"].astype(float)
    heads, kv_heads = table["num_heads"], table["num_key_value_heads"]
    flops = 2 * batch * length**2 * heads * 128
    size = batch * length * 256 * (2 * heads + 2 * kv_heads)
    fit = device.efficiency("attention_prefill")
    check(fit, *errors(device, fit, flops, size, device.memory_bandwidth_bytes_per_s, table["latency"] / 1e3))


@pytest.mark.parametrize("name", WITH_LINKS)
@pytest.mark.parametrize("group", [2, 4, 8])
def test_all_reduce_in_cuda_graphs(servsim_data: Path, name: str, group: int) -> None:
    interconnect = load_device(FOLDER / f"{name}.yaml").interconnect
    assert interconnect is not None
    table = rows(servsim_data, name, "custom_allreduce_perf", backend="vllm_graph", num_gpus=group)
    predicted = np.array([interconnect.all_reduce_s(2.0 * size, group) for size in table["message_size"]])
    assert np.median(np.abs(predicted / (table["latency"] / 1e3) - 1)) < 0.20


@pytest.mark.parametrize("name", ["l40s", "rtx-pro-6000"])
def test_gemm_in_fp8(servsim_data: Path, name: str) -> None:
    device = load_device(FOLDER / f"{name}.yaml")
    table = rows(servsim_data, name, "gemm_perf", gemm_dtype="fp8")
    table = cut(table, (table["n"] >= 1024) & (table["k"] >= 1024) & (table["m"] <= 8192))
    m, n, k = (table[key].astype(float) for key in "mnk")
    fit = device.efficiency("gemm", "fp8")
    size = n * k + m * k + 2 * m * n
    bandwidth = device.memory_bandwidth_bytes_per_s
    # errors() reckons with the peak of bf16, which is half that of fp8.
    half = m * n * k * 2 * device.peak_flops("bf16") / device.peak_flops("fp8")
    check(fit, *errors(device, fit, half, size, bandwidth, table["latency"] / 1e3))


@pytest.mark.parametrize(
    ("name", "dtype", "measured_as"),
    [
        *((name, "bf16", "bfloat16") for name in TABLES),
        *((name, "fp8", "fp8_block") for name in ("h100-sxm", "h200-sxm", "l40s")),
        *((name, "fp8", "fp8") for name in ("b200", "rtx-pro-6000")),
    ],
)
def test_routed_experts(servsim_data: Path, name: str, dtype: Any, measured_as: str) -> None:
    device = load_device(FOLDER / f"{name}.yaml")
    routing = "power_law_1.01" if name == "a100-80gb-sxm" else "balanced"
    table = rows(servsim_data, name, "moe_perf", moe_dtype=measured_as, distribution=routing, moe_ep_size=1)
    table = cut(table, (table["num_tokens"] <= 8192) & (table["inter_size"] >= 256))
    tokens, hidden, top_k, experts = (
        table[key].astype(float) for key in ("num_tokens", "hidden_size", "topk", "num_experts")
    )
    width = table["inter_size"] / table["moe_tp_size"]
    chosen = np.minimum(experts, tokens * top_k)
    if routing != "balanced":
        chosen = experts * (1 - (1 - top_k / experts) ** tokens)
    flops = 6 * tokens * top_k * hidden * width * device.peak_flops("bf16") / device.peak_flops(dtype)
    size = chosen * 3 * hidden * width * (2 if dtype == "bf16" else 1) + 4 * tokens * hidden
    fit = device.efficiency("experts", dtype)
    check(fit, *errors(device, fit, flops, size, device.memory_bandwidth_bytes_per_s, table["latency"] / 1e3))
