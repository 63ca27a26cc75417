"""Many simulations over processes: each writes its own folder, and only its summary comes back."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servsim.errors import ServsimError
from servsim.report.folder import json_bytes, result_folder
from servsim.scenario import Scenario
from servsim.setup import Setup
from servsim.simulation import Simulation, finish
from servsim.sweep.grid import Variant
from servsim.sweep.processes import all_of

__all__ = ["Batch", "Failure", "Job", "execute", "plan_jobs", "run_job"]


@dataclass(frozen=True, slots=True)
class Job:
    """One simulation of a grid: a variant under a seed.

    ``folder`` is where its results go, if anywhere; ``tables`` says whether the tables go there
    too, or just the scenario and the summary.
    """

    variant: Variant
    seed: int
    scenario: Scenario
    folder: Path | None = None
    tables: bool = True

    @property
    def title(self) -> str:
        """The run in words, for messages."""
        return f"{self.variant.label}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that gave no result: what went wrong, and whether the user can mend it."""

    title: str
    message: str
    traceback: str
    is_bug: bool


@dataclass(slots=True)
class Batch:
    """What a list of jobs came to: summaries by the job's place in the list; failures; Ctrl-C or not."""

    summaries: dict[int, dict[str, Any]]
    failures: list[Failure]
    interrupted: bool = False


def plan_jobs(
    scenario: Scenario, found: Sequence[Variant], num_seeds: int, folder: Path | None, *, tables: bool = True
) -> list[Job]:
    """Every variant under the scenario's seed and the ``num_seeds - 1`` numbers after it.

    Every variant meets the same seeds, so that the same requests reach all of them. All are checked
    here, so that nothing is simulated when one of them cannot be. Raises ServsimError.
    """
    jobs = []
    # Seed by seed, so that what is finished after Ctrl-C can still be compared.
    for seed in range(scenario.seed, scenario.seed + num_seeds):
        for variant in found:
            one = variant.of(scenario, seed)
            if seed == scenario.seed:
                Setup.of(one).allocator()
            where = None if folder is None else folder / variant.folder / f"seed-{seed}"
            jobs.append(Job(variant, seed, one, where, tables))
    return jobs


def run_job(job: Job) -> dict[str, Any] | Failure | None:
    """Simulate and write one job: its summary, or why there is none; None after Ctrl-C."""
    try:
        result = finish(Simulation(job.scenario))
        if result.summary["partial"]:
            return None
        if job.folder is not None and job.tables:
            result.write(job.folder)
        elif job.folder is not None:
            with result_folder(job.folder) as folder:
                (folder / "scenario.yaml").write_text(job.scenario.to_yaml(), encoding="utf-8")
                (folder / "summary.json").write_bytes(json_bytes(result.summary))
        return result.summary
    except ServsimError as error:
        return Failure(job.title, str(error), traceback.format_exc(), is_bug=False)
    except Exception as error:
        # One run must not take the others' results away, whatever happened to it.
        return Failure(job.title, f"{type(error).__name__}: {error}", traceback.format_exc(), is_bug=True)


def execute(jobs: Sequence[Job], num_processes: int | None = None, on_end: Callable[[], None] | None = None) -> Batch:
    """Run all jobs, calling ``on_end`` as each ends; after Ctrl-C what has ended by then is kept.

    With one process everything happens in this one. Otherwise joblib spreads the jobs: over local
    processes, or over whatever ``joblib.parallel_config`` has chosen (threads excepted: Ctrl-C and
    working directories belong to a process). None for ``num_processes`` takes joblib's choice, which
    by default is every core.
    """
    found = all_of(run_job, jobs, num_processes, on_end)
    return Batch(
        {place: outcome for place, outcome in enumerate(found) if isinstance(outcome, dict)},
        [outcome for outcome in found if isinstance(outcome, Failure)],
        interrupted=None in found,
    )
