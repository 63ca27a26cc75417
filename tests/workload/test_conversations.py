from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from servsim.errors import ScenarioError
from servsim.request import Request
from servsim.scenario.workload_spec import SyntheticWorkload
from servsim.streams import Streams
from servsim.workload.blocks import RequestBlock, RequestStream
from servsim.workload.synthetic import open_synthetic

POISSON = {"process": "poisson", "rate_per_s": 10.0}
LENGTHS = {
    "prompt_tokens": {"distribution": "lognormal", "median": 100.0, "sigma": 1.0},
    "output_tokens": {"distribution": "geometric", "mean": 50.0},
}
SESSIONS = {
    "turns": {"distribution": "uniform", "min": 1, "max": 7},
    "think_time_s": {"distribution": "exponential", "mean_s": 5.0},
}
PREFIXES = {"count": 5, "tokens": {"distribution": "uniform", "min": 1, "max": 100}, "zipf_exponent": 1.0}


def stream(*, seed: int = 0, block_requests: int = 1 << 16, **changes: Any) -> RequestStream:
    data = {"arrivals": POISSON, "lengths": LENGTHS, "num_requests": 1000} | changes
    return open_synthetic(SyntheticWorkload.model_validate(data), Streams(seed), block_requests)


def requests(**changes: Any) -> list[Request]:
    return [request for block in stream(**changes).blocks() for request in block.requests()]


def sessions(**changes: Any) -> list[list[Request]]:
    found: dict[int, list[Request]] = {}
    for request in requests(**changes):
        found.setdefault(request.session, []).append(request)
    assert list(found) == list(range(len(found)))
    return list(found.values())


def thoughts(**changes: Any) -> np.ndarray:
    def of(block: RequestBlock) -> np.ndarray:
        assert block.turns is not None
        return block.turns.think_s

    return np.concatenate([of(block) for block in stream(**changes).blocks()])


def comparable(found: list[Request]) -> list[Request]:
    """NaN is not equal to itself."""
    return [one._replace(arrival_s=-1.0) if one.arrival_s != one.arrival_s else one for one in found]


FIXED = {"prompt_tokens": 20, "output_tokens": 12}


def test_a_later_prompt_is_the_whole_history_and_the_new_text() -> None:
    """System prompt 40, turns of 20 + 12: prompts 60, 92, 124; of 16 tokens a unit, 4, 6 and 8 units are known."""
    (only,) = sessions(lengths=FIXED, prefixes={"tokens": 40}, sessions={"turns": 3, "think_time_s": 1}, num_requests=3)
    assert [one.prompt_tokens for one in only] == [60, 92, 124]
    assert [one.output_tokens for one in only] == [12, 12, 12]
    assert [one.hash_ids for one in only] == [tuple(range(4)), tuple(range(6)), tuple(range(8))]
    assert [one.arrival_s == one.arrival_s for one in only] == [True, False, False]
    assert [one.request_id for one in only] == [0, 1, 2]


def test_units_hold_as_many_tokens_as_the_workload_says() -> None:
    (only,) = sessions(lengths=FIXED, sessions={"turns": 2, "think_time_s": 1}, num_requests=2, tokens_per_hash=10)
    assert [len(one.hash_ids) for one in only] == [3, 6]
    assert stream(sessions=SESSIONS, tokens_per_hash=10).tokens_per_hash == 10


def test_every_turn_begins_with_all_that_was_known_of_the_turn_before() -> None:
    for turns in sessions(sessions=SESSIONS, prefixes=PREFIXES):
        for before, after in pairwise(turns):
            assert after.hash_ids[: len(before.hash_ids)] == before.hash_ids
            assert after.prompt_tokens > before.prompt_tokens + before.output_tokens
        for one in turns:
            assert len(one.hash_ids) == (one.prompt_tokens + one.output_tokens) // 16


def test_sessions_have_nothing_in_common_but_their_prefix() -> None:
    last = [turns[-1] for turns in sessions(sessions=SESSIONS, prefixes={"tokens": 40})]
    assert {one.hash_ids[:2] for one in last} == {(0, 1)}  # the third unit holds 8 tokens of the prefix, and others
    own = [unit for one in last for unit in one.hash_ids[2:]]
    assert len(own) == len(set(own)) and min(own) >= 2


def test_without_sessions_only_the_prompt_is_known_and_no_request_waits_for_another() -> None:
    found = stream(prefixes={"tokens": 40}, lengths={"prompt_tokens": 25, "output_tokens": 100})
    assert not found.sessions
    for block in found.blocks():
        assert block.turns is None
        assert not np.isnan(block.arrival_s).any()
        for request in block.requests():
            assert request.session == -1
            assert request.prompt_tokens == 65
            assert request.hash_ids[:2] == (0, 1) and len(request.hash_ids) == 4


def test_what_has_neither_prefixes_nor_sessions_has_no_known_content() -> None:
    found = stream()
    assert found.tokens_per_hash is None
    assert next(found.blocks()).hash_ids is None


def test_prefixes_are_taken_as_often_as_zipf_says() -> None:
    prefixes = {"count": 3, "tokens": 16, "zipf_exponent": 1.0}
    first = [one.hash_ids[0] for one in requests(prefixes=prefixes, num_requests=20_000)]
    shares = np.bincount(first) / len(first)
    assert shares == pytest.approx(np.array([6, 3, 2]) / 11, abs=0.01)


def test_prefixes_are_taken_as_often_as_their_shares_say() -> None:
    prefixes = {"count": 2, "tokens": 16, "shares": [1.0, 4.0]}
    first = [one.hash_ids[0] for one in requests(prefixes=prefixes, num_requests=20_000)]
    assert np.bincount(first) / len(first) == pytest.approx([0.2, 0.8], abs=0.01)


def test_a_prefix_adds_its_tokens_and_shifts_no_length_and_no_arrival() -> None:
    bare, longer = requests(), requests(prefixes={"tokens": 40})
    assert [one.prompt_tokens + 40 for one in bare] == [one.prompt_tokens for one in longer]
    assert [one.output_tokens for one in bare] == [one.output_tokens for one in longer]
    assert [one.arrival_s for one in bare] == [one.arrival_s for one in longer]


def test_sessions_of_one_turn_are_the_same_requests_as_none() -> None:
    bare, alone = requests(), requests(sessions={"turns": 1, "think_time_s": 0})
    assert [one[:8] for one in bare] == [one[:8] for one in alone]


def test_sessions_do_not_depend_on_the_size_of_blocks() -> None:
    changes: dict[str, Any] = {"sessions": SESSIONS, "prefixes": PREFIXES}
    assert comparable(requests(**changes)) == comparable(requests(**changes, block_requests=7 * 64))
    assert np.array_equal(thoughts(**changes), thoughts(**changes, block_requests=1))


def test_the_same_seed_gives_the_same_sessions_and_another_seed_others() -> None:
    changes: dict[str, Any] = {"sessions": SESSIONS, "prefixes": PREFIXES}
    assert comparable(requests(**changes)) == comparable(requests(**changes))
    assert comparable(requests(**changes)) != comparable(requests(**changes, seed=1))


def test_there_are_as_many_turns_as_requests_are_wanted_and_the_last_session_is_cut() -> None:
    longer = requests(sessions=SESSIONS, num_requests=1000)
    assert [one.request_id for one in longer] == list(range(1000))
    assert comparable(requests(sessions=SESSIONS, num_requests=50)) == comparable(longer[:50])


def test_other_think_times_shift_no_length_and_no_arrival() -> None:
    other = SESSIONS | {"think_time_s": {"distribution": "lognormal", "median_s": 9.0, "sigma": 1.0}}
    assert comparable(requests(sessions=SESSIONS)) == comparable(requests(sessions=other))
    assert not np.array_equal(thoughts(sessions=SESSIONS), thoughts(sessions=other))


def test_a_first_turn_has_no_think_time_and_later_ones_have_the_mean() -> None:
    block = next(stream(sessions=SESSIONS, num_requests=20_000).blocks())
    assert block.turns is not None
    first = ~np.isnan(block.arrival_s)
    assert not block.turns.think_s[first].any()
    assert block.turns.think_s[~first].mean() == pytest.approx(5.0, rel=0.1)


def test_later_turns_may_have_lengths_of_their_own() -> None:
    lengths = {"prompt_tokens": 1000, "output_tokens": 1}
    for turns in sessions(lengths=FIXED, sessions=SESSIONS | {"lengths": lengths}):
        assert [one.prompt_tokens for one in turns] == [20, *(1032 + 1001 * k for k in range(len(turns) - 1))]
        assert [one.output_tokens for one in turns] == [12] + [1] * (len(turns) - 1)


def test_a_context_that_would_grow_too_long_ends_the_session() -> None:
    """Turns of 20 + 12: contexts of 32, 64, 96, 128 tokens."""
    long = {"turns": 9, "think_time_s": 1}
    for limit, turns in ((128, 4), (127, 3), (32, 1), (5, 1)):  # the first turn always comes
        found = sessions(lengths=FIXED, sessions=long | {"max_context_tokens": limit}, num_requests=8)
        assert [len(one) for one in found[:2]] == [turns, turns]


def test_classes_may_have_sessions_and_prefixes_of_their_own() -> None:
    classes = [
        {"name": "chat", "share": 1.0, "sessions": SESSIONS | {"turns": 3}, "prefixes": {"tokens": 32}, "priority": -1},
        {"name": "single", "share": 1.0},
        {"name": "other", "share": 1.0, "prefixes": {"tokens": 48}, "priority": 1},
    ]
    found = sessions(classes=classes, lengths=FIXED)[:-1]  # the last one may have been cut
    by_class = {level: [turns for turns in found if turns[0].priority == level] for level in (-1, 0, 1)}
    assert {len(turns) for turns in by_class[-1]} == {3}
    assert {len(turns) for turns in by_class[0] + by_class[1]} == {1}
    assert {turns[0].hash_ids[:2] for turns in by_class[-1]} == {(0, 1)}
    assert {turns[0].hash_ids[:3] for turns in by_class[1]} == {(2, 3, 4)}
    assert {turns[0].prompt_tokens for turns in by_class[0]} == {20}


def test_a_duration_ends_what_begins() -> None:
    found = sessions(sessions=SESSIONS, num_requests=None, duration_s=20.0)
    assert found[-1][0].arrival_s < 20.0
    assert len(found) == pytest.approx(200, rel=0.25)


def test_absurdly_long_sessions_are_refused() -> None:
    with pytest.raises(ScenarioError, match="a session of 70,000 turns"):
        requests(sessions={"turns": 70_000, "think_time_s": 1})


def test_a_million_turns_are_drawn_block_by_block() -> None:
    endless = stream(sessions=SESSIONS, prefixes=PREFIXES, num_requests=1_000_000)
    tracemalloc.start()
    total = 0
    for block in endless.blocks():
        total += len(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 1_000_000
    assert peak < 20 << 20
