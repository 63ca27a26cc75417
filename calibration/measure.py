"""Measure the kernels of a CUDA GPU with PyTorch, for ``servsim calibrate``.

    python calibration/measure.py OUT_DIR [--kinds gemm context_attention generation_attention copies] [--quick]
    servsim calibrate OUT_DIR --device my-gpu.yaml --out my-gpu.yaml --overwrite --source "own measurements"

Writes ``gemm_perf.csv``, ``context_attention_perf.csv`` and ``generation_attention_perf.csv`` with the columns that
``servsim calibrate`` reads, and ``copies.csv``: what device-to-device, host-to-device and device-to-host copies reach,
which is where the bandwidths of a device file and of its links can be checked. Latencies are medians in milliseconds.
Before every call the L2 is overwritten, since in a step the weights of other layers pass through it.
Attention is PyTorch's scaled_dot_product_attention (flash attention where it can be used); engines have kernels of
their own with paged KV, which split long contexts better, so decode attention is on the slow side.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

Row = dict[str, Any]

GEMM_M = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192)
GEMM_N = (256, 512, 1024, 2048, 3072, 4096, 6144, 8192, 14336, 28672, 65536)
GEMM_K = (256, 1024, 2048, 4096, 8192, 14336, 28672)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PROMPTS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
CONTEXTS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
HEADS = ((4, 1), (8, 1), (8, 2), (16, 4), (32, 4), (32, 8), (64, 8), (8, 8), (32, 32))
HEAD_DIM = 128
COPIES = tuple(1 << power for power in range(16, 31, 2))
MOST_BYTES = 8 << 30  # operands of one kernel
KINDS = ("gemm", "context_attention", "generation_attention", "copies")


def gemm_shapes(quick: bool) -> Iterator[tuple[int, int, int]]:
    """Products ``(m, n, k)``."""
    step = 3 if quick else 1
    for m, n, k in product(GEMM_M[::step], GEMM_N[::step], GEMM_K[::step]):
        if 2 * (m * n + m * k + n * k) <= MOST_BYTES:
            yield m, n, k


def attention_shapes(prefill: bool, quick: bool) -> Iterator[tuple[int, int, int, int]]:
    """Batches ``(sequences, tokens of each, heads, key-value heads)``; a decode step attends to the tokens."""
    step = 2 if quick else 1
    lengths = PROMPTS if prefill else CONTEXTS
    for batch, length, (heads, kv_heads) in product(BATCHES[::step], lengths[::step], HEADS[::step]):
        # PyTorch widens grouped keys and values to all heads where its kernel cannot share them.
        if 4 * batch * length * heads * HEAD_DIM <= MOST_BYTES and batch * length <= 1 << 21:
            yield batch, length, heads, kv_heads


def attention_row(prefill: bool, shape: tuple[int, int, int, int], latency_ms: float) -> Row:
    """A row of an attention table; of decode the new token is the last of the context."""
    batch, length, heads, kv_heads = shape
    return {
        "op_name": "context_attention" if prefill else "generation_attention",
        "kernel_source": "torch_sdpa",
        "batch_size": batch,
        "isl": length if prefill else 1,
        "num_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": HEAD_DIM,
        "attn_dtype": "bfloat16",
        "kv_cache_dtype": "bfloat16",
        "step": 0 if prefill else length - 1,
        "window_size": 0,
        "latency": latency_ms,
    }


def gemm_row(m: int, n: int, k: int, latency_ms: float) -> Row:
    """A row of the GEMM table."""
    names = {"op_name": "gemm", "kernel_source": "torch.nn.functional.linear", "gemm_dtype": "bfloat16"}
    return {**names, "m": m, "n": n, "k": k, "latency": latency_ms}


def write_table(path: Path, rows: Iterable[Row], common: Row) -> int:
    """Write rows as they come, so that a run that is broken off leaves a table; returns how many."""
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            full = {**common, **row}
            if writer is None:
                writer = csv.DictWriter(file, fieldnames=list(full))
                writer.writeheader()
            writer.writerow(full)
            file.flush()
            count += 1
    return count


class Gpu:
    """A CUDA GPU and how its kernels are timed."""

    def __init__(self, torch: Any, repeats: int) -> None:
        self.torch = torch
        self.repeats = repeats
        self.name = torch.cuda.get_device_name()
        l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
        self._sweep = torch.empty(max(2 * l2_bytes, 1 << 26), dtype=torch.int8, device="cuda")

    def time_ms(self, call: Callable[[], object]) -> float:
        """The median time of a call, the L2 overwritten before each."""
        for _ in range(3):
            call()
        times = []
        for _ in range(self.repeats):
            self._sweep.zero_()
            start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        return statistics.median(times)

    def normal(self, *shape: int) -> Any:
        """Random numbers of bfloat16: zeros would draw less power, and so run faster."""
        return self.torch.randn(*shape, dtype=self.torch.bfloat16, device="cuda")


def gemms(gpu: Gpu, quick: bool) -> Iterator[Row]:
    """Rows of ``gemm_perf``."""
    for m, n, k in gemm_shapes(quick):
        left, weights = gpu.normal(m, k), gpu.normal(n, k)
        yield gemm_row(m, n, k, gpu.time_ms(lambda a=left, b=weights: gpu.torch.nn.functional.linear(a, b)))


def attentions(gpu: Gpu, prefill: bool, quick: bool) -> Iterator[Row]:
    """Rows of ``context_attention_perf`` or ``generation_attention_perf``."""
    attend = gpu.torch.nn.functional.scaled_dot_product_attention
    for shape in attention_shapes(prefill, quick):
        batch, length, heads, kv_heads = shape
        queries = gpu.normal(batch, heads, length if prefill else 1, HEAD_DIM)
        keys, values = (gpu.normal(batch, kv_heads, length, HEAD_DIM) for _ in range(2))
        arguments = {"is_causal": prefill, "enable_gqa": heads != kv_heads}
        latency_ms = gpu.time_ms(lambda q=queries, k=keys, v=values, a=arguments: attend(q, k, v, **a))
        yield attention_row(prefill, shape, latency_ms)


def copies(gpu: Gpu) -> Iterator[Row]:
    """What copies of each size take; pinned memory on the host's side."""
    torch = gpu.torch
    for size in COPIES:
        here, there = (torch.empty(size, dtype=torch.int8, device="cuda") for _ in range(2))
        host = torch.empty(size, dtype=torch.int8, pin_memory=True)
        pairs = {"device_to_device": (there, here), "host_to_device": (here, host), "device_to_host": (host, here)}
        for kind, (target, source) in pairs.items():
            latency_ms = gpu.time_ms(lambda t=target, s=source: t.copy_(s, non_blocking=True))
            gigabytes_per_s = size / latency_ms / 1e6
            yield {"op_name": kind, "bytes": size, "latency": latency_ms, "gigabytes_per_s": round(gigabytes_per_s, 2)}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the kernels of a CUDA GPU, for servsim calibrate.")
    parser.add_argument("out", type=Path, help="the folder that the tables go to")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="what to measure")
    parser.add_argument("--repeats", type=int, default=10, help="calls of which the median is taken")
    parser.add_argument("--quick", action="store_true", help="a half or a third of the shapes along each axis")
    asked = parser.parse_args(arguments)
    if asked.repeats < 1:
        parser.error("--repeats must be at least 1")
    return asked


def main(arguments: list[str] | None = None) -> int:
    """Measure, and say what was written."""
    asked = parse(arguments)
    try:
        import torch
    except ImportError:
        print("PyTorch is missing: install it with CUDA support (pip install torch)", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("PyTorch finds no CUDA GPU", file=sys.stderr)
        return 2
    asked.out.mkdir(parents=True, exist_ok=True)
    gpu = Gpu(torch, asked.repeats)
    common = {"framework": "PyTorch", "version": torch.__version__, "device": gpu.name}
    tables: dict[str, Callable[[], Iterator[Row]]] = {
        "gemm": lambda: gemms(gpu, asked.quick),
        "context_attention": lambda: attentions(gpu, True, asked.quick),
        "generation_attention": lambda: attentions(gpu, False, asked.quick),
        "copies": lambda: copies(gpu),
    }
    for kind in asked.kinds:
        path = asked.out / ("copies.csv" if kind == "copies" else f"{kind}_perf.csv")
        with torch.inference_mode():
            print(f"{write_table(path, tables[kind](), common)} rows in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
