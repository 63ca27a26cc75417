from __future__ import annotations

import pytest

from servsim.errors import ScenarioError
from servsim.sweep import parse_axis, variants
from servsim.sweep.axis import check_target, numeric_axis


def test_an_axis_is_a_path_and_its_values():
    axis = parse_axis("workload.arrivals.rate_per_s=5, 10,2e1")
    assert axis.path == "workload.arrivals.rate_per_s"
    assert axis.values == ("5", "10", "2e1")
    assert axis.numbers == (5.0, 10.0, 20.0)


def test_commas_in_brackets_and_quotes_belong_to_a_value():
    axis = parse_axis("a.b=oracle,{name: noise, sigma: 0.5},[1, 2],'x, y'")
    assert axis.values == ("oracle", "{name: noise, sigma: 0.5}", "[1, 2]", "'x, y'")


@pytest.mark.parametrize("text", ["", "seed", "seed=", "=1,2", "seed=1,,2", "seed=1,1"])
def test_what_varies_nothing_or_one_value_twice_is_refused(text):
    with pytest.raises(ScenarioError, match="--vary"):
        parse_axis(text)


def test_variants_are_all_combinations_the_last_axis_fastest():
    found = variants([parse_axis("policy=fcfs,sjf"), parse_axis("x.blocks=10,20")])
    assert [one.label for one in found] == [
        "fcfs, blocks=10", "fcfs, blocks=20", "sjf, blocks=10", "sjf, blocks=20",
    ]  # fmt: skip
    assert found[1].overrides == ("policy=fcfs", "x.blocks=20")
    assert found[1].folder == "fcfs-blocks=20"


def test_no_axis_is_one_variant_that_changes_nothing():
    (only,) = variants([])
    assert only.overrides == ()


def test_folders_are_safe_and_differ_even_where_labels_are_much_alike():
    found = variants([parse_axis("model=./a/b.yaml,./a:b.yaml,../../etc")])
    folders = [one.folder for one in found]
    assert len(set(folders)) == 3
    assert not any("/" in folder or folder.startswith(".") for folder in folders)


def test_mappings_are_called_by_their_first_value_where_that_tells_them_apart():
    axis = parse_axis("workload.arrivals={process: poisson, rate_per_s: 1},{process: constant, rate_per_s: 1}")
    assert [axis.label(value) for value in axis.values] == ["poisson", "constant"]
    same = parse_axis("workload.arrivals={process: poisson, rate_per_s: 1},{process: poisson, rate_per_s: 2}")
    assert len({same.label(value) for value in same.values}) == 2


def test_mappings_of_mappings_are_called_by_their_keys():
    one, two = (
        "{cpu: {capacity: 64 GiB, link: a}}",
        "{cpu: {capacity: 64 GiB, link: a}, ssd: {capacity: 1 TB, link: b}}",
    )
    axis = parse_axis(f"instance.memory.tiers={{}},{one},{two}")
    assert [axis.label(value) for value in axis.values] == ["none", "cpu", "cpu+ssd"]


def test_the_first_axis_of_several_numbers_is_drawn_along():
    axes = [parse_axis("policy=fcfs,sjf"), parse_axis("seed=1"), parse_axis("blocks=1,2")]
    assert numeric_axis(axes).path == "blocks"
    with pytest.raises(ScenarioError, match="several numbers"):
        numeric_axis(axes[:2])
    with pytest.raises(ScenarioError, match=r"--vary x\.rate: 'ten' is no number\n  sweep over"):
        numeric_axis([*axes[:2], parse_axis("x.rate=5,ten,20")])


@pytest.mark.parametrize("target", [0.0, 1.1, -1.0, float("nan")])
def test_a_target_is_a_share(target):
    with pytest.raises(ScenarioError, match="no share"):
        check_target(target)
