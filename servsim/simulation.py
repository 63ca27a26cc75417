"""The only place where everything is put together: a scenario becomes records, a summary, a result."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simpy
from simpy.core import StopSimulation

from servsim.clock import FIRST, schedule_at
from servsim.cluster.routers import Router
from servsim.cluster.virtual_engines import VirtualEngines
from servsim.cost.pipelined import PipelinedCost
from servsim.engine.facts import Facts
from servsim.engine.instance import Instance
from servsim.engine.parts import Parts
from servsim.engine.pipeline import Lane, Pipeline
from servsim.errors import ScenarioError, SimulationError, suggestion
from servsim.metrics import derive, summarise
from servsim.records import Recorder, Records
from servsim.report.folder import check_free, pause_columns, write_run
from servsim.report.vllm_bench import bench_result, write_bench
from servsim.request import Request
from servsim.scenario import Scenario, load_scenario
from servsim.scheduler.policy import Bounds, Policy, Surroundings
from servsim.scheduler.predictors import Predictor
from servsim.scheduler.running import Running
from servsim.setup import Setup, placed
from servsim.streams import Streams
from servsim.version import VERSION
from servsim.workload import RequestStream, open_stream
from servsim.workload.beams import BeamDraws
from servsim.workload.source import Source

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Result", "Simulation", "finish", "simulate"]

_YOUNG_OBJECTS = 50_000  # before they are looked through; Python's own number is 700


class Simulation:
    """One run of one scenario; :meth:`run` once."""

    def __init__(self, scenario: Scenario, setup: Setup | None = None) -> None:
        self.scenario = scenario
        self.setup = setup or Setup.of(scenario)
        self.stream: RequestStream = open_stream(scenario.workload, Streams(scenario.seed))
        _check_classes(scenario, self.stream)
        self.recorder = Recorder()
        self.env = simpy.Environment()
        self._facts = Facts(self.recorder)
        self.cost = self.setup.cost_model()
        streams = Streams(scenario.seed)
        router: Router = scenario.router.plug_in(scenario.router.parameters, streams.get("router"))
        self._router = router
        # One for all instances: a request is judged alike wherever it goes, and what is learnt is learnt by all.
        predictor = scenario.instance.scheduler.predictor
        with placed(scenario, "instance", "scheduler", "predictor"):
            self._predictor: Predictor = predictor.plug_in(predictor.parameters, streams.get("predictor"))
            self._predictor.prepare(self.stream)
        self.instances: list[Instance] = []  # virtual engines counted one by one
        self._targets: list[Instance | VirtualEngines] = []  # what the router chooses from
        self.source = Source(self.env, self.stream, self._submit)
        on_end = self.source.ended if self.source.closed else None
        for _ in range(scenario.instances):
            engines = self._engines(streams, on_end)
            self._targets.append(engines[0] if len(engines) == 1 else VirtualEngines(engines))

    @property
    def ended_requests(self) -> int:
        """How many requests have finished or been rejected so far."""
        return len(self.recorder.requests)

    def run(self) -> Records:
        """Simulate to the end; after Ctrl-C, what has happened by then, marked partial."""
        mistakes = placed(self.scenario, "instance", "scheduler")  # where a policy finds that something does not fit
        with mistakes, _rarer_garbage_collection(), _stopped_by_interrupt(self.env) as interrupts:
            self.env.run()
        for instance in self.instances:
            for sequence, request in instance.unfinished():
                self._facts.unfinished(sequence, request.output_tokens, instance.index)
            for name, amount in instance.report().items():
                self.recorder.memory[name] = self.recorder.memory.get(name, 0) + amount
        notes = (*self.stream.notes, *self.setup.notes)
        return self.recorder.records(self.stream.tenants, self.stream.slo_classes, notes, bool(interrupts))

    def _submit(self, request: Request) -> None:
        targets = self._targets
        chosen = self._router.choose(request, targets, self.env.now) if len(targets) > 1 else 0
        if not 0 <= chosen < len(targets):
            raise SimulationError(f"the router {self.scenario.router.policy} chose instance {chosen} of {len(targets)}")
        targets[chosen].submit(request)

    def _engines(self, streams: Streams, on_end: Callable[[Request, bool], None] | None) -> list[Instance]:
        """One more instance: an engine, or the virtual engines that share its pipeline."""
        pipeline = Pipeline(self.cost) if isinstance(self.cost, PipelinedCost) else None
        engines: list[Instance] = []
        for _ in range(self.scenario.instance.pipeline_parallel_size):
            index = len(self.instances)
            lane = None if pipeline is None else pipeline.lane(index)
            engines.append(Instance(self.env, index, self._parts(index, streams, lane), on_end))
            self.instances.append(engines[-1])
        return engines

    def _parts(self, index: int, streams: Streams, lane: Lane | None) -> Parts:
        spec = self.scenario.instance
        running, cost = Running(), self.cost

        def prefill_s(tokens: int) -> float:
            return cost.step_s([(tokens, 0)], 1, 0, 0)

        memory = self.setup.allocator(self.env, self.stream.tokens_per_hash, prefill_s)
        swap_space = self.setup.swap_space(self.env)
        surroundings = Surroundings(
            running,
            memory,
            spec.scheduler.max_num_seqs,
            spec.scheduler.max_num_batched_tokens,
            spec.scheduler.parameters,
            lambda name: streams.get(f"instance {index}: {name}"),
            max_model_len=self.setup.max_model_len,
            prefill_s=prefill_s,
            decode_s=lambda decoders, context: cost.decode_stride(0.0, decoders, context).first_s,
            bounds=_bounds(self.scenario, self.stream),
            kv_bytes_per_token=self.setup.budget.kv_bytes_per_token * spec.tensor_parallel_size,
            engines=spec.pipeline_parallel_size,
            swap_space=swap_space,
        )
        policy = self._policy(surroundings)
        frontend, beams = spec.frontend, self.scenario.workload.beam_search
        return Parts(
            policy,
            running,
            memory,
            self.cost,
            self._predictor,
            self._facts,
            self.setup.max_model_len,
            single_stepping=spec.stepping == "single",
            frontend=frontend.time_s if frontend.takes_time else None,
            prefix_hit_fraction=spec.memory.prefix_hit_fraction,
            read_bounds=self.setup.read_bounds(memory),
            scan_share=spec.memory.compression.scanned,
            swap_space=swap_space,
            lane=lane,
            reorderings=None if beams is None else BeamDraws(Streams(self.scenario.seed), beams.reorder_probability),
        )

    def _policy(self, surroundings: Surroundings) -> Policy:
        """One instance's policy; raises what is wrong with it in these surroundings with its place in the scenario."""
        with placed(self.scenario, "instance", "scheduler"):
            policy: Policy = self.scenario.instance.scheduler.plug_in(surroundings)
        return policy


class Result:
    """What one simulation gave."""

    def __init__(self, scenario: Scenario, records: Records, summary: dict[str, Any]) -> None:
        self.scenario = scenario
        self.records = records
        self.summary = summary

    @cached_property
    def requests(self) -> pd.DataFrame:
        """One row a request, the columns of ``requests.csv``."""
        import pandas as pd  # slow to import, and only wanted here

        return pd.DataFrame(derive(self.records, self.scenario.slo))

    @cached_property
    def strides(self) -> pd.DataFrame:
        """One row a stride or a step with prefill, the columns of ``strides.csv``."""
        import pandas as pd

        return pd.DataFrame(self.records.strides)

    @cached_property
    def pauses(self) -> pd.DataFrame:
        """One row a pause of a request that had started, the columns of ``pauses.csv``."""
        import pandas as pd

        return pd.DataFrame(pause_columns(self.records))

    def write(self, out: str | Path, *, overwrite: bool = False, table_format: str = "csv") -> None:
        """Write the result folder; raises ResultError if it exists and ``overwrite`` is not given."""
        write_run(Path(out), self.scenario, self.records, self.summary, overwrite=overwrite, table_format=table_format)

    def write_bench(self, path: str | Path) -> None:
        """Write the result as ``vllm bench serve --save-result --save-detailed`` would: one JSON file."""
        write_bench(Path(path), bench_result(self.records, self.scenario, self.summary))


def simulate(
    source: str | Path | Mapping[str, Any] | Scenario,
    overrides: Iterable[str] = (),
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Result:
    """Run a scenario: a file, the name of a shipped one, a dict, or a loaded Scenario.

    ``overrides`` are ``"path=value"`` strings as for ``--set``. Nothing is written without ``out``. After
    Ctrl-C the result is partial, and ``summary["partial"]`` says so.
    Raises ServsimError for whatever is wrong with the scenario, its files or ``out``.
    """
    scenario = load_scenario(source, overrides)
    if out is not None:
        check_free(Path(out), overwrite)
    result = finish(Simulation(scenario))
    if out is not None:
        result.write(out, overwrite=overwrite)
    return result


def finish(simulation: Simulation) -> Result:
    """Run a simulation and sum it up."""
    records = simulation.run()
    scheduler = simulation.scenario.instance.scheduler.model_dump(mode="json")
    summary = summarise(
        records,
        simulation.scenario,
        calibration=simulation.cost.calibration,
        version=VERSION,
        scheduler=scheduler,
        outside_range=simulation.cost.outside_range(),
    )
    return Result(simulation.scenario, records, summary)


@contextmanager
def _rarer_garbage_collection() -> Iterator[None]:
    """Python looks for reference cycles after more objects than usual: a simulation makes many, and hardly a cycle.

    Three per cent of the time of a run with a preemption in every step (benchmarks/policies.py).
    """
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], _YOUNG_OBJECTS) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _stopped_by_interrupt(env: simpy.Environment) -> Iterator[list[int]]:
    """Ctrl-C ends the simulation between two events, where all facts agree; it is noted in the list that this gives.

    A second one has its usual effect, and so has the first where Python would not have raised KeyboardInterrupt.
    """
    interrupts: list[int] = []

    def stop(number: int, _: object) -> None:
        interrupts.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        event = simpy.Event(env)
        assert event.callbacks is not None
        event.callbacks.append(StopSimulation.callback)
        schedule_at(env, event, env.now, FIRST)

    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, stop)
    try:
        yield interrupts
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _bounds(scenario: Scenario, stream: RequestStream) -> tuple[Bounds, ...]:
    """What the scenario asks of the requests of each class, by the class's index."""
    found = [scenario.slo_for(name) for name in stream.slo_classes]
    given = [one.model_dump(exclude_none=True) if one else {} for one in found]
    return tuple(Bounds(**one) for one in given)


def _check_classes(scenario: Scenario, stream: RequestStream) -> None:
    """An SLO map may only name classes that the requests have; a trace's are known once it is read."""
    if isinstance(scenario.slo, Mapping):
        for name in scenario.slo:
            if name not in stream.slo_classes:
                raise ScenarioError(
                    f"the workload has no SLO class '{name}'",
                    place=scenario.place(("slo", name)),
                    remedy=suggestion(name, stream.slo_classes),
                )
