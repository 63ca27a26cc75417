"""``servsim validate``: tables beside peers', files with --out, and a word where the measurements are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Command


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
