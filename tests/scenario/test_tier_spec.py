"""``memory.tiers``: what may be written, and what is refused with its line and a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from servsim.documents import Spec, dump_yaml, load_document, validate
from servsim.errors import ScenarioError
from servsim.scenario.anchoring import anchored
from servsim.scenario.tier_spec import Tiers, TierSpec, tier_references

CPU = {"capacity": "512 GiB", "link": "pcie-gen5-x16"}
SSD = {"capacity": "4 TiB", "link": "pcie-gen4-x4", "device": "samsung-pm9a3"}


class Memory(Spec):
    tiers: Tiers = Field(default_factory=dict)


def read(**tiers: Any) -> dict[str, TierSpec]:
    return validate(Memory, {"tiers": tiers}, document=None).tiers


def test_tiers_keep_their_order_and_are_of_the_kind_they_are_named_for() -> None:
    tiers = read(cpu=CPU, ssd=SSD)
    assert list(tiers) == ["cpu", "ssd"]
    assert [tier.kind for tier in tiers.values()] == ["cpu", "ssd"]
    assert (tiers["cpu"].capacity, tiers["ssd"].capacity) == (512 * 2**30, 4 * 2**40)
    assert list(read(ssd=SSD, cpu=CPU)) == ["ssd", "cpu"]


def test_a_free_name_says_its_kind() -> None:
    tiers = read(pool={**CPU, "kind": "remote", "link": "rdma-200g"}, scratch={**SSD, "kind": "ssd"})
    assert [tier.kind for tier in tiers.values()] == ["remote", "ssd"]


@pytest.mark.parametrize(("capacity", "size_bytes"), [("80 GB", 80 * 10**9), (1e12, 10**12), (4096, 4096)])
def test_a_capacity_is_text_or_a_number_of_bytes(capacity: object, size_bytes: int) -> None:
    assert read(cpu={**CPU, "capacity": capacity})["cpu"].capacity == size_bytes


def test_tiers_written_out_read_back_equal(tmp_path: Path) -> None:
    tiers = read(cpu=CPU, pool={**CPU, "kind": "remote"}, ssd=SSD)
    path = tmp_path / "tiers.yaml"
    path.write_text(dump_yaml(Memory(tiers=tiers).model_dump(mode="json")))
    document = load_document(path)
    assert validate(Memory, document.data, document=document).tiers == tiers


def test_every_link_and_drive_is_told_with_its_key_path() -> None:
    assert list(tier_references(read(cpu=CPU, ssd=SSD))) == [
        (("cpu", "link"), "links", "pcie-gen5-x16"),
        (("ssd", "link"), "links", "pcie-gen4-x4"),
        (("ssd", "device"), "drives", "samsung-pm9a3"),
    ]


def test_a_relative_path_counts_from_the_scenario_s_file(tmp_path: Path) -> None:
    data = {"instance": {"memory": {"tiers": {"ssd": {**SSD, "link": "./my-link.yaml", "device": "../disk.yaml"}}}}}
    found = anchored(data, tmp_path, place="scenario")["instance"]["memory"]["tiers"]["ssd"]
    assert found == {**SSD, "link": str(tmp_path / "my-link.yaml"), "device": str(tmp_path.parent / "disk.yaml")}
    named = {"instance": {"memory": {"tiers": {"cpu": CPU}}}}
    assert anchored(named, tmp_path, place="scenario") == named


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ({"cpu": {**CPU, "capacity": 0}}, r"tiers\.cpu\.capacity: must be greater than 0, found 0"),
        ({"cpu": {**CPU, "capacity": "0 GiB"}}, r"tiers\.cpu\.capacity: must be greater than 0"),
        ({"cpu": {**CPU, "capacity": "lots"}}, r"capacity: 'lots' is not a number of bytes\n  write for example 512"),
        ({"cpu": {**CPU, "capacity": "-1 GiB"}}, r"capacity: '-1 GiB' is not a number of bytes"),
        ({"cpu": {**CPU, "capacity": "9e999 GiB"}}, r"capacity: '9e999 GiB' is more bytes than can be counted"),
        ({"cpu": {**CPU, "capacity": "9000000 TiB"}}, r"capacity: must be at most"),
        ({"cpu": {**CPU, "capacity": True}}, r"capacity: must be an integer, found true"),
        ({"cpu": {**CPU, "capacity": 0.5}}, r"capacity: must be an integer, found 0.5"),
        ({"cpu": {"capacity": 1}}, r"tiers\.cpu\.link: this key is missing"),
        ({"cpu": {**CPU, "bandwidth": 1}}, r"tiers\.cpu\.bandwidth: unknown key"),
        ({"cpu": {**CPU, "lnk": "x"}}, r"tiers\.cpu\.lnk: unknown key\n  did you mean 'link'"),
        ({"cpu": {**CPU, "device": "samsung-pm9a3"}}, r"cpu\.device: a cpu tier is no drive\n  leave device out"),
        ({"ssd": CPU}, r"tiers\.ssd\.device: an ssd tier needs its drive\n  add for example device: samsung-pm9a3"),
        ({"pool": CPU}, r"tiers\.pool: the tier 'pool' says not what it is\n  add kind: one of cpu, cxl, ssd, remote"),
        ({"pool": {**CPU, "kind": "tape"}}, r"pool\.kind: must be 'cpu', 'cxl', 'ssd' or 'remote', found 'tape'"),
        ({"cxl": {**CPU, "kind": "cpu"}}, r"cxl\.kind: the tier 'cxl' is of kind cpu\n  write kind: cxl, or give"),
        ({"hbm": CPU}, r"tiers\.hbm: 'hbm' is no tier below the device\n  gpu_memory_utilization"),
        ({"a.b": CPU}, r"tiers\.a\.b: 'a\.b' cannot be the name of a tier\n  use a-z"),
        ({"cpu": 3}, r"tiers\.cpu: must be keys and values, found 3"),
    ],
)
def test_a_mistake_is_refused_where_it_stands(tiers: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        read(**tiers)


def test_tiers_in_a_list_are_refused() -> None:
    with pytest.raises(ScenarioError, match="tiers: must be keys and values, found a list"):
        validate(Memory, {"tiers": [CPU]}, document=None)


def test_the_same_tier_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("tiers:\n  cpu: {capacity: 1, link: a}\n  cpu: {capacity: 2, link: b}\n")
    with pytest.raises(ScenarioError, match=r":3: tiers\.cpu: this key is given twice\n  the first is on line 2"):
        load_document(path)


def test_the_schema_for_editors_allows_text_for_bytes() -> None:
    schema = Memory.model_json_schema()["$defs"]["TierSpec"]["properties"]["capacity"]
    assert {branch["type"] for branch in schema["anyOf"]} == {"integer", "string"}
