from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from servsim.scenario.workload_spec import SyntheticWorkload
from servsim.streams import Streams
from servsim.workload import RequestBlock, open_stream
from servsim.workload.synthetic import open_synthetic

LENGTHS = {
    "prompt_tokens": {"distribution": "lognormal", "median": 512.0, "sigma": 1.0},
    "output_tokens": {"distribution": "geometric", "mean": 200.0},
}
POISSON = {"process": "poisson", "rate_per_s": 10.0}
COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens", "max_tokens", "tenant", "slo_class", "priority")
CLASSES = [
    {"name": "chat", "share": 3.0, "slo_class": "interactive", "priority": -1},
    {
        "name": "batch",
        "share": 1.0,
        "tenant": "night",
        "max_tokens": 5000,
        "lengths": {"prompt_tokens": 9, "output_tokens": 9},
    },
]


def spec(**changes: Any) -> SyntheticWorkload:
    return SyntheticWorkload.model_validate({"arrivals": POISSON, "lengths": LENGTHS, "num_requests": 2000} | changes)


def columns(workload: SyntheticWorkload, *, seed: int = 0, block_requests: int = 1 << 16) -> dict[str, np.ndarray]:
    blocks = list(open_synthetic(workload, Streams(seed), block_requests).blocks())
    ids = [block.first_request_id for block in blocks]
    assert ids == np.cumsum([0, *map(len, blocks[:-1])]).tolist()
    return {name: np.concatenate([getattr(block, name) for block in blocks]) for name in COLUMNS}


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray], names: tuple[str, ...] = COLUMNS) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in names)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    assert equal(columns(spec()), columns(spec()))
    assert not equal(columns(spec()), columns(spec(), seed=1))


def test_a_stream_can_be_read_twice() -> None:
    stream = open_stream(spec(), Streams(0))
    first, second = next(stream.blocks()), next(stream.blocks())
    assert np.array_equal(first.arrival_s, second.arrival_s)
    assert np.array_equal(first.output_tokens, second.output_tokens)


def test_requests_do_not_depend_on_the_size_of_blocks() -> None:
    workload = spec(classes=CLASSES)
    assert equal(columns(workload), columns(workload, block_requests=7))


def test_the_first_requests_do_not_depend_on_how_many_there_are() -> None:
    longer = columns(spec(num_requests=2000))
    assert equal(columns(spec(num_requests=50)), {name: longer[name][:50] for name in COLUMNS})


def test_other_lengths_shift_no_arrival_and_other_arrivals_no_length() -> None:
    base = columns(spec())
    fixed = columns(spec(lengths={"prompt_tokens": 5, "output_tokens": 5}))
    assert equal(base, fixed, ("arrival_s",))
    gamma = columns(spec(arrivals={"process": "gamma", "rate_per_s": 3.0, "cv": 2.0}))
    assert equal(base, gamma, ("prompt_tokens", "output_tokens"))


def test_one_class_s_lengths_shift_no_other_class_s() -> None:
    longer = [CLASSES[0], CLASSES[1] | {"lengths": {"prompt_tokens": 99, "output_tokens": 99}}]
    base, other = columns(spec(classes=CLASSES)), columns(spec(classes=longer))
    chat = base["priority"] == -1
    assert np.array_equal(base["prompt_tokens"][chat], other["prompt_tokens"][chat])
    assert set(other["prompt_tokens"][~chat].tolist()) == {99}


def test_the_bound_on_the_output_is_raised_to_the_output() -> None:
    found = columns(spec(max_tokens=100))
    assert np.array_equal(found["max_tokens"], np.maximum(found["output_tokens"], 100))


def test_classes_come_in_their_shares_with_their_own_values() -> None:
    stream = open_stream(spec(classes=CLASSES), Streams(0))
    assert stream.tenants == ("chat", "night")
    assert stream.slo_classes == ("interactive", "batch")
    found = columns(spec(classes=CLASSES, num_requests=40_000))
    batch = found["tenant"] == 1
    assert batch.mean() == pytest.approx(0.25, abs=0.01)
    assert np.array_equal(batch, found["slo_class"] == 1)
    assert set(found["priority"][batch].tolist()) == {0}
    assert set(found["prompt_tokens"][batch].tolist()) == {9}
    assert set(found["max_tokens"][batch].tolist()) == {5000}
    assert found["max_tokens"][~batch].min() == 1024
    assert len(set(found["prompt_tokens"][~batch].tolist())) > 1000


def test_without_classes_there_is_one_tenant_and_one_slo_class() -> None:
    stream = open_stream(spec(), Streams(0))
    assert (stream.tenants, stream.slo_classes) == (("default",), ("default",))


def test_a_duration_ends_the_stream_and_leaves_its_length_open() -> None:
    workload = spec(num_requests=None, duration_s=30.0)
    assert open_stream(workload, Streams(0)).num_requests is None
    found = columns(workload)
    assert found["arrival_s"].max() < 30
    assert len(found["arrival_s"]) == pytest.approx(300, abs=80)
    beyond = columns(spec())["arrival_s"]
    assert np.array_equal(found["arrival_s"], beyond[beyond < 30])
    assert equal(found, columns(workload, block_requests=11))


def test_whichever_comes_first_of_number_and_duration_ends_the_stream() -> None:
    assert len(columns(spec(num_requests=5, duration_s=30.0))["arrival_s"]) == 5
    assert columns(spec(num_requests=100_000, duration_s=3.0))["arrival_s"].max() < 3


def test_a_duration_before_the_first_request_leaves_none() -> None:
    slow = {"process": "poisson", "rate_per_s": 1e-6}
    assert list(open_stream(spec(arrivals=slow, duration_s=1.0), Streams(0)).blocks()) == []


def test_a_million_requests_need_little_memory() -> None:
    stream = open_stream(spec(num_requests=1_000_000), Streams(0))
    tracemalloc.start()
    count = sum(len(block) for block in stream.blocks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1_000_000
    assert peak < 32 << 20


def test_columns_have_the_types_that_are_promised() -> None:
    block = next(open_stream(spec(classes=CLASSES), Streams(0)).blocks())
    assert isinstance(block, RequestBlock)
    types = {name: getattr(block, name).dtype.str[1:] for name in COLUMNS}
    assert types == dict(zip(COLUMNS, ("f8", "i8", "i8", "i8", "i4", "i4", "i4"), strict=True))
