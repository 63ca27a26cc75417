"""What has to hold of any case: stated once, for the properties and for the proof that they can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from assembly import Assembly
from case import Asked, Case
from oracle import Oracle

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
        np.testing.assert_allclose(rows[column][row], step.end_s - step.start_s, rtol=TOLERANCE, atol=TOLERANCE * step.end_s)
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
    return found
