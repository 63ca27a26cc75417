"""KV that several decoders have in common, read once where attention can do that."""

from __future__ import annotations

from typing import Any

import pytest
import whole_runs
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from servsim.cost.roofline import RooflineCost
from servsim.errors import ScenarioError
from servsim.memory.shared_reads import SharedReads
from servsim.scenario import load_scenario
from servsim.setup import Setup
from servsim.simulation import simulate

ALLOCATORS = ["prefix_blocks", "radix"]


def scenario(shared: bool, **memory: Any) -> dict[str, Any]:
    return {
        "model": "llama-2-7b",
        "instance": {
            "hardware": "h100-sxm",
            "scheduler": {"max_num_seqs": 32, "max_num_batched_tokens": 4096},
            "memory": {"allocator": "prefix_blocks", **memory},
            "cost": {"shared_prefix_attention": shared},
        },
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 40},
            "lengths": {"prompt_tokens": 64, "output_tokens": {"distribution": "uniform", "min": 1, "max": 200}},
            "prefixes": {"count": 2, "tokens": 1024},
            "num_requests": 60,
        },
    }


@given(st.lists(st.sets(st.integers(0, 6)), max_size=8), st.randoms())
def test_the_count_is_that_of_all_blocks_less_that_of_distinct_ones(held: list[set[int]], random: Any) -> None:
    reads = SharedReads(16)
    for blocks in held:
        reads.join(blocks)
    random.shuffle(held)
    for gone in range(len(held) + 1):
        rest = held[gone:]
        assert reads.tokens == 16 * (sum(map(len, rest)) - len(set().union(*rest)))
        if rest:
            reads.leave(rest[0])


@pytest.mark.parametrize("allocator", ALLOCATORS)
@examples(5)
@given(seed=st.integers(0, 1000), blocks=st.sampled_from([250, 400, 4000]))
def test_strides_are_exact_with_shared_reads(allocator: str, seed: int, blocks: int) -> None:
    whole_runs.strided_equals_single(scenario(shared=True, num_blocks=blocks, allocator=allocator), f"seed={seed}")


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_decoders_that_share_most_of_their_kv_take_shorter_steps(allocator: str) -> None:
    runs = (simulate(scenario(shared, allocator=allocator)) for shared in (False, True))
    plain, shared = (run.summary["tpot_s"]["mean"] for run in runs)
    assert shared < 0.8 * plain


def test_what_is_shared_is_computed_but_not_fetched() -> None:
    """32 sequences of 1,000 tokens, 900 of them in common: 32 x 100 + 900 tokens are fetched.

    On a device whose law has no correction by length.
    """
    loaded = load_scenario(scenario(shared=True), ["instance.hardware=a10", "instance.max_model_len=2048"])
    cost = Setup.of(loaded).cost_model()
    assert isinstance(cost, RooflineCost)
    shared = cost.decode_stride(0.0, 32, 32 * 1000, 32, 31 * 900).first_s
    fetched = cost.decode_stride(0.0, 32, 32 * 100 + 900).first_s
    assert shared == pytest.approx(fetched, rel=1e-9)  # bound by memory
    assert cost.step_s([], 0, 32, 32 * 1000, 31 * 900) == pytest.approx(shared, rel=1e-12)


def test_what_shares_nothing_is_refused() -> None:
    with pytest.raises(ScenarioError, match="no two sequences have KV in common") as caught:
        Setup.of(load_scenario(scenario(shared=True, allocator="paged"))).allocator()
    assert "shared_prefix_attention" in str(caught.value)
