"""Steps through stages that nobody else uses, and what is sent between the stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from servsim.cost.fixed import FixedCost
from servsim.cost.host import HostWork
from servsim.cost.pipelined import PipelinedCost
from servsim.cost.roofline import RooflineCost
from servsim.cost.sends import StageSends
from servsim.errors import ScenarioError
from servsim.hardware import load_device, load_link
from servsim.model import load_model
from servsim.model.stages import pipeline_stages

ROOT = Path(__file__).parents[2]
H100 = load_device(ROOT / "hardware" / "h100-sxm.yaml")
LLAMA = load_model(ROOT / "models" / "llama-3.1-8b.yaml")


def stages(size: int) -> list[RooflineCost]:
    return [RooflineCost(stage.operators(1, "bf16", "none", "bf16"), H100) for stage in pipeline_stages(LLAMA, size)]


@pytest.mark.parametrize(("chunks", "decoders", "context"), [([], 7, 9000), ([(500, 0)], 0, 0), ([(300, 64)], 5, 700)])
def test_stages_without_sends_take_as_long_as_the_network_on_one_device(
    chunks: list, decoders: int, context: int
) -> None:
    whole, parts = stages(1)[0], PipelinedCost(stages(4), lambda tokens: 0.0)
    work: Any = (chunks, len(chunks), decoders, context)
    assert parts.step_s(*work) == pytest.approx(whole.step_s(*work), rel=1e-12)
    if not chunks:
        one, other = whole.decode_stride(0.0, decoders, context), parts.decode_stride(0.0, decoders, context)
        assert (other.first_s, other.growth_s) == pytest.approx((one.first_s, one.growth_s))
        assert other.limit <= one.limit


def test_a_stride_is_as_long_as_its_steps_one_by_one() -> None:
    host = HostWork(stages(2)[0].step_s([], 0, 8, 10_000) * 2, asynchronous=True)  # hidden until the context is long
    cost = PipelinedCost(stages(2), lambda tokens: 1e-6 * tokens, host)
    context, seen = 100, 0
    while context < 40_000:
        stride = cost.decode_stride(0.0, 8, context)
        for step in {1, 2, min(stride.limit, 3000)}:
            if step <= stride.limit:
                one = cost.step_s([], 0, 8, context + 8 * (step - 1))
                assert stride.step_s(step) == pytest.approx(one, rel=1e-9)
                seen += 1
        context += 8 * min(stride.limit, 3000)
    assert seen > 6 and cost.decode_stride(0.0, 8, 100).growth_s == 0.0 < cost.decode_stride(0.0, 8, 39_000).growth_s


def test_the_host_is_waited_for_once_and_sends_are_between_stages() -> None:
    cost = PipelinedCost([FixedCost(0.5, 0.25)] * 3, lambda tokens: tokens / 64, HostWork(gap_s=0.125))
    passage = cost.passage([(5, 0)], 1, 3, 30)
    assert passage == (0.125, 0.125, (0.5, 0.5, 0.5), 0.125)
    assert passage.alone_s == cost.step_s([(5, 0)], 1, 3, 30) == 0.125 + 1.5 + 2 * 0.125


def test_a_send_over_the_interconnect_puts_as_much_on_the_wire_as_an_all_reduce_of_two() -> None:
    assert H100.interconnect is not None
    sends = StageSends(H100, None, hidden_bytes=8192, group=1)
    assert sends.time_s(100) == H100.interconnect.all_reduce_s(2 * 8192 * 100, 2)


def test_over_a_link_each_device_sends_its_share_and_the_receivers_gather() -> None:
    assert H100.interconnect is not None
    link = load_link(ROOT / "hardware" / "rdma-400g.yaml")
    alone, four = (StageSends(H100, link, hidden_bytes=8192, group=group) for group in (1, 4))
    message_bytes = 2 * 8192 * 1000
    fixed_s = link.latency_s + link.launch_s
    assert alone.time_s(1000) == pytest.approx(fixed_s + message_bytes / link.write_bandwidth_bytes_per_s)
    gather_s = 0.5 * H100.interconnect.all_reduce_s(message_bytes, 4)
    assert four.time_s(1000) == pytest.approx(fixed_s + message_bytes / 4 / link.write_bandwidth_bytes_per_s + gather_s)


def test_a_device_without_an_interconnect_needs_a_link() -> None:
    lone = H100.model_copy(update={"interconnect": None})
    with pytest.raises(ScenarioError, match="no interconnect to send over"):
        StageSends(lone, None, hidden_bytes=8192, group=1)
