"""Every claim: its scenario is sound, its variants differ, its verdicts follow from figures, one runs to its end."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest

from servsim import load_scenario
from servsim.errors import ScenarioError
from servsim.scenario import catalogue
from servsim.setup import Setup
from servsim.validation import CLAIMS, find_claims, plan_trials, reproduce, reproducing

NAMES = sorted(CLAIMS)
PAPERS = sorted(name for name in catalogue.names("scenarios") if name.startswith("papers/"))


@pytest.mark.parametrize("name", PAPERS)
def test_every_paper_s_scenario_is_checked_and_says_how_it_is_run(name):
    path = catalogue.find("scenarios", name)
    scenario = load_scenario(path)
    assert Setup.of(scenario).allocator().fits(1)
    assert f"papers/{scenario.name}" == name
    assert f"servsim reproduce {scenario.name}" in path.read_text(encoding="utf-8")


def test_every_paper_s_scenario_has_a_claim_of_its_name_and_the_other_way_round():
    assert [claim.scenario for _, claim in sorted(CLAIMS.items())] == PAPERS
    assert all(claim.name == name for name, claim in CLAIMS.items())


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_of_a_claim_is_a_scenario_and_no_two_are_the_same(name):
    claim = CLAIMS[name]
    trials = plan_trials(claim, 2)
    assert len(trials) == 2 * claim.repeats * len(claim.variants)
    texts = {load_scenario(claim.scenario, variant.overrides).to_yaml() for variant in claim.variants}
    assert len(texts) == len({variant.label for variant in claim.variants}) == len(claim.variants)


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_says_what_was_published_and_what_was_assumed(name):
    claim = CLAIMS[name]
    findings = claim.find({variant.label: defaultdict(lambda: 1.0) for variant in claim.variants})
    assert claim.statement and claim.source and claim.assumptions
    assert all(finding.what and finding.published and finding.shown for finding in findings)


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_could_be_measured_no_claim_comes_out(name):
    claim = CLAIMS[name]

    class Undefined(dict):
        def __missing__(self, key):
            return math.nan

    findings = claim.find({variant.label: Undefined() for variant in claim.variants})
    assert not any(finding.verdict == "comes out" for finding in findings)


def test_an_unknown_claim_is_a_mistake_with_a_hint():
    with pytest.raises(ScenarioError, match=r"unknown claim 'past-futur'\n.*past-future"):
        find_claims(["past-futur"])
    assert [claim.name for claim in find_claims(["vtc", "s3", "vtc"])] == ["vtc", "s3"]
    assert find_claims([]) == list(CLAIMS.values())


def test_a_claim_is_run_measured_and_judged():
    cut_short = "workload.num_requests=40"
    ended = []
    (found,) = reproduce([CLAIMS["clairvoyant-poisson"]], 1, 1, lambda: ended.append(1), [cut_short])
    assert len(ended) == len(plan_trials(found.claim, 1))
    assert found.verdict is not None
    assert not found.failures
    assert set(found.measured) == {variant.label for variant in found.claim.variants}
    # While nobody queues long enough to be promoted, short ones gain on fcfs.
    assert found.measured["nobody promoted"]["short p50"] <= found.measured["fcfs"]["short p50"]
    (again,) = reproduce([CLAIMS["clairvoyant-poisson"]], 1, 2, None, [cut_short])
    assert again.measured == found.measured


def test_after_ctrl_c_the_claims_that_were_tried_in_full_are_judged(monkeypatch):
    def trial(one):
        if one.claim.name == "s3" and one.variant == 1:
            raise KeyboardInterrupt
        return {"throughput": 1.0, "batch": 1.0, "mean": 1.0, "tail": 1.0, "overtime": 0.0}

    monkeypatch.setattr(reproducing, "run_trial", trial)
    found = reproduce([CLAIMS["fastserve"], CLAIMS["s3"], CLAIMS["vtc"]], 1, 1)
    assert [one.claim.name for one in found] == ["fastserve"]
    assert found[0].verdict is not None


def test_the_service_of_two_tenants_is_bounded_under_vtc_and_not_under_fcfs():
    """A minute and a half of backlog: enough for vtc's bound, and for fcfs to be the less fair."""
    (found,) = reproduce([CLAIMS["vtc"]], 1, 1, None, ["workload.duration_s=90"])
    assert found.measured["vtc"]["bound"] == 40_000
    assert found.measured["vtc"]["difference"] < found.measured["fcfs"]["difference"]
