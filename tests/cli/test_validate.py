"""``servsim validate``: tables beside peers', files with --out, and a word where the measurements are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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


def test_constants_are_fitted_and_printed(servsim: Command, servsim_data: Path) -> None:
    ended = servsim("validate", "vllm_0.19_per_request", "--data", servsim_data, "--fit")
    assert ended.status == 0
    assert ended.out.startswith("vllm-0.19:\n  cost.sequence_gap_s: ")


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
