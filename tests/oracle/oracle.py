"""A plain simulator, sequence by sequence and token by token, to hold servsim's engine against.

It shares no code with servsim's engine, schedulers and memory. It asks the cost model for one step at a
time, adds up its own clock, keeps every sequence's blocks as a list, and is written to be read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from case import Case
from oracle_admission import PastFutureRule
from oracle_memory import Extents, Pages

from servsim.streams import Streams


@dataclass(eq=False)
class Life:
    """All that happens to one request."""

    number: int
    arrival_s: float
    prompt: int
    output: int
    declared: int
    predicted: float = 0.0
    emitted: int = 0
    stored: int = 0
    decoding: bool = False
    scheduled_s: float = math.nan
    times_s: list[float] = field(default_factory=list)
    preemptions: int = 0
    instance: int = -1
    status: str = "unfinished"

    @property
    def total(self) -> int:
        return self.prompt + self.emitted


@dataclass
class StepFact:
    """One step of one instance; states as of its end, before anything is freed."""

    start_s: float
    end_s: float
    prefill_tokens: int
    decoders: int
    waiting: set[int]  # at its end, and when the next step begins
    blocks: int
    stored: int
    reserved: int
    fragmentation: float


class Engine:
    """vLLM v1's loop: schedule, let the step pass, hand out tokens."""

    def __init__(self, case: Case, index: int) -> None:
        self.case = case
        self.index = index
        self.memory: Any = Pages(case) if case.allocator == "paged" else Extents(case)
        self.waiting: list[Life] = []
        self.running: list[Life] = []
        self.rule = PastFutureRule(case, self.memory, index) if case.policy == "past_future" else None
        self.batch: list[tuple[Life, int]] = []  # what the step under way computes
        self.start_s = 0.0
        self.end_s: float | None = None
        self.decode_steps = 0
        self.steps: list[StepFact] = []

    def urgency(self, life: Life) -> tuple[float, float, int]:
        return (life.predicted, life.arrival_s, life.number)

    def head(self) -> Life:
        return min(self.waiting, key=self.urgency) if self.case.policy == "sjf" else self.waiting[0]

    def victim(self) -> Life:
        return max(self.running, key=self.urgency) if self.case.policy == "sjf" else self.running[-1]

    def begin(self, now_s: float) -> None:
        """Plan steps until one computes something."""
        if self.steps:
            self.steps[-1].waiting.add(len(self.waiting))
        for _ in range(len(self.running) + 2):  # a plan that only preempts takes no time
            if not self.waiting and not self.running:
                return
            self.batch = self.schedule(now_s)
            if self.batch:
                self.start_s = now_s
                self.end_s = now_s + self.duration_s(now_s)
                return
        raise AssertionError("the oracle plans nothing while work waits")

    def schedule(self, now_s: float) -> list[tuple[Life, int]]:
        tokens: dict[Life, int] = {}
        budget = self.case.max_num_batched_tokens
        preempted: list[Life] = []
        place, walking = 0, True
        while walking and place < len(self.running) and budget > 0:
            life = self.running[place]
            wanted = min(life.total - life.stored, budget)
            while not self.memory.grow(life, life.stored + wanted):
                victim = self.victim()
                self.running.remove(victim)
                if victim in tokens:
                    budget += tokens.pop(victim)
                    place -= 1
                self.preempt(victim)
                preempted.append(victim)
                if victim is life:
                    walking = False
                    break
            else:
                tokens[life] = wanted
                budget -= wanted
                place += 1
        admitted = [] if preempted else self.admit(tokens, budget, now_s)
        if self.rule is not None:
            self.rule.changed(admitted, preempted)
        return list(tokens.items())

    def admit(self, tokens: dict[Life, int], budget: int, now_s: float) -> list[Life]:
        admitted = []
        while self.waiting and budget > 0 and len(self.running) < self.case.max_num_seqs:
            life = self.head()
            wanted = min(life.total, budget)
            alone = not self.running
            if self.rule is not None and not self.rule.admits(life, alone, self.decode_steps):
                break
            if not self.memory.admit(life, life.total, wanted, alone):
                break
            self.waiting.remove(life)
            self.running.append(life)
            admitted.append(life)
            tokens[life] = wanted
            budget -= wanted
            if math.isnan(life.scheduled_s):
                life.scheduled_s = now_s
        return admitted

    def preempt(self, life: Life) -> None:
        self.memory.free(life)
        life.stored = 0
        life.decoding = False
        life.preemptions += 1
        self.waiting.insert(0, life)

    def duration_s(self, now_s: float) -> float:
        decoders = [life for life, _ in self.batch if life.decoding]
        chunks = [(tokens, life.stored) for life, tokens in self.batch if not life.decoding]
        context = sum(life.stored for life in decoders)
        if not chunks:
            return self.case.cost.decode_stride(now_s, len(decoders), context).first_s
        emitting = sum(life.stored + tokens == life.total for life, tokens in self.batch if not life.decoding)
        return self.case.cost.step_s(chunks, emitting, len(decoders), context)

    def end(self) -> list[Life]:
        """The step has passed; returns those that finish with it."""
        now_s, self.end_s = self.end_s, None
        assert now_s is not None
        decoders = sum(life.decoding for life, _ in self.batch)
        prefill_tokens = sum(tokens for life, tokens in self.batch if not life.decoding)
        self.decode_steps += decoders > 0
        finished = []
        for life, tokens in self.batch:
            life.stored += tokens
            if life.stored == life.total:
                life.decoding = True
                life.emitted += 1
                life.times_s.append(now_s)
                if life.emitted == life.output:
                    finished.append(life)
        self.steps.append(
            StepFact(
                self.start_s,
                now_s,
                prefill_tokens,
                decoders,
                {len(self.waiting)},
                self.memory.blocks(),
                sum(life.stored for life in self.running),
                self.memory.reserved(),
                self.memory.fragmentation(),
            )
        )
        for life in [life for life in self.running if life in finished]:
            life.status = "finished"
            self.running.remove(life)
            self.memory.free(life)
            if self.rule is not None:
                self.rule.finished(life)
        self.memory.check()
        return finished


class Oracle:
    """All instances of a case, from the first arrival to the last token."""

    def __init__(self, case: Case) -> None:
        self.case = case
        streams = Streams(case.seed)
        self.routing = streams.get("router")
        self.turn = 0
        self.engines = [Engine(case, index) for index in range(case.instances)]
        self.lives: list[Life] = []
        noise = streams.get("predictor").standard_normal(len(case.requests)).tolist()
        for number, (arrival_s, prompt, output, declared) in enumerate(case.requests):
            life = Life(number, arrival_s, prompt, output, min(declared, case.max_model_len - prompt))
            life.predicted = float(output) if case.sigma is None else output * math.exp(case.sigma * noise[number])
            self.lives.append(life)
        self.coming: list[tuple[float, int]] = []
        self.next_user = len(self.lives) if case.concurrency is None else case.concurrency
        for life in self.lives[: self.next_user]:
            heappush(self.coming, (life.arrival_s if case.concurrency is None else 0.0, life.number))

    def run(self) -> Oracle:
        while self.coming or any(engine.end_s is not None for engine in self.engines):
            now_s = min(
                [time_s for time_s, _ in self.coming[:1]] + [e.end_s for e in self.engines if e.end_s is not None]
            )
            self.arrive(now_s)
            for engine in self.engines:
                if engine.end_s is not None and engine.end_s <= now_s:
                    for life in engine.end():
                        self.next_question(life, now_s)
                    self.arrive(now_s)
            for engine in self.engines:
                if engine.end_s is None:
                    engine.begin(now_s)
        return self

    def arrive(self, now_s: float) -> None:
        while self.coming and self.coming[0][0] <= now_s:
            arrival_s, number = heappop(self.coming)
            life = self.lives[number]
            life.arrival_s = arrival_s
            engine = self.engines[self.route()]
            life.instance = engine.index
            stored = life.prompt + life.output - 1
            if stored + 1 > self.case.max_model_len or not engine.memory.could_hold(stored):
                life.status = "rejected"
                self.next_question(life, now_s)
            else:
                engine.waiting.append(life)

    def route(self) -> int:
        if self.case.instances == 1:
            return 0
        if self.case.router == "random":
            return int(float(self.routing.random()) * self.case.instances)
        self.turn += 1
        return (self.turn - 1) % self.case.instances

    def next_question(self, _: Life, now_s: float) -> None:
        if self.case.concurrency is not None and self.next_user < len(self.lives):
            heappush(self.coming, (now_s + self.case.think_s, self.next_user))
            self.next_user += 1
