"""``servsim reproduce``: a table of claims, and nothing written unless asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from servsim.validation import CLAIMS, plan_trials, reproducing


@pytest.fixture
def cut_short(monkeypatch):
    """Claims run on 20 requests under one seed, a claim's first four variants."""
    monkeypatch.setattr(
        reproducing, "plan_trials", lambda claim, *_: plan_trials(claim, 1, ["workload.num_requests=20"])[:4]
    )


def test_reproduce_prints_the_claims_beside_what_came_of_them(servsim, small, cut_short):
    ended = servsim("reproduce", "clairvoyant-burst", "--jobs", 1)
    assert ended.status == 0
    for word in ("clairvoyant-burst", "published", "verdict", "−70 to −76 %", "Source: Sundaresan", "Assumed: "):
        assert word in ended.out
    assert sorted(path.name for path in Path().iterdir()) == ["small.yaml"]


def test_reproduce_writes_a_folder_when_told_where(servsim, small, cut_short):
    arguments = ("reproduce", "clairvoyant-burst", "--jobs", 1, "--out", "out")
    assert servsim(*arguments).status == 0
    assert json.loads(Path("out/claims.json").read_text())["claims"][0]["name"] == "clairvoyant-burst"
    again = servsim(*arguments)
    assert again.status == 2
    assert "exists already" in again.err
    assert servsim(*arguments, "--overwrite").status == 0


def test_reproduce_knows_its_claims(servsim, small):
    ended = servsim("reproduce", "orca")
    assert ended.status == 2
    assert "unknown claim 'orca'" in ended.err
    assert all(name in ended.err for name in CLAIMS) or "did you mean" in ended.err


def test_a_claim_may_be_called_as_its_scenario_is(servsim, small, cut_short):
    ended = servsim("reproduce", "papers/clairvoyant-burst", "clairvoyant-burst", "--jobs", 1)
    assert ended.status == 0
    assert ended.out.count("clairvoyant-burst: ") == 1


def test_the_help_of_reproduce_says_how_to_see_the_names(servsim):
    assert "servsim list claims" in " ".join(servsim("reproduce", "--help").out.replace("│", " ").split())


def test_after_ctrl_c_what_was_tried_in_full_is_told_and_kept(servsim, small, cut_short, monkeypatch):
    real = reproducing.run_trial

    def impatient(trial):
        if trial.claim.name == "vtc":
            raise KeyboardInterrupt
        return real(trial)

    monkeypatch.setattr(reproducing, "run_trial", impatient)
    ended = servsim("reproduce", "clairvoyant-burst", "vtc", "--jobs", 1, "--out", "out")
    assert ended.status == 130
    assert "clairvoyant-burst" in ended.out and "partial: 1 of 2 claims" in ended.out
    assert "interrupted; the claims of which every run had ended were kept" in ended.err
    assert [claim["name"] for claim in json.loads(Path("out/claims.json").read_text())["claims"]] == [
        "clairvoyant-burst"
    ]
    ended = servsim("reproduce", "vtc", "--jobs", 1, "--out", "none")
    assert ended.status == 130
    assert ended.out == "partial: 0 of 1 claims\n" and not Path("none").exists()
    assert "interrupted; of no claim had every run ended, and nothing was written" in ended.err


def test_a_run_that_fails_leaves_its_claim_unjudged(servsim, small, cut_short, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("made up")

    monkeypatch.setattr(reproducing, "simulate", broken)
    ended = servsim("reproduce", "clairvoyant-burst", "--jobs", 1)
    assert ended.status == 1
    assert "not judged" in ended.out
    assert "made up" in ended.err
