"""When a figure comes out, on figures made up; and what is made of them."""

from __future__ import annotations

import json
import math

import pytest
from rich.console import Console

from servsim.sweep import Failure
from servsim.validation import (
    CLAIMS,
    Claim,
    Finding,
    Reproduction,
    Verdict,
    claims_markdown,
    claims_report,
    write_claims,
)
from servsim.validation.claim import bounded, change, factor, near, policy_variant, ratio, together

OUT, PART, NOT = Verdict.COMES_OUT, Verdict.IN_PART, Verdict.DOES_NOT


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [(0.5, NOT), (1.0, NOT), (1.1, PART), (1.7, PART), (1.8, OUT), (3, OUT), (4.5, OUT), (5, PART), (math.inf, PART)],
)
def test_a_factor_comes_out_from_a_tenth_below_to_a_half_above(ours, verdict):
    assert factor("speed", "2-3 x", ours, 2, 3).verdict == verdict


@pytest.mark.parametrize(
    ("ours", "verdict"), [(-0.95, PART), (-0.86, OUT), (-0.6, OUT), (-0.5, PART), (-0.09, NOT), (0.7, NOT)]
)
def test_a_fall_comes_out_within_ten_points(ours, verdict):
    assert change("latency", "-70 to -76 %", ours, -0.70, -0.76).verdict == verdict


def test_a_rise_is_judged_like_a_fall():
    found = [change("latency", "+24 %", ours, 0.24).verdict for ours in (0.2, 0.5, -0.2)]
    assert found == [OUT, PART, NOT]


@pytest.mark.parametrize(
    ("ours", "verdict"), [(4.9, NOT), (5, PART), (7.4, PART), (7.5, OUT), (15, OUT), (16, PART), (20.1, NOT)]
)
def test_a_figure_with_a_unit_comes_out_in_the_range_of_a_factor_and_in_part_within_two(ours, verdict):
    assert near("prefill", "10 s", ours, 10, f"{ours} s").verdict == verdict


def test_a_bound_is_kept_or_it_is_not():
    assert bounded("difference", "at most 5", 5, "5", at_most=5).verdict == OUT
    assert bounded("difference", "at most 5", 5.1, "5.1", at_most=5).verdict == NOT
    assert bounded("difference", "no bound", 7, "7", at_least=5).verdict == OUT


def test_what_is_undefined_does_not_come_out():
    found = [
        factor("", "", math.nan, 2), change("", "", math.nan, -0.5), bounded("", "", math.nan, "", at_most=1),
        near("", "", math.nan, 1, ""),
    ]  # fmt: skip
    assert {finding.verdict for finding in found} == {NOT}
    assert found[0].shown == "undefined"
    assert math.isnan(ratio(0, 0))
    assert ratio(1, 0) == math.inf
    assert math.isnan(ratio(math.nan, 0))


def test_a_claim_comes_out_if_all_its_figures_do():
    good, some, bad = (factor("", "", ours, 2) for ours in (2, 1.2, 1))
    assert [together(found) for found in ([good, good], [good, bad], [some], [bad, bad], [])] == [
        OUT,
        PART,
        PART,
        NOT,
        NOT,
    ]


def claim_of(*findings: Finding, reason: str | None = "copies") -> Reproduction:
    claim = Claim(
        "made-up", "It is twice as fast", "Nobody, 2026", "papers/vtc", (policy_variant("a", {"policy": "fcfs"}),),
        lambda result: {}, lambda measured: findings, ("all of it",), reason,
    )  # fmt: skip
    return Reproduction(claim, 1, {"a": {"speed": math.inf}}, findings)


def printed(*found: Reproduction, width: int = 300) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(claims_report(found))
    return capture.get()


def test_the_report_has_claim_source_published_ours_verdict_and_what_was_assumed():
    text = printed(claim_of(factor("speed", "2 x", 1.3, 2)))
    for word in (
        "made-up: in part\n",
        "It is twice as fast.",
        "Source: Nobody, 2026.",
        "2 x",
        "1.30 x",
        "Assumed: all of it.",
        "Likely reason: copies.",
    ):
        assert word in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_report_of_every_claim_is_as_narrow_as_a_terminal_and_breaks_no_word(width):
    """Figures as long as the longest of our own."""
    what = "latency per output token at vLLM's highest rate, 1.85/s (the published setting; 35 for 64 turns)"
    finding = factor(what, "1.51-1.95 x (13B: 1.14-1.70 x)", 1.3, 2)
    long = Finding(what, finding.published, 1.3, "13.2 x (13.2 for 1.0 requests/s)", (2, 3), (1.1, 2))
    for claim in CLAIMS.values():
        text = printed(Reproduction(claim, 1, {}, (finding, long)), width=width)
        assert max(map(len, text.splitlines())) <= width
        words = " ".join([claim.statement, claim.source, *claim.assumptions, what, long.published, long.shown]).split()
        assert {word.rstrip(".;") for word in words} <= {word.rstrip(".;") for word in text.split()}


def test_a_reason_is_given_only_where_a_claim_does_not_come_out():
    found = claim_of(factor("speed", "2 x", 2, 2))
    assert "Likely reason" not in printed(found)
    assert "Likely reason" not in claims_markdown([found])
    assert "| speed | 2 x | 2.00 x | comes out |" in claims_markdown([found])


def test_a_claim_whose_run_failed_is_not_judged():
    whole = claim_of(factor("speed", "2 x", 2, 2))
    failed = Reproduction(whole.claim, 1, {}, (), (Failure("a", "no memory", "", is_bug=False),))
    assert failed.verdict is None
    assert "not judged" in printed(failed)


def test_the_file_holds_what_was_measured_and_no_infinity(tmp_path):
    out = tmp_path / "claims"
    for _ in range(2):  # its own folder may be replaced
        write_claims(out, [claim_of(factor("speed", "2 x", math.inf, 2))], overwrite=True)
    (found,) = json.loads((out / "claims.json").read_text())["claims"]
    assert found["verdict"] == "in part"
    assert found["findings"][0]["ours"] is None and found["findings"][0]["shown"] == "∞"
    assert found["measured"] == {"a": {"speed": None}}


def test_a_variant_replaces_the_whole_scheduler_and_what_else_it_names():
    variant = policy_variant("few", {"policy": "s3", "max_num_seqs": 8}, workload__arrivals__rate_per_s=2.5)
    assert variant.overrides == (
        "instance.scheduler={policy: s3, max_num_seqs: 8}",
        "workload.arrivals.rate_per_s=2.5",
    )
