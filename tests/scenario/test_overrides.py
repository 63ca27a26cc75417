"""A value set by its path replaces what the file says, and errors point at it."""

from pathlib import Path

import pytest

from servsim.errors import ScenarioError
from servsim.scenario import Scenario, apply_override, load_scenario


def refused(source: Path, *overrides: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(source, overrides)
    return str(caught.value)


def test_a_path_leads_through_keys_and_list_items() -> None:
    data = {"workload": {"classes": [{"share": 1}, {"share": 2}]}}
    changed = apply_override(data, "workload.classes.1.share=5")
    assert changed["workload"]["classes"] == [{"share": 1}, {"share": 5}]
    assert data["workload"]["classes"][1]["share"] == 2, "the data given is left alone"
    assert apply_override({}, "a.b.c=[1, 2]") == {"a": {"b": {"c": [1, 2]}}}
    assert apply_override({"slo": None}, "slo.ttft_s=1") == {"slo": {"ttft_s": 1}}
    assert apply_override({}, "name=a=b") == {"name": "a=b"}


def test_a_bare_name_of_a_plug_in_becomes_a_mapping_when_a_parameter_is_set(chat: Path) -> None:
    overrides = ["instance.scheduler.predictor=lognormal_noise", "instance.scheduler.predictor.sigma=0.25"]
    predictor = load_scenario(chat, overrides).instance.scheduler.predictor
    assert predictor is not None and predictor.parameters is not None
    assert predictor.parameters.model_dump() == {"latency_s": 0.0, "sigma": 0.25}


def test_the_last_override_of_a_value_wins(chat: Path) -> None:
    assert load_scenario(chat, ["seed=1", "seed=2"]).seed == 2
    overrides = ["instance.scheduler.max_num_seqs=0", "instance.scheduler={policy: sjf}"]
    assert load_scenario(chat, overrides).instance.scheduler.max_num_seqs == 256


def test_an_overridden_scenario_takes_the_other_policys_defaults(chat: Path) -> None:
    scenario = load_scenario(chat, ["instance.scheduler.policy=past_future"])
    fcfs = scenario.with_overrides(["instance.scheduler.policy=fcfs"])
    assert fcfs == load_scenario(chat)
    assert scenario.instance.scheduler.policy == "past_future"


def test_a_scenario_made_in_python_takes_overrides_too(chat: Path) -> None:
    scenario = Scenario.model_validate(load_scenario(chat).to_dict())
    assert scenario.with_overrides(["seed=3"]).seed == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("foo", "--set foo: this sets nothing\n  write path=value, for example instance.scheduler.policy=sjf"),
        ("=3", "--set =3: this sets nothing\n  write path=value, for example instance.scheduler.policy=sjf"),
        ("seed=[1", "--set seed=[1: not valid YAML: while parsing a flow sequence, did not find expected ',' or ']'"),
        ("seed.x=1", "--set seed.x=1: seed: must be an integer, found keys and values"),
        ("name.x=1", "--set name.x=1: 'name' is 'chat' and has no 'x'"),
        ("seeds=1", "--set seeds=1: unknown key\n  did you mean 'seed'?"),
        ("seed=-1", "--set seed=-1: must be at least 0, found -1"),
        ("instances=.nan", "--set instances=.nan: must be a finite number, found nan"),
        ("instance.memory.num_blocks=0", "--set instance.memory.num_blocks=0: must be at least 1, found 0"),
        ("model=null", "--set model=null: must be text, found nothing"),
    ],
)
def test_a_mistake_is_placed_at_the_override(chat: Path, override: str, message: str) -> None:
    assert refused(chat, override) == message


def test_a_list_item_that_is_not_there_is_refused() -> None:
    with pytest.raises(ScenarioError, match="'a' is a list of 2 items and has no '2'\n  write a number from 0 to 1"):
        apply_override({"a": [1, 2]}, "a.2=3")


def test_a_key_missing_from_what_was_set_is_placed_there_too(chat: Path) -> None:
    message = refused(chat, "instance.cost.law=fixed")
    assert message.startswith("--set instance.cost.law=fixed: instance.cost.prefill_s: this key is missing")


def test_a_mistake_in_a_dict_is_not_blamed_on_an_override_beside_it(chat: Path) -> None:
    data = load_scenario(chat).to_dict()
    data["instance"]["memory"]["block_size"] = 0
    with pytest.raises(ScenarioError) as caught:
        load_scenario(data, ["instance.memory.num_blocks=5", "slo.ttft_s=2"])
    assert str(caught.value) == "scenario: instance.memory.block_size: must be at least 1, found 0"
    data["instance"]["memory"] = None
    with pytest.raises(ScenarioError) as caught:
        load_scenario(data, ["instance.memory.num_block=5", "slo.ttft_s=2"])
    assert caught.value.place == "--set instance.memory.num_block=5"


def test_a_part_that_an_override_made_is_placed_there_until_it_is_replaced(chat: Path) -> None:
    assert refused(chat, "scheduler.policy=sjf").startswith("--set scheduler.policy=sjf: scheduler: unknown key")
    overrides = ("instance.frontend.x=1", "instance.frontend=3")
    assert refused(chat, *overrides).startswith("--set instance.frontend=3: must be keys and values")


def test_a_mistake_in_the_file_keeps_its_line_beside_overrides(chat: Path) -> None:
    chat.write_text(chat.read_text().replace("block_size: 16", "block_size: 0"))
    expected = "scenarios/chat.yaml:9: instance.memory.block_size: must be at least 1, found 0"
    assert refused(chat, "instance.memory.num_blocks=5") == expected
    assert load_scenario(chat, ["instance.memory.block_size=32"]).instance.memory.block_size == 32
