"""Several outputs of one request: how they are written, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from servsim.errors import ScenarioError
from servsim.scenario import load_scenario
from servsim.scenario.group_spec import BeamSpec, OutputsSpec, forked_outputs, requests_each

SAMPLES = {"samples": {"count": 4, "forked": True}}
EITHER = "samples: must be an integer or keys such as {count: 4, forked: true}"
BEAMS = {"beam_search": {"width": 3}}


def scenario(workload: dict[str, Any], memory: Any = None, **scheduler: Any) -> dict[str, Any]:
    return {
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "scheduler": {"policy": "vllm_v0", **scheduler},
            "memory": memory or {},
        },
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 1},
            "lengths": {"prompt_tokens": 10, "output_tokens": 10},
            "num_requests": 4,
            **workload,
        },
    }


def test_a_number_and_keys_say_how_many_answers_there_are() -> None:
    for samples, each, outputs in ((4, 4, 1), ({"count": 4}, 4, 1), ({"count": 4, "forked": True}, 1, 4), (1, 1, 1)):
        found = load_scenario(scenario({"samples": samples})).workload.samples
        assert (requests_each(found), forked_outputs(found)) == (each, outputs)


@pytest.mark.parametrize("workload", [SAMPLES, BEAMS, {"samples": 2}])
def test_what_was_written_is_written_again(workload: dict[str, Any]) -> None:
    loaded = load_scenario(scenario(workload))
    assert load_scenario(loaded.to_dict()) == loaded
    again = loaded.with_overrides(["workload.num_requests=9"])
    assert again.workload.samples == loaded.workload.samples
    assert again.workload.beam_search == loaded.workload.beam_search


def test_the_width_of_beams_can_be_set_from_the_command_line() -> None:
    loaded = load_scenario(scenario(BEAMS), ["workload.beam_search.width=6"])
    assert loaded.workload.beam_search == BeamSpec(width=6, reorder_probability=0.5)
    loaded = load_scenario(scenario(SAMPLES), ["workload.samples.count=2"])
    assert loaded.workload.samples == OutputsSpec(count=2, forked=True)


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    (scenario(SAMPLES, policy="fcfs"), "samples: the policy fcfs does not", "policy vllm_v0, or write samples: 4"),
    (scenario(BEAMS, policy="fcfs"), "beam_search: the policy fcfs does not schedule", "use the policy vllm_v0"),
    (
        scenario(SAMPLES, policy="combined", batching="sarathi"),
        "the policy combined with the batching sarathi does not",
        "vllm_v0",
    ),
    (
        scenario(SAMPLES, policy="combined", batching="vllm_v0", admission="past_future"),
        "the admission rule past_future does not count",
        "use the rule anyone",
    ),
    (
        scenario(SAMPLES, memory={"allocator": "prefix_blocks"}),
        "in the allocator prefix_blocks the outputs of a request cannot share",
        "use the allocator paged, or write samples: 4",
    ),
    (scenario(BEAMS, memory={"allocator": "bounded", "keep_tokens": 64}), "the allocator bounded", "paged"),
    (scenario(BEAMS, memory={"compression": {"read_tokens": 64}}), "sparse reads", "leave read_tokens"),
    (scenario(SAMPLES, max_num_seqs=3), "has 4 sequences, but no more than 3 may run", "raise instance.scheduler"),
    (scenario({**BEAMS, "samples": 2}), "beam_search: a beam search has one answer", "leave samples or"),
    (scenario({**SAMPLES, "prefixes": {"tokens": 16, "count": 2}}), "nothing in common", "leave prefixes out"),
    (scenario({**BEAMS, "sessions": {"turns": 2, "think_time_s": 1}}), "nothing in common", "leave sessions out"),
    (scenario({"beam_search": {"width": 1}}), "beam_search.width: must be at least 2, found 1", ""),
    (scenario({"beam_search": {"width": 2, "reorder_probability": 1.5}}), "must be at most 1, found 1.5", ""),
    (scenario({"samples": {"count": 0, "forked": True}}), "samples.count: must be at least 1, found 0", ""),
    (scenario({"samples": 0}), "samples: must be at least 1, found 0", ""),
    (scenario({"samples": {"count": 2, "fork": True}}), "samples.fork: unknown key", "did you mean 'forked'"),
    (scenario({"samples": {"forked": True}}), "samples.count: this key is missing", ""),
    (scenario({"samples": "four"}), f"{EITHER}, found 'four'", ""),
    (scenario({"samples": [4]}), f"{EITHER}, found a list", ""),
    (scenario({"samples": "4"}), "samples: must be an integer, found '4'", "write 4, without quotes"),
    (scenario({"samples": 4.5}), "samples: must be an integer, found 4.5", ""),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "message", "remedy"), MISTAKES, ids=[message for _, message, _ in MISTAKES])
def test_what_does_not_go_together_is_refused(wrong: dict[str, Any], message: str, remedy: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(wrong)
    assert message in str(caught.value)
    assert remedy in str(caught.value)


def test_one_forked_output_needs_nothing_special() -> None:
    load_scenario(scenario({"samples": {"count": 1, "forked": True}}, policy="fcfs"))
