"""Orca and FasterTransformer: whole prompts under reservations; and one request at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from by_hand import ByHand
from case import Asked, Case
from checks import nothing_is_lost, planning_leaves_no_trace, strided_equals_single
from drawn import cases
from hypothesis import given
from profiles import examples
from variants import variant

from servsim.cost.fixed import FixedCost
from servsim.request import Sequence
from servsim.scheduler.engines.faster_transformer import FasterTransformer, FasterTransformerParameters
from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.engines.orca import Orca, OrcaParameters
from servsim.scheduler.engines.reservation import Reservation, ReservationParameters, power_of_two
from servsim.scheduler.engines.sarathi import Sarathi
from servsim.scheduler.engines.serial import Serial
from servsim.scheduler.engines.vllm_v1 import PriorityOrder
from servsim.scheduler.orders import KeyOrder
from servsim.scheduler.policy import Surroundings


def of_length(policy: type, max_model_len: int, **settings: Any) -> type:
    """The policy in an instance with this longest request."""

    def made(surroundings: Surroundings) -> Any:
        return policy(replace(surroundings, max_model_len=max_model_len), **settings)

    return made  # type: ignore[return-value]


def test_the_head_is_not_skipped_though_one_behind_it_would_fit() -> None:
    engine = ByHand(Orca, usable_blocks=100, block_size=1, parameters=OrcaParameters(reserve="oracle"))
    a, b, c = (engine.arrive(10, predicted=output) for output in (50, 40, 20))  # R = 60, 50, 30
    assert engine.step() == {a: 10}  # 60 + 50 > 100, and c is not considered though 90 <= 100
    assert engine.policy.head() is b
    engine.finish(a)
    assert engine.step() == {b: 10, c: 10}
    assert engine.policy.admission.reserved_blocks == 80


def test_reservations_are_as_large_as_they_say() -> None:
    engine = ByHand(of_length(Orca, 100), usable_blocks=1000, block_size=16)
    sequence = engine.arrive(20, declared=50, predicted=25.0)
    found = {}
    for reserve in ("max", "declared", "pow2", "oracle"):
        engine.policy.admission.reserve = reserve
        found[reserve] = engine.policy.admission.blocks(sequence)
    assert found == {"max": 7, "declared": 5, "pow2": 4, "oracle": 3}  # of 100, 70, 52 and 45 tokens
    assert [power_of_two(tokens) for tokens in (1, 2, 3, 25, 32, 33)] == [1, 2, 4, 32, 32, 64]


def test_the_larger_the_reservation_the_fewer_run_together() -> None:
    def together(reserve: str) -> int:
        parameters = OrcaParameters.model_validate({"reserve": reserve})
        engine = ByHand(of_length(Orca, 160), usable_blocks=20, block_size=16, parameters=parameters)
        for _ in range(10):
            engine.arrive(16, declared=100, predicted=33)
        return len(engine.step())

    assert [together(reserve) for reserve in ("max", "declared", "pow2", "oracle")] == [2, 2, 4, 5]


def test_prompts_are_whole_and_mixed_with_decodes_whatever_the_budget() -> None:
    engine = ByHand(of_length(Orca, 8000), budget=512, usable_blocks=10_000)
    first = engine.arrive(8)
    engine.step()
    long, last = engine.arrive(3000), engine.arrive(2000)
    assert engine.step() == {first: 1, long: 3000, last: 2000}
    fcfs = ByHand(Fcfs, budget=512, usable_blocks=10_000)
    first = fcfs.arrive(8)
    fcfs.step()
    long, _ = fcfs.arrive(3000), fcfs.arrive(2000)
    assert fcfs.step() == {first: 1, long: 511}


def test_max_batch_bounds_an_iteration() -> None:
    engine = ByHand(of_length(Orca, 100), max_num_seqs=8, parameters=OrcaParameters(max_batch=2))
    for _ in range(4):
        engine.arrive(8)
    assert len(engine.step()) == 2


def test_a_prediction_that_was_too_short_costs_the_newest_its_place() -> None:
    engine = ByHand(Orca, usable_blocks=6, block_size=4, parameters=OrcaParameters(reserve="oracle"))
    a, b = engine.arrive(8, predicted=4), engine.arrive(8, predicted=4)  # three blocks each
    engine.step()
    for _ in range(4):
        assert engine.step() == {a: 1, b: 1}
    assert engine.step() == {a: 1}  # both need a fourth
    assert list(engine.last.preempted) == [b]
    assert engine.policy.admission.reserved_blocks == 3
    assert engine.policy.admission.blocks(b) == 4  # the prompt, five emitted tokens and one to come: 14
    assert engine.step() == {a: 1}


def test_any_order_goes_with_it() -> None:
    engine = ByHand(
        of_length(Orca, 64, order=KeyOrder(lambda one: one.predicted_tokens)), usable_blocks=4, block_size=16
    )
    long, short = engine.arrive(8, predicted=50), engine.arrive(8, predicted=5)
    assert engine.step() == {short: 8}
    assert engine.policy.head() is long


def test_a_static_batch_takes_nobody_until_all_have_ended() -> None:
    engine = ByHand(of_length(FasterTransformer, 64), usable_blocks=8, block_size=16)
    a, b, c = engine.arrive(8), engine.arrive(8), engine.arrive(8)
    assert engine.step() == {a: 8, b: 8}  # four blocks each are reserved
    engine.finish(b)
    assert engine.step() == {a: 1}  # where Orca lets c in
    engine.finish(a)
    assert engine.step() == {c: 8}
    orca = ByHand(of_length(Orca, 64), usable_blocks=8, block_size=16)
    a, b, c = orca.arrive(8), orca.arrive(8), orca.arrive(8)
    orca.step()
    orca.finish(b)
    assert orca.step() == {a: 1, c: 8}


def test_a_static_batch_is_no_larger_than_max_batch() -> None:
    engine = ByHand(of_length(FasterTransformer, 64), parameters=FasterTransformerParameters(max_batch=3))
    for _ in range(5):
        engine.arrive(8)
    assert len(engine.step()) == 3


def test_one_request_at_a_time_from_first_to_last_token() -> None:
    engine = ByHand(Serial, budget=10, max_num_seqs=8)
    a, b = engine.arrive(15), engine.arrive(4)
    assert engine.step() == {a: 10}
    assert engine.step() == {a: 5}  # where fcfs would give the rest of the budget to b
    for _ in range(3):
        assert engine.step() == {a: 1}
    engine.finish(a)
    assert engine.step() == {b: 4}


def test_a_run_worked_by_hand(policies: dict[str, str]) -> None:
    """A prefill step takes 1/4 s, a decode step 1/8 s; two reservations of 32 tokens fit."""
    requests = (Asked(0.0, 8, 3, 3), Asked(0.0, 8, 5, 5), Asked(0.0, 8, 2, 2))
    case = Case(requests, FixedCost(1 / 4, 1 / 8), num_blocks=5, block_size=16, max_model_len=32)
    assert finishes(replace(case, policy=policies["orca_max"])) == [0.5, 0.875, 0.875]
    # third joins at 0.5: prefill till 0.75, then its one decode; the second emits at both
    assert finishes(replace(case, policy=policies["static"])) == [0.5, 0.75, 1.125]
    assert finishes(replace(case, policy="serial")) == [0.5, 1.25, 1.625]
    assert finishes(replace(case, policy="fcfs")) == [0.5, 0.75, 0.375]


def finishes(case: Case) -> list[float]:
    from assembly import Assembly

    return Assembly(case).run().requests["finish_s"].tolist()


@pytest.fixture(scope="module")
def policies() -> Iterator[dict[str, str]]:
    """Policies as they are with parameters that the cases do not have."""
    kinds = {
        "orca_max": (Orca, OrcaParameters(), 32),
        "orca_long": (Orca, OrcaParameters(), 120),
        "orca_pow2": (Orca, OrcaParameters(reserve="pow2"), 120),
        "orca_oracle": (Orca, OrcaParameters(reserve="oracle", max_batch=3), 120),
        "orca_declared": (Orca, OrcaParameters(reserve="declared"), 120),
        "static": (FasterTransformer, FasterTransformerParameters(), 32),
    }
    with variant(kinds) as names:
        yield names


@pytest.mark.parametrize(
    "policy", ["orca_max", "orca_long", "orca_pow2", "orca_oracle", "orca_declared", "static", "serial"]
)
def test_strides_are_exact_and_nothing_is_lost(policy: str, policies: dict[str, str]) -> None:
    @examples(15)
    @given(cases(policy="sjf"))
    def hold(case: Case) -> None:
        case = replace(case, policy=policies.get(policy, policy))
        strided_equals_single(case)
        nothing_is_lost(case)
        planning_leaves_no_trace(case)

    hold()


def test_reservations_and_priorities_go_with_other_batchings_too() -> None:
    def made(surroundings: Surroundings) -> Any:
        reserved = Reservation(replace(surroundings, parameters=ReservationParameters(reserve="declared")))
        return Sarathi(surroundings, PriorityOrder(surroundings), reserved)

    engine = ByHand(made, usable_blocks=10, block_size=10)
    late, urgent = Sequence(0, 0.0, 10, 50, 0, 0, 7, ()), Sequence(1, 1.0, 10, 40, 0, 0, 1, ())
    for sequence in (late, urgent):
        engine.policy.add(sequence)
    assert engine.step() == {urgent: 10}  # five blocks of ten are set aside, the other needs six
    assert engine.policy.head() is late
