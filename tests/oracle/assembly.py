"""The simulator on a case: engine, memory, policy and source put together around requests given one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import simpy
from case import Case

from servsim import registry
from servsim.cluster import VirtualEngines
from servsim.cost.pipelined import PipelinedCost
from servsim.cost.stride import Stride
from servsim.engine.facts import Facts
from servsim.engine.instance import Instance
from servsim.engine.parts import Parts
from servsim.engine.pipeline import Pipeline
from servsim.memory.surroundings import MemorySurroundings
from servsim.records import Recorder, Records
from servsim.request import Request
from servsim.scenario.arrival_spec import ClosedLoopArrivals
from servsim.scheduler.engines.past_future import PastFuture
from servsim.scheduler.policy import Surroundings
from servsim.scheduler.predictors import LognormalNoise, Oracle
from servsim.scheduler.running import Running
from servsim.streams import Streams
from servsim.workload.blocks import RequestBlock, RequestStream
from servsim.workload.closed_loop import ClosedLoop
from servsim.workload.source import Source

_TOO_MANY_EVENTS = 50_000


class NotedFacts(Facts):
    """Remembers the strides themselves: their ends cannot be told to the bit from rows."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.passed: list[tuple[Stride, int]] = []

    def stride(self, instance: int, stride: Stride, steps: int, *rest: Any) -> None:
        super().stride(instance, stride, steps, *rest)
        self.passed.append((stride, steps))


class Assembly:
    """One run of a case; ``change`` may alter each policy before anything runs."""

    def __init__(self, case: Case, *, single: bool = False, change: Callable[[Any], None] | None = None) -> None:
        self.case = case
        self.env = simpy.Environment()
        self.recorder = Recorder()
        self.facts = NotedFacts(self.recorder)
        self.submitted = 0
        streams = Streams(case.seed)
        self.router = registry.resolve("routers", case.router)(None, streams.get("router"))
        self.source = Source(self.env, _stream(case, streams), self._submit)
        on_end = self.source.ended if self.source.closed else None
        self.instances: list[Instance] = []  # virtual engines of a pipeline counted one by one
        self.targets: list[Instance | VirtualEngines] = []
        for _ in range(case.instances):
            pipeline = Pipeline(case.cost) if isinstance(case.cost, PipelinedCost) else None
            engines = [
                self._instance(streams, single, pipeline, change, on_end)
                for _ in range(1 if pipeline is None else len(case.cost.stages))
            ]
            self.targets.append(engines[0] if pipeline is None else VirtualEngines(engines))

    def run(self, after_event: Callable[[], None] | None = None) -> Records:
        """Event by event; a broken engine may go on for ever, and is stopped."""
        events = 0
        while self.env.peek() < float("inf"):
            self.env.step()
            if after_event is not None:
                after_event()
            events += 1
            if events > _TOO_MANY_EVENTS:
                raise RuntimeError("the simulation does not come to an end")
        return self.recorder.records(("default",), ("default",))

    def boundaries_after_run(self) -> list[float]:
        """Run, and say when each step ended, to the bit, in order."""
        self.run()
        return sorted({stride.end_s(k) for stride, steps in self.facts.passed for k in range(1, steps + 1)})

    def _submit(self, request: Request) -> None:
        self.submitted += 1
        several = len(self.targets) > 1
        chosen = self.router.choose(request, self.targets, self.env.now) if several else 0
        self.targets[chosen].submit(request)

    def _instance(
        self, streams: Streams, single: bool, pipeline: Pipeline | None, change: Any, on_end: Any
    ) -> Instance:
        index = len(self.instances)
        parts = replace(self._parts(index, streams, single), lane=None if pipeline is None else pipeline.lane(index))
        if change is not None:
            change(parts.policy)
        self.instances.append(Instance(self.env, index, parts, on_end))
        return self.instances[-1]

    def _parts(self, index: int, streams: Streams, single: bool) -> Parts:
        case = self.case
        kind = registry.resolve("allocators", case.allocator)
        settings = {"watermark": case.watermark, "reserve_full_isl": case.reserve_full_isl}
        parameters = kind.Parameters(**settings if case.allocator == "paged" else {})
        memory = kind(MemorySurroundings(case.num_blocks, case.block_size, case.max_model_len, parameters))
        running = Running()
        surroundings = Surroundings(
            running,
            memory,
            case.max_num_seqs,
            case.max_num_batched_tokens,
            _policy_parameters(case),
            lambda name: streams.get(f"instance {index}: {name}"),
        )
        policy = registry.resolve("schedulers", case.policy)(surroundings)
        noise = streams.get("predictor")
        predictor: Any = Oracle(None, noise)
        if case.sigma is not None:
            predictor = LognormalNoise(LognormalNoise.Parameters(sigma=case.sigma), noise)
        return Parts(policy, running, memory, case.cost, predictor, self.facts, case.max_model_len, single)


def _policy_parameters(case: Case) -> Any:
    if case.policy != "past_future":
        return None
    return PastFuture.Parameters(
        reserve=case.reserve,
        window=case.window,
        default_output_tokens=case.default_output,
        router_max_wait_tokens=case.wait_steps,
    )


def _stream(case: Case, streams: Streams) -> RequestStream:
    count = len(case.requests)
    columns = list(zip(*case.requests, strict=True)) or [(), (), (), ()]
    zeros = np.zeros(count, dtype=np.int32)
    arrival_s = np.array(columns[0], dtype=np.float64)
    loop = None
    if case.concurrency is not None:
        think = {"distribution": "fixed", "value_s": case.think_s}
        loop = ClosedLoop(ClosedLoopArrivals(concurrency=case.concurrency, think_time_s=think), streams)  # type: ignore[arg-type]
        arrival_s = np.where(np.arange(count) < case.concurrency, 0.0, np.nan)
    lengths = [np.array(column, dtype=np.int64) for column in columns[1:]]
    block = RequestBlock(0, arrival_s, *lengths, zeros, zeros, zeros)
    return RequestStream(lambda: iter([block]), closed_loop=loop)
