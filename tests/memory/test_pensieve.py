"""Conversations are kept by what computing them anew would cost; the front of the one idle for longest goes first."""

from __future__ import annotations

from typing import Any

import pytest
import simpy
from cached_runs import KV, Asked, Run, Scene, tier
from hypothesis import given
from hypothesis import strategies as st

from servsim.errors import CapacityError, ScenarioError, SimulationError
from servsim.memory.pensieve import PensieveAllocator
from servsim.memory.pensieve_chunks import ABOVE, BOTH, NOWHERE, ByAge, Conversation, Retention
from servsim.memory.surroundings import MemorySurroundings
from servsim.request import Sequence

CHUNK = 32
EXAMPLE = {"alpha": 1.0, "beta": 100.0, "watermark": 0.0}


def allocator(blocks: int, **settings: Any) -> PensieveAllocator:
    """Blocks of 16 tokens, and content told for every chunk."""
    tiers = settings.pop("tiers", ())
    parameters = PensieveAllocator.Parameters(**{**EXAMPLE, **settings})
    env = simpy.Environment()
    surroundings = MemorySurroundings(
        blocks + 1, 16, 4096, parameters, kv=KV, tokens_per_hash=CHUNK, tiers=tiers, env=env
    )
    return PensieveAllocator(surroundings)


def asked(prompt: int, session: int, ids: range | tuple[int, ...] | None = None) -> Sequence:
    """A turn; by default its content is that of all turns of its session."""
    if ids is None:
        ids = range(1000 * session, 1000 * session + prompt // CHUNK) if session >= 0 else ()
    return Sequence(0, 0.0, prompt, 1, 0, 0, 0, tuple(ids), session=session)


def admit(memory: PensieveAllocator, sequence: Sequence, tokens: int | None = None) -> int:
    """Prefill all that is lacking, or the first ``tokens``; what was lacking."""
    round_ = memory.round()
    lacking = round_.lacking(sequence)
    first = lacking if tokens is None else tokens
    assert round_.admit(sequence, first, alone=True)
    assert round_.lacking(sequence) == lacking
    memory.commit(round_)
    sequence.kv_tokens += first
    memory.check_integrity()
    return lacking


def turn(memory: PensieveAllocator, prompt: int, session: int, ids: tuple[int, ...] | None = None) -> int:
    """A whole turn with an answer of one token, of which nothing is stored; what was lacking."""
    sequence = asked(prompt, session, ids)
    lacking = admit(memory, sequence)
    memory.release(sequence)
    memory.check_integrity()
    return lacking


def preempt(memory: PensieveAllocator, sequence: Sequence) -> None:
    """By recompute, as the engine does it."""
    round_ = memory.round()
    round_.release(sequence, sequence.kv_tokens)
    memory.commit(round_)
    sequence.kv_tokens = 0
    sequence.preemptions += 1
    memory.check_integrity()


def states(memory: PensieveAllocator, session: int) -> list[int]:
    """Where a session's chunks are; none if nothing of it is kept."""
    conversation = memory.kept.sessions.get(session)
    return list(conversation.states) if conversation is not None else []


def pass_time(memory: PensieveAllocator, until_s: float) -> None:
    assert memory.kept.env is not None
    memory.kept.env.run(until=until_s)


def x_idle_for_100_s_and_y_for_50(blocks: int, **settings: Any) -> PensieveAllocator:
    """Conversation 0 is X with chunks that end at 32, 64 and 96, conversation 1 is Y with one."""
    memory = allocator(blocks, **settings)
    turn(memory, 96, 0)
    pass_time(memory, 50)
    turn(memory, 32, 1)
    pass_time(memory, 100)
    return memory


def test_the_value_of_a_chunk_is_its_cost_over_its_idle_time() -> None:
    retention = Retention(1.0, 100.0, CHUNK)
    assert [retention.value(index, 100) for index in range(3)] == [1.32, 1.64, 1.96]
    assert retention.value(0, 50) == 2.64
    assert retention.value(7, 0) == float("inf")


def test_chunks_leave_the_device_in_the_order_of_their_values_x0_x1_x2_y0() -> None:
    memory = x_idle_for_100_s_and_y_for_50(8)
    seen = []
    for _ in range(4):
        admit(memory, asked(CHUNK, -1))
        seen.append((states(memory, 0), states(memory, 1)))
    x1_x2, x2 = [NOWHERE, ABOVE, ABOVE], [NOWHERE, NOWHERE, ABOVE]
    assert seen == [(x1_x2, [ABOVE]), (x2, [ABOVE]), ([], [ABOVE]), ([], [])]
    assert memory.report()["evicted_blocks"] == memory.report()["dropped_blocks"] == 8


def test_chunks_are_copied_ahead_in_the_same_order_until_a_quarter_of_the_device_can_be_had_at_once() -> None:
    memory = x_idle_for_100_s_and_y_for_50(16, tiers=(tier(1000),), copy_below=0.25)
    runner = asked(64, -1)
    admit(memory, runner)  # leaves 4 of 16 blocks free, which is no less than a quarter
    assert (states(memory, 0), states(memory, 1)) == ([ABOVE] * 3, [ABOVE])
    other = asked(16, -1)
    admit(memory, other)  # 3 are free; a chunk is 2
    assert memory.transfers == 1
    pass_time(memory, 110)
    assert memory.transfers == 0
    assert (states(memory, 0), states(memory, 1)) == ([BOTH, ABOVE, ABOVE], [ABOVE])
    admit(memory, asked(CHUNK, -1))
    pass_time(memory, 120)
    assert states(memory, 0) == [BOTH, BOTH, ABOVE]
    assert memory.report()["copied_out_bytes_cpu"] == 2 * CHUNK * KV.bytes_per_token


def test_a_full_tier_drops_the_least_valuable_chunk_for_the_next_one() -> None:
    memory = x_idle_for_100_s_and_y_for_50(8, tiers=(tier(2 * CHUNK // 4),), copy_below=1.0)  # two chunks fit
    pass_time(memory, 200)
    assert states(memory, 0) == [BOTH, BOTH, ABOVE]
    admit(memory, asked(2 * CHUNK, -1))
    pass_time(memory, 300)
    # X0 and X1 are only below, where X2 and then Y0 take their places in turn.
    assert (states(memory, 0), states(memory, 1)) == ([NOWHERE, NOWHERE, BOTH], [BOTH])
    assert memory.report()["evicted_blocks_cpu"] == memory.report()["dropped_blocks"] == 4


def with_the_front_dropped() -> PensieveAllocator:
    """Of four chunks of session 0 the first two are gone; 8 of 12 blocks are free."""
    memory = allocator(12)
    turn(memory, 128, 0)
    pass_time(memory, 1)
    turn(memory, 128, -1)
    assert states(memory, 0) == [NOWHERE, NOWHERE, ABOVE, ABOVE]
    return memory


def test_the_next_turn_computes_the_dropped_front_and_its_new_prompt() -> None:
    memory = with_the_front_dropped()
    assert memory.cached_tokens(asked(128 + 40, 0)) == 64
    assert turn(memory, 128 + 40, 0) == 64 + 40
    assert states(memory, 0) == [ABOVE] * 5  # whole chunks of 168 tokens
    told = memory.report()
    assert (told["queried_tokens"], told["hit_tokens"]) == (128 + 128 + 168, 64)


def test_at_least_one_token_is_computed() -> None:
    memory = allocator(16)
    turn(memory, 96, 0)
    assert memory.cached_tokens(asked(96, 0)) == 64
    assert memory.cached_tokens(asked(97, 0)) == 96


def test_a_turn_that_says_something_else_finds_what_both_have_in_common() -> None:
    memory = allocator(16)
    turn(memory, 128, 0)
    assert turn(memory, 128, 0, (0, 1, 7, 3)) == 64
    assert turn(memory, 128, 0, (0, 1, 7, 9)) == 32
    assert turn(memory, 128, 0, (8, 1, 7, 9)) == 128
    assert states(memory, 0) == [ABOVE] * 4  # the latest; what it did not repeat is gone


def test_of_unknown_content_and_without_a_session_nothing_is_kept() -> None:
    memory = allocator(16)
    turn(memory, 128, 3, ())
    turn(memory, 128, -1, (1, 2, 3, 4))
    assert turn(memory, 128, 3, (1, 2, 3, 4)) == 128
    assert turn(memory, 128, -1, (1, 2, 3, 4)) == 128


def test_content_is_told_in_units_and_kept_in_chunks() -> None:
    memory = allocator(16)
    memory._tokens_per_hash = 48
    turn(memory, 100, 0, (5, 6))  # 96 tokens are known
    assert memory.cached_tokens(asked(200, 0, (5, 6, 7))) == 96
    assert memory.cached_tokens(asked(200, 0, (5, 8, 7))) == 32  # of 48


def test_of_two_turns_at_once_the_later_one_finds_and_leaves_nothing() -> None:
    memory = allocator(32)
    turn(memory, 96, 0)
    first, second = asked(128, 0), asked(128, 0)
    round_ = memory.round()
    assert round_.admit(first, round_.lacking(first), alone=True)
    assert round_.lacking(second) == 128
    memory.commit(round_)
    first.kv_tokens = 128
    assert admit(memory, second) == 128
    memory.release(second)
    assert memory.kept.device_chunks == 0
    memory.release(first)
    memory.check_integrity()
    assert states(memory, 0) == [ABOVE] * 4


def test_what_is_admitted_and_taken_back_in_one_round_leaves_no_trace() -> None:
    memory = with_the_front_dropped()
    round_ = memory.round()
    turn_again = asked(168, 0)
    free = round_.free_blocks
    assert round_.admit(turn_again, 10, alone=True)
    round_.release(turn_again, 0)
    assert round_.free_blocks == free
    assert round_.lacking(turn_again) == 104
    memory.commit(round_)
    memory.check_integrity()
    assert states(memory, 0) == [NOWHERE, NOWHERE, ABOVE, ABOVE]


def test_a_preempted_sequence_finds_what_it_had_whatever_it_was() -> None:
    memory = allocator(16)
    sequence = asked(100, -1)
    admit(memory, sequence, 70)
    preempt(memory, sequence)
    assert memory.used_blocks == 0
    assert admit(memory, sequence) == 36
    memory.release(sequence)
    assert memory.kept.device_chunks == 0
    told = memory.report()
    assert (told["requeried_tokens"], told["rehit_tokens"]) == (100, 64)


def test_preempted_in_the_middle_of_its_front_a_turn_keeps_that_part_and_the_rest() -> None:
    memory = with_the_front_dropped()
    sequence = asked(168, 0)
    admit(memory, sequence, 40)  # the first of the two dropped chunks, and a quarter of the second
    preempt(memory, sequence)
    assert states(memory, 0) == [ABOVE, NOWHERE, ABOVE, ABOVE]
    admit(memory, sequence, 70)  # the second, and one behind what had been there
    preempt(memory, sequence)
    assert states(memory, 0) == [ABOVE] * 5
    assert memory.cached_tokens(sequence) == 160


def test_a_swapped_sequence_comes_back_with_what_it_brings_and_nothing_of_it_stays_twice() -> None:
    memory = allocator(16)
    sequence = asked(100, -1)
    admit(memory, sequence)
    round_ = memory.round()
    round_.release(sequence, 100)
    memory.commit(round_)
    assert memory.kept.device_chunks == 3
    round_ = memory.round()
    assert round_.restore(sequence)
    memory.commit(round_)
    memory.check_integrity()
    assert (memory.used_blocks, memory.kept.device_chunks) == (7, 0)


def test_idle_conversations_are_no_obstacle_but_a_tenth_is_kept_for_decoders() -> None:
    memory = allocator(40, watermark=0.1)
    turn(memory, 32 * 20, 0)
    assert memory.used_blocks == 0 and memory.round().free_blocks == 40
    assert memory.round().admit(asked(16 * 36, -1), 1, alone=False)
    assert not memory.round().admit(asked(16 * 37, -1), 1, alone=False)
    assert memory.round().admit(asked(16 * 37, -1), 1, alone=True)
    assert memory.Parameters.model_fields["watermark"].default == 0.1


# One chunk of 8 tokens takes 0.1 s on the link, a step 0.25 s, whatever it does; 4 chunks fit on the device.
FOUR_CHUNKS = {"num_blocks": 9, "allocator": "pensieve"}
WHO_COMES_BACK = (
    Asked(0.0, 16, 1, (1, 2, 3, 4), 0),
    Asked(1.0, 32, 1, tuple(range(10, 18)), 1),
    Asked(2.0, 24, 1, (1, 2, 3, 4, 5, 6), 0),
)


def ran(requests: tuple[Asked, ...], *, blocks_below: int = 100, **settings: Any) -> Any:
    tiers = (tier(blocks_below),) if blocks_below else ()
    scene = Scene(requests, settings={"chunk_size": 8, "watermark": 0.0, **settings}, tiers=tiers, **FOUR_CHUNKS)
    run = Run(scene)
    return run.run(run.memory.check_integrity)


def test_chunks_from_below_come_layer_by_layer_while_the_first_step_computes() -> None:
    records = ran(WHO_COMES_BACK, copy_below=1.0)
    rows = records.requests
    assert rows["cached_tokens"].tolist() == [0, 0, 16]
    # Two chunks in 0.2 s: the last of two layers can begin with half of the step to go, 0.1 s later than without.
    assert rows["first_token_s"].tolist() == pytest.approx([0.25, 1.25, 2.35])
    assert rows["transfer_wait_s"].tolist() == pytest.approx([0, 0, 0.1])
    assert records.memory["hit_tokens_cpu"] == 16
    assert records.memory["copied_in_bytes_cpu"] == 16 * KV.bytes_per_token


def test_an_admission_waits_for_copies_that_were_not_made_ahead() -> None:
    records = ran(WHO_COMES_BACK, copy_below=0.0)
    rows = records.requests
    assert rows["cached_tokens"].tolist() == [0, 0, 16]
    # Two chunks go before request 1 computes; for request 2 three of request 1 do, while its own two come.
    assert rows["first_token_s"].tolist() == pytest.approx([0.25, 1.45, 2.55])
    assert rows["transfer_wait_s"].tolist() == pytest.approx([0, 0.2, 0.3])


def test_without_a_tier_or_for_a_growing_decoder_what_is_not_copied_is_lost() -> None:
    assert ran(WHO_COMES_BACK, blocks_below=0).requests["cached_tokens"].tolist() == [0, 0, 0]
    grows = (WHO_COMES_BACK[0], Asked(1.0, 16, 4), WHO_COMES_BACK[2])
    records = ran(grows, copy_below=0.0)
    assert records.requests["cached_tokens"].tolist() == [0, 0, 8]
    assert records.memory["dropped_blocks"] == 2
    assert records.memory["copied_out_bytes_cpu"] == 0


@given(
    st.lists(st.tuples(st.integers(0, 20), st.binary(min_size=0, max_size=6)), max_size=12),
    st.floats(0, 10),
    st.floats(0.1, 500),
    st.integers(0, 30),
)
def test_the_least_valuable_chunks_are_those_of_a_plain_sort(
    drawn: list[tuple[int, bytes]], alpha: float, beta: float, count: int
) -> None:
    retention = Retention(alpha, beta, CHUNK)
    idle = ByAge()
    ranked = []
    for number, (active_s, content) in enumerate(drawn):
        one = Conversation(number, states=bytearray(state % 2 for state in content), active_s=active_s)
        idle.add(one)
        for index, state in enumerate(one.states):
            if state == ABOVE:
                cost = alpha * CHUNK * (index + 1) + beta
                value = cost / (20 - active_s) if active_s < 20 else float("inf")
                ranked.append((value, cost, number, index))
    found = idle.lowest(count, ABOVE, retention, 20.0)
    assert [(one.number, index) for one, index in found] == [(rank[2], rank[3]) for rank in sorted(ranked)[:count]]


def test_the_cost_of_a_chunk_is_fitted_to_prefills_of_three_lengths() -> None:
    fitted = Retention.fitted(lambda tokens: 0.01 + 2e-5 * tokens + 3e-9 * tokens**2 / 2, 8192, CHUNK)
    assert fitted.alpha == pytest.approx(3e-9 * CHUNK)
    assert fitted.beta == pytest.approx(2e-5 * CHUNK)
    constant = Retention.fitted(lambda tokens: 0.25, 8192, CHUNK)
    assert constant.value(0, 10) == constant.value(5, 10) < constant.value(0, 5)


@pytest.mark.parametrize(
    ("settings", "found", "remedy"),
    [
        ({"chunk_size": 40}, "chunks of 40 tokens", "multiple of block_size 16"),
        ({"alpha": None}, "alpha None and beta 100", "both"),
        ({"alpha": 0.0, "beta": 0.0}, "alpha 0.0 and beta 0.0", "not both 0"),
        ({"tiers": (tier(100), tier(100, name="ssd"))}, "not to 2", "leave cpu alone"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_remedy(settings: dict[str, Any], found: str, remedy: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        allocator(16, **settings)
    assert found in refused.value.message
    assert remedy in (refused.value.remedy or "")


def test_a_tier_that_holds_no_chunk_is_refused() -> None:
    with pytest.raises(CapacityError, match="does not hold one chunk of 3200 bytes"):
        allocator(16, tiers=(tier(7),))


def test_a_chunk_that_is_counted_wrongly_is_noticed() -> None:
    memory = x_idle_for_100_s_and_y_for_50(8, tiers=(tier(1000),), copy_below=1.0)
    memory.kept.sessions[0].states[0] = NOWHERE
    with pytest.raises(SimulationError):
        memory.check_integrity()
