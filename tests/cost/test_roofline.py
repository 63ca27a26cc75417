"""Step times on a device's roofline: closed forms of strides against steps computed one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servsim.cost.host import HostWork
from servsim.cost.law import OperatorLaw, RowLaw
from servsim.cost.roofline import RooflineCost
from servsim.errors import ScenarioError
from servsim.hardware import Device, Efficiency, load_device
from servsim.hardware.waves import wave_factor
from servsim.model import load_model
from servsim.model.operators import RowOperator, step_operators

ROOT = Path(__file__).parents[2]


def plain(found: Device) -> Device:
    """The device with the laws alone: what is said of their lines does not hold with measured corrections."""
    entries = tuple(entry.model_copy(update={"correction": None, "covers": {}}) for entry in found.efficiencies)
    return found.model_copy(update={"efficiencies": entries})


def measured(name: str = "h100-sxm") -> Device:
    return load_device(ROOT / "hardware" / f"{name}.yaml")


def device(name: str = "h100-sxm", *, decode: Efficiency | None = None) -> Device:
    found = plain(measured(name))
    if decode is None:
        return found
    others = tuple(entry for entry in found.efficiencies if entry.operator != "attention_decode")
    return found.model_copy(update={"efficiencies": (*others, decode)})


def roofline(
    model: str = "llama-3.1-8b",
    tp: int = 1,
    kv_dtype: str = "bf16",
    host: HostWork | None = None,
    on: Device | None = None,
) -> RooflineCost:
    shape = load_model(ROOT / "models" / f"{model}.yaml")
    return RooflineCost(step_operators(shape, tp, "bf16", "none", kv_dtype), on or device(), host)


def decode_efficiency(law: str, exponent: float | None = None) -> Efficiency:
    return Efficiency(
        operator="attention_decode",
        law=law,
        exponent=exponent,
        compute=0.5,
        memory=0.5,
        overhead_s=1e-6,
        source="a test",
    )


COSTS = {
    "llama on one H100": (roofline(), 1),
    "mixtral on two": (roofline("mixtral-8x7b", 2), 1),
    # With fp8 KV, MLA's decode attention passes the ridge from memory to compute as the context grows.
    "MLA with fp8 KV": (roofline("deepseek-v3", 1, "fp8"), 2),
    "host bound at first": (roofline(host=HostWork(0.008, 1e-6)), 2),
    "host in series": (roofline(host=HostWork(0.008, 1e-6, asynchronous=False)), 1),
    "MLA, host bound at first": (roofline("deepseek-v3", 1, "fp8", HostWork(0.03056)), 3),
    "sum": (roofline(on=device(decode=decode_efficiency("sum"))), 1),
}


CORRECTED = {
    "llama, corrected": (roofline(on=measured()), 11),
    "host bound at first, corrected": (roofline(on=measured(), host=HostWork(0.008, 1e-6)), 11),
    "MLA, corrected": (roofline("deepseek-v3", 1, "fp8", on=measured()), 11),
}
ALL = COSTS | CORRECTED


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("decoders", [1, 7, 64])
@pytest.mark.parametrize("context", [1, 900, 70_000])
def test_a_stride_is_its_steps_one_by_one_across_every_change_of_slope(name: str, decoders: int, context: int) -> None:
    cost, _ = ALL[name]
    start_s, steps_left = 3.0, 1500
    while steps_left:
        stride = cost.decode_stride(start_s, decoders, context)
        steps = min(stride.limit, steps_left)
        assert steps >= 1
        passed_s = 0.0
        for step in range(1, steps + 1):
            alone_s = cost.step_s((), 0, decoders, context + (step - 1) * decoders)
            assert stride.step_s(step) == pytest.approx(alone_s, rel=1e-12)
            passed_s += alone_s
        assert stride.end_s(steps) - start_s == pytest.approx(passed_s, rel=1e-11)
        start_s, context, steps_left = stride.end_s(steps), context + steps * decoders, steps_left - steps


@pytest.mark.parametrize(("name", "pieces"), [(name, pieces) for name, (_, pieces) in COSTS.items()])
def test_a_stride_ends_where_the_slope_changes_and_not_before(name: str, pieces: int) -> None:
    cost, _ = COSTS[name]
    context, slopes = 1, []
    for _ in range(10):
        stride = cost.decode_stride(0.0, 1, context)
        slopes.append(stride.growth_s)
        if stride.limit > 1 << 50:
            break
        last, beyond = cost.step_s((), 0, 1, context + stride.limit - 1), cost.step_s((), 0, 1, context + stride.limit)
        assert stride.step_s(stride.limit) == pytest.approx(last, rel=1e-12)
        assert beyond > stride.step_s(stride.limit + 1)  # one step more would be too fast
        context += stride.limit
    assert len(slopes) == pieces
    assert slopes == sorted(slopes)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(ALL)),
    decoders=st.integers(1, 256),
    mean=st.integers(1, 20_000),
    step=st.integers(1, 9),
)
def test_any_stride_starts_with_the_step_that_stands_alone(name: str, decoders: int, mean: int, step: int) -> None:
    cost, _ = ALL[name]
    stride = cost.decode_stride(0.0, decoders, decoders * mean)
    step = min(step, stride.limit)
    alone_s = cost.step_s((), 0, decoders, decoders * (mean + step - 1))
    assert stride.step_s(step) == pytest.approx(alone_s, rel=1e-12)


@pytest.mark.parametrize("name", CORRECTED)
@pytest.mark.parametrize("decoders", [1, 3, 200])
def test_a_corrected_step_has_few_pieces_and_never_gets_shorter_with_the_context(name: str, decoders: int) -> None:
    cost, most = CORRECTED[name]
    context, before, pieces = decoders, 0.0, 0
    while True:
        pieces += 1
        stride = cost.decode_stride(0.0, decoders, context)
        assert stride.growth_s >= 0 and stride.first_s >= before * (1 - 1e-12)
        if stride.limit > 1 << 50:
            break
        before = stride.step_s(stride.limit)
        context += stride.limit * decoders
    assert 1 < pieces <= most + 2


def test_leaving_what_was_measured_is_counted() -> None:
    cost = roofline(on=measured())
    cost.step_s([(2048, 0)], 0, 0, 0)
    assert cost.outside_range() == {}
    cost.step_s([(9000, 0)], 0, 0, 0)
    found = cost.outside_range()
    assert found == {"gemm": 4}  # qkv, output projection, both halves of the MLP
    cost.step_s([(9000, 0)], 0, 0, 0)
    assert cost.outside_range() == found  # once for each number of tokens
    cost.step_s([(2048, 60_000)], 0, 0, 0)
    cost.decode_stride(0.0, 2, 400_000)
    # The LM head of 128,256 columns is wider than any measured product: once for each number of sequences.
    assert cost.outside_range() == {"attention_decode": 1, "attention_prefill": 1, "gemm": 4, "lm_head": 1}


def test_a_width_of_heads_that_was_not_measured_is_counted() -> None:
    cost = roofline("deepseek-v3", on=measured())
    cost.decode_stride(0.0, 8, 8_000)
    cost.step_s([(100, 0)], 1, 0, 0)
    assert cost.outside_range()["attention_decode"] == 1 and cost.outside_range()["attention_prefill"] == 1


def test_decode_attention_that_follows_a_p_norm_is_refused() -> None:
    with pytest.raises(ScenarioError, match="p-norm, which has no closed form") as raised:
        roofline(on=device(decode=decode_efficiency("p_norm", 4.0)))
    assert "h100-sxm" in str(raised.value) and "maximum or sum" in str(raised.value)


def test_tensor_parallelism_needs_an_interconnect() -> None:
    with pytest.raises(ScenarioError, match="has no interconnect"):
        roofline(tp=2, on=device("xeon-platinum-8480plus"))


def test_laws_by_hand() -> None:
    def law(name: str, exponent: float = 1.0) -> OperatorLaw:
        return OperatorLaw(name, exponent, flops_per_s=100.0, bytes_per_s=10.0, overhead_s=0.5)

    assert law("maximum").time_s(300.0, 40.0) == 4.5
    assert law("sum").time_s(300.0, 40.0) == 7.5
    assert law("p_norm", 2.0).time_s(300.0, 40.0) == pytest.approx(5.5)
    operator = RowOperator("x", "gemm", "bf16", 3, 10.0, 20.0, 1.0)
    assert RowLaw(operator, law("sum")).time_s(10) == pytest.approx(3 * (100 / 100 + 30 / 10 + 0.5))


@pytest.mark.parametrize("law", ["maximum", "sum"])
def test_the_lines_of_a_law_are_the_law(law: str) -> None:
    one = OperatorLaw(law, 1.0, 100.0, 10.0, 0.5)
    lines = one.lines((5.0, 3.0), (2.0, 0.1))
    for x in (0.0, 1.0, 17.0, 1000.0):
        assert max(a + b * x for a, b in lines) == pytest.approx(one.time_s(5.0 + 3.0 * x, 2.0 + 0.1 * x))


def test_efficiencies_are_shares_of_the_device_s_peaks() -> None:
    h100 = device()
    law = OperatorLaw.of(h100, "gemm", "bf16")
    gemm = h100.efficiency("gemm")
    assert law.flops_per_s == pytest.approx(gemm.compute * h100.peak_flops("bf16"))
    assert law.bytes_per_s == pytest.approx(gemm.memory * h100.memory_bandwidth_bytes_per_s)
    assert gemm.compute < 1 and gemm.memory < 1
    assert OperatorLaw.of(h100, "attention_decode", "bf16").flops_per_s == h100.peak_flops("bf16")  # not fitted: peak


def test_the_host_runs_beside_the_device_or_after_it() -> None:
    beside, after = HostWork(0.01, 0.001), HostWork(0.01, 0.001, asynchronous=False)
    assert beside.waited_s(5) == 0.0 and beside.floor_s(5) == pytest.approx(0.015)
    assert after.waited_s(5) == pytest.approx(0.015) and after.floor_s(5) == 0.0


def test_a_prompt_in_chunks_costs_the_attention_of_the_whole_and_reads_the_weights_more_often() -> None:
    cost = roofline()
    whole = cost.step_s([(4096, 0)], 1, 0, 0)
    halves = cost.step_s([(2048, 0)], 0, 0, 0) + cost.step_s([(2048, 2048)], 1, 0, 0)
    assert whole < halves < 1.1 * whole


def test_more_of_anything_never_takes_less_time() -> None:
    cost = roofline()
    base = cost.step_s([(500, 100)], 1, 16, 16_000)
    for more in (
        ([(501, 100)], 1, 16, 16_000),
        ([(500, 200)], 1, 16, 16_000),
        ([(500, 100)], 1, 17, 16_000),
        ([(500, 100)], 1, 16, 99_000),
        ([(500, 100), (1, 0)], 2, 16, 16_000),
    ):
        assert cost.step_s(*more) >= base


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_tensor_parallelism_shortens_a_long_prefill_and_pays_for_its_sums(tp: int) -> None:
    alone, shared = roofline("llama-3.1-70b"), roofline("llama-3.1-70b", tp)
    step = ([(8192, 0)], 1, 0, 0)
    assert alone.step_s(*step) / tp < shared.step_s(*step) < alone.step_s(*step)


def test_a_device_without_measurements_says_so() -> None:
    assert roofline().calibration == "calibrated"
    assert roofline(on=device("l4")).calibration == "uncalibrated"


def test_a_product_takes_whole_waves_as_far_as_its_device_was_seen_to() -> None:
    plain_gemm = (
        measured()
        .efficiency("gemm", "bf16")
        .model_copy(update={"correction": None, "covers": {}, "wave_share": None, "law": "maximum", "exponent": None})
    )
    operator = RowOperator(
        "mlp_up", "gemm", "bf16", 1, 2.0 * 8192 * 28672, 2.0 * 8192 * 28672, 73728.0, k=8192, n=28672
    )

    def time_s(share: float | None, rows: int) -> float:
        entry = plain_gemm.model_copy(update={"wave_share": share})
        return RowLaw(operator, OperatorLaw.of(measured(), "gemm", "bf16", entry)).time_s(rows)

    for rows in (2048, 2049):
        steps = wave_factor(rows, 28672, 132)
        computing_s = time_s(None, rows) - plain_gemm.overhead_s
        assert time_s(1.0, rows) == pytest.approx(computing_s * steps + plain_gemm.overhead_s)
        assert time_s(0.5, rows) == pytest.approx(computing_s * steps**0.5 + plain_gemm.overhead_s)
