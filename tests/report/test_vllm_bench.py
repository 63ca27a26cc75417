import json
from dataclasses import replace

import numpy as np
import pytest
from made_up_run import made_up_run
from made_up_summaries import scenario

from servsim.errors import ResultError
from servsim.metrics import derive, summarise
from servsim.report.vllm_bench import bench_result, read_bench, write_bench

RUN = made_up_run(seed=5, rejected=0.05, preemption=0.1)
SCENARIO = scenario()
SUMMARY = summarise(RUN.records, SCENARIO, calibration="", version="")
METRICS = ("ttft", "tpot", "itl", "e2el")
NAMES = """
    date endpoint_type backend label model_id tokenizer_id num_prompts request_rate burstiness max_concurrency
    duration completed failed total_input_tokens total_output_tokens request_throughput request_goodput
    output_throughput total_token_throughput max_output_tokens_per_s max_concurrent_requests
    input_lens output_lens ttfts itls latencies start_times queue_times generated_texts errors
"""
DETAILED = bench_result(RUN.records, SCENARIO, SUMMARY)


def test_a_result_has_the_names_of_vllm():
    statistics = [f"{one}_{metric}_ms" for one in ("mean", "median", "std", "p99") for metric in METRICS]
    assert {*NAMES.split(), *statistics} <= DETAILED.keys()


def test_lists_are_in_seconds_and_statistics_in_milliseconds():
    done = [i for i, error in enumerate(DETAILED["errors"]) if not error]
    ttfts = np.array(DETAILED["ttfts"])[done]
    assert DETAILED["mean_ttft_ms"] == pytest.approx(1e3 * ttfts.mean())
    assert DETAILED["p99_ttft_ms"] == pytest.approx(1e3 * np.percentile(ttfts, 99))
    itls = np.concatenate([DETAILED["itls"][i] for i in done])
    assert DETAILED["median_itl_ms"] == pytest.approx(1e3 * np.median(itls))
    assert DETAILED["std_itl_ms"] == pytest.approx(1e3 * itls.std())


def test_every_token_after_the_first_has_its_gap():
    for output, gaps, ttft, latency in zip(
        DETAILED["output_lens"], DETAILED["itls"], DETAILED["ttfts"], DETAILED["latencies"], strict=True
    ):
        assert len(gaps) == max(output - 1, 0)
        assert ttft + sum(gaps) == pytest.approx(latency)


def test_a_rejected_request_is_a_failed_one():
    failed = [i for i, error in enumerate(DETAILED["errors"]) if error]
    assert len(failed) == DETAILED["failed"] == SUMMARY["counts"]["rejected"] > 0
    assert {DETAILED["output_lens"][i] for i in failed} == {0}
    assert {DETAILED["errors"][i] for i in failed} == {"rejected"}


def test_peaks_are_counted_in_whole_seconds_as_vllm_does():
    start = RUN.records.requests["arrival_s"].min()
    tokens = np.zeros(1000)
    present = np.zeros(1000)
    arrivals = dict(zip(RUN.records.requests["request_id"], RUN.records.requests["arrival_s"], strict=True))
    for request_id, times_s in RUN.times_s.items():
        for time_s in times_s:
            tokens[int(time_s - start)] += 1
        present[int(arrivals[request_id] - start) : int(times_s[-1] - start) + 1] += 1
    assert DETAILED["max_output_tokens_per_s"] == tokens.max()
    assert DETAILED["max_concurrent_requests"] == present.max()


def test_the_fullest_second_is_not_known_where_requests_have_several_outputs():
    records = replace(RUN.records, further_tokens=np.ones(len(RUN.records.requests["request_id"]), dtype=np.int64))
    found = bench_result(records, SCENARIO, SUMMARY)
    assert found["max_output_tokens_per_s"] is None
    assert found["max_concurrent_requests"] == DETAILED["max_concurrent_requests"]


@pytest.mark.parametrize("without", [(), ("latencies",), ("itls",), ("errors", "queue_times")])
def test_what_was_written_reads_back(tmp_path, without):
    write_bench(tmp_path / "bench.json", {name: value for name, value in DETAILED.items() if name not in without})
    found = read_bench(tmp_path / "bench.json")
    columns = derive(RUN.records, None)
    done = columns["status"] == "finished"
    assert found.failed == (~done).sum() and found.label == "made-up"
    np.testing.assert_array_equal(found.output_tokens, columns["output_tokens"][done])
    np.testing.assert_array_equal(found.ttft_s, columns["ttft_s"][done])
    np.testing.assert_allclose(found.e2e_s, columns["e2e_s"][done], rtol=1e-9)
    np.testing.assert_allclose(found.tpot_s, columns["tpot_s"][done], rtol=1e-6)
    gaps = 0 if "itls" in without else (found.output_tokens - 1).sum()
    assert len(found.itl_s) == gaps


def test_all_at_once_is_an_infinite_rate():
    run = {**SUMMARY, "arrival_rate_per_s": None}
    assert bench_result(RUN.records, SCENARIO, run, detailed=False)["request_rate"] == "inf"


def test_without_details_there_are_no_lists():
    found = bench_result(RUN.records, SCENARIO, SUMMARY, detailed=False)
    assert not any(isinstance(value, list) for value in found.values())
    assert found["p99_e2el_ms"] == DETAILED["p99_e2el_ms"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ("{}", "no list 'input_lens'.*\n.*--save-detailed"),
        ({"input_lens": [1], "output_lens": [1], "ttfts": [0.1]}, "no list 'itls'"),
        ({"input_lens": [1], "output_lens": [1, 2], "ttfts": [0.1], "itls": [[]]}, "different lengths"),
        ({"input_lens": [1], "output_lens": [2], "ttfts": ["x"], "latencies": [1.0]}, "no number"),
        ({"input_lens": [1], "output_lens": [2], "ttfts": [0.1], "itls": [0.1]}, "no number"),
        ({"input_lens": [1], "output_lens": [2], "ttfts": [0.1], "itls": [["x"]], "latencies": [1.0]}, "no number"),
        ({"input_lens": [1], "output_lens": [2], "ttfts": [0.1], "itls": [[0.1]], "errors": 5}, "no list 'errors'"),
        ({"input_lens": [1], "output_lens": [2], "ttfts": [0.1], "itls": [], "latencies": [1.0]}, "different lengths"),
    ],
)
def test_what_is_no_detailed_result_is_refused_with_its_place(tmp_path, content, message):
    path = tmp_path / "bench.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ResultError, match=message) as raised:
        read_bench(path)
    assert str(raised.value).startswith(str(path))


def test_a_missing_file_is_one_message(tmp_path):
    with pytest.raises(ResultError, match="cannot be read"):
        read_bench(tmp_path / "none.json")
