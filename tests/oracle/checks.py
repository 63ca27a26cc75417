"""What has to hold of any case: stated once, for the properties and for the proof that they can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import simpy
from assembly import Assembly
from case import Asked, Case
from oracle import Oracle

from servsim.clock import TIMER, schedule_at
from servsim.metrics.token_times import all_token_times, step_ends
from servsim.records import PAUSE_REASONS, STATUSES, Records

TOLERANCE = 1e-9
ULPS = {"before": -np.inf, "on": None, "after": np.inf}


def same_bits(one: Records, other: Records) -> None:
    """Every column of every table is equal, NaN and all."""
    for table in ("requests", "strides", "pauses"):
        first, second = getattr(one, table), getattr(other, table)
        assert list(first) == list(second)
        for name, column in first.items():
            assert column.dtype == second[name].dtype
            assert column.tobytes() == second[name].tobytes(), (table, name, column, second[name])


def strided_equals_single(case: Case, change: Callable[[Any], None] | None = None) -> None:
    """Whether steps are taken in strides or one by one changes no bit."""
    same_bits(Assembly(case, change=change).run(), Assembly(case, single=True, change=change).run())


def agrees_with_oracle(case: Case) -> None:
    """Decisions, times, memory and every token are those of the plain simulator, to 1e-9."""
    records = Assembly(case).run()
    oracle = Oracle(case).run()
    _same_requests(records, oracle)
    _same_steps(records, oracle)
    _same_tokens(records, oracle)


def with_arrivals_on_boundaries(case: Case, picks: list[tuple[float, str, Asked]], hair_s: float | None = None) -> Case:
    """The case with one request more for each pick, on a step's end or a hair (an ulp by default) beside it.

    A pick says how far into the rest of the run, which side, and what is asked. Each one goes after those
    before it, so that the boundaries it is placed on are still there in the end.
    """
    since_s = -1.0
    for share, side, asked in picks:
        ends_s = [end_s for end_s in Assembly(case).boundaries_after_run() if end_s > since_s]
        if not ends_s:
            break
        end_s = ends_s[min(int(share * len(ends_s)), len(ends_s) - 1)]
        arrival_s = _beside(end_s, side, hair_s)
        requests = sorted([*case.requests, asked._replace(arrival_s=arrival_s)], key=lambda one: one.arrival_s)
        case = replace(case, requests=tuple(requests))
        since_s = end_s
    return case


def _beside(time_s: float, side: str, hair_s: float | None) -> float:
    if side == "on":
        return time_s
    if hair_s is not None:
        return time_s + (hair_s if side == "after" else -hair_s)
    return float(np.nextafter(time_s, ULPS[side]))


def _same_requests(records: Records, oracle: Oracle) -> None:
    rows = records.requests
    lives = oracle.lives
    assert rows["request_id"].tolist() == [life.number for life in lives]
    assert [STATUSES[code] for code in rows["status"]] == [life.status for life in lives]
    assert rows["instance"].tolist() == [life.instance for life in lives]
    assert rows["preemptions"].tolist() == [life.preemptions for life in lives]
    for column, expected in {
        "arrival_s": [life.arrival_s for life in lives],
        "scheduled_s": [life.scheduled_s for life in lives],
        "first_token_s": [life.times_s[0] if life.times_s else np.nan for life in lives],
        "finish_s": [life.times_s[-1] if life.times_s else np.nan for life in lives],
    }.items():
        np.testing.assert_allclose(rows[column], expected, rtol=TOLERANCE, atol=0, err_msg=column)


def _same_steps(records: Records, oracle: Oracle) -> None:
    """Rows, expanded to steps, end where the oracle's do; what a row says of its last step is so there."""
    rows = records.strides
    for engine in oracle.engines:
        mine = np.flatnonzero(rows["instance"] == engine.index)
        part = slice(int(mine[0]), int(mine[-1]) + 1) if len(mine) else slice(0, 0)
        ends_s, places = step_ends(rows, part)
        np.testing.assert_allclose(ends_s, [step.end_s for step in engine.steps], rtol=TOLERANCE, atol=0)
        for row, first, last in zip(mine.tolist(), places[:-1].tolist(), places[1:].tolist(), strict=True):
            _same_row(rows, row, engine.steps[first:last])


def _same_row(rows: dict[str, Any], row: int, steps: list[Any]) -> None:
    assert len(steps) == rows["steps"][row]
    assert {(step.prefill_tokens, step.decoders) for step in steps} == {
        (rows["prefill_tokens"][row], rows["decode_seqs"][row])
    }
    np.testing.assert_allclose(rows["start_s"][row], steps[0].start_s, rtol=TOLERANCE, atol=0)
    for column, step in (("first_step_s", steps[0]), ("last_step_s", steps[-1])):
        np.testing.assert_allclose(
            rows[column][row], step.end_s - step.start_s, rtol=TOLERANCE, atol=TOLERANCE * step.end_s
        )
    end = steps[-1]
    assert rows["waiting"][row] in end.waiting
    said = tuple(rows[name][row] for name in ("kv_blocks_used", "kv_tokens_stored", "kv_tokens_reserved"))
    assert said == (end.blocks, end.stored, end.reserved)
    np.testing.assert_allclose(rows["kv_external_fragmentation"][row], end.fragmentation, rtol=TOLERANCE, atol=1e-12)


def _same_tokens(records: Records, oracle: Oracle) -> None:
    """Token times are rebuilt from rows and pauses as they were emitted."""
    rebuilt = dict(all_token_times(records))
    assert sorted(rebuilt) == [life.number for life in oracle.lives if life.status == "finished"]
    for number, times_s in rebuilt.items():
        life = oracle.lives[number]
        assert len(times_s) == life.output
        np.testing.assert_allclose(times_s, life.times_s, rtol=TOLERANCE, atol=0)


def cutting_is_harmless(case: Case) -> None:
    """A policy that has every stride cut at every arrival, and after a few steps anyway, gets the same records."""

    def change(policy: Any) -> None:
        stable_steps = policy.stable_steps
        policy.arrival_matters = lambda sequence: True
        policy.stable_steps = lambda: min(stable_steps(), 1 + policy.running.step % 3)

    same_bits(Assembly(case).run(), Assembly(case, change=change).run())


def planning_leaves_no_trace(case: Case) -> None:
    """Asked twice, a policy answers the same; and the records are those of a policy that was asked once."""

    def change(policy: Any) -> None:
        plan = policy.plan

        def twice(now_s: float) -> Any:
            first, second = plan(now_s), plan(now_s)
            assert _spelt_out(first) == _spelt_out(second)
            return second

        policy.plan = twice

    for single in (False, True):
        same_bits(Assembly(case, single=single).run(), Assembly(case, single=single, change=change).run())


def _spelt_out(plan: Any) -> Any:
    draft = plan.round
    if draft is not None:
        names = [name for name in draft.__slots__ if name != "_memory"]
        draft = {name: getattr(draft, name) for name in names}
    return (list(plan.prefills), plan.admitted, plan.decode, list(plan.left_out), list(plan.preempted), draft)


def nothing_is_lost(case: Case) -> None:
    """At every event each submitted request is in one place, and memory adds up; in the end it is empty."""
    assembly = Assembly(case)
    for instance in assembly.instances:
        _recount_after_commit(instance)

    def after_event() -> None:
        inside = 0
        for instance in assembly.instances:
            instance.memory.check_integrity()
            running, waiting = instance.running, instance.waiting
            inside += waiting + len(running)
            assert len(instance.unfinished()) == waiting + len(running)
        assert assembly.submitted == len(assembly.recorder.requests) + inside

    records = assembly.run(after_event)
    assert assembly.submitted == len(case.requests) == len(records.requests["request_id"])
    for instance in assembly.instances:
        left = (instance.memory.used_blocks, instance.memory.stored_tokens, instance.memory.reserved_tokens)
        assert left == (0, 0, 0)
        assert instance.running.context_tokens == 0


def _recount_after_commit(instance: Any) -> None:
    """After each step no prefill is under way, and what is held follows from each sequence's progress."""
    commit = instance._commit

    def checked(plan: Any, plain: bool) -> Any:
        ended = commit(plan, plain)
        running, memory = instance.running, instance.memory
        stored = {sequence: running.kv_tokens(sequence) for sequence in running.sequences}
        assert memory.stored_tokens == sum(stored.values())
        decoding = [sequence for sequence in stored if sequence.decoding]
        assert running.decoders == len(decoding) == len(running) - len(running.prefilling)
        assert running.context_tokens == sum(stored[sequence] for sequence in decoding)
        for sequence, tokens in stored.items():
            generated = running.generated_tokens(sequence)
            assert 0 <= tokens <= sequence.prompt_tokens + generated
            assert generated < instance._intake.requests[sequence].output_tokens
        if hasattr(memory, "watermark_blocks"):
            assert memory.used_blocks == sum(-(-tokens // memory.block_size) for tokens in stored.values())
        else:
            extents = sorted(sequence.held for sequence in stored)
            assert memory.reserved_tokens == sum(length for _, length in extents)
            assert all(sum(one) <= other[0] for one, other in pairwise(extents))
        return ended

    instance._commit = checked


def observed_alike(case: Case, shares: list[float]) -> None:
    """What instances say at a time does not depend on stepping; and to ask them changes nothing."""
    ends_s = Assembly(case).boundaries_after_run() or [0.0]
    times_s = []
    for share in shares:
        end_s = ends_s[min(int(share * len(ends_s)), len(ends_s) - 1)]
        times_s += [end_s, float(np.nextafter(end_s, np.inf)), max(0.0, float(np.nextafter(end_s, 0))), end_s * 0.999]
    strided, seen_strided = _observed(case, times_s, single=False)
    single, seen_single = _observed(case, times_s, single=True)
    assert seen_strided == seen_single
    same_bits(strided, single)
    same_bits(strided, Assembly(case).run())


def _observed(case: Case, times_s: list[float], *, single: bool) -> tuple[Records, list[Any]]:
    assembly = Assembly(case, single=single)
    seen: list[Any] = []

    def look(time_s: float) -> None:
        seen.append([instance.observe(time_s) for instance in assembly.instances])

    for time_s in sorted(times_s):
        bell = simpy.Event(assembly.env)
        assert bell.callbacks is not None
        bell.callbacks.append(lambda _, time_s=time_s: look(time_s))
        schedule_at(assembly.env, bell, time_s, TIMER)
    return assembly.run(), seen


def happened(case: Case) -> set[str]:
    """Names of the rarer things that a run of this case goes through."""
    assembly = Assembly(case)
    records = assembly.run()
    found = {PAUSE_REASONS[code] for code in records.pauses["reason"]}
    found |= {STATUSES[code] for code in records.requests["status"]}
    if (records.requests["preemptions"] > 1).any():
        found.add("preempted twice")
    paused = records.requests["request_id"][records.requests["preemptions"] > 0]
    if set(paused.tolist()) - set(records.pauses["request_id"].tolist()):
        found.add("preempted before the first token")
    if (records.requests["output_tokens"] == 1).any():
        found.add("one token")
    if any(steps == stride.limit < 1 << 59 for stride, steps in assembly.facts.passed if stride.limit > 1):
        found.add("breakpoint")
    if (records.strides["steps"] > 8).any():
        found.add("long stride")
    if (records.strides["kv_external_fragmentation"] > 0).any():
        found.add("fragmented")
    if case.policy == "past_future":
        found |= {"lengths drawn" for instance in assembly.instances if len(instance.policy.admission._uniform)}
    return found
