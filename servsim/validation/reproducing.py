"""Running claims: every variant under every seed, spread over processes, and what was found."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from servsim.errors import ServsimError
from servsim.scenario import load_scenario
from servsim.setup import Setup
from servsim.simulation import simulate
from servsim.sweep import Failure
from servsim.sweep.processes import all_of
from servsim.validation.claim import Claim, Finding, Measured, Verdict, together

__all__ = ["Reproduction", "Trial", "plan_trials", "reproduce", "run_trial"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One simulation for a claim: a variant under a seed."""

    claim: Claim
    variant: int  # its place among the claim's
    seed: int
    overrides: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The run in words, for messages."""
        return f"{self.claim.name}, {self.claim.variants[self.variant].label}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What became of a claim; without findings where a run failed."""

    claim: Claim
    seeds: int
    measured: Measured
    findings: tuple[Finding, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the claim; None where a run failed."""
        return None if self.failures else together(self.findings)


def plan_trials(claim: Claim, num_seeds: int, overrides: Sequence[str] = ()) -> list[Trial]:
    """Every variant under the scenario's seed and those after it, ``num_seeds x claim.repeats`` in all.

    All variants meet the same seeds. ``overrides`` (as of ``--set``) come last. Each variant is checked here.
    Raises ServsimError.
    """
    first = load_scenario(claim.scenario, overrides).seed
    for variant in claim.variants:
        Setup.of(load_scenario(claim.scenario, [*variant.overrides, *overrides])).allocator()
    seeds = range(first, first + num_seeds * claim.repeats)
    return [Trial(claim, place, seed, tuple(overrides)) for seed in seeds for place in range(len(claim.variants))]


def run_trial(trial: Trial) -> Mapping[str, float] | Failure | None:
    """Simulate and measure: the figures, or why there are none; None after Ctrl-C."""
    claim = trial.claim
    overrides = [*claim.variants[trial.variant].overrides, *trial.overrides, f"seed={trial.seed}"]
    try:
        result = simulate(claim.scenario, overrides)
        return None if result.summary["partial"] else dict(claim.measure(result))
    except ServsimError as error:
        return Failure(trial.title, str(error), traceback.format_exc(), is_bug=False)
    except Exception as error:
        # One run must not take the others' results away, whatever happened to it.
        return Failure(trial.title, f"{type(error).__name__}: {error}", traceback.format_exc(), is_bug=True)


def reproduce(
    claims: Sequence[Claim],
    num_seeds: int = 1,
    num_processes: int | None = None,
    on_end: Callable[[], None] | None = None,
    overrides: Sequence[str] = (),
) -> list[Reproduction]:
    """Run all variants of the claims and judge each claim; ``on_end`` is called as each run ends.

    After Ctrl-C only the claims of which every run had ended are judged. Raises ServsimError before anything runs where
    a claim's scenario makes no sense.
    """
    trials = [trial for claim in claims for trial in plan_trials(claim, num_seeds, overrides)]
    outcomes: list[Mapping[str, float] | Failure | None] = all_of(run_trial, trials, num_processes, on_end)
    by_claim: dict[str, list[tuple[Trial, Mapping[str, float] | Failure]]] = {claim.name: [] for claim in claims}
    for trial, outcome in zip(trials, outcomes, strict=True):
        if outcome is None:
            by_claim.pop(trial.claim.name, None)
        elif trial.claim.name in by_claim:
            by_claim[trial.claim.name].append((trial, outcome))
    return [
        _judged(claim, num_seeds * claim.repeats, by_claim[claim.name]) for claim in claims if claim.name in by_claim
    ]


def _judged(claim: Claim, seeds: int, ended: Sequence[tuple[Trial, Mapping[str, float] | Failure]]) -> Reproduction:
    failures = tuple(outcome for _, outcome in ended if isinstance(outcome, Failure))
    if failures:
        return Reproduction(claim, seeds, {}, (), failures)
    found: dict[str, dict[str, list[float]]] = {variant.label: {} for variant in claim.variants}
    for trial, outcome in ended:
        if isinstance(outcome, Mapping):
            for name, value in outcome.items():
                found[claim.variants[trial.variant].label].setdefault(name, []).append(value)
    measured = {label: {name: fmean(values) for name, values in by_name.items()} for label, by_name in found.items()}
    return Reproduction(claim, seeds, measured, tuple(claim.find(measured)))
