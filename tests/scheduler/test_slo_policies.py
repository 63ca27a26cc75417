"""SLO-aware policies, by hand: who goes first, who is let go, and what that does for deadlines."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from assembly import Assembly
from by_hand import ByHand
from case import Asked, Case
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from with_deadlines import known

import servsim
from servsim.cost.fixed import FixedCost
from servsim.memory import PagedAllocator
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence
from servsim.scheduler import Running, Surroundings
from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.policy import Bounds
from servsim.scheduler.urgency.edf import Edf
from servsim.scheduler.urgency.least_slack import LeastSlack
from servsim.scheduler.urgency.shedding import Shedding
from servsim.scheduler.urgency.slo_gain import SloGain
from servsim.scheduler.urgency.slos_serve import SlosServe
from servsim.scheduler.urgency.tier_admission import TierAdmission

INF = float("inf")


class Server(ByHand):
    """One sequence at a time unless told otherwise; a prompt token takes a second, and so does a decode step."""

    def __init__(self, policy: Any, bounds: list[Bounds], *, places: int = 1, parameters: Any = None) -> None:
        self.running, self.memory = Running(), PagedAllocator(MemorySurroundings(1001, 16, 1 << 20))
        self.surroundings = Surroundings(
            self.running,
            self.memory,
            places,
            2048,
            parameters,
            lambda name: None,  # type: ignore[arg-type, return-value]
            prefill_s=float,
            decode_s=lambda decoders, context: 1.0,
            bounds=tuple(bounds),
        )
        self.policy = policy(self.surroundings)
        self.arrivals = 0
        self.now_s = 0.0

    def plan(self) -> Any:
        first, second = self.policy.plan(self.now_s), self.policy.plan(self.now_s)
        assert first[:-1] == second[:-1]
        return first

    def ask(self, prompt: int, slo_class: int = 0, *, at_s: float = 0.0, predicted: float = 1.0) -> Sequence:
        sequence = Sequence(self.arrivals, at_s, prompt, 1024, 0, slo_class, 0, (), predicted)
        self.arrivals += 1
        self.policy.add(sequence)
        return sequence

    def order(self, now_s: float = 0.0) -> list[int]:
        """Who would be let in one after the other at this time."""
        self.policy.queue.refresh(now_s)
        return [self.policy.queue.peek(place).request_id for place in range(self.policy.waiting)]


def ttft(*bounds_s: float) -> list[Bounds]:
    return [Bounds(ttft_s=bound_s) for bound_s in bounds_s]


def e2e(*bounds_s: float) -> list[Bounds]:
    return [Bounds(e2e_s=bound_s) for bound_s in bounds_s]


def serial_ends(policy: str, jobs: list[tuple[int, float]], **parameters: Any) -> np.ndarray:
    """When jobs (work in seconds, deadline) that are all there at 0 end on a serial engine with steps of a second."""
    bounds = tuple(Bounds(e2e_s=due_s) for _, due_s in jobs)
    costs: Any = {"prefill_s": lambda tokens: 1.0, "decode_s": lambda decoders, context: 1.0}
    with known(policy, bounds, bound="e2e", **costs, **parameters) as name:
        requests = tuple(Asked(0.0, 1, work, work) for work, _ in jobs)
        records = Assembly(Case(requests, FixedCost(1.0, 1.0), policy=name, max_num_seqs=1)).run()
    return np.asarray(records.requests["finish_s"])


@pytest.mark.parametrize(
    ("policy", "parameters", "ends_s"),
    [
        ("edf", {}, (11.0, 2.0)),
        ("least_slack", {}, (9.0, 11.0)),
        ("shedding", {"rule": "moore_hodgson"}, (11.0, 2.0)),
    ],
)
def test_of_j1_and_j2_each_rule_misses_one(
    policy: str, parameters: dict[str, Any], ends_s: tuple[float, float]
) -> None:
    assert tuple(serial_ends(policy, [(9, 10.0), (2, 9.0)], **parameters)) == ends_s


def test_slack_of_j1_is_1_and_that_of_j2_is_7() -> None:
    engine = Server(LeastSlack, e2e(10.0, 9.0), parameters=LeastSlack.Parameters(bound="e2e"))
    j1, j2 = engine.ask(1, 0, predicted=9), engine.ask(1, 1, predicted=2)
    latest_s = engine.policy.queue._latest_s
    assert (latest_s[j1], latest_s[j2]) == (1.0, 7.0)


def test_edf_takes_the_earliest_deadline_ties_and_those_without_one_by_arrival() -> None:
    engine = Server(Edf, ttft(5.0, 2.0, INF))
    for slo_class, at_s in ((2, 0.0), (0, 0.0), (2, 0.5), (1, 1.0), (1, 3.0)):
        engine.ask(4, slo_class, at_s=at_s)
    assert engine.order() == [3, 1, 4, 0, 2]


def test_edf_preempts_the_latest_deadline_and_fcfs_the_latest_arrival() -> None:
    def victim(policy: type) -> int:
        engine = Server(policy, ttft(50.0, 2.0), places=2)
        engine.memory = PagedAllocator(MemorySurroundings(5, 4, 1 << 20))
        engine.policy = policy(_with_memory(engine))
        lax, urgent = engine.ask(7, 0), engine.ask(7, 1)
        engine.step()
        engine.step()
        engine.step()
        assert len(engine.last.preempted) == 1
        return int(engine.last.preempted[0] is urgent) if lax else -1

    assert victim(Fcfs) == 1
    assert victim(Edf) == 0


def _with_memory(engine: Server) -> Surroundings:
    return replace(engine.surroundings, memory=engine.memory)


jobs_strategy = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 25).map(float)), min_size=1, max_size=6)


@examples(60)
@given(jobs_strategy)
def test_edf_meets_every_deadline_whenever_some_order_does(jobs: list[tuple[int, float]]) -> None:
    met = serial_ends("edf", jobs) <= np.array([due_s for _, due_s in jobs])
    feasible = any(
        all(np.cumsum([jobs[one][0] for one in order]) <= [jobs[one][1] for one in order])
        for order in permutations(range(len(jobs)))
    )
    assert met.all() == feasible


def test_moore_and_hodgson_drop_the_largest_of_those_before_the_one_that_would_be_late() -> None:
    engine = Server(Shedding, ttft(6.0, 7.0, 8.0, 9.0, 11.0), parameters=Shedding.Parameters(rule="moore_hodgson"))
    for slo_class, work in enumerate((4, 1, 6, 3, 6)):
        engine.ask(work, slo_class)
    # 4, 5, then 11 > 8 drops the 6; 4, 5, 8, then 14 > 11 drops the other 6.
    assert engine.order() == [0, 1, 3, 2, 4]


@examples(60)
@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 25)), min_size=1, max_size=6))
def test_moore_and_hodgson_keep_as_many_as_any_choice(jobs: list[tuple[int, int]]) -> None:
    engine = Server(
        Shedding, ttft(*(float(due) for _, due in jobs)), parameters=Shedding.Parameters(rule="moore_hodgson")
    )
    for slo_class, (work, _) in enumerate(jobs):
        engine.ask(work, slo_class)
    engine.policy.queue.refresh(0.0)
    kept = len(jobs) - len(engine.policy.queue._demoted)
    ordered = sorted(jobs, key=lambda job: job[1])
    best = 0
    for chosen in range(1 << len(jobs)):
        subset = [job for place, job in enumerate(ordered) if chosen >> place & 1]
        if all(np.cumsum([work for work, _ in subset]) <= [due for _, due in subset]):
            best = max(best, len(subset))
    assert kept == best


def test_shedding_lets_go_of_one_that_would_be_late_by_itself_and_edf_serves_it_first() -> None:
    engine = Server(Shedding, ttft(5.0, 20.0))
    doomed, fine = engine.ask(4, 0), engine.ask(4, 1)
    assert engine.order(1.0) == [doomed.request_id, fine.request_id]  # 1 + 4 is not beyond 5
    assert engine.policy.timer_s() == np.nextafter(1.0, 2.0)
    assert engine.order(1.5) == [fine.request_id, doomed.request_id]
    assert engine.policy.timer_s() == np.nextafter(16.0, 17.0)
    rival = Server(Edf, ttft(5.0, 20.0))
    rival.ask(4, 0), rival.ask(4, 1)
    assert rival.order(1.5) == [0, 1]


def test_the_demoted_wait_behind_newcomers_by_arrival_and_are_served_in_the_end() -> None:
    engine = Server(Shedding, ttft(5.0))
    for _ in range(2):
        engine.ask(4)
    engine.order(3.0)
    engine.ask(2, at_s=3.0)
    assert engine.order(3.0) == [2, 0, 1]
    engine.now_s = 3.0
    assert [one.request_id for one in engine.step()] == [2]


def test_slo_gain_serves_the_shortest_first_and_those_without_gain_last() -> None:
    engine = Server(SloGain, e2e(30.0, 12.0))
    long, short, hopeless = engine.ask(5, 0, predicted=9), engine.ask(5, 0, predicted=3), engine.ask(9, 1, predicted=1)
    assert engine.order(0.0) == [short.request_id, hopeless.request_id, long.request_id]  # 7, 9 and 13 s
    assert engine.order(4.0) == [short.request_id, long.request_id, hopeless.request_id]


def test_least_slack_displaces_a_decoder_once_the_head_has_less_slack_by_more_than_the_hysteresis() -> None:
    engine = Server(LeastSlack, e2e(30.0, 12.0), parameters=LeastSlack.Parameters(bound="e2e", hysteresis_s=2.0))
    lax = engine.ask(4, 0, predicted=5)  # 8 s of work: slack 22
    assert engine.step() == {lax: 4}
    urgent = engine.ask(3, 1, at_s=14.0, predicted=5)  # due at 26, 7 s of work: must start by 19
    assert engine.policy.arrival_matters(urgent)
    assert engine.policy.timer_s() == 19 + 2 - 22
    engine.now_s = 14.0
    assert engine.step() == {urgent: 3}
    assert list(engine.last.preempted) == [lax]


@pytest.mark.parametrize(("hysteresis_s", "switches"), [(0.0, 22), (0.5, 3), (1.5, 0), (None, 0)])
def test_hysteresis_keeps_two_equal_jobs_from_taking_turns(hysteresis_s: float | None, switches: int) -> None:
    """Without any, they change places after each token."""
    requests = (Asked(0.0, 1, 12, 12), Asked(0.0, 1, 12, 12))
    with known("least_slack", (Bounds(e2e_s=100.0),), bound="e2e", hysteresis_s=hysteresis_s) as name:
        records = Assembly(Case(requests, FixedCost(0.25, 0.125), policy=name, max_num_seqs=1)).run()
    assert records.requests["preemptions"].sum() == switches


def test_by_default_least_slack_displaces_nobody() -> None:
    engine = Server(LeastSlack, ttft(5.0, 0.1))
    lax = engine.ask(4, 0)
    engine.step()
    engine.ask(4, 1)
    engine.now_s = 50.0
    assert engine.step() == {lax: 1}
    assert engine.policy.timer_s() == INF


def test_slos_serve_keeps_what_capacity_left_by_decoding_can_prefill_in_time() -> None:
    """A token takes a second and nobody decodes: the capacity is a token a second."""
    engine = Server(SlosServe, [Bounds(ttft_s=10.0), Bounds(ttft_s=12.0, tpot_s=2.0), Bounds()], places=3)
    engine.ask(6, 0), engine.ask(5, 0), engine.ask(3, 1), engine.ask(2, 2)
    assert engine.order() == [1, 2, 3, 0]  # 6 + 5 > 10 drops the 6
    other = Server(SlosServe, [Bounds(ttft_s=10.0, tpot_s=2.0)], places=3)
    first = other.ask(1, 0)
    other.step()
    other.ask(4, 0), other.ask(3, 0)
    other.now_s = 1.0
    # One runs and takes half of the capacity: by 10 there is room for 4.5 tokens, not for 7.
    assert other.order(1.0) == [2, 1]
    assert first.decoding


def test_slos_serve_cuts_chunks_to_the_smallest_tpot_of_the_running_but_not_below_the_least() -> None:
    def chunk(tpot_s: float, least: int = 1) -> int:
        parameters = SlosServe.Parameters(min_chunk_tokens=least)
        engine = Server(SlosServe, [Bounds(tpot_s=tpot_s)], places=3, parameters=parameters)
        engine.ask(1)
        engine.step()
        long = engine.ask(1000)
        return engine.step()[long]

    assert chunk(INF) == 1000
    assert chunk(321.0) == 320  # a second of it goes to the decoder; lengths are tried in steps of 32
    assert chunk(0.5) == 1
    assert chunk(0.5, least=16) == 16


def test_tier_admission_turns_the_sheddable_away_while_saturated() -> None:
    engine = Server(TierAdmission, [Bounds()], parameters=TierAdmission.Parameters(queue_depth=2))
    critical, sheddable = (Sequence(9, 0.0, 4, 10, 0, 0, priority, ()) for priority in (0, 1))
    assert engine.policy.accepts(sheddable)
    engine.ask(4), engine.ask(4)
    assert engine.policy.saturation == 1.0
    assert engine.policy.accepts(critical) and not engine.policy.accepts(sheddable)


def test_tier_admission_looks_at_the_memory_too() -> None:
    engine = Server(TierAdmission, [Bounds()], parameters=TierAdmission.Parameters(kv_utilization=0.01))
    engine.ask(16 * 10)
    engine.step()
    assert engine.policy.saturation == pytest.approx(10 / 1000 / 0.01)


@pytest.mark.parametrize("policy", [Edf, LeastSlack, Shedding, SlosServe, TierAdmission])
def test_without_bounds_and_priorities_they_are_first_come_first_served(policy: type) -> None:
    engine = Server(policy, [Bounds()])
    for _ in range(4):
        engine.ask(7)
    engine.ask(1)
    assert engine.order(100.0) == [0, 1, 2, 3, 4]


def overloaded(policy: str, **parameters: Any) -> dict[str, Any]:
    """Interactive requests among batch ones, a little more than the engine can serve."""
    return {
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "scheduler": {"policy": policy, "max_num_seqs": 16, **parameters},
            "max_model_len": 8192,
        },
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 28},
            "classes": [
                {"name": "chat", "share": 0.5, "priority": 0, "lengths": _lengths(256, 100)},
                {"name": "batch", "share": 0.5, "priority": 2, "lengths": _lengths(1024, 100)},
            ],
            "num_requests": 300,
            "max_tokens": 2000,
        },
        "slo": {"chat": {"ttft_s": 0.5, "tpot_s": 0.05}, "batch": {"ttft_s": 20.0}},
    }


def _lengths(prompt: int, output: int) -> dict[str, Any]:
    spread = {"distribution": "lognormal", "sigma": 0.6, "min": 1, "max": 1900}
    return {"prompt_tokens": prompt, "output_tokens": {**spread, "median": output}}


def in_time(policy: str, **parameters: Any) -> np.ndarray:
    """Which requests had their first token in time."""
    records = servsim.simulate(overloaded(policy, **parameters)).records
    bound_s = np.where(records.requests["slo_class"] == records.slo_classes.index("chat"), 0.5, 20.0)
    return np.asarray(records.requests["first_token_s"] - records.requests["arrival_s"] <= bound_s)


def test_under_load_deadlines_are_kept_by_those_who_look_at_them() -> None:
    fcfs = in_time("fcfs").mean()
    for policy, parameters in (
        ("edf", {}),
        ("least_slack", {}),
        ("shedding", {}),
        ("shedding", {"rule": "moore_hodgson"}),
        ("slos_serve", {}),
    ):
        assert in_time(policy, **parameters).mean() > fcfs + 0.1, policy


def test_tier_admission_rejects_only_the_sheddable_and_the_others_wait_less() -> None:
    tiers = servsim.simulate(overloaded("tier_admission")).records
    fcfs = servsim.simulate(overloaded("fcfs")).records
    rejected = tiers.requests["status"] == 1
    chat = tiers.requests["slo_class"] == tiers.slo_classes.index("chat")
    assert rejected.sum() > 10 and not (rejected & chat).any()

    def wait_s(records: Any) -> float:
        return float((records.requests["scheduled_s"] - records.requests["arrival_s"])[chat].mean())

    assert wait_s(tiers) < 0.5 * wait_s(fcfs)
