"""Sequences whose KV is on its way hold memory and may be victims, but no step gives them tokens."""

from __future__ import annotations

from typing import Any

import pytest
from by_hand import ByHand

from servsim.request import Sequence
from servsim.scheduler.displacing import DisplacingBatching
from servsim.scheduler.engines.fcfs import Fcfs
from servsim.scheduler.engines.lightllm_batching import LightLlmBatching
from servsim.scheduler.engines.sarathi import Sarathi
from servsim.scheduler.engines.sglang_batching import SglangBatching
from servsim.scheduler.engines.vllm_v0 import VllmV0

KINDS = [Fcfs, DisplacingBatching, Sarathi, VllmV0, LightLlmBatching, SglangBatching]


def with_one_loading(kind: Any, usable_blocks: int) -> tuple[ByHand, Sequence, Sequence]:
    """A decoder, and a younger sequence, of whose 8 tokens 4 were found in another memory and are on their way."""
    hand = ByHand(kind, usable_blocks=usable_blocks, block_size=4, max_num_seqs=8)
    decoder = hand.arrive(8, declared=40)
    hand.step()
    loading = hand.arrive(8, declared=10)
    hand.step()
    assert loading.decoding
    hand.running.leave(loading)
    hand.memory.leave(loading)
    hand.memory.used_blocks -= 1
    hand.memory.stored_tokens -= 4
    loading.generated_tokens, loading.kv_tokens = 0, 4
    hand.memory.loading[loading] = None
    hand.memory.check_integrity()
    return hand, decoder, loading


@pytest.mark.parametrize("kind", KINDS)
def test_it_gets_no_token_while_others_decode_and_goes_on_when_its_kv_is_there(kind: Any) -> None:
    hand, decoder, loading = with_one_loading(kind, 1000)
    for _ in range(5):
        assert hand.step() == {decoder: 1}
    del hand.memory.loading[loading]
    hand.running.prefilling[loading] = None
    assert hand.step()[loading] == 4
    assert loading.decoding
    assert hand.step() == {decoder: 1, loading: 1}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_victim_like_any_other_and_the_rest_goes_on(kind: Any) -> None:
    hand, decoder, loading = with_one_loading(kind, 5)
    for _ in range(20):
        assert hand.step() == {decoder: 1}
        if hand.last.preempted:
            break
    assert list(hand.last.preempted) == [loading]


@pytest.mark.parametrize("kind", KINDS)
def test_if_nothing_else_runs_the_engine_waits(kind: Any) -> None:
    hand, decoder, loading = with_one_loading(kind, 1000)
    hand.finish(decoder)
    assert hand.plan().idle
    del hand.memory.loading[loading]
    hand.running.prefilling[loading] = None
    assert hand.step() == {loading: 4}
