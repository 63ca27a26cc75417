"""Schedulers put together in YAML from a batching, an order and an admission rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from assembly import Assembly
from by_hand import ByHand
from case import Case
from checks import nothing_is_lost, planning_leaves_no_trace, same_bits, strided_equals_single
from drawn import cases
from hardened import strides_are_exact
from hypothesis import given
from profiles import examples

import servsim
from servsim import registry
from servsim.errors import ScenarioError
from servsim.scenario import Scenario, load_scenario
from servsim.scenario.json_schema import scenario_schema
from servsim.scheduler import Surroundings
from servsim.scheduler.combined import Combined
from servsim.scheduler.engines.lightllm import LightLlm, LightLlmAdmission
from servsim.scheduler.engines.lightllm_batching import LightLlmBatching
from servsim.scheduler.engines.past_future import PastFutureAdmission
from servsim.scheduler.engines.vllm_v1 import TokenBudgetBatching
from servsim.scheduler.orders import KeyOrder


def variant(**parts: Any) -> Callable[[Surroundings], Any]:
    parameters = Combined.Parameters.model_validate(parts)
    return lambda surroundings: Combined(replace(surroundings, parameters=parameters))


def scenario(**scheduler: Any) -> Scenario:
    return load_scenario(
        {
            "model": "llama-3.1-8b",
            "instance": {
                "hardware": "h100-sxm",
                "scheduler": {"policy": "combined", "max_num_seqs": 16, **scheduler},
                "memory": {"num_blocks": 300},
                "max_model_len": 2048,
            },
            "workload": {
                "arrivals": {"process": "gamma", "rate_per_s": 20, "burstiness": 0.3},
                "lengths": {
                    "prompt_tokens": {"distribution": "lognormal", "median": 200, "sigma": 1.0, "max": 1000},
                    "output_tokens": {"distribution": "lognormal", "median": 100, "sigma": 1.0, "max": 1000},
                },
                "num_requests": 100,
            },
        }
    )


def test_sjf_order_on_vllm_v1_batching_with_past_future_admission() -> None:
    made = ByHand(variant(order="sjf", admission={"name": "past_future", "reserve": 0.3}), usable_blocks=100)
    policy = made.policy
    assert type(policy) is TokenBudgetBatching and isinstance(policy.queue, KeyOrder)
    assert isinstance(policy.admission, PastFutureAdmission)
    assert policy.admission._limit == pytest.approx(1600 * 0.7)
    long, short = made.arrive(10, predicted=500), made.arrive(10, predicted=5)
    assert policy.head() is short
    made.step()
    assert policy.head() is long  # the window is filled with 1,024: two such do not fit into 1,120


def test_the_parts_of_a_preset_put_together_are_the_preset() -> None:
    @examples(10)
    @given(cases(policy="lightllm"))
    def hold(case: Case) -> None:
        same_bits(Assembly(case).run(), Assembly(replace(case, policy="mine")).run())

    registry._registered["schedulers"]["mine"] = variant(batching="lightllm", admission="lightllm")
    try:
        hold()
    finally:
        del registry._registered["schedulers"]["mine"]


@pytest.mark.parametrize("rate_per_s", [2, 100])
def test_a_delayed_batching_does_not_ask_whose_turn_it_is_before_a_seat_is_free(rate_per_s: float) -> None:
    """The answer depends on when it is first asked: a stride's timer must not ask earlier than single steps do."""
    what = scenario(
        max_num_seqs=2,
        batching={"name": "vllm_v0", "delay_factor": 1.0},
        order={"name": "deficit_round_robin", "quantum": 100},
    ).with_overrides([
        f"workload.arrivals={{process: constant, rate_per_s: {rate_per_s}}}",
        "workload.classes=[{name: a, share: 1}, {name: b, share: 1}]",
        "workload.num_requests=30",
    ])  # fmt: skip
    single = servsim.simulate(what, ["instance.stepping=single"])
    same_bits(servsim.simulate(what).records, single.records)
    assert single.summary["queue_s"]["max"] > 1


def test_without_a_word_it_is_first_come_first_served_on_vllm_v1_batching() -> None:
    plain = servsim.simulate(scenario())
    same_bits(plain.records, servsim.simulate(scenario(policy="fcfs")).records)


@pytest.mark.parametrize(
    ("parts", "preset"),
    [({"order": "sjf"}, "sjf"), ({"admission": "past_future"}, "past_future"), ({"order": "hrrn"}, "hrrn")],
)
def test_an_order_or_a_rule_alone_makes_the_preset_that_is_named_for_it(parts: dict[str, str], preset: str) -> None:
    mixed = servsim.simulate(scenario(**parts)).records
    same_bits(mixed, servsim.simulate(scenario(policy=preset)).records)
    first_come = servsim.simulate(scenario(policy="fcfs")).records
    assert mixed.requests["finish_s"].tobytes() != first_come.requests["finish_s"].tobytes()


def test_a_whole_policy_lends_its_order_or_its_rule() -> None:
    registry._registered["orders"]["theirs"] = registry.resolve("schedulers", "sjf")
    registry._registered["admissions"]["theirs"] = LightLlm
    try:
        policy = ByHand(variant(batching="lightllm", order="theirs", admission={"name": "theirs"})).policy
    finally:
        del registry._registered["orders"]["theirs"], registry._registered["admissions"]["theirs"]
    assert type(policy) is LightLlmBatching
    assert isinstance(policy.queue, KeyOrder) and isinstance(policy.admission, LightLlmAdmission)


def test_the_resolved_scenario_writes_the_parts_out_and_is_read_back() -> None:
    written = scenario(order="sjf", admission={"name": "past_future", "window": 50}).to_yaml()
    scheduler = yaml.safe_load(written)["instance"]["scheduler"]
    knobs = {"long_prefill_token_threshold": 0, "async_scheduling": False}
    assert (scheduler["batching"], scheduler["order"]) == ({"name": "vllm_v1", **knobs}, {"name": "sjf"})
    assert scheduler["admission"]["name"] == "past_future" and scheduler["admission"]["window"] == 50
    assert load_scenario(yaml.safe_load(written)).to_yaml() == written


@pytest.mark.parametrize(
    ("parts", "place", "message"),
    [
        ({"order": "sjff"}, "scheduler.order:", "unknown order 'sjff'"),
        ({"batching": {"name": "vllm"}}, "scheduler.batching.name:", "unknown batching 'vllm'"),
        ({"admission": {"name": "past_future", "reserv": 0.1}}, "scheduler.admission.reserv:", "unknown key"),
        ({"admission": {"name": "past_future", "reserve": 3}}, "scheduler.admission.reserve:", "must be less than 1"),
        ({"order": {"name": "sjf", "reserve": 0.1}}, "scheduler.order.reserve:", "unknown key"),
    ],
)
def test_mistakes_in_a_part_are_told_where_they_are(parts: dict[str, Any], place: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(**parts)
    assert place in str(caught.value) and message in str(caught.value)


def test_parts_are_a_kind_of_plug_in_without_entry_points() -> None:
    assert {"vllm_v1", "lightllm", "sglang"} <= set(registry.names("batchings"))
    assert {"anyone", "past_future", "lightllm", "sglang"} <= set(registry.names("admissions"))
    assert {"fcfs", "sjf", "random"} <= set(registry.names("orders"))


def test_editors_are_told_that_a_part_may_be_a_bare_name() -> None:
    parts = scenario_schema()["$defs"]
    order = parts["SchedulerSpec"]["properties"]["order"]
    assert "sjf" in order["anyOf"][0]["enum"] and order["anyOf"][1] == {"$ref": "#/$defs/OrderPart"}
    assert parts["OrderPart"]["properties"]["name"]["enum"] == registry.names("orders")


class NewestFirst(KeyOrder):
    """Last come, first served."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(lambda sequence: -sequence.arrival_s)


def test_an_order_of_ones_own_is_five_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._registered["orders"], "newest_first", NewestFirst)
    made = ByHand(variant(batching="sglang", order="newest_first"))
    _, newest = made.arrive(10), made.arrive(10)
    assert made.policy.head() is newest


@pytest.mark.parametrize("batching", registry.names("batchings"))
@pytest.mark.parametrize(
    ("order", "admission"),
    [
        ("sjf", {"name": "past_future", "window": 10, "default_output_tokens": 8}),
        ("random", {"name": "lightllm", "mode": "aggressive", "router_max_new_token_len": 4}),
        ("ageing", {"name": "sglang", "init_new_token_ratio": 0.05}),
    ],
)
def test_strides_are_exact_and_nothing_is_lost(
    batching: str, order: str, admission: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = variant(batching=batching, order=order, admission=admission)
    monkeypatch.setitem(registry._registered["schedulers"], "mine", mixed)

    @examples(4)
    @given(cases())
    def hold(case: Case) -> None:
        case = replace(case, policy="mine", sigma=1.0)
        strided_equals_single(case)
        planning_leaves_no_trace(case)
        nothing_is_lost(case)

    hold()


def test_vllm_v1_as_a_part_has_its_threshold() -> None:
    made = ByHand(variant(batching={"name": "vllm_v1", "long_prefill_token_threshold": 8}, order="sjf"))
    made.arrive(20), made.arrive(3)
    assert sorted(tokens for _, tokens in made.plan().prefills) == [3, 8]


@pytest.mark.parametrize("order", ["vtc", "vtc_predictive", "lcf", "deficit_round_robin", "trail", "shedding"])
@pytest.mark.parametrize(
    "batching",
    [
        {"name": "displacing"},
        {"name": "sglang"},
        {"name": "vllm_v0", "preemption_mode": "swap"},
        {"name": "vllm_v1", "long_prefill_token_threshold": 8},
    ],
    ids=lambda batching: batching["name"],
)
def test_whole_policies_lend_their_order_and_strides_stay_exact(order: str, batching: dict[str, Any]) -> None:
    mixed = variant(batching=batching, order=order)

    def of_three_tenants(surroundings: Surroundings) -> Any:
        policy = mixed(surroundings)
        add = policy.add

        def named(sequence: Any) -> None:
            sequence.tenant = sequence.request_id * 7 % 3
            add(sequence)

        policy.add = named
        return policy

    @examples(3)
    @given(cases())
    def hold(case: Case) -> None:
        strides_are_exact(case, of_three_tenants)

    hold()
