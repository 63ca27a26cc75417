"""A capacity search on a scenario: what a probe simulates, and what the probes say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from servsim.cli.progress import counted
from servsim.errors import ScenarioError, ServsimError, SimulationError
from servsim.report.comparison import figures_of, metric_value
from servsim.report.tables import format_figure
from servsim.scenario import Scenario
from servsim.sweep import Batch, Search, Variant, execute, load_knob, plan_jobs, search_capacity
from servsim.sweep.axis import check_target

__all__ = ["Prober", "check_limits"]

_FIGURES = ("ttft_s.p99", "tpot_s.p99", "throughput.requests_per_s")


def check_limits(target: float, low: float | None, high: float | None, tolerance: float) -> None:
    """Raises ScenarioError for options of a search that make no sense."""
    check_target(target)
    for name, rate in (("--low", low), ("--high", high)):
        if rate is not None and not (0 < rate < math.inf):
            raise ScenarioError(f"{rate:g} is no request rate", place=name, remedy="give a number above 0")
    if low is not None and high is not None and low >= high:
        raise ScenarioError(f"{low:g} is not below {high:g}", place="--low", remedy="swap --low and --high")
    if not 1e-4 <= tolerance < 1:
        remedy = "give a share of the rate from 0.0001 up, such as 0.02"
        raise ScenarioError(f"{tolerance:g} cannot be a tolerance", place="--tolerance", remedy=remedy)


class Prober:
    """The search for one variant of a scenario.

    Raises ScenarioError for a scenario without an SLO, or without a rate.
    """

    def __init__(self, scenario: Scenario, variant: Variant, target: float, seeds: int, jobs: int | None) -> None:
        self.title = variant.label if variant.values else scenario.name
        self.target = target
        self.interrupted = False
        self._scenario = variant.of(scenario)
        if self._scenario.slo is None:
            raise ScenarioError(
                "there is no slo, and so nothing to keep",
                place=self._scenario.place(()),
                remedy="add bounds, for example slo: {ttft_s: 1.0, tpot_s: 0.05}",
            )
        self._knob = load_knob(self._scenario)
        if self._knob.path in variant.values:
            raise ScenarioError(f"{self._knob.path} is what is searched for", place="--vary", remedy="leave it out")
        self._seeds = seeds
        self._jobs = jobs
        self._search = Search(target)
        self._found: list[tuple[float | None, ...]] = []
        self._warnings: dict[float, list[str]] = {}

    def search(self, low: float | None, high: float | None, tolerance: float) -> None:
        """Probe until the bracket is narrow enough, or Ctrl-C."""
        start_per_s = self._knob.rate_per_s
        try:
            search_capacity(
                self._search, self._measure, start_per_s, low_per_s=low, high_per_s=high, tolerance=tolerance
            )
        except KeyboardInterrupt:
            self.interrupted = True

    def rows(self) -> Iterator[tuple[float, float, tuple[float | None, ...]]]:
        """Rate, attainment, and p99 of TTFT, of TPOT and finished requests per second of every probe."""
        for probe, figures in zip(self._search.probes, self._found, strict=True):
            yield probe.rate_per_s, probe.attainment, figures

    def verdict(self) -> str:
        """The bracket in words, and what throws doubt on it."""
        bracket = self._search.bracket
        share = f"{100 * self.target:g} %"
        keeps, fails = (format_figure(end) for end in (bracket.keeps_per_s, bracket.fails_per_s))
        lines = []
        if bracket.keeps_per_s is None and bracket.fails_per_s is None:
            lines.append(f"{self.title}: no probe ended")
        elif bracket.keeps_per_s is None:
            lines.append(f"{self.title}: {share} is not kept at any rate tried, the lowest {fails} requests/s")
        elif bracket.fails_per_s is None:
            lines.append(f"{self.title}: {share} is kept at every rate tried, the highest {keeps} requests/s")
        else:
            lines.append(f"{self.title}: keeps {share} at {keeps} requests/s, not at {fails}")
        if not self._search.monotone:
            lines.append("  doubtful: a higher rate attained more than a lower one; more requests or seeds would tell")
        if bracket.keeps_per_s is not None:
            lines.extend(f"  at {keeps}: {warning}" for warning in self._warnings[bracket.keeps_per_s])
        return "\n".join(lines)

    def assumptions(self, tolerance: float) -> list[str]:
        """What the answer rests on."""
        seeds = "the scenario's seed" if self._seeds == 1 else f"the mean over {self._seeds} seeds"
        return [
            f"rates were set by {self._knob.path}, with equal draws at every rate; each attainment is that of {seeds}",
            "attainment was assumed to fall as the rate rises; the bracket is within "
            f"{100 * tolerance:g} % unless a limit ended the search",
        ]

    def _measure(self, rate_per_s: float) -> float:
        value = self._knob.value_at(rate_per_s)
        try:
            at_rate = self._scenario.with_overrides([f"{self._knob.path}={value!r}"])
            jobs = plan_jobs(at_rate, [Variant(f"{rate_per_s:g} requests/s", "", {})], self._seeds, None)
        except ServsimError as error:
            raise ScenarioError(error.message, place=f"{self.title} at {rate_per_s:g} requests/s") from error
        with counted(f"{self.title} at {rate_per_s:.4g}/s", len(jobs)) as tick:
            batch = execute(jobs, self._jobs, tick)
        if batch.interrupted:
            raise KeyboardInterrupt
        _stop_at_failure(batch)
        summaries = list(batch.summaries.values())
        attained = [_known(summary, "slo.attainment") for summary in summaries]
        self._found.append(
            tuple(_mean([metric_value(figures_of(one), path) for one in summaries]) for path in _FIGURES)
        )
        self._warnings[rate_per_s] = list(dict.fromkeys(one for summary in summaries for one in summary["warnings"]))
        return sum(attained) / len(attained)


def _stop_at_failure(batch: Batch) -> None:
    if batch.failures and batch.failures[0].is_bug:
        raise SimulationError(batch.failures[0].message)
    if batch.failures:
        raise ScenarioError(batch.failures[0].message)


def _known(summary: Mapping[str, Any], path: str) -> float:
    value = metric_value(figures_of(summary), path)
    if value is None:
        raise ScenarioError("no request of this workload is judged by the slo", remedy="give bounds to its SLO classes")
    return value


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
