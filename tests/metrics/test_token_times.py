import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_run import made_up_run

from servsim.metrics import TokenGaps, all_token_times, describe, inter_token_latencies, token_times
from servsim.metrics import gaps as gaps_module
from servsim.metrics.gaps import Gaps, Progressions

RUNS = {
    "light": {},
    "preempting": {"preemption": 0.2},
    "four instances": {"instances": 4, "rate_per_s": 40.0},
    "stopped": {"stop_s": 6.0, "rejected": 0.1},
    "one token each": {"mean_output": 1.0},
}


@pytest.mark.parametrize("kind", RUNS)
def test_token_times_are_rebuilt_as_they_were(kind):
    run = made_up_run(seed=3, **RUNS[kind])
    rebuilt = dict(all_token_times(run.records))
    assert rebuilt.keys() == run.times_s.keys()
    for request_id, times_s in run.times_s.items():
        np.testing.assert_allclose(rebuilt[request_id], times_s, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", RUNS)
def test_inter_token_latencies_are_all_the_gaps_there_were(kind):
    run = made_up_run(seed=4, **RUNS[kind])
    values, weights = inter_token_latencies(run.records)
    np.testing.assert_allclose(np.sort(np.repeat(values, weights)), np.sort(real_gaps(run)), rtol=0, atol=1e-9)


def test_statistics_without_expansion_are_those_of_all_gaps():
    run = made_up_run(seed=5, preemption=0.1)
    everybody = np.ones(len(run.records.requests["request_id"]), dtype=bool)
    assert TokenGaps(run.records).of(everybody).describe() == pytest.approx(describe(real_gaps(run)), rel=1e-9)


def test_the_gaps_of_some_requests_are_told_from_those_of_others_in_the_same_steps():
    run = made_up_run(seed=6, preemption=0.1, instances=2)
    select = run.records.requests["arrival_s"] > 4.0
    chosen = {int(request_id) for request_id in run.records.requests["request_id"][select]}
    expected = np.concatenate([np.diff(times) for key, times in run.times_s.items() if key in chosen])
    assert TokenGaps(run.records).of(select).describe() == pytest.approx(describe(expected), rel=1e-9)


def test_the_times_of_one_request_are_found_by_its_id():
    run = made_up_run(seed=7, requests=40)
    np.testing.assert_allclose(token_times(run.records, 17), run.times_s[17], rtol=0, atol=1e-9)


def test_a_request_that_did_not_finish_has_no_token_times():
    run = made_up_run(requests=40, rejected=1.0)
    with pytest.raises(KeyError, match="17"):
        token_times(run.records, 17)
    with pytest.raises(KeyError, match="99"):
        token_times(run.records, 99)


def test_a_run_without_any_gap_has_no_statistics():
    values, weights = inter_token_latencies(made_up_run(mean_output=1.0).records)
    assert len(values) == len(weights) == 0
    assert TokenGaps(made_up_run(rejected=1.0).records).of(np.ones(200, dtype=bool)).describe()["count"] == 0


rows = st.lists(
    st.tuples(
        st.one_of(st.floats(1e-4, 10.0), st.sampled_from([0.01, 0.02])),
        st.one_of(st.just(0.0), st.floats(0.0, 5.0)),
        st.integers(1, 40),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(rows, st.sampled_from([4, 1 << 18]))
def test_percentiles_of_progressions_are_exact_however_little_is_expanded(rows, at_once):
    low, span, steps, weights = (np.array(column) for column in zip(*rows, strict=True))
    span = np.where(steps > 1, span, 0.0)
    found = Gaps(Progressions(low, low + span, steps), weights)
    values, repeats = found.expand()
    before, gaps_module._EXPANDED_AT_ONCE = gaps_module._EXPANDED_AT_ONCE, at_once
    try:
        ours, expected = found.describe(), describe(np.repeat(values, repeats))
        assert ours["count"] == expected["count"]
        if ours["count"]:
            assert ours == pytest.approx(expected, rel=1e-9, abs=1e-9)
    finally:
        gaps_module._EXPANDED_AT_ONCE = before


def real_gaps(run):
    return np.concatenate([np.diff(times) for times in run.times_s.values()])
