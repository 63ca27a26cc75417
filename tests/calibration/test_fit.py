"""Fits find the law that made the times, and are judged on rows that they did not see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from servsim.calibration import Fit, Table, fitted, read_tables, works
from servsim.calibration.fit import predicted_s
from servsim.calibration.loads import chosen_and_padded
from servsim.hardware import Device, Efficiency, load_device

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def h100() -> Device:
    return load_device(ROOT / "hardware" / "h100-sxm.yaml")


def gemm_table(latency_ms: object = None, dtype: str = "bfloat16") -> Table:
    """Products of many shapes that take what a maximum with 70 % of an H100's compute and 80 % of its memory does."""
    grid = np.meshgrid([1, 8, 64, 100, 256, 1000, 4096], [512, 1024, 3000, 8192, 20000], [512, 2048, 4096, 9000])
    m, n, k = (axis.ravel() for axis in grid)
    flops, size = 2.0 * m * n * k, 2.0 * (m * k + n * k + m * n)
    seconds = np.maximum(flops / (0.7 * 989.4e12), size / (0.8 * 3.35e12)) + 5e-6
    columns = {
        "gemm_dtype": np.full(len(m), dtype), "m": m, "n": n, "k": k,
        "latency": seconds * 1e3 if latency_ms is None else latency_ms,
        "framework": np.full(len(m), "PyTorch"), "version": np.full(len(m), "2"), "device": np.full(len(m), "a GPU"),
    }  # fmt: skip
    return Table("gemm", columns, ("made.csv",))


def entry(fit: Fit) -> Efficiency:
    return Efficiency.model_validate(fit.block("a test"))


def test_a_fit_finds_the_law_that_made_the_times(h100: Device) -> None:
    (work,) = works([gemm_table()], h100)
    fit = fitted(work)
    assert fit.compute == pytest.approx(0.7, rel=0.02) and fit.memory == pytest.approx(0.8, rel=0.02)
    assert fit.overhead_s == pytest.approx(5e-6, rel=0.05)
    assert fit.exponent is not None and fit.exponent > 5  # a hard maximum
    assert fit.median_error < 0.01 and fit.p90_error < 0.03


def test_every_fifth_row_of_the_sorted_table_is_held_back_and_changes_no_fit(h100: Device) -> None:
    table = gemm_table()
    order = np.lexsort([table.columns[name] for name in ("k", "n", "m")])
    held = order[4::5]
    spoilt = table.columns["latency"].copy()
    spoilt[held] *= 3.0
    first, second = (fitted(next(works([gemm_table(latency)], h100))) for latency in (None, spoilt))
    assert (first.rows, first.held_back) == (112, 28)
    assert replace(
        second, work=first.work, law_median_error=0, law_p90_error=0, median_error=0, p90_error=0
    ) == replace(first, law_median_error=0, law_p90_error=0, median_error=0, p90_error=0)
    assert second.median_error == pytest.approx(2 / 3, abs=0.02)


def test_a_correction_takes_up_what_the_law_cannot_say(h100: Device) -> None:
    table = gemm_table()
    dear = np.where(table.columns["m"] == 256, 1.5, 1.0)  # a size at which the kernel is badly chosen
    without_waves = h100.model_copy(update={"processors": None})
    fit = fitted(next(works([gemm_table(table.columns["latency"] * dear)], without_waves)))
    assert fit.law_p90_error > 0.2
    assert fit.p90_error < 0.5 * fit.law_p90_error
    assert max(fit.thousandths) > 1200


def test_the_cost_model_predicts_what_the_fit_was_judged_on(h100: Device) -> None:
    fit = fitted(next(works([gemm_table()], h100)))
    held = fit.work.held_back
    relative = np.abs(predicted_s(fit.work, entry(fit), held) / fit.work.seconds[held] - 1)
    assert np.median(relative) == pytest.approx(fit.median_error)
    assert np.percentile(relative, 90) == pytest.approx(fit.p90_error)


def test_no_fit_is_faster_than_the_device(h100: Device) -> None:
    table = gemm_table()
    fit = fitted(next(works([gemm_table(table.columns["latency"] * 0.1)], h100)))
    assert fit.compute is not None and fit.compute <= 1 and fit.memory <= 1
    work = fit.work
    floor = np.maximum(work.flops / work.peak_flops, work.size_bytes / work.bandwidth)
    everything = np.ones(len(floor), dtype=bool)
    assert np.all(predicted_s(work, entry(fit), everything) >= floor)


def test_balanced_routing_fills_tiles_evenly_and_a_power_law_leaves_experts_out() -> None:
    def of(tokens: int, distribution: str) -> tuple[float, float]:
        one = np.ones(1)
        chosen, padded = chosen_and_padded(tokens * one, 8 * one, 128 * one, np.array([distribution]), 16)
        return float(chosen[0]), float(padded[0])

    assert of(1, "balanced") == (8, 8 * 16)
    assert of(16, "balanced") == (128, 128 * 16)  # one token each, a tile each
    assert of(272, "balanced") == (128, 128 * 32)  # 17 tokens each, two tiles each
    chosen, padded = of(16, "power_law_1.2")
    assert 40 < chosen < 128 and padded < 128 * 16
    assert of(16384, "power_law_1.2")[1] >= 16384 * 8


@pytest.mark.parametrize("name", ["h100_sxm"])
def test_tables_of_a_measured_device_meet_their_targets(servsim_data: Path, h100: Device, name: str) -> None:
    tables = read_tables(
        [servsim_data / "kernels" / name / f"{kind}_attention_perf.parquet" for kind in ("context", "generation")]
    )
    found = {(work.operator, work.dtype): work for work in works(tables, h100)}
    assert set(found) == {(f"attention_{kind}", dtype) for kind in ("prefill", "decode") for dtype in ("bf16", "fp8")}
    for kind, median, p90 in (("prefill", 0.04, 0.14), ("decode", 0.05, 0.15)):
        fit = fitted(found[f"attention_{kind}", "bf16"])
        stated = h100.efficiency(f"attention_{kind}", "bf16")  # type: ignore[arg-type]
        assert fit.median_error <= median and fit.p90_error <= p90
        assert fit.median_error == pytest.approx(stated.median_error, abs=0.002)
        assert stated.correction is not None and fit.thousandths == stated.correction.thousandths


def decode_table(regrouped_us: float, several_us: float) -> Table:
    """Decode attention at 85 % of an H100's memory, with constants that copies and several heads cost."""
    grid = np.meshgrid([1, 2, 4, 16, 64], [1, 31, 127, 1023, 4095], [1, 2, 8], [1, 4])
    batch, step, kv_heads, group = (axis.ravel() for axis in grid)
    seconds = 10e-6 + 512.0 * batch * (step + 1) * kv_heads / (0.85 * 3.35e12)
    seconds += 1e-6 * (regrouped_us * ((batch > 1) & (kv_heads > 1) & (group > 1)) + several_us * (kv_heads > 1))
    same = {name: np.full(len(batch), value) for name, value in {
        "isl": 1, "head_dim": 128, "attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "window_size": 0,
        "kernel_source": "made", "framework": "a test", "version": "1", "device": "a GPU",
    }.items()}  # fmt: skip
    columns = same | {
        "batch_size": batch, "step": step, "num_key_value_heads": kv_heads, "num_heads": kv_heads * group,
        "latency": seconds * 1e3,
    }  # fmt: skip
    return Table("generation_attention", columns, ("made.csv",))


@pytest.mark.parametrize(("regrouped_us", "several_us"), [(4.0, 0.0), (0.0, 2.0), (0.0, 0.0)])
def test_a_fit_finds_what_copies_and_several_heads_cost(h100: Device, regrouped_us: float, several_us: float) -> None:
    (work,) = works([decode_table(regrouped_us, several_us)], h100)
    terms = fitted(work).terms
    assert terms.regrouping_s == pytest.approx(regrouped_us * 1e-6, abs=0.6e-6)
    assert terms.several_heads_s == pytest.approx(several_us * 1e-6, abs=0.6e-6)


def test_an_all_reduce_has_points_on_both_sides_of_a_switch(h100: Device) -> None:
    sizes = 2 ** np.arange(7, 30)
    columns = {
        "num_gpus": np.full(len(sizes), 8), "message_size": sizes, "backend": np.full(len(sizes), "vllm_graph"),
        "allreduce_dtype": np.full(len(sizes), "bfloat16"),
        "latency": 1e-3 * np.where(2 * sizes < 262144, 5.0, 12.0) + sizes * 1e-7,
        "framework": np.full(len(sizes), "a test"), "version": np.full(len(sizes), "1"),
        "device": np.full(len(sizes), "a GPU"),
    }  # fmt: skip
    (work,) = works([Table("all_reduce", columns, ("made.csv",))], h100)
    assert {262143.0, 262144.0} <= set(work.knots[0])
    fit = fitted(work)
    assert fit.block("a test")["one_stage_below_bytes"] == 262144
    below, above = (fit.thousandths[work.knots[0].index(size)] for size in (262143.0, 262144.0))
    assert above > 1.3 * below
