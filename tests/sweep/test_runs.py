from __future__ import annotations

from pathlib import Path

import joblib
import pytest

from servsim.errors import ScenarioError, TraceError
from servsim.scenario import load_scenario
from servsim.sweep import execute, parse_axis, plan_jobs, read_grid, run_job, runs, variants, write_grid

SMALL = {
    "name": "small",
    "seed": 5,
    "model": "llama-3.1-8b",
    "instance": {"hardware": "h100-sxm"},
    "workload": {
        "arrivals": {"process": "poisson", "rate_per_s": 20},
        "lengths": {"prompt_tokens": 50, "output_tokens": 5},
        "num_requests": 20,
    },
}
POLICIES = [parse_axis("instance.scheduler.policy=fcfs,sjf")]


@pytest.fixture
def scenario():
    return load_scenario(SMALL)


def test_jobs_are_every_variant_under_every_seed_seed_by_seed(scenario, tmp_path):
    jobs = plan_jobs(scenario, variants(POLICIES), 2, tmp_path)
    assert [job.title for job in jobs] == ["fcfs, seed 5", "sjf, seed 5", "fcfs, seed 6", "sjf, seed 6"]
    assert jobs[3].scenario.seed == 6
    assert jobs[3].folder == tmp_path / "sjf" / "seed-6"


def test_a_variant_that_cannot_be_stops_everything_before_it_begins(scenario):
    with pytest.raises(ScenarioError, match="attention heads"):
        plan_jobs(scenario, variants([parse_axis("instance.tensor_parallel_size=1,3")]), 1, None)


def test_a_varied_value_that_is_wrong_is_placed_where_it_was_written(scenario):
    with pytest.raises(ScenarioError) as caught:
        plan_jobs(scenario, variants([parse_axis("instance.memory.num_blocks=1000,x")]), 1, None)
    assert str(caught.value) == "--vary instance.memory.num_blocks=x: must be an integer, found 'x'"


def test_a_job_writes_its_own_folder_and_returns_its_summary(scenario, tmp_path):
    (job, lean) = plan_jobs(scenario, variants(POLICIES), 1, tmp_path)
    summary = run_job(job)
    assert summary["counts"]["finished"] == 20
    assert {path.name for path in job.folder.iterdir()} >= {"summary.json", "requests.csv", "scenario.yaml"}
    (_, lean) = plan_jobs(scenario, variants(POLICIES), 1, tmp_path, tables=False)
    run_job(lean)
    assert {path.name for path in lean.folder.iterdir()} == {"summary.json", "scenario.yaml"}


def test_a_job_that_fails_says_which_and_why(scenario, monkeypatch):
    def wrong(_):
        raise TraceError("bad row", place="trace.csv:7")

    monkeypatch.setattr(runs, "Simulation", wrong)
    (job, _) = plan_jobs(scenario, variants(POLICIES), 1, None)
    failure = run_job(job)
    assert (failure.title, failure.is_bug) == ("fcfs, seed 5", False)
    assert "trace.csv:7: bad row" in failure.message
    assert "Traceback" in failure.traceback


def test_what_has_ended_before_ctrl_c_is_kept(scenario, monkeypatch):
    jobs = plan_jobs(scenario, variants(POLICIES), 2, None)
    real = runs.run_job

    def impatient(job):
        if job is jobs[2]:
            raise KeyboardInterrupt
        return real(job)

    monkeypatch.setattr(runs, "run_job", impatient)
    ticks: list[int] = []
    batch = execute(jobs, 1, lambda: ticks.append(1))
    assert batch.interrupted
    assert sorted(batch.summaries) == [0, 1]
    assert len(ticks) == 2


def test_a_backend_of_joblibs_can_be_chosen(scenario, tmp_path):
    jobs = plan_jobs(scenario, variants(POLICIES), 2, tmp_path)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        batch = execute(jobs)
    assert sorted(batch.summaries) == [0, 1, 2, 3]
    alone = execute(plan_jobs(scenario, variants(POLICIES), 2, tmp_path / "alone"), 1)
    assert batch.summaries == alone.summaries


def test_a_grid_reads_back_as_it_was_written(scenario, tmp_path):
    jobs = plan_jobs(scenario, variants(POLICIES), 2, tmp_path / "runs")
    batch = execute(jobs[:3], 1)
    written = write_grid(tmp_path, POLICIES, jobs, batch)
    assert written.partial == "partial: 3 of 4 runs"
    found = read_grid(tmp_path)
    assert found == written
    assert [(run.variant, run.seed) for run in found.runs] == [("fcfs", 5), ("fcfs", 6), ("sjf", 5)]
    assert list(found.by_variant) == ["fcfs", "sjf"]
    assert found.runs[0].folder == Path(tmp_path, "runs/fcfs/seed-5")
