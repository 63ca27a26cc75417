"""Sequence groups in an engine: outputs of one prompt and beams, against a plain vLLM v0, and in strides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import simpy
from checks import same_bits
from costs import LinesCost
from hypothesis import given
from hypothesis import strategies as st
from oracle_groups import Engine
from profiles import examples

from servsim.clock import ARRIVAL, schedule_at
from servsim.cost.fixed import FixedCost
from servsim.engine import Instance, Parts
from servsim.engine.facts import Facts
from servsim.memory import PagedAllocator
from servsim.memory.surroundings import MemorySurroundings
from servsim.metrics.token_times import step_ends
from servsim.records import FINISHED, REJECTED, Recorder, Records
from servsim.request import Request
from servsim.scheduler.engines.vllm_v0 import VllmV0, VllmV0Parameters
from servsim.scheduler.policy import Surroundings
from servsim.scheduler.predictors import Oracle
from servsim.scheduler.running import Running
from servsim.streams import Streams
from servsim.workload.beams import BeamDraws

COPY_S = 1 / 64  # of a block, one way


class Run:
    """One instance whose memory is checked at every event."""

    def __init__(
        self,
        requests: list[Request],
        *,
        blocks: int = 100,
        block_size: int = 4,
        max_num_seqs: int = 64,
        budget: int = 64,
        watermark: float = 0.0,
        swap: bool = False,
        probability: float = 0.5,
        cost: Any = None,
        single: bool = False,
    ) -> None:
        self.env = simpy.Environment()
        self.recorder = Recorder()
        self.memory = PagedAllocator(MemorySurroundings(blocks + 1, block_size, 1 << 20))
        running, streams = Running(), Streams(0)
        parameters = VllmV0Parameters(
            watermark=watermark,
            preemption_mode="swap" if swap else "recompute",
            copy_launch_s=COPY_S / 2,
            layers=1,
        )
        policy = VllmV0(Surroundings(running, self.memory, max_num_seqs, budget, parameters, streams.get))
        cost = cost or FixedCost(0.25, 0.125)
        parts = Parts(
            policy, running, self.memory, cost, Oracle(None, streams.get("predictor")), Facts(self.recorder), 1 << 20,
            single, reorderings=BeamDraws(streams, probability),
        )  # fmt: skip
        self.instance = Instance(self.env, 0, parts)
        for request in requests:
            self._arrive(request)

    def _arrive(self, request: Request) -> None:
        event = simpy.Event(self.env)
        assert event.callbacks is not None
        event.callbacks.append(lambda _: self.instance.submit(request))
        schedule_at(self.env, event, request.arrival_s, ARRIVAL)

    def run(self) -> Records:
        """To the end, where everything is empty."""
        events = 0
        while self.env.peek() < float("inf"):
            self.env.step()
            self.memory.check_integrity()
            running = self.instance.running
            assert running.seats == sum(one.width for one in running.sequences)
            events += 1
            assert events < 50_000, "the simulation does not come to an end"
        assert not self.instance.unfinished()
        assert (self.memory.used_blocks, self.memory.stored_tokens) == (0, 0)
        running = self.instance.running
        assert (running.seats, running.decoders, running.context_tokens) == (0, 0, 0)
        return self.recorder.records(("default",), ("default",))


def asked(number: int, arrival_s: float, prompt: int, outputs: list[int], beams: int = 1) -> Request:
    longest, *further = sorted(outputs, reverse=True)
    return Request(number, arrival_s, prompt, longest, longest, further_outputs=tuple(further), beam_width=beams)


_one = st.tuples(
    st.sampled_from([0, 0, 1, 3, 10]),
    st.integers(1, 14),
    st.lists(st.integers(1, 16), min_size=1, max_size=4),
    st.sampled_from([1, 1, 1, 2, 3]),
)
_costs = st.sampled_from(
    [FixedCost(0.25, 0.125), FixedCost(0.1, 0.03), LinesCost(2.0**-10, ((20, 1), (0, 2)), 1 << 60)]
)
_settings = st.fixed_dictionaries(
    {
        "blocks": st.sampled_from([8, 9, 12, 16, 24, 60]),
        "block_size": st.sampled_from([4, 4, 1, 3, 16]),
        "max_num_seqs": st.sampled_from([4, 5, 8, 64]),
        "budget": st.sampled_from([8, 20, 64]),
        "watermark": st.sampled_from([0.0, 0.0, 0.1, 0.2]),
        "swap": st.booleans(),
        "probability": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        "cost": _costs,
    }
)


def drawn_requests(drawn: list[tuple[int, int, list[int], int]], tick_s: float = 0.125) -> list[Request]:
    requests, clock = [], 0
    for number, (gap, prompt, outputs, beams) in enumerate(drawn):
        clock += gap
        requests.append(asked(number, clock * tick_s, prompt, outputs if beams == 1 else outputs[:1], beams))
    return requests


@examples(120)
@given(drawn=st.lists(_one, min_size=3, max_size=9), settings=_settings)
def test_strides_change_nothing_about_groups(drawn: Any, settings: Any) -> None:
    requests = drawn_requests(drawn)
    strided, single = (Run(requests, **settings, single=single) for single in (False, True))
    same_bits(strided.run(), single.run())
    assert strided.instance.report() == single.instance.report()


@examples(120)
@given(drawn=st.lists(_one, min_size=3, max_size=9), settings=_settings)
def test_groups_are_served_as_a_plain_vllm_v0_serves_them(drawn: Any, settings: Any) -> None:
    # Arrivals off the grid of steps: on a boundary it depends on rounding who sees them.
    requests = drawn_requests(drawn, 0.125 * 2**-0.5)
    run = Run(requests, **settings)
    records = run.run()
    settings["draws"] = BeamDraws(Streams(0), settings.pop("probability"))
    oracle = Engine(total_blocks=settings.pop("blocks"), copy_s=COPY_S, **settings)
    groups = oracle.run(requests)
    rows = records.requests
    assert (rows["status"] == REJECTED).tolist() == [group.rejected for group in groups]
    assert rows["preemptions"].tolist() == [group.preemptions for group in groups]
    for column in ("first_token_s", "finish_s"):
        expected = [getattr(group, column) for group in groups]
        np.testing.assert_allclose(rows[column], expected, rtol=1e-9, atol=0, err_msg=column)
    strides = records.strides
    ends_s, places = step_ends(strides, slice(0, len(strides["steps"])))
    np.testing.assert_allclose(ends_s, [end_s for end_s, _, _ in oracle.steps], rtol=1e-9, atol=0)
    for row, last in enumerate(places[1:].tolist()):
        _, decoders, blocks = oracle.steps[last - 1]
        assert (strides["decode_seqs"][row], strides["kv_blocks_used"][row]) == (decoders, blocks)
    assert run.instance.report().get("copied_blocks", 0) == oracle.copied


@examples(40)
@given(drawn=st.lists(_one, min_size=2, max_size=8), settings=_settings)
def test_a_group_of_one_is_a_plain_request(drawn: Any, settings: Any) -> None:
    requests = [one._replace(further_outputs=(), beam_width=1) for one in drawn_requests(drawn)]
    plain = [Request(*one[:10]) for one in requests]
    same_bits(Run(requests, **settings).run(), Run(plain, **settings).run())


def test_outputs_end_one_by_one_and_the_last_ends_the_request() -> None:
    # Prefill to 1/4, with the first token of all three; then one a step of 1/8.
    records = Run([asked(0, 0.0, 6, [1, 3, 6])]).run()
    assert records.requests["finish_s"].tolist() == [0.25 + 5 * 0.125]
    assert records.requests["output_tokens"].tolist() == [6]
    assert records.further_tokens is not None and records.further_tokens.tolist() == [4]
    assert records.strides["decode_seqs"].tolist() == [0, 2, 1]
    assert records.strides["steps"].tolist() == [1, 2, 3]
    # 6 tokens in 2 blocks; 7 and 8 for two in 3 (one copied); 9, 10 and 11 for the last in 3.
    assert records.strides["kv_blocks_used"].tolist() == [2, 3, 3]
    assert records.strides["kv_tokens_stored"].tolist() == [6, 4 + 2 * 4, 11]


def test_a_group_takes_a_seat_for_each_of_its_live_outputs() -> None:
    requests = [asked(0, 0.0, 4, [3, 6]), asked(1, 0.01, 4, [9])]
    two, three = (Run(requests, max_num_seqs=seats).run().requests["scheduled_s"].tolist() for seats in (2, 3))
    assert three == [0.0, 0.25]
    assert two == [0.0, 0.25 + 2 * 0.125]  # when the shorter one has its third token


def test_what_never_fits_is_rejected_on_arrival() -> None:
    # 8 tokens in common and 4 of each: 2 blocks and 3; the fourth output makes it 6.
    three, four = asked(0, 0.0, 8, [5] * 3), asked(1, 0.0, 8, [5] * 4)
    assert Run([three, four], blocks=5).run().requests["status"].tolist() == [FINISHED, REJECTED]
    assert Run([three, four], blocks=6).run().requests["status"].tolist() == [FINISHED, FINISHED]


def test_a_group_with_several_live_outputs_is_swapped_and_a_last_one_computed_again() -> None:
    # In the end the older one has 4 blocks and the pair 1 + 2 * 3, of eight.
    older = asked(0, 0.0, 4, [12])
    several = Run([older, asked(1, 0.0, 4, [12, 12])], blocks=8).run()
    assert several.requests["preemptions"].tolist() == [0, 1]
    assert several.pauses["reason"].tolist() == [2]  # swapped
    assert several.requests["transfer_wait_s"][1] > 0
    one = Run([older, asked(1, 0.0, 4, [12, 2])], blocks=5).run()
    assert one.requests["preemptions"].tolist() == [0, 1]
    assert one.pauses["reason"].tolist() == [0]  # preempted
    assert one.requests["transfer_wait_s"][1] == 0


def test_beams_do_not_depend_on_who_else_is_served() -> None:
    beams = asked(3, 0.0, 5, [40], beams=4)
    alone, crowd = Run([beams]), Run([*(asked(number, 0.0, 3, [9, 20]) for number in range(3)), beams])
    alone.run()
    crowd.run()
    others = 3  # forks, one of each of the three that have two outputs
    assert crowd.instance.report()["forks"] - others == alone.instance.report()["forks"] == 3 + replaced(beams) > 3


def replaced(request: Request) -> int:
    """How often a beam of the request is replaced before its last token."""
    draws, count = BeamDraws(Streams(0), 0.5)(request), 0
    while draws.at_tokens < request.output_tokens:
        draws.take()
        count += 1
    return count


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_beams_that_are_never_or_always_replaced(probability: float) -> None:
    run = Run([asked(0, 0.0, 8, [17], beams=2)], probability=probability)
    run.run()
    report = run.instance.report()
    assert report["forks"] == 1 + (15 if probability else 0)
    # Of 16 steps 2 blocks are saved in each, and with a fork at every token all but those that follow the last one.
    assert report["saved_block_steps"] >= 2 * 16
    assert (report["saved_block_steps"] > 2 * 16) == (probability > 0)


def test_what_a_request_asks_for_in_sequences_and_tokens() -> None:
    several, beams, plain = asked(0, 0.0, 6, [1, 3, 6]), asked(0, 0.0, 6, [6], beams=3), asked(0, 0.0, 6, [6])
    assert [one.width for one in (several, beams, plain)] == [3, 3, 1]
    assert [one.further_tokens for one in (several, beams, plain)] == [4, 12, 0]
