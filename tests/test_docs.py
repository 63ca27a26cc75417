"""docs/schedulers.md: it names whatever can be chosen, its Python and YAML run, its policies stride exactly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import servsim
from servsim import registry
from servsim.scenario.plug_in import parameter_schema

PAGE = (Path(__file__).parents[1] / "docs" / "schedulers.md").read_text(encoding="utf-8")
NAMED = [
    (kind, name)
    for kind in ("schedulers", "predictors", "orders", "admissions", "batchings")
    for name in registry.names(kind)
]
# On few KV blocks, so that memory runs short.
SHORT_OF_MEMORY = [
    "workload.num_requests=200",
    "workload.arrivals.rate_per_s=60",
    "instance.memory.num_blocks=900",
    "instance.max_model_len=8192",
]


def blocks(language: str) -> list[str]:
    """The page's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def section(kind: str) -> str:
    """The part of the page that lists a kind: schedulers and predictors have one each, the parts share one."""
    before, rest = PAGE.split("\n## Predictors\n")
    predictors, parts = rest.split("\n## Parts\n")
    return {"schedulers": before, "predictors": predictors}.get(kind, parts.split("\n## ")[0])


@pytest.mark.parametrize(("kind", "name"), NAMED)
def test_whatever_is_registered_is_explained_with_all_its_parameters(kind: str, name: str) -> None:
    text = section(kind)
    assert f"`{name}`" in text
    if kind in {"schedulers", "predictors"}:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        schema = parameter_schema(kind, name)
        shared = {"latency_s", "swap_space_gib", "copy_bandwidth_gb_per_s", "copy_launch_s", "layers"}
        shared |= {"swap_copies", "copy_granularity"}
        shared |= {"blocks_per_copy", "w_p", "w_q", "weights", "prefill_token_charged"}
        for parameter in set(schema.model_fields if schema else ()):
            assert f"`{parameter}`" in (text if parameter in shared else row), parameter


def test_the_python_of_the_page_runs_and_its_schedulers_stride_exactly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "_registered", {kind: {} for kind in registry.KINDS})
    found = blocks("python")
    assert len(found) == 3
    for block in found:
        exec(compile(block, "docs/schedulers.md", "exec"), {"__name__": "__main__"})
        assert capsys.readouterr().out
    own = [
        ["policy=tenants_in_turn"],
        ["policy=combined", "admission=within_tpot"],
        ["policy=one_prompt_at_a_time"],
        ["policy=combined", "batching=one_prompt_at_a_time", "order=sjf", "admission=within_tpot"],
    ]
    for settings in own:
        sets = [*SHORT_OF_MEMORY, *(f"instance.scheduler.{setting}" for setting in settings)]
        strided = servsim.simulate("chat-on-one-h100", sets)
        single = servsim.simulate("chat-on-one-h100", [*sets, "instance.stepping=single"])
        assert strided.requests.equals(single.requests), settings
        if "one_prompt_at_a_time" in settings[0]:
            assert strided.summary["preemptions"]["total"]


def test_an_order_takes_five_lines() -> None:
    order = next(block for block in blocks("python") if "order_key" in block)
    body = re.search(r"^class .*?(?=^\S|\Z)", order, re.MULTILINE | re.DOTALL)
    assert body is not None
    assert len([line for line in body[0].splitlines() if line.strip()]) <= 5


def test_the_yaml_of_the_page_runs() -> None:
    found = blocks("yaml")
    assert found
    for block in found:
        instance = yaml.safe_load(block)["instance"]
        result = servsim.simulate(
            {
                "name": "page",
                "model": "llama-3.1-8b",
                "instance": {"hardware": "h100-sxm", **instance},
                "workload": {
                    "arrivals": {"process": "poisson", "rate_per_s": 30},
                    "lengths": "azure-conv-2023",
                    "num_requests": 100,
                },
                "slo": {"ttft_s": 1.0, "tpot_s": 0.05},
            }
        )
        assert len(result.requests) == 100
