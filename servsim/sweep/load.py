"""Which value of a scenario sets the rate of its requests, and how."""

from __future__ import annotations

from dataclasses import dataclass

from servsim.errors import ScenarioError
from servsim.scenario import Scenario
from servsim.scenario.arrival_spec import ClosedLoopArrivals, ConstantArrivals, MmppArrivals, PiecewiseArrivals
from servsim.scenario.group_spec import requests_each
from servsim.scenario.workload_spec import SyntheticWorkload, TraceWorkload
from servsim.streams import Streams
from servsim.workload import open_stream
from servsim.workload.replay import read_trace

__all__ = ["LoadKnob", "load_knob"]

_SAMPLED_TURNS = 20_000


@dataclass(frozen=True, slots=True)
class LoadKnob:
    """The path of a scenario that scales its arrivals; equal seeds draw the same gaps but for the scale."""

    path: str
    rate_at_one_per_s: float  # requests per second where the value is 1
    falling: bool  # a larger value is a lower rate, as of time_scale
    value: float  # the scenario's own

    @property
    def rate_per_s(self) -> float:
        """The scenario's own rate, in requests per second."""
        return self.rate_at(self.value)

    def rate_at(self, value: float) -> float:
        """Requests per second where the path has this value."""
        return self.rate_at_one_per_s / value if self.falling else self.rate_at_one_per_s * value

    def value_at(self, rate_per_s: float) -> float:
        """The value that gives so many requests per second."""
        return self.rate_at_one_per_s / rate_per_s if self.falling else rate_per_s / self.rate_at_one_per_s


def load_knob(scenario: Scenario) -> LoadKnob:
    """What sets the rate: ``rate_per_s`` or ``rate_scale`` of the arrivals, or a trace's ``time_scale``.

    Where arrivals are those of sessions, the rate of requests is that of the sessions times the turns that one has on
    average, over a sample of up to 20,000 planned turns; where several requests stand in the place of each (``samples``
    that are not forked), it is so many times as high. Raises ScenarioError for a closed loop, which has none, and
    for a trace whose requests arrive at one instant.
    """
    workload = scenario.workload
    if workload.arrivals is None:
        assert isinstance(workload, TraceWorkload)
        return _of_trace(scenario, workload)
    arrivals = workload.arrivals
    if isinstance(arrivals, ClosedLoopArrivals):
        raise ScenarioError(
            "a closed loop has no request rate of its own",
            place=scenario.place(("workload", "arrivals", "process")),
            remedy="use another process, or vary workload.arrivals.concurrency with servsim sweep",
        )
    rate_per_s = arrivals.mean_rate_per_s
    turns = _turns_per_session(scenario, workload) if isinstance(workload, SyntheticWorkload) else 1.0
    requests = turns * requests_each(workload.samples)  # of one arrival
    if isinstance(arrivals, MmppArrivals | PiecewiseArrivals):
        scale = arrivals.rate_scale
        return LoadKnob("workload.arrivals.rate_scale", requests * rate_per_s / scale, False, scale)
    return LoadKnob("workload.arrivals.rate_per_s", requests, False, rate_per_s)


def _turns_per_session(scenario: Scenario, workload: SyntheticWorkload) -> float:
    """How many requests come of one arrival, whatever its rate; 1 without sessions."""
    sampled = {"arrivals": ConstantArrivals(rate_per_s=1.0), "num_requests": _SAMPLED_TURNS, "duration_s": None}
    stream = open_stream(workload.model_copy(update=sampled), Streams(scenario.seed))
    if not stream.sessions:
        return 1.0
    requests, sessions = 0, 0
    for block in stream.blocks():
        assert block.turns is not None
        requests += len(block)
        sessions = int(block.turns.session[-1]) + 1
    return requests / sessions


def _of_trace(scenario: Scenario, workload: TraceWorkload) -> LoadKnob:
    arrival_s = read_trace(workload).arrival_s
    assert arrival_s is not None  # the reader saw to it
    period_s = float(arrival_s[-1] - arrival_s[0])
    if not period_s:
        raise ScenarioError(
            "all requests of this trace arrive at one instant, so it has no rate",
            place=scenario.place(("workload", "trace")),
            remedy="give the workload arrivals of its own",
        )
    rate_per_s = requests_each(workload.samples) * (len(arrival_s) - 1) / period_s
    return LoadKnob("workload.time_scale", rate_per_s, True, workload.time_scale)
