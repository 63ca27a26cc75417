"""A stride's clock: one expression for every boundary, and the first boundary at or after a time."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from servsim.cost.fixed import FixedCost
from servsim.cost.stride import Stride

STRIDES = st.builds(
    Stride,
    start_s=st.one_of(st.just(0.0), st.floats(0, 1e6)),
    first_s=st.floats(1e-6, 2.0),
    growth_s=st.one_of(st.just(0.0), st.floats(1e-13, 1e-2)),
)


def linear_scan(stride: Stride, time_s: float) -> int:
    step = 1
    while stride.end_s(step) < time_s:
        step += 1
    return step


def beside(time_s: float, ulps: int) -> float:
    for _ in range(abs(ulps)):
        time_s = math.nextafter(time_s, math.copysign(math.inf, ulps))
    return time_s


@settings(max_examples=300, deadline=None)
@given(stride=STRIDES, step=st.integers(0, 300), ulps=st.integers(-2, 2))
@example(stride=Stride(0.1, 0.1), step=3, ulps=0)
@example(stride=Stride(1e6, 1e-6, 1e-13), step=200, ulps=1)
def test_the_first_boundary_at_or_after_a_time_beside_a_boundary(stride: Stride, step: int, ulps: int) -> None:
    time_s = beside(stride.end_s(step), ulps)
    assert stride.first_end_at_or_after(time_s) == linear_scan(stride, time_s)


@settings(max_examples=200, deadline=None)
@given(stride=STRIDES, step=st.integers(1, 300), share=st.floats(0, 1))
def test_the_first_boundary_after_a_time_within_a_step(stride: Stride, step: int, share: float) -> None:
    time_s = stride.end_s(step - 1) + share * (stride.end_s(step) - stride.end_s(step - 1))
    assert stride.first_end_at_or_after(time_s) == linear_scan(stride, time_s)


@settings(max_examples=200, deadline=None)
@given(stride=STRIDES, step=st.integers(1_000, 1 << 40), ulps=st.integers(-1, 1))
def test_far_boundaries_are_found_without_a_scan(stride: Stride, step: int, ulps: int) -> None:
    time_s = beside(stride.end_s(step), ulps)
    found = stride.first_end_at_or_after(time_s)
    assert stride.end_s(found) >= time_s and stride.end_s(found - 1) < time_s


@given(stride=STRIDES)
def test_a_time_before_the_stride_belongs_to_its_first_step(stride: Stride) -> None:
    assert stride.first_end_at_or_after(stride.start_s) == 1
    assert stride.first_end_at_or_after(stride.start_s - 1.0) == 1


def test_steps_grow_linearly_and_boundaries_are_their_sums() -> None:
    stride = Stride(10.0, 0.5, 0.25)
    assert [stride.step_s(step) for step in (1, 2, 3, 4)] == [0.5, 0.75, 1.0, 1.25]
    assert [stride.end_s(step) for step in range(5)] == [10.0, 10.5, 11.25, 12.25, 13.5]


@pytest.mark.parametrize(("chunks", "decoders", "expected"), [([(5, 0)], 0, 3.0), ([(5, 0)], 2, 3.0), ([], 2, 0.5)])
def test_a_fixed_cost_asks_only_whether_the_step_has_prefill(
    chunks: list[tuple[int, int]], decoders: int, expected: float
) -> None:
    cost = FixedCost(3.0, 0.5)
    assert cost.step_s(chunks, len(chunks), decoders, 1000) == expected
    assert cost.decode_stride(1.0, 2, 1000).end_s(4) == 3.0
    assert cost.calibration == "fixed"
