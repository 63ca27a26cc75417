import math
from types import SimpleNamespace

import numpy as np

from servsim.metrics import REQUEST_COLUMNS, derive
from servsim.metrics.latencies import judge_requests, latencies
from servsim.metrics.slo import attainment
from servsim.records import Recorder


def bounds(ttft_s=None, tpot_s=None, e2e_s=None):
    return SimpleNamespace(ttft_s=ttft_s, tpot_s=tpot_s, e2e_s=e2e_s)


def four_requests():
    """Worked by hand: an ordinary one, one of a single token, a rejected one, one that did not finish."""
    recorder, nan = Recorder(), math.nan
    recorder.requests.append((3, 2.0, 9, 9, 0, 1, 1, 0, 2.25, 2.5, nan, 0.0, 0, 2))
    recorder.requests.append((0, 1.0, 100, 5, 0, 0, 0, 0, 1.25, 1.5, 2.5, 0.0, 1, 0))
    recorder.requests.append((1, 1.5, 50, 1, 16, 1, 0, 0, 1.5, 2.0, 2.0, 0.125, 0, 0))
    recorder.requests.append((2, 1.75, 10**6, 5, 0, 0, 1, -1, nan, nan, nan, 0.0, 0, 1))
    return recorder.records(("a", "b"), ("chat", "batch"))


def test_latencies_are_those_of_vllm_bench_serve():
    columns = derive(four_requests(), None)
    assert tuple(columns) == REQUEST_COLUMNS
    np.testing.assert_array_equal(columns["request_id"], [0, 1, 2, 3])
    np.testing.assert_array_equal(columns["queue_s"], [0.25, 0.0, math.nan, 0.25])
    np.testing.assert_array_equal(columns["ttft_s"], [0.5, 0.5, math.nan, 0.5])
    np.testing.assert_array_equal(columns["tpot_s"], [0.25, math.nan, math.nan, math.nan])
    np.testing.assert_array_equal(columns["e2e_s"], [1.5, 0.5, math.nan, math.nan])


def test_codes_are_written_as_names():
    columns = derive(four_requests(), None)
    assert columns["status"].tolist() == ["finished", "finished", "rejected", "unfinished"]
    assert columns["tenant"].tolist() == ["a", "b", "a", "b"]
    assert columns["slo_class"].tolist() == ["chat", "chat", "batch", "batch"]


def test_without_an_slo_nobody_is_judged():
    assert derive(four_requests(), None)["slo_met"].mask.all()


def test_a_bound_is_met_at_equality_and_by_a_single_token_whatever_the_tpot_bound():
    met = derive(four_requests(), bounds(ttft_s=0.5, tpot_s=0.25))["slo_met"]
    assert met.tolist() == [True, True, False, False]
    met = derive(four_requests(), bounds(tpot_s=0.2))["slo_met"]
    assert met.tolist() == [False, True, False, False]


def test_a_class_without_bounds_is_not_judged():
    met = derive(four_requests(), {"chat": bounds(e2e_s=1.0)})["slo_met"]
    assert met.tolist() == [False, True, None, None]


def test_attainment_counts_rejected_and_unfinished_requests_as_missed():
    found = shares({"chat": bounds(ttft_s=0.5, e2e_s=1.0), "batch": bounds(e2e_s=9.0)})
    assert (found["judged"], found["met"], found["attainment"], found["not_judged"]) == (4, 1, 0.25, 0)
    assert found["by_bound"]["ttft_s"] == {"attainment": 1.0, "judged": 2, "met": 2}
    assert found["by_bound"]["e2e_s"] == {"attainment": 0.25, "judged": 4, "met": 1}
    assert found["by_class"]["chat"] == {"submitted": 2, "attainment": 0.5, "judged": 2, "met": 1}
    assert found["by_class"]["batch"] == {"submitted": 2, "attainment": 0.0, "judged": 2, "met": 0}
    assert found["by_tenant"]["b"]["attainment"] == 0.5


def test_a_class_without_bounds_is_counted_and_has_no_attainment():
    found = shares({"chat": bounds(ttft_s=1.0)})
    assert (found["judged"], found["not_judged"], found["attainment"]) == (2, 2, 1.0)
    assert found["by_class"]["batch"] == {"submitted": 2, "attainment": None, "judged": 0, "met": 0}


def shares(slo):
    records = four_requests()
    groups = {
        "class": (records.slo_classes, records.requests["slo_class"]),
        "tenant": (records.tenants, records.requests["tenant"]),
    }
    judgement = judge_requests(records, latencies(records), slo)
    return attainment(judgement, np.ones(4, dtype=bool), groups=groups)
