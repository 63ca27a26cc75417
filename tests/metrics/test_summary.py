import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from made_up_run import made_up_run

from servsim.metrics import summarise
from servsim.records import Recorder


def scenario(slo="default", warmup_s=0.0, cooldown_s=0.0, instances=1):
    bounds = SimpleNamespace(ttft_s=0.1, tpot_s=0.02, e2e_s=None)
    return SimpleNamespace(
        name="made-up",
        seed=7,
        num_engines=instances,
        slo=bounds if slo == "default" else slo,
        metrics=SimpleNamespace(warmup_s=warmup_s, cooldown_s=cooldown_s),
    )


def summary_of(run, **scenario_options):
    return summarise(run.records, scenario(**scenario_options), calibration="measured", version="1.2.3")


def test_counts_add_up_and_every_request_is_in_one():
    counts = summary_of(made_up_run(rejected=0.1, stop_s=6.0))["counts"]
    assert counts["submitted"] == 200
    assert counts["finished"] + counts["rejected"] + counts["unfinished"] == 200
    assert min(counts["finished"], counts["rejected"], counts["unfinished"]) > 0


def test_throughput_and_goodput_are_per_second_from_first_arrival_to_last_finish():
    run = made_up_run()
    found = summary_of(run)
    requests = run.records.requests
    duration_s = requests["finish_s"].max() - requests["arrival_s"].min()
    assert found["duration_s"] == duration_s
    assert found["throughput"]["requests_per_s"] == 200 / duration_s
    assert found["throughput"]["output_tokens_per_s"] == requests["output_tokens"].sum() / duration_s
    assert found["goodput_per_s"] == found["slo"]["met"] / duration_s
    assert found["slo"]["attainment"] == found["slo"]["met"] / 200


def test_tokens_of_further_outputs_count_where_their_request_has_finished():
    run = made_up_run(rejected=0.2)
    requests = run.records.requests
    further = np.arange(200) % 7
    found = summarise(replace(run.records, further_tokens=further), scenario(), calibration="measured", version="1.2.3")
    finished = np.isfinite(requests["finish_s"])
    tokens = requests["output_tokens"][finished].sum() + further[finished].sum()
    assert found["tokens"]["output_tokens"] == tokens
    assert found["throughput"]["output_tokens_per_s"] == tokens / found["duration_s"]
    prompts = requests["prompt_tokens"][finished].sum()
    assert found["throughput"]["total_tokens_per_s"] == (prompts + tokens) / found["duration_s"]


def test_a_run_in_which_nothing_finished_has_rates_of_zero_and_no_latency():
    found = summary_of(made_up_run(rejected=1.0))
    assert found["throughput"]["requests_per_s"] == 0.0 and found["goodput_per_s"] == 0.0
    assert found["slo"]["attainment"] == 0.0
    assert found["ttft_s"]["count"] == 0 and found["ttft_s"]["p99"] is None and found["duration_s"] is None


def test_a_run_without_any_request_can_be_summarised():
    found = summarise(Recorder().records(("a",), ("b",)), scenario(warmup_s=1.0), calibration="", version="")
    assert found["counts"]["submitted"] == 0 and found["arrival_rate_per_s"] is None


def test_the_measured_window_holds_those_who_arrived_in_it():
    run = made_up_run(seed=1, requests=300)
    found = summary_of(run, warmup_s=3.0, cooldown_s=2.0)
    window = found["measured_window"]
    arrival_s = run.records.requests["arrival_s"]
    inside = (arrival_s >= 3.0) & (arrival_s <= arrival_s.max() - 2.0)
    ttft_s = (run.records.requests["first_token_s"] - arrival_s)[inside]
    assert window["counts"]["submitted"] == inside.sum() < 300 == found["counts"]["submitted"]
    assert window["ttft_s"]["p90"] == pytest.approx(np.percentile(ttft_s, 90))
    assert window["itl_s"]["count"] == (run.records.requests["output_tokens"][inside] - 1).sum()


def test_without_a_cut_there_is_no_measured_window():
    assert summary_of(made_up_run())["measured_window"] is None


def test_a_window_in_which_nobody_arrived_is_said_so():
    found = summary_of(made_up_run(), warmup_s=1e6)
    assert found["measured_window"]["counts"]["submitted"] == 0
    assert any("measured window" in warning for warning in found["warnings"])


def test_littles_law_holds_over_a_whole_run():
    found = summary_of(made_up_run(instances=2), instances=2)["littles_law"]
    assert found["mean_in_system"] == pytest.approx(found["rate_times_mean_time"], rel=1e-9)


def test_the_slo_of_each_class_and_tenant_is_told_apart():
    run = made_up_run(slo_classes=("chat", "batch"), tenants=("a", "b", "c"))
    slo = {"chat": SimpleNamespace(ttft_s=0.1, tpot_s=None, e2e_s=None)}
    found = summary_of(run, slo=slo)
    assert found["slo_bounds"] == {"chat": {"ttft_s": 0.1}, "batch": {}}
    assert found["slo"]["by_class"]["batch"]["attainment"] is None
    assert found["counts"]["not_judged"] == found["slo"]["by_class"]["batch"]["submitted"] > 0
    assert sum(share["met"] for share in found["slo"]["by_tenant"].values()) == found["slo"]["met"]
    assert any("batch" in warning for warning in found["warnings"])


def test_without_an_slo_there_is_neither_attainment_nor_goodput():
    found = summary_of(made_up_run(), slo=None)
    assert found["slo"] is None and found["goodput_per_s"] is None and found["counts"]["not_judged"] == 200


def test_warnings_name_what_was_dropped_rejected_and_left_unfinished():
    run = made_up_run(rejected=0.1, stop_s=6.0, notes=("12 failed requests were dropped",))
    warnings = summary_of(run)["warnings"]
    assert warnings[0] == "12 failed requests were dropped"
    assert any("rejected" in warning for warning in warnings)
    assert any("not finished" in warning for warning in warnings)


def test_an_overloaded_run_is_warned_about_and_a_light_one_is_not():
    overloaded = summary_of(made_up_run(seed=2, requests=600, rate_per_s=40.0))
    assert any("piling up" in warning for warning in overloaded["warnings"])
    assert summary_of(made_up_run(seed=2, requests=600, rate_per_s=8.0))["warnings"] == []


def test_a_summary_is_plain_json_and_the_same_every_time():
    texts = {json.dumps(summary_of(made_up_run(seed=3), warmup_s=1.0), allow_nan=False) for _ in range(2)}
    assert len(texts) == 1
