"""A toy engine, step by step and token by token, whose records have the shape of a real run's.

It writes down every token's time besides, so that what metrics rebuild from records can be compared
with what happened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from servsim.records import FINISHED, REJECTED, UNFINISHED, Recorder, Records

BLOCK = 16
BLOCKS = 4000


@dataclass
class Toy:
    request_id: int
    arrival_s: float
    prompt: int
    output: int
    tenant: int
    slo_class: int
    scheduled_s: float = math.nan
    times_s: list[float] = field(default_factory=list)
    preemptions: int = 0
    paused_s: float = math.nan

    @property
    def stored(self) -> int:
        return self.prompt + len(self.times_s) - 1


@dataclass
class Run:
    records: Records
    times_s: dict[int, list[float]]  # of finished requests
    steps: list[tuple[int, float, float, int, int, int]]  # instance, start, end, decoders, used blocks, stored tokens


def made_up_run(
    seed: int = 0,
    requests: int = 200,
    rate_per_s: float = 20.0,
    instances: int = 1,
    preemption: float = 0.02,
    max_seqs: int = 8,
    mean_output: float = 30.0,
    rejected: float = 0.0,
    stop_s: float = math.inf,
    tenants: tuple[str, ...] = ("default",),
    slo_classes: tuple[str, ...] = ("default",),
    notes: tuple[str, ...] = (),
) -> Run:
    """One run; after ``stop_s`` no step begins, and what is left is unfinished."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate_per_s, requests))
    recorder, run_steps, finished = Recorder(), [], {}
    queues: list[list[Toy]] = [[] for _ in range(instances)]
    for i in range(requests):
        toy = Toy(
            i,
            float(arrivals[i]),
            int(rng.integers(10, 800)),
            int(rng.geometric(1 / mean_output)),
            int(rng.integers(len(tenants))),
            int(rng.integers(len(slo_classes))),
        )
        if rng.random() < rejected:
            recorder.requests.append(_request_row(toy, -1, REJECTED))
        else:
            queues[i % instances].append(toy)
    for instance, queue in enumerate(queues):
        _serve(instance, queue, rng, preemption, max_seqs, stop_s, recorder, run_steps, finished)
    records = recorder.records(tenants, slo_classes, notes=notes, partial=stop_s < math.inf)
    return Run(records, finished, run_steps)


def _serve(instance, coming, rng, preemption, max_seqs, stop_s, recorder, steps, finished) -> None:
    now_s, waiting, running, row = 0.0, [], [], None
    while coming or waiting or running:
        if not waiting and not running:
            now_s = max(now_s, coming[0].arrival_s)
        if now_s >= stop_s:
            break
        while coming and coming[0].arrival_s <= now_s:
            waiting.append(coming.pop(0))
        if len(running) > 1 and rng.random() < preemption:
            victim = running.pop()
            victim.preemptions += 1
            victim.paused_s = now_s
            waiting.insert(0, victim)
            row = _flush(recorder, row)
        new = waiting.pop(0) if waiting and len(running) < max_seqs else None
        if new is not None and math.isnan(new.scheduled_s):
            new.scheduled_s = now_s
        prefill = new.prompt + len(new.times_s) if new else 0
        step_s = 0.01 + 2e-5 * prefill + 1e-6 * sum(toy.stored for toy in running) + 1e-4 * len(running)
        end_s = now_s + step_s
        if new is not None:
            row = _flush(recorder, row)
            if new.times_s:
                recorder.pauses.append((new.request_id, new.paused_s, end_s, 0))
        for toy in [*running, *([new] if new else [])]:
            toy.times_s.append(end_s)
        held = [*running, *([new] if new else [])]
        used, stored = sum(-(-toy.stored // BLOCK) for toy in held), sum(toy.stored for toy in held)
        steps.append((instance, now_s, end_s, len(running), used, stored))
        state = (prefill, len(running), len(waiting), used, BLOCKS, stored, used * BLOCK, 0.0)
        start, count, first = (row[1], row[3] + 1, row[4]) if row else (now_s, 1, step_s)
        row = (instance, start, end_s, count, first, step_s, *state)
        if new is not None:
            running.append(new)
            row = _flush(recorder, row)
        for toy in [toy for toy in running if len(toy.times_s) == toy.output]:
            running.remove(toy)
            row = _flush(recorder, row)
            finished[toy.request_id] = toy.times_s
            recorder.requests.append(_request_row(toy, instance, FINISHED))
        now_s = end_s
    _flush(recorder, row)
    for toy in [*coming, *waiting, *running]:
        recorder.requests.append(_request_row(toy, instance, UNFINISHED))


def _flush(recorder: Recorder, row: tuple | None) -> None:
    if row is not None:
        recorder.strides.append(row)


def _request_row(toy: Toy, instance: int, status: int) -> tuple:
    first = toy.times_s[0] if toy.times_s else math.nan
    last = toy.times_s[-1] if status == FINISHED else math.nan
    sizes = (toy.request_id, toy.arrival_s, toy.prompt, toy.output, 0, toy.tenant, toy.slo_class, instance)
    return (*sizes, toy.scheduled_s, first, last, 0.0, toy.preemptions, status)
