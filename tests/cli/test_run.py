from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "servsim"]


def test_a_run_prints_its_summary_and_writes_its_folder(servsim, small):
    ended = servsim("run", small)
    assert ended.status == 0
    assert "TTFT" in ended.out and "SLO attainment" in ended.out
    assert "60 requests simulated" in ended.err and "results/small" in ended.err
    found = {path.name for path in Path("results/small").iterdir()}
    assert found == {"scenario.yaml", "summary.json", "requests.csv", "strides.csv", "pauses.csv"}
    with Path("results/small/requests.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 60


def test_the_written_scenario_runs_again_to_the_same_bytes(servsim, small):
    servsim("run", small, "--out", "one")
    assert servsim("run", "one/scenario.yaml", "--out", "two").status == 0
    for name in ("scenario.yaml", "summary.json", "requests.csv", "strides.csv", "pauses.csv"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


def test_values_are_set_by_their_path(servsim, small):
    ended = servsim("run", small, "--set", "workload.num_requests=5", "--set", "seed=3")
    assert ended.status == 0
    summary = json.loads(Path("results/small/summary.json").read_text())
    assert (summary["counts"]["submitted"], summary["seed"]) == (5, 3)


def test_tables_may_be_parquet(servsim, small):
    assert servsim("run", small, "--format", "parquet").status == 0
    assert Path("results/small/requests.parquet").is_file()
    assert not Path("results/small/requests.csv").exists()


def test_an_existing_folder_is_refused_before_anything_is_simulated(servsim, small, monkeypatch):
    servsim("run", small)
    before = Path("results/small/summary.json").read_bytes()

    def never(*_: object) -> None:
        raise AssertionError("simulated")

    monkeypatch.setattr("servsim.simulation.Simulation", never)
    ended = servsim("run", small, "--set", "seed=1")
    assert ended.status == 2
    assert "results/small" in ended.err and "exists already" in ended.err and "--overwrite" in ended.err
    assert Path("results/small/summary.json").read_bytes() == before


def test_overwrite_replaces_an_existing_folder(servsim, small):
    servsim("run", small)
    assert servsim("run", small, "--overwrite", "--set", "seed=1").status == 0
    assert json.loads(Path("results/small/summary.json").read_text())["seed"] == 1


def test_overwrite_spares_a_folder_that_is_not_ours(servsim, small):
    Path("precious").mkdir()
    Path("precious/thesis.tex").write_text("years of work")
    ended = servsim("run", small, "--out", "precious", "--overwrite")
    assert ended.status == 2
    assert Path("precious/thesis.tex").read_text() == "years of work"


def test_a_reader_of_everything_that_goes_away_is_no_error(small):
    process = subprocess.Popen([*COMMAND, "run", str(small)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.stdout.close()  # as head does in 2>&1 | head
    assert process.wait() == 0
    assert Path("results/small/summary.json").is_file()


def test_a_reader_that_goes_away_is_no_error(small):
    process = subprocess.Popen([*COMMAND, "run", str(small)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()  # as head does once it has enough
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 0
    assert "Error" not in err and "Traceback" not in err
    assert Path("results/small/summary.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "banned"),
    [
        (["--help"], {"numpy", "pandas", "pyarrow", "simpy", "pydantic", "matplotlib", "joblib"}),
        (["run", "small.yaml"], {"pandas", "matplotlib", "joblib"}),
        (["check", "small.yaml"], {"pandas", "matplotlib", "joblib"}),
    ],
)
def test_a_command_imports_only_what_it_needs(small, arguments, banned):
    code = f"""
import sys
from servsim.cli import main
try:
    main({arguments!r})
finally:
    print(*sorted({banned!r} & set(sys.modules)), file=sys.stderr)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr.splitlines()[-1] == ""


@pytest.mark.parametrize("policy", ["sjf", "past_future"])
def test_the_same_seed_gives_the_same_bytes_whatever_the_hash_seed(small, policy):
    for hash_seed in ("1", "2"):
        command = [*COMMAND, "run", str(small), "--out", hash_seed, "--set", f"instance.scheduler.policy={policy}"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        subprocess.run(command, env=environment, check=True, capture_output=True)
    for path in Path("1").iterdir():
        assert path.read_bytes() == Path("2", path.name).read_bytes(), path.name


def test_a_wall_clock_never_reaches_the_results(servsim, small):
    servsim("run", small, "--out", "one")
    servsim("run", small, "--out", "two")
    assert Path("one/summary.json").read_bytes() == Path("two/summary.json").read_bytes()


def test_a_run_is_written_as_vllms_bench_json_too(servsim, small):
    assert servsim("run", small, "--bench", "bench.json").status == 0
    found = json.loads(Path("bench.json").read_text())
    assert found["completed"] == 60 and len(found["ttfts"]) == 60
    refused = servsim("run", small, "--out", "other", "--bench", "bench.json")
    assert refused.status == 2 and "bench.json" in refused.err and not Path("other").exists()
