"""The rule of one free block, against a plain account of blocks: all that vLLM v0 and Sarathi decide by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from assembly import Assembly
from case import Case
from checks import strided_equals_single, with_arrivals_on_boundaries
from drawn import cases, picks
from hypothesis import given
from profiles import examples
from variants import variant

from servsim.scheduler.engines.sarathi import Sarathi, SarathiParameters
from servsim.scheduler.engines.vllm_v0 import VllmV0, VllmV0Parameters

KINDS = {
    "v0": (VllmV0, VllmV0Parameters(watermark=0.1), 1000),
    "v0 swap": (VllmV0, VllmV0Parameters(watermark=0.0, preemption_mode="swap"), 1000),
    "sarathi": (Sarathi, SarathiParameters(watermark=0.0), 1000),
    "sarathi, small chunks": (Sarathi, SarathiParameters(watermark=0.05, chunk_size=4), 1000),
}


class Account:
    """A policy's running sequences, oldest first, as plain numbers: tokens stored, blocks held, whether it decodes."""

    def __init__(self, policy: Any) -> None:
        running, self.size = policy.running, policy.memory.block_size
        by_age = sorted(running.sequences, key=lambda one: (one.arrival_s, one.request_id))
        self.rows = []
        for one in by_age:
            stored = running.kv_tokens(one)
            whole = one.total_tokens if one in running.prefilling else stored
            self.rows.append((one, stored, -(-whole // self.size), one.decoding))
        self.total = policy.memory.total_blocks
        self.free = self.total - sum(held for _, _, held, _ in self.rows)

    def victims(self) -> list[Any]:
        """Decoders oldest first, each with a block to spare or at the cost of the youngest."""
        left, gone, free = list(self.rows), [], self.free
        lone = len(left) == 1
        while left:
            one, stored, held, decodes = left.pop(0)
            if not decodes:
                continue
            while free < 1 and not lone:
                victim, _, freed, _ = left.pop() if left else (one, stored, held, decodes)
                gone.append(victim)
                free += freed
                if victim is one:
                    break
            if one not in gone and stored % self.size == 0:
                free -= 1
        return gone

    @property
    def growing(self) -> int:
        """Blocks that the decoders take in this step."""
        return sum(decodes and stored % self.size == 0 for _, stored, _, decodes in self.rows)


def checking(policy: Any) -> None:
    """Every plan is held against the account."""
    plan = policy.plan

    def checked(now_s: float) -> Any:
        found = plan(now_s)
        account = Account(policy)
        prefill_only = bool(found.prefills) and not found.decode
        if not (prefill_only and isinstance(policy, VllmV0)):
            assert [*found.preempted, *found.swapped_out] == account.victims()
        if found.admitted:
            _check_admissions(policy, found, account)
        return found

    policy.plan = checked


def _check_admissions(policy: Any, plan: Any, account: Account) -> None:
    """Each newcomer left the watermark free, unless it was alone."""
    free = account.free - (account.growing if plan.decode else 0)
    new = plan.prefills[len(plan.prefills) - plan.admitted :]
    for place, (sequence, _) in enumerate(new):
        free -= -(-sequence.total_tokens // account.size)
        alone = not place and not policy.running.sequences
        assert free >= (0 if alone else policy._watermark_blocks)
    if isinstance(policy, Sarathi):
        used = sum(tokens for _, tokens in plan.prefills) + (policy.running.decoders if plan.decode else 0)
        assert used <= max(policy._chunk_sizes[0], policy.running.decoders)
    elif len(plan.prefills) > 1:
        assert sum(tokens for _, tokens in plan.prefills) <= policy.max_num_batched_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_victims_and_admissions_are_those_of_a_plain_account(kind: str) -> None:
    @examples(25)
    @given(cases(policy="fcfs"))
    def hold(case: Case) -> None:
        if case.allocator == "paged":
            Assembly(replace(case, policy=names[kind]), change=checking).run()

    with variant(KINDS) as names:
        hold()


@pytest.mark.parametrize("kind", KINDS)
def test_arrivals_on_step_boundaries_and_an_ulp_beside_them_change_nothing(kind: str) -> None:
    @examples(10)
    @given(cases(policy="fcfs", loops=False), picks)
    def hold(case: Case, chosen: list) -> None:  # type: ignore[type-arg]
        strided_equals_single(with_arrivals_on_boundaries(replace(case, policy=names[kind]), chosen))

    with variant(KINDS) as names:
        hold()


def test_the_drawn_cases_preempt_in_vain_and_swap() -> None:
    """Else the account would check nothing."""
    seen = set()

    def looking(policy: Any) -> None:
        plan = policy.plan

        def noted(now_s: float) -> Any:
            found = plan(now_s)
            if found.preempted and policy.memory.steps_until_full(1):
                seen.add("in vain")
            if found.swapped_out:
                seen.add("out")
            if found.swapped_in:
                seen.add("in")
            return found

        policy.plan = noted

    @examples(60)
    @given(cases(policy="fcfs"))
    def look(case: Case) -> None:
        for name in names.values():
            Assembly(replace(case, policy=name), change=looking).run()

    with variant(KINDS) as names:
        look()
    assert seen == {"in vain", "out", "in"}
