import numpy as np
import pytest
from made_up_run import BLOCKS, made_up_run

from servsim.metrics.occupancy import Span, batches, kv_memory
from servsim.records import Recorder


def test_idle_gaps_between_rows_count_as_empty():
    """Two seconds at half full, then three idle, then one full: (2 x .5 + 1 x 1) / 6."""
    found = kv_memory(two_rows(), Span(0.0, 6.0), instances=1)
    assert found["used_mean"] == pytest.approx(2 / 6)
    assert found["used_max"] == 1.0


def test_an_instance_that_never_ran_counts_with_empty_memory():
    found = kv_memory(two_rows(), Span(0.0, 6.0), instances=4)
    assert found["blocks_total"] == 400
    assert found["used_mean"] == pytest.approx(2 / 24)


def test_a_window_takes_the_parts_of_rows_that_lie_within():
    found = kv_memory(two_rows(), Span(1.0, 3.0), instances=1)
    assert found["used_mean"] == pytest.approx(0.25) and found["used_max"] == 0.5
    assert batches(two_rows(), Span(1.0, 3.0), instances=1)["busy"] == pytest.approx(0.5)


def test_fragmentation_is_over_the_time_in_which_something_was_reserved():
    found = kv_memory(two_rows(), Span(0.0, 6.0), instances=1)
    stored, reserved = 2 * 400 + 1600, 2 * 800 + 1600
    assert found["internal_fragmentation_mean"] == pytest.approx(1 - stored / reserved)
    assert found["external_fragmentation_mean"] == pytest.approx((2 * 0.3 + 0.0) / 3)


def test_memory_that_grows_within_a_row_is_averaged_over_it():
    """A single row of 1,600 steps by one sequence: from 1 block to 101, so 51 in the mean and not 101."""
    recorder = Recorder()
    recorder.strides.append((0, 0.0, 16.0, 1600, 0.01, 0.01, 0, 1, 0, 101, 200, 1616, 1616, 0.0))
    found = kv_memory(recorder.records(("a",), ("b",)), Span(0.0, 16.0), instances=1)
    assert found["used_mean"] == pytest.approx(51 / 200, abs=0.001)
    assert found["internal_fragmentation_mean"] == pytest.approx(0.0, abs=1e-9)


def test_a_reservation_made_in_advance_stands_still_over_a_row():
    recorder = Recorder()
    recorder.strides.append((0, 0.0, 16.0, 1600, 0.01, 0.01, 0, 1, 0, 150, 200, 1616, 2400, 0.0))
    found = kv_memory(recorder.records(("a",), ("b",)), Span(0.0, 16.0), instances=1)
    assert found["used_mean"] == pytest.approx(150 / 200)
    assert found["internal_fragmentation_mean"] == pytest.approx(1 - (1616 - 799.5) / 2400)


@pytest.mark.parametrize("instances", [1, 3])
def test_means_over_rows_are_those_over_single_steps(instances):
    run = made_up_run(seed=2, instances=instances, preemption=0.05)
    end_s = max(step[2] for step in run.steps)
    _, starts, ends, decoders, used, _ = (np.array(column) for column in zip(*run.steps, strict=True))
    span = Span(0.0, end_s)
    found = kv_memory(run.records, span, instances)
    exact = float(used @ (ends - starts)) / (end_s * BLOCKS * instances)
    assert found["used_mean"] == pytest.approx(exact, rel=0.01)
    assert found["used_max"] == used.max() / BLOCKS
    busy = batches(run.records, span, instances)
    assert busy["steps"] == pytest.approx(len(run.steps))
    assert busy["decode_seqs_mean"] == pytest.approx(decoders.mean()) and busy["decode_seqs_max"] == decoders.max()
    assert busy["busy"] == pytest.approx(float((ends - starts).sum()) / (end_s * instances))


def test_a_run_without_a_step_has_no_use_of_memory():
    records = Recorder().records(("a",), ("b",))
    assert set(kv_memory(records, Span(0.0, 1.0), 1).values()) == {None}
    assert batches(records, Span(0.0, 1.0), 1)["busy"] == 0.0


def two_rows():
    recorder = Recorder()
    recorder.strides.append((0, 0.0, 2.0, 1, 2.0, 2.0, 100, 2, 0, 50, 100, 400, 800, 0.3))
    recorder.strides.append((0, 5.0, 6.0, 1, 1.0, 1.0, 0, 4, 0, 100, 100, 1600, 1600, 0.0))
    return recorder.records(("a",), ("b",))
