"""``servsim validate``: tables beside peers', files with --out, and a word where the measurements are missing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from servsim.validation import measured
from servsim.validation.measured import Comparison, Dataset, MeasuredRun, comparing, fitting

Command = Any  # what the fixture ``servsim`` gives


def test_measured_runs_are_predicted_and_compared(servsim: Command, servsim_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "validation"
    ended = servsim("validate", "vllm_0.19_per_request", "--jobs", 1, "--data", servsim_data, "--out", out)
    assert ended.status == 0
    assert "LLMServingSim" in ended.out
    assert "ttft_mean, worst" in ended.out
    assert {"errors.md", "runs.csv", "validation.json"} <= {path.name for path in out.iterdir()}
    again = servsim("validate", "vllm_0.19_per_request", "--jobs", 1, "--data", servsim_data, "--out", out)
    assert again.status == 2


def test_after_ctrl_c_the_datasets_that_were_finished_are_told_and_kept(
    servsim: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two datasets of one made-up run each; Ctrl-C comes in the second."""
    names = ("vllm_0.15_load_stages", "vllm_0.6_tp_scaling")

    def made_up(dataset: Dataset, _: Path) -> list[MeasuredRun]:
        return [MeasuredRun("a run", dataset.name, "group", "test", {"name": "a-run"}, {"tpot_mean": 0.010})]

    def compared(run: MeasuredRun) -> Comparison:
        if run.dataset == names[1]:
            raise KeyboardInterrupt
        return Comparison(run, {"tpot_mean": 0.011})

    monkeypatch.setattr(measured, "read_runs", made_up)
    monkeypatch.setattr(comparing, "compare_run", compared)
    (tmp_path / "serving").mkdir()
    for out, interrupted in ((tmp_path / "out", names), (tmp_path / "none", names[1:])):
        ended = servsim("validate", *interrupted, "--jobs", 1, "--data", tmp_path, "--out", out)
        assert ended.status == 130
        assert f"partial: {len(interrupted) - 1} of {len(interrupted)} datasets" in ended.out
        kept = "the datasets of which every run had ended were kept"
        nothing = "of no dataset had every run ended, and nothing was written"
        assert f"interrupted; {kept if len(interrupted) > 1 else nothing}" in ended.err
    told = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert [one["name"] for one in told["datasets"]] == [names[0]]
    assert not (tmp_path / "none").exists()


def test_constants_are_fitted_and_printed(servsim: Command, servsim_data: Path) -> None:
    ended = servsim("validate", "vllm_0.19_per_request", "--data", servsim_data, "--fit")
    assert ended.status == 0
    assert ended.out.startswith("vllm-0.19:\n  cost.sequence_gap_s: ")


def test_ctrl_c_ends_a_fit_whose_run_would_be_partial(
    servsim: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulation answers Ctrl-C with a partial result, of which nothing may be measured."""

    def made_up(dataset: Dataset, _: Path) -> list[MeasuredRun]:
        scenario = {"name": "a-run", "instance": {"engine": "vllm-0.15"}}
        return [MeasuredRun("a run", dataset.name, "group", "fit", scenario, {"tpot_mean": 0.010})]

    monkeypatch.setattr(measured, "read_runs", made_up)
    monkeypatch.setattr(fitting, "simulate", lambda _: SimpleNamespace(summary={"partial": True}))
    (tmp_path / "serving").mkdir()
    ended = servsim("validate", "vllm_0.15_load_stages", "--data", tmp_path, "--fit")
    assert (ended.status, ended.out) == (130, "")
    assert ended.err == "interrupted; nothing was written\n"


def test_without_measurements_it_says_what_to_set(servsim: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVSIM_DATA", raising=False)
    ended = servsim("validate")
    assert ended.status == 2
    assert "--data DIR" in ended.err
    assert "SERVSIM_DATA" in ended.err


def test_measurements_of_another_form_are_a_mistake_with_its_place(servsim: Command, tmp_path: Path) -> None:
    folder = tmp_path / "serving" / "closed_loop_h100"
    folder.mkdir(parents=True)
    (folder / "measured.csv").write_text("id,mode\n1,agg\n")
    ended = servsim("validate", "closed_loop_h100", "--data", tmp_path)
    assert ended.status == 2
    assert "measured.csv: no column model_path" in ended.err.replace("\n", "")
    assert "docs/data.md" in ended.err
    assert ended.out == ""
    unknown = servsim("validate", "closed_loop", "--data", tmp_path)
    assert unknown.status == 2
    assert "did you mean 'closed_loop_h100'" in unknown.err
