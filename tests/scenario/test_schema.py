"""What cannot be simulated is refused with place, finding and remedy."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from servsim import registry
from servsim.errors import ScenarioError
from servsim.scenario import load_scenario, scenario_schema


class Picky:
    """A policy of somebody else's, with lax parameters."""

    class Parameters(BaseModel):
        depth: int = Field(3, ge=1)
        weights: tuple[float, ...] = (1.0,)


@pytest.fixture
def picky() -> Iterator[None]:
    registry.register("schedulers", "picky", Picky)
    yield
    del registry._registered["schedulers"]["picky"]


def refused(chat: Path, old: str, new: str) -> str:
    text = chat.read_text()
    assert old in text
    chat.write_text(text.replace(old, new))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(chat)
    return str(caught.value).removeprefix("scenarios/chat.yaml:")


SCHEDULER = "policy: fcfs\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "max_num_batched_tokens",
            "max_num_batched_token",
            "8: instance.scheduler.max_num_batched_token: unknown key\n  did you mean 'max_num_batched_tokens'?",
        ),
        (
            "max_num_seqs: 256",
            "max_num_seqs: 4096",
            "8: instance.scheduler.max_num_batched_tokens: max_num_batched_tokens (2048) is below max_num_seqs (4096),"
            " which vLLM refuses too\n  raise max_num_batched_tokens or lower max_num_seqs",
        ),
        (SCHEDULER, "policy: fcsf\n", "6: instance.scheduler.policy: unknown scheduler 'fcsf'\n  did you mean 'fcfs'?"),
        (SCHEDULER, "policy: 3\n", "6: instance.scheduler.policy: must be text, found 3"),
        (
            SCHEDULER,
            "window: 5\n",
            "6: instance.scheduler.window: unknown key\n  it is a parameter of past_future, and policy is fcfs",
        ),
        (
            SCHEDULER,
            "predictor: orakle\n",
            "6: instance.scheduler.predictor: unknown predictor 'orakle'\n  did you mean 'oracle'?",
        ),
        (
            SCHEDULER,
            "predictor: {name: lognormal_noise, sgma: 1}\n",
            "6: instance.scheduler.predictor.sgma: unknown key\n  did you mean 'sigma'?",
        ),
        (
            SCHEDULER,
            "policy: past_future\n    reserve: 1.5\n",
            "7: instance.scheduler.reserve: must be less than 1, found 1.5",
        ),
        ("block_size: 16", "block_size: 0", "9: instance.memory.block_size: must be at least 1, found 0"),
        ("block_size: 16", "block_size: true", "9: instance.memory.block_size: must be an integer, found true"),
        (
            "block_size: 16",
            "gpu_memory_utilization: 1.1",
            "9: instance.memory.gpu_memory_utilization: must be at most 1, found 1.1",
        ),
        ("block_size: 16", "num_blocks: 0", "9: instance.memory.num_blocks: must be at least 1, found 0"),
        (
            "block_size: 16",
            "tiers: {cpu: {}}",
            "9: instance.memory.tiers.cpu.capacity: this key is missing and has no default",
        ),
        (
            "allocator: paged",
            "allocator: pagd",
            "9: instance.memory.allocator: unknown allocator 'pagd'\n  did you mean 'paged'?",
        ),
        (
            "  scheduler:",
            "  engine: vllm-0.91\n  scheduler:",
            "5: instance.engine: unknown engine 'vllm-0.91'\n  did you mean 'vllm-0.19'?",
        ),
        (
            "  scheduler:",
            "  dtype: bf1\n  scheduler:",
            "5: instance.dtype: must be 'bf16', 'fp16' or 'fp32', found 'bf1'\n  did you mean 'bf16'?",
        ),
        (
            "  scheduler:",
            "  cost: {law: fixed, prefill_s: 0, decode_s: 1}\n  scheduler:",
            "5: instance.cost.prefill_s: must be greater than 0, found 0",
        ),
        (
            "  scheduler:",
            "  cost: {host_step: 0}\n  scheduler:",
            "5: instance.cost.host_step: unknown key\n  did you mean 'host_step_s'?",
        ),
        (
            "  scheduler:",
            "  tensor_parallel_size: 0\n  scheduler:",
            "5: instance.tensor_parallel_size: must be at least 1, found 0",
        ),
        ("slo: {ttft_s: 1.0, tpot_s: 0.05}", "slo: {ttft_s: -1}", "14: slo.ttft_s: must be greater than 0, found -1"),
        (
            "slo: {ttft_s: 1.0, tpot_s: 0.05}",
            "slo: {}",
            "14: slo: no bound is given\n  give at least one of ttft_s, tpot_s and e2e_s",
        ),
        (
            "slo: {ttft_s: 1.0, tpot_s: 0.05}",
            "slo: {defautl: {ttft_s: 1}}",
            "14: slo.defautl: the workload has no SLO class 'defautl'\n  did you mean 'default'?",
        ),
        ("name: chat", "name: ../chat", "1: name: '../chat' cannot be the name of a folder"),
        ("name: chat", "router: randm", "1: router: unknown router 'randm'\n  did you mean 'random'?"),
        ("name: chat", "router: {policy: random, x: 1}", "1: router.x: unknown key\n  known are: policy"),
        ("name: chat", "instances: 0", "1: instances: must be at least 1, found 0"),
        ("name: chat", "seed: 1e300", "1: seed: must be an integer, found 1e+300"),
        ("name: chat", "seed: 99999999999999999999", "1: seed: this number is too large for 64 bits"),
        ("name: chat", "metrics: {warmup_s: .inf}", "1: metrics.warmup_s: must be a finite number, found inf"),
        ("rate_per_s: 10", "rate_per_s: .nan", "11: workload.arrivals.rate_per_s: must be a finite number, found nan"),
        ("rate_per_s: 10", "rate_per_s: -3", "11: workload.arrivals.rate_per_s: must be greater than 0, found -3"),
        ("model: ./model.yaml\n", "", "1: model: this key is missing and has no default"),
    ],
)
def test_the_message_has_place_finding_and_remedy(chat: Path, old: str, new: str, message: str) -> None:
    assert refused(chat, old, new).startswith(message)


def test_unknown_models_and_devices_are_told_with_what_is_known(chat: Path) -> None:
    assert refused(chat, "./model.yaml", "llama-3.1-8bb").startswith("2: model: unknown model 'llama-3.1-8bb'\n")


@pytest.mark.usefixtures("picky")
def test_a_plug_in_of_others_is_checked_by_its_own_schema(chat: Path) -> None:
    scheduler = load_scenario(
        chat, ["instance.scheduler={policy: picky, depth: 1e1, weights: [1, 2]}"]
    ).instance.scheduler
    assert scheduler.parameters == Picky.Parameters(depth=10, weights=(1.0, 2.0))
    assert scheduler.plug_in is Picky
    assert scheduler.model_dump()["weights"] == (1.0, 2.0)
    for value in ("true", "'5'", "0", "1.5"):
        with pytest.raises(ScenarioError, match=rf"^--set instance.scheduler.depth={value}: must be "):
            load_scenario(chat, ["instance.scheduler.policy=picky", f"instance.scheduler.depth={value}"])
    with pytest.raises(ScenarioError, match=r"instance.scheduler.weights.1: must be a number, found 'a'"):
        load_scenario(chat, ["instance.scheduler={policy: picky, weights: [1, a]}"])


def test_a_plug_in_that_cannot_be_imported_is_the_users_to_mend(chat: Path) -> None:
    registry.register("routers", "broken", "servsim.nowhere:Nothing")
    try:
        with pytest.raises(ScenarioError, match=r"^--set router=broken: the plug-in 'broken' cannot be imported"):
            load_scenario(chat, ["router=broken"])
    finally:
        del registry._registered["routers"]["broken"]


@pytest.mark.usefixtures("picky")
def test_the_schema_for_editors_knows_the_plug_ins_and_describes_every_key() -> None:
    schema = scenario_schema()
    parts = schema["$defs"]
    assert {"fcfs", "sjf", "past_future", "picky"} <= set(parts["SchedulerSpec"]["properties"]["policy"]["enum"])
    assert parts["SchedulerSpec"]["properties"]["depth"]["description"] == "(picky)"
    assert "watermark" in parts["MemorySpec"]["properties"]
    assert schema["properties"]["router"]["anyOf"][0]["enum"] == ["random", "round_robin"]
    assert schema["properties"]["workload"]["anyOf"][0] == {"type": "string"}
    for part in (schema, *(parts[name] for name in ("InstanceSpec", "SchedulerSpec", "MemorySpec", "SloBounds"))):
        for key, entry in part["properties"].items():
            assert entry.get("description"), f"{part['title']}.{key} has no description"


def schemas_in(schema: object) -> Iterator[dict[str, object]]:
    """The schema and all schemas within it; what stands under ``properties`` and ``$defs`` are names."""
    if isinstance(schema, list):
        for part in schema:
            yield from schemas_in(part)
    if isinstance(schema, dict):
        yield schema
        for key, part in schema.items():
            if key in ("properties", "$defs"):
                yield from schemas_in(list(part.values()))
            elif key not in ("default", "examples", "enum", "const", "mapping"):
                yield from schemas_in(part)


@pytest.mark.usefixtures("picky")
def test_the_schema_for_editors_speaks_of_bounds_as_json_schema_does() -> None:
    schema = scenario_schema()
    assert not [part for part in schemas_in(schema) if {"ge", "gt", "le", "lt"} & set(part)]
    parts = schema["$defs"]
    width = parts["BeamSpec"]["properties"]["width"]
    assert (width["minimum"], width["maximum"]) == (2, 1024)
    priority = parts["ClassSpec"]["properties"]["priority"]
    assert (priority["minimum"], priority["exclusiveMaximum"]) == (-(1 << 31), 1 << 31)


def test_the_schema_for_editors_names_links_and_drives() -> None:
    parts = scenario_schema()["$defs"]
    assert "rdma-400g" in parts["InstanceSpec"]["properties"]["pipeline_link"]["examples"]
    assert "pcie-gen5-x16" in parts["TierSpec"]["properties"]["link"]["examples"]
    assert "samsung-pm9a3" in parts["TierSpec"]["properties"]["device"]["examples"]
