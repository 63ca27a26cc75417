"""KV swapped to a tier: who waits for which copy, and that strides change nothing while copies are under way."""

from __future__ import annotations

from typing import Any

import pytest
import simpy
from case import Asked
from checks import same_bits
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from servsim import registry
from servsim.clock import ARRIVAL, schedule_at
from servsim.cost.fixed import FixedCost
from servsim.engine import Instance, Parts
from servsim.engine.facts import Facts
from servsim.hardware import LinkSpec, Tier
from servsim.memory import PagedAllocator
from servsim.memory.surroundings import KvShape, MemorySurroundings
from servsim.memory.swap_space import SwapSpace
from servsim.records import PAUSE_REASONS, Recorder, Records
from servsim.request import Request
from servsim.scheduler.policy import Surroundings
from servsim.scheduler.predictors import Oracle
from servsim.scheduler.running import Running
from servsim.streams import Streams
from servsim.workload.beams import BeamDraws

KV = KvShape(num_layers=2, row_bytes=25, bytes_per_token=100)


class Run:
    """One instance with a tier, whose books are checked at every event and every step."""

    def __init__(
        self,
        requests: list[Asked] | list[Request],
        policy: str,
        *,
        copies: str = "async",
        num_blocks: int = 9,
        block_size: int = 4,
        tier_blocks: int = 1000,
        bytes_per_s: float = 3200.0,
        duplex: str = "full",
        launch_s: float = 0.0,
        granularity: Any = "blocks",
        max_num_seqs: int = 4,
        budget: int = 64,
        cost: Any = None,
        single: bool = False,
        **settings: Any,
    ) -> None:
        self.env = simpy.Environment()
        self.recorder = Recorder()
        spec = {"duplex": duplex, "latency_s": 0.0, "launch_s": launch_s, "sources": {"made up": "for a test"}}
        both = {"read_bandwidth_bytes_per_s": bytes_per_s, "write_bandwidth_bytes_per_s": bytes_per_s}
        link = LinkSpec.model_validate({"name": "wire", "kind": "link", **both, **spec})
        tier = Tier("cpu", "cpu", tier_blocks * block_size * KV.bytes_per_token, link)
        asynchronous = copies == "async"
        self.space = SwapSpace(self.env, tier, KV, block_size, granularity=granularity, asynchronous=asynchronous)
        self.memory = PagedAllocator(MemorySurroundings(num_blocks, block_size, 1 << 20, kv=KV))
        running, streams = Running(), Streams(0)
        kind = registry.resolve("schedulers", policy)
        surroundings = Surroundings(
            running,
            self.memory,
            max_num_seqs,
            budget,
            kind.Parameters(swap_copies=copies, copy_granularity=granularity, **settings),
            streams.get,
            prefill_s=lambda tokens: tokens / 32,
            kv_bytes_per_token=100,
            swap_space=self.space,
        )
        cost = cost or FixedCost(0.25, 0.125)
        predictor = Oracle(None, streams.get("predictor"))
        facts = Facts(self.recorder)
        parts = Parts(
            kind(surroundings), running, self.memory, cost, predictor, facts, 1 << 20, single, swap_space=self.space,
            reorderings=BeamDraws(streams, 0.5),
        )  # fmt: skip
        self.instance = Instance(self.env, 0, parts)
        self._check_steps()
        for number, one in enumerate(requests):
            self._arrive(one if isinstance(one, Request) else Request(number, *one))

    def _arrive(self, request: Request) -> None:
        event = simpy.Event(self.env)
        assert event.callbacks is not None
        event.callbacks.append(lambda _: self.instance.submit(request))
        schedule_at(self.env, event, request.arrival_s, ARRIVAL)

    def _check_steps(self) -> None:
        """No step begins, nor does a copy in, while the memory that it writes to is still leaving."""
        pass_time = self.instance._pass_time
        memory, space = self.memory, self.space

        def checked(stride: Any, steps: int) -> Any:
            used = memory.blocks_after(steps) if steps > 1 else memory.used_blocks
            assert used - space.held_blocks + space.leaving_blocks <= memory.total_blocks
            loading = memory.loading
            assert not any(one.decoding or one in self.instance.running.prefilling for one in loading)
            assert all(space.coming(one) or one in space._arrived for one in loading)
            return pass_time(stride, steps)

        self.instance._pass_time = checked  # type: ignore[method-assign]

    def run(self) -> Records:
        """To the end, where everything is empty."""
        events = 0
        while self.env.peek() < float("inf"):
            self.env.step()
            self.space.check_integrity()
            self.memory.check_integrity()
            events += 1
            assert events < 50_000, "the simulation does not come to an end"
        assert not self.instance.unfinished()
        left = (self.memory.used_blocks, self.memory.stored_tokens, self.space.used_blocks, self.space.transfers)
        assert left == (0, 0, 0, 0)
        assert not self.memory.loading and not self.instance._loading_since
        return self.recorder.records(("default",), ("default",))


POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "v0": ("vllm_v0", {"preemption_mode": "swap", "watermark": 0.0}),
    "v0 auto": ("vllm_v0", {"preemption_mode": "auto"}),
    "trace": ("priority_trace", {"updates_per_iteration": 0.3}),
    "trace auto": ("priority_trace", {"updates_per_iteration": 0.3, "preemption": "auto"}),
    "mlfq": ("fastserve", {"quantum_s": 0.3, "promotion_iterations": 7, "starving_s": 2.0}),
    "lazy mlfq": ("fastserve", {"quantum_s": 0.3, "proactive": False}),
}

_asked = st.tuples(st.sampled_from([0, 0, 1, 3, 10]), st.integers(1, 14), st.integers(1, 16))


@pytest.mark.parametrize("name", POLICIES)
@examples(25)
@given(
    drawn=st.lists(_asked, min_size=3, max_size=10),
    copies=st.sampled_from(["async", "async", "blocking"]),
    link=st.fixed_dictionaries(
        {
            "bytes_per_s": st.sampled_from([400.0, 3200.0, 1000.0, 1e6]),
            "duplex": st.sampled_from(["full", "half"]),
            "launch_s": st.sampled_from([0.0, 1 / 64, 0.003]),
            "granularity": st.sampled_from(["blocks", "groups"]),
        }
    ),
    memory=st.fixed_dictionaries(
        {
            "num_blocks": st.sampled_from([9, 10, 14, 30]),
            "tier_blocks": st.sampled_from([1, 3, 8, 1000]),
            "max_num_seqs": st.sampled_from([1, 2, 4, 8]),
            "budget": st.sampled_from([8, 20, 64]),
        }
    ),
    cost=st.sampled_from([FixedCost(0.25, 0.125), FixedCost(0.1, 0.03)]),
)
def test_strides_change_nothing_with_copies_under_way(
    name: str, drawn: Any, copies: str, link: Any, memory: Any, cost: Any
) -> None:
    policy, settings = POLICIES[name]
    requests, clock = [], 0
    for gap, prompt, output in drawn:
        clock += gap
        requests.append(Asked(clock * 0.125, prompt, output, 20))
    found = [
        Run(requests, policy, copies=copies, cost=cost, single=single, **link, **memory, **settings).run()
        for single in (False, True)
    ]
    same_bits(*found)
    rows = found[0].requests
    assert len(rows["request_id"]) == len(requests)
    assert (rows["transfer_wait_s"] >= 0).all()
    assert (rows["transfer_wait_s"] <= rows["finish_s"] - rows["arrival_s"]).all()


_groups = st.tuples(
    st.sampled_from([0, 0, 1, 3, 10]),
    st.integers(1, 10),
    st.lists(st.integers(1, 12), min_size=1, max_size=3).map(lambda outputs: sorted(outputs, reverse=True)),
    st.sampled_from([1, 1, 2, 3]),
)


@examples(60)
@given(
    drawn=st.lists(_groups, min_size=3, max_size=8),
    mode=st.sampled_from(["swap", "auto"]),
    link=st.fixed_dictionaries(
        {
            "copies": st.sampled_from(["async", "async", "blocking"]),
            "bytes_per_s": st.sampled_from([400.0, 3200.0, 1e6]),
            "duplex": st.sampled_from(["full", "half"]),
            "granularity": st.sampled_from(["blocks", "groups"]),
        }
    ),
    memory=st.fixed_dictionaries(
        {
            "num_blocks": st.sampled_from([11, 14, 20]),
            "max_num_seqs": st.sampled_from([3, 4, 8]),
            "budget": st.sampled_from([20, 64]),
        }
    ),
)
def test_strides_change_nothing_with_groups_under_way(drawn: Any, mode: str, link: Any, memory: Any) -> None:
    requests, clock = [], 0
    for number, (gap, prompt, (longest, *further), beams) in enumerate(drawn):
        clock += gap
        several = {"further_outputs": tuple(further)} if beams == 1 else {"beam_width": beams}
        requests.append(Request(number, clock * 0.125, prompt, longest, 20, **several))
    found = [
        Run(requests, "vllm_v0", single=single, preemption_mode=mode, watermark=0.0, **link, **memory).run()
        for single in (False, True)
    ]
    same_bits(*found)
    assert len(found[0].requests["request_id"]) == len(requests)


def test_what_a_group_shares_is_copied_once() -> None:
    # The older one has 4 blocks in the end, the pair 1 + 2 * 3, of eight: it goes when it has 1 + 2 * 2.
    pair = Request(1, 0.0, 4, 12, 12, further_outputs=(12,))
    run = Run([Request(0, 0.0, 4, 12, 12), pair], "vllm_v0", preemption_mode="swap", watermark=0.0)
    records = run.run()
    assert records.requests["preemptions"].tolist() == [0, 1]
    block_bytes = 4 * KV.bytes_per_token
    moved = run.space.report()
    assert moved["copied_out_bytes_cpu"] == moved["copied_in_bytes_cpu"] == 5 * block_bytes


TWO = [Asked(0.0, 8, 12, 20), Asked(0.0, 8, 12, 20)]
"""With 6 usable blocks of 4 tokens: 2 each after the prefill, 3 each from the first decode step on, 4 from the 5th."""


def two(copies: str, **changed: Any) -> Records:
    settings = {"preemption_mode": "swap", "watermark": 0.0, "num_blocks": 7, "bytes_per_s": 1200.0}
    return Run(TWO, "vllm_v0", copies=copies, **{**settings, **changed}).run()


def test_a_blocking_step_waits_for_copies_and_who_comes_back_has_waited() -> None:
    # Prefill to 1/4. vLLM asks a free block of every decoder, so that the younger one goes after the first decode
    # step took the last two, at 3/8: 9 tokens in 3 blocks, a second. The other goes on to its 12th token, ten steps
    # more, in the end with 5 blocks: at 1.375 + 1.25 = 2.625. Then the second comes back, another second.
    records = two("blocking")
    assert records.requests["finish_s"].tolist() == [2.625, 2.625 + 1 + 10 * 0.125]
    assert records.requests["transfer_wait_s"].tolist() == [0.0, 1.0]
    pauses = records.pauses
    assert [PAUSE_REASONS[code] for code in pauses["reason"]] == ["swapped"]
    assert (pauses["start_s"].tolist(), pauses["end_s"].tolist()) == ([0.375], [3.75])


def test_an_asynchronous_copy_out_holds_nobody_up_until_its_memory_is_needed() -> None:
    # The copy out ends at 1.375. The other decodes meanwhile, in its 3 blocks until it stores 12 tokens, at 0.75: the
    # fourth block has to be one of those that leave. So it stands still until 1.375, and has 7 tokens to go.
    records = two("async")
    assert records.requests["finish_s"].tolist()[0] == 1.375 + 7 * 0.125
    # Alone on the device there is nothing to hide the copy back behind.
    assert records.requests["finish_s"].tolist()[1] == 2.25 + 1 + 10 * 0.125
    assert records.requests["transfer_wait_s"].tolist() == [0.0, 1.0]


def test_others_run_while_kv_comes_back() -> None:
    # As before, and a third request that arrives when the second is on its way back: it decodes meanwhile.
    requests = [*TWO, Asked(2.3, 4, 3, 20)]
    settings = {"preemption_mode": "swap", "watermark": 0.0, "num_blocks": 7, "bytes_per_s": 1200.0}
    kept = Run(requests, "vllm_v0", copies="async", **settings).run().requests
    held = Run(requests, "vllm_v0", copies="blocking", **settings).run().requests
    assert kept["finish_s"][2] == 2.3 + 0.25 + 2 * 0.125
    assert held["finish_s"][2] > 3.5
    assert kept["transfer_wait_s"][1] == pytest.approx(3.3 - 2.25, abs=0.13)  # it joins at a step's end


def test_auto_swaps_what_is_copied_faster_than_computed() -> None:
    # 9 tokens in 3 blocks take 1,200 bytes each way; to compute them and the next again, 10 / 32 s.
    for bytes_per_s, reason in ((1e6, "swapped"), (1200.0, "preempted")):
        records = two("blocking", preemption_mode="auto", bytes_per_s=bytes_per_s)
        assert {PAUSE_REASONS[code] for code in records.pauses["reason"]} == {reason}
    records = two("blocking", preemption_mode="auto", bytes_per_s=1e6, tier_blocks=2)
    assert {PAUSE_REASONS[code] for code in records.pauses["reason"]} == {"preempted"}
