"""What the rows of a kernel table had to do: FLOPs, bytes and their place on the axes of a correction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servsim.calibration.loads import chosen_and_padded
from servsim.calibration.tables import Columns, Table
from servsim.hardware import Device
from servsim.hardware.waves import wave_factor

__all__ = ["TILE_ROWS", "Array", "Work", "works"]

Array = NDArray[np.float64]

TILE_ROWS = 16  # the narrowest tile of experts: Triton's fused MoE and CUTLASS both start there
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "bf16": "bf16", "fp16": "fp16", "fp8": "fp8"}
_ITEM = {"bf16": 2, "fp16": 2, "fp8": 1}
_HEAD_DIM = 128

_KNOTS: dict[str, tuple[tuple[float, ...], ...]] = {
    "gemm": (
        (1, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192),
        (256, 512, 1024, 2048, 4096, 8192, 16384, 65536),
        (256, 1024, 2048, 4096, 16384, 65536),
    ),
    "experts": (
        (1, 2, 4, 8, 16, 64, 256, 1024, 4096, 16384),
        (2048, 3072, 7168),
        (32, 128, 512, 2048, 16384),
        (4, 16, 24, 32, 128),
    ),
    "attention_prefill": (
        (1, 8, 32, 128, 512, 4096),
        (32, 128, 256, 512, 1024, 2048, 4096, 16384),
        (1, 8, 64),
        (1, 4, 16),
    ),
    "attention_decode": (
        (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096),
        (16, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 131072),
        (1, 2, 4, 6, 8, 12, 16, 32, 64),
    ),
    "all_reduce": ((256, 16384, 65536, 262144, 1048576, 8388608, 33554432, 1073741824),),
}


@dataclass(frozen=True, slots=True)
class Work:
    """Rows of one operator and dtype, sorted by their shape; arrays of one length.

    ``worked`` are the FLOPs that are computed, padding included, ``flops`` those that have to be. ``bandwidth`` is
    that of the memory which holds the operands: the L2's where the benchmark left the KV or the weights there.
    ``waves`` is the factor of :func:`~servsim.hardware.waves.wave_factor` of each product, 1 where the device's
    processors are not known; ``regrouped`` and ``several_heads`` are 1 for a decode attention whose queries are
    copied into another order, and for one with several key-value heads, else 0.
    """

    operator: str
    dtype: str
    law: str
    peak_flops: float
    flops: Array
    worked: Array
    size_bytes: Array
    prepared_bytes: Array
    bandwidth: Array
    seconds: Array
    axes: dict[str, Array]  # of the correction, in its order
    covers: dict[str, Array]
    what: str  # which rows of which table
    measured_with: str
    waves: Array | None = None
    regrouped: Array | None = None
    several_heads: Array | None = None
    group: int = 0  # of an all-reduce
    one_stage_below: int = 0  # messages, in bytes, that an all-reduce sums in one stage
    switches: tuple[int, ...] = ()  # from which it takes yet another algorithm

    @property
    def knots(self) -> tuple[tuple[float, ...], ...]:
        """Where the correction has its points, for each axis: on both sides of a switch of algorithms."""
        (*others, last) = _KNOTS[self.operator]
        switches = [switch for switch in (self.one_stage_below, *self.switches) if switch]
        sides = {side for switch in switches for side in (switch - 1.0, float(switch))}
        return (*others, tuple(sorted({*last, *sides})))

    @property
    def held_back(self) -> NDArray[np.bool_]:
        """Every fifth row, which no fit sees."""
        held: NDArray[np.bool_] = np.arange(len(self.seconds)) % 5 == 4
        return held


def works(tables: Iterable[Table], device: Device) -> Iterator[Work]:
    """The rows of the tables that servsim's operators speak of, by operator and dtype.

    Left out are block-scaled and 4-bit GEMMs, sliding windows, heads of other widths than 128, attention by
    Triton (a fallback), expert parallelism, and all-reduces outside CUDA graphs.
    """
    for table in tables:
        yield from _READERS[table.kind](table, device)


def _gemm(table: Table, device: Device) -> Iterator[Work]:
    for name, dtype in _DTYPES.items():
        columns = table.columns
        keep = (columns["gemm_dtype"] == name) & (columns["n"] >= 256) & (columns["k"] >= 256)
        rows = _sorted(columns, keep & (columns["m"] <= 8192), ("m", "n", "k"))
        if _too_few(rows):
            continue
        m, n, k = (rows[key].astype(float) for key in "mnk")
        item, axes = _ITEM[dtype], {"m": m, "n": n, "k": k}
        quantized = device.compute_dtype(dtype) == "fp8"  # type: ignore[arg-type]
        yield _work(
            table, device, "gemm", dtype, "p_norm", rows, 2 * m * n * k, item * (n * k + m * k) + 2 * m * n,
            axes=axes, covers=axes, prepared=3 * m * k if quantized else None, waves=_waves(m, n, device),
            what=f"gemm_perf ({name}): n, k >= 256, m <= 8192",
        )  # fmt: skip


def _waves(m: Array, n: Array, device: Device) -> Array | None:
    if device.processors is None:
        return None
    of = {shape: wave_factor(*shape, device.processors) for shape in set(zip(m, n, strict=True))}
    return np.array([of[shape] for shape in zip(m, n, strict=True)])


def _attention(prefill: bool, table: Table, device: Device) -> Iterator[Work]:
    columns = table.columns
    triton = np.char.find(columns["kernel_source"].astype(str), "triton") >= 0
    keep = (columns["head_dim"] == _HEAD_DIM) & (columns["window_size"] == 0) & ~triton
    keep &= np.isin(columns["attn_dtype"], ("bfloat16", "float16"))
    length = columns["isl"] if prefill else columns["isl"] + columns["step"]
    keep &= (length >= 32) & (columns["step"] == 0) if prefill else (length >= 16) & (columns["batch_size"] <= 512)
    for name, dtype in _DTYPES.items():
        order = ("batch_size", "isl", "step", "num_heads", "num_key_value_heads")
        rows = _sorted(columns, keep & (columns["kv_cache_dtype"] == name), order)
        if _too_few(rows):
            continue
        batch, heads, kv_heads = (rows[key].astype(float) for key in ("batch_size", "num_heads", "num_key_value_heads"))
        context = (rows["isl"] if prefill else rows["isl"] + rows["step"]).astype(float)
        new = batch * context if prefill else batch
        kv_bytes = 2 * _ITEM[dtype] * batch * context * kv_heads * _HEAD_DIM
        work = batch * (heads if prefill else kv_heads)
        axes = {"work": work, "length": context, "group": heads / kv_heads}
        if prefill:
            axes["kv_heads"] = kv_heads
        several = (kv_heads > 1).astype(float)
        pairs = batch * context * (context / 2 if prefill else 1.0)
        yield _work(
            table, device, "attention_prefill" if prefill else "attention_decode", dtype,
            "sum" if prefill else "maximum", rows, 4 * _HEAD_DIM * heads * pairs,
            kv_bytes + 4 * _HEAD_DIM * heads * new,
            axes=axes, covers={**axes, "head_dim": np.full(len(new), float(_HEAD_DIM))},
            in_l2=None if prefill else kv_bytes, peak_dtype="bf16",
            regrouped=None if prefill else several * (batch > 1) * (heads > kv_heads),
            several_heads=None if prefill else several,
            what=f"{table.kind}_perf (KV in {name}): head_dim 128, no window, "
            + ("length >= 32" if prefill else "context >= 16, batch <= 512"),
        )  # fmt: skip


def _experts(table: Table, device: Device) -> Iterator[Work]:
    columns = table.columns
    found = set(columns["moe_dtype"])
    # Block-scaled fp8 is what checkpoints of mixtures are published in.
    for dtype, names in (("bf16", ("bfloat16",)), ("fp16", ("float16",)), ("fp8", ("fp8_block", "fp8"))):
        name = next((name for name in names if name in found), None)
        keep = (columns["moe_dtype"] == name) & (columns["moe_ep_size"] == 1) & (columns["num_tokens"] <= 16384)
        keys = ("distribution", "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size")
        rows = _sorted(columns, keep, keys)
        if _too_few(rows):
            continue
        tokens, hidden, inter, topk, experts, shards = (rows[key].astype(float) for key in keys[1:])
        width = inter / shards
        chosen, padded = chosen_and_padded(tokens, topk, experts, rows["distribution"], TILE_ROWS)
        size = 3 * hidden * width
        weights = chosen * size * _ITEM[dtype]
        axes = {"tokens": tokens, "hidden": hidden, "width": width, "spread": experts / topk}
        yield _work(
            table, device, "experts", dtype, "p_norm", rows, 2 * tokens * topk * size,
            weights + 4 * hidden * tokens, axes=axes, covers=axes, worked=2 * padded * size, in_l2=weights,
            what=f"moe_perf ({name}): balanced and power-law routing, up to 16384 tokens, no expert parallelism",
        )  # fmt: skip


def _all_reduces(table: Table, device: Device) -> Iterator[Work]:
    columns = table.columns
    link = device.interconnect
    if link is None:
        return
    for group in sorted(set(columns["num_gpus"])):
        keep = (columns["num_gpus"] == group) & (columns["backend"] == "vllm_graph")
        rows = _sorted(columns, keep & (columns["allreduce_dtype"] == "bfloat16"), ("message_size",))
        if _too_few(rows, 10):
            continue
        size = 2.0 * rows["message_size"]
        known = next((row for row in link.all_reduce if row.group == group), None)
        one_stage = (known.one_stage_below_bytes or 0) if known else 0
        wire_bytes = (group - 1) * np.where(size < one_stage, 1.0, 2 / group) * size
        none = np.zeros(len(size))
        yield Work(
            "all_reduce", "any", "sum", 1.0, none, none, wire_bytes, none,
            np.full(len(size), link.bandwidth_bytes_per_s), rows["latency"] * 1e-3, {"bytes": size}, {"bytes": size},
            "custom_allreduce_perf: in CUDA graphs", table.measured_with, group=int(group),
            one_stage_below=one_stage, switches=known.switches_bytes if known else (),
        )  # fmt: skip


_READERS: dict[str, Callable[[Table, Device], Iterator[Work]]] = {
    "gemm": _gemm,
    "context_attention": partial(_attention, True),
    "generation_attention": partial(_attention, False),
    "moe": _experts,
    "all_reduce": _all_reduces,
}


def _work(
    table: Table, device: Device, operator: str, dtype: str, law: str, rows: Columns, flops: Array, size_bytes: Array,
    *, axes: dict[str, Array], covers: dict[str, Array], what: str, worked: Array | None = None,
    prepared: Array | None = None, in_l2: Array | None = None, peak_dtype: str | None = None,
    waves: Array | None = None, regrouped: Array | None = None, several_heads: Array | None = None,
) -> Work:  # fmt: skip
    bandwidth = np.full(len(flops), device.memory_bandwidth_bytes_per_s)
    if in_l2 is not None and device.l2_bandwidth_bytes_per_s is not None:
        bandwidth[in_l2 <= device.l2_resident_bytes] = device.l2_bandwidth_bytes_per_s
    peak = device.peak_flops(peak_dtype or dtype)  # type: ignore[arg-type]
    none = np.zeros(len(flops))
    return Work(
        operator, dtype, law, peak, flops, flops if worked is None else worked, size_bytes,
        none if prepared is None else prepared, bandwidth, rows["latency"] * 1e-3, axes, covers, what,
        table.measured_with, waves, regrouped, several_heads,
    )  # fmt: skip


def _sorted(columns: Columns, keep: NDArray[Any], keys: tuple[str, ...]) -> Columns:
    """The rows kept, sorted by ``keys``; of several with one shape the first."""
    index = np.flatnonzero(keep)
    codes = [np.unique(columns[key][index], return_inverse=True)[1] for key in keys]
    order = np.lexsort(codes[::-1]) if len(index) else index
    codes = [code[order] for code in codes]
    first = np.ones(len(index), dtype=bool)
    if len(index):
        first[1:] = np.any([code[1:] != code[:-1] for code in codes], axis=0)
    return {name: values[index[order][first]] for name, values in columns.items()}


def _too_few(rows: Columns, least: int = 40) -> bool:
    return len(rows["latency"]) < least
