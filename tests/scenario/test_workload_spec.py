from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

from servsim import registry
from servsim.documents import Spec, validate
from servsim.errors import ScenarioError
from servsim.scenario.arrival_spec import FixedTime, GammaArrivals, MmppArrivals, PiecewiseArrivals
from servsim.scenario.length_spec import FixedLength, LengthPair, LengthTable
from servsim.scenario.workload_spec import SyntheticWorkload, TraceWorkload, WorkloadSpec

POISSON = {"process": "poisson", "rate_per_s": 10}
LENGTHS = {"prompt_tokens": 512, "output_tokens": 128}


class _Holder(BaseModel):
    workload: WorkloadSpec


def read(workload: Any) -> SyntheticWorkload | TraceWorkload:
    return validate(_Holder, {"workload": workload}, document=None).workload


def refused(workload: Any) -> str:
    with pytest.raises(ScenarioError) as caught:
        read(workload)
    return str(caught.value)


def synthetic(**changes: Any) -> dict[str, Any]:
    return {"arrivals": POISSON, "lengths": LENGTHS, "num_requests": 10} | changes


def test_a_plain_number_is_a_fixed_length() -> None:
    spec = read(synthetic())
    assert isinstance(spec, SyntheticWorkload)
    assert isinstance(spec.lengths, LengthPair)
    assert spec.lengths.prompt_tokens == FixedLength(value=512)


def test_max_tokens_is_1024_by_default() -> None:
    assert read(synthetic()).max_tokens == 1024


def test_a_whole_number_may_be_written_as_1e6() -> None:
    assert read(synthetic(num_requests=1e6)).num_requests == 1_000_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrivals": POISSON | {"rate_per_s": -1}}, "workload.arrivals.rate_per_s: must be greater than 0"),
        ({"arrivals": POISSON | {"rate_per_s": float("nan")}}, "workload.arrivals.rate_per_s: must be a finite number"),
        ({"arrivals": POISSON | {"rate_per_s": "10"}}, "workload.arrivals.rate_per_s: must be a number, found '10'"),
        ({"arrivals": POISSON | {"rate_per_s": True}}, "workload.arrivals.rate_per_s: must be a number, found true"),
        ({"arrivals": {"process": "poison", "rate_per_s": 1}}, "did you mean 'poisson'?"),
        ({"arrivals": {"process": "poisson", "rate_per_sec": 1}}, "did you mean 'rate_per_s'?"),
        ({"num_requests": 0}, "workload.num_requests: must be at least 1"),
        ({"num_requests": 1.5}, "workload.num_requests: must be an integer"),
        ({"num_requests": None}, "nothing says when the workload ends"),
        ({"duration_s": float("inf")}, "workload.duration_s: must be a finite number"),
        ({"max_tokens": 0}, "workload.max_tokens: must be at least 1"),
        ({"lengths": None}, "nothing says how long the requests are"),
        ({"lengths": "azure-conv-2024"}, "did you mean 'azure-conv-2023'?"),
        ({"lengths": "./nowhere.yaml"}, "workload.lengths: "),
        ({"lengths": LENGTHS | {"prompt_tokens": 0}}, "workload.lengths.prompt_tokens: must be at least 1"),
        ({"lengths": {"prompt_token": 5, "output_tokens": 5}}, "did you mean 'prompt_tokens'?"),
        ({"number_requests": 5}, "did you mean 'num_requests'?"),
    ],
)
def test_a_mistake_is_told_with_its_place(changes: dict[str, Any], message: str) -> None:
    assert message in refused(synthetic(**changes))


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        ({"distribution": "uniform", "min": 9, "max": 3}, "prompt_tokens.max: max (3) is below min (9)"),
        ({"distribution": "lognormal", "median": 10, "sigma": 0}, "sigma: must be greater than 0"),
        ({"distribution": "lognormal", "median": 10, "sigma": 0.1, "min": 5000}, "hardly anything"),
        ({"distribution": "zipf", "exponent": 1.1}, "max: this key is missing"),
        ({"distribution": "geometric", "mean": 0.5}, "mean: must be at least 1"),
        ({"distribution": "quantiles", "table": [[0, 1]]}, "table: "),
        ({"distribution": "quantiles", "table": [[0, 1], [0.9, 4]]}, "begin with 0 and end with 1"),
        ({"distribution": "quantiles", "table": [[0, 1], [0.5, 8], [0.5, 9], [1, 10]]}, "table.2: "),
        ({"distribution": "quantiles", "table": [[0, 1], [0.5, 8], [1, 7]]}, "lengths must not fall"),
        ({"distribution": "quantiles", "table": [[0, 0], [1, 7]]}, "must be at least 1"),
        ({"distribution": "given_prompt", "bins": []}, "unknown distribution 'given_prompt'"),
        ("long", "prompt_tokens: must be keys and values"),
    ],
)
def test_an_impossible_distribution_is_refused(distribution: Any, message: str) -> None:
    assert message in refused(synthetic(lengths=LENGTHS | {"prompt_tokens": distribution}))


def test_the_ranges_of_a_conditional_length_must_cover_every_prompt() -> None:
    table = [[0, 1], [1, 2]]
    lengths: dict[str, Any]
    lengths = LENGTHS | {"output_tokens": {"distribution": "given_prompt", "bins": [{"up_to": 9, "table": table}]}}
    assert "longer prompts have no output length" in refused(synthetic(lengths=lengths))
    bins = [{"up_to": 9, "table": table}, {"up_to": 9, "table": table}, {"table": table}]
    lengths = LENGTHS | {"output_tokens": {"distribution": "given_prompt", "bins": bins}}
    assert "bins.1: this range holds no prompt length" in refused(synthetic(lengths=lengths))


@pytest.mark.parametrize(
    ("arrivals", "message"),
    [
        ({"process": "gamma", "rate_per_s": 1}, "neither burstiness nor cv"),
        ({"process": "gamma", "rate_per_s": 1, "cv": 1, "burstiness": 1}, "both burstiness and cv"),
        ({"process": "mmpp", "states": [{"rate_per_s": 1, "mean_dwell_s": 1}]}, "workload.arrivals.states"),
        ({"process": "mmpp", "states": [{"rate_per_s": 0, "mean_dwell_s": 1}] * 2}, "no state has a rate above 0"),
        ({"process": "piecewise", "rates": [{"start_s": 1, "rate_per_s": 1}]}, "rates.0.start_s: no rate is given"),
        ({"process": "piecewise", "rates": [{"start_s": 0, "rate_per_s": 1}] * 2}, "rates.1.start_s: 0 does not come"),
        ({"process": "piecewise", "rates": [{"start_s": 0, "rate_per_s": 0}]}, "no rate is above 0"),
        (
            {"process": "piecewise", "rates": [{"start_s": 0, "rate_per_s": 1}, {"start_s": 9, "rate_per_s": 0}]},
            "requests stop coming",
        ),
        (
            {
                "process": "piecewise",
                "rates": [{"start_s": 0, "rate_per_s": 1}, {"start_s": 9, "rate_per_s": 2}],
                "period_s": 9,
            },
            "period_s: the period ends before",
        ),
        ({"process": "closed_loop", "concurrency": 0}, "concurrency: must be at least 1"),
        ({"process": "closed_loop", "concurrency": 1, "think_time_s": -1}, "think_time_s: must be at least 0"),
    ],
)
def test_impossible_arrivals_are_refused(arrivals: Any, message: str) -> None:
    assert message in refused(synthetic(arrivals=arrivals))


def test_burstiness_is_the_inverse_square_of_the_coefficient_of_variation() -> None:
    assert GammaArrivals(rate_per_s=1.0, cv=2.0).shape == pytest.approx(0.25)
    assert GammaArrivals(rate_per_s=1.0, burstiness=0.3).shape == 0.3


def test_mean_rates_weigh_states_by_their_time() -> None:
    on_off = MmppArrivals.model_validate(
        {"states": [{"rate_per_s": 30.0, "mean_dwell_s": 1.0}, {"rate_per_s": 0.0, "mean_dwell_s": 2.0}]}
    )
    assert on_off.mean_rate_per_s == pytest.approx(10)
    day = {"rates": [{"start_s": 0.0, "rate_per_s": 1.0}, {"start_s": 6.0, "rate_per_s": 5.0}], "period_s": 8.0}
    assert PiecewiseArrivals.model_validate(day).mean_rate_per_s == pytest.approx(2)
    assert PiecewiseArrivals.model_validate(day | {"rate_scale": 3.0}).mean_rate_per_s == pytest.approx(6)


def test_classes_need_names_of_their_own_and_lengths() -> None:
    chat = {"name": "chat", "share": 1, "lengths": LENGTHS}
    assert "a second class is called 'chat'" in refused(synthetic(classes=[chat, chat]))
    bare = {"name": "batch", "share": 2}
    assert "classes.1: nothing says how long" in refused(synthetic(lengths=None, classes=[chat, bare]))
    assert read(synthetic(classes=[chat, bare])).model_dump()["classes"][1]["share"] == 2


def test_a_trace_is_recognised_by_its_keys() -> None:
    spec = read({"trace": "a.csv", "format": "azure"})
    assert isinstance(spec, TraceWorkload)
    assert "workload.format: this key is missing" in refused({"trace": "a.csv"})


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ({"trace": "a.csv", "format": "azur"}, "workload.format: unknown trace reader 'azur'"),
        ({"trace": "a.csv", "format": "azure", "lengths": LENGTHS}, "workload.lengths: a trace brings its own"),
        ({"trace": "a.csv", "format": "azure", "time_scal": 2}, "did you mean 'time_scale'?"),
        ({"trace": "a.csv", "format": "azure", "time_scale": 0}, "workload.time_scale: must be greater than 0"),
        ({"trace": "a.csv", "format": "azure", "start_s": -1}, "workload.start_s: must be at least 0"),
        ({"trace": "a.csv", "format": "azure", "time_scale": 2, "arrivals": POISSON}, "nothing to scale"),
        ({"trace": "a.csv", "format": "azure", "tokens_per_hash": 16}, "it is a parameter of mooncake"),
        (
            {"trace": "a.csv", "format": "mooncake", "tokens_per_hash": 0},
            "workload.tokens_per_hash: must be at least 1",
        ),
        ({"trace": "a.csv", "format": "table", "columns": {"prompt": "p"}}, "workload.columns.prompt: unknown key"),
        (17, "workload: must be keys and values"),
    ],
)
def test_a_mistake_about_a_trace_is_told_with_its_place(workload: Any, message: str) -> None:
    assert message in refused(workload)


def test_a_reader_s_parameters_are_written_out_and_read_again() -> None:
    spec = read({"trace": "a.csv", "format": "table", "columns": {"prompt_tokens": "p"}, "time_unit": "ms"})
    written = spec.model_dump(mode="json")
    assert written["columns"]["prompt_tokens"] == "p"
    assert written["columns"]["output_tokens"] == "output_tokens"
    assert read(written) == spec


def test_a_reader_from_outside_brings_its_own_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    class Custom:
        class Parameters(Spec):
            flavour: str = Field("plain")

    monkeypatch.setitem(registry._registered["trace_readers"], "custom_for_test", Custom())
    spec = read({"trace": "a.csv", "format": "custom_for_test", "flavour": "odd"})
    assert isinstance(spec, TraceWorkload)
    assert isinstance(spec.parameters, Custom.Parameters)
    assert spec.parameters.flavour == "odd"


def test_everything_written_out_says_the_same() -> None:
    given = [{"up_to": 10, "table": [[0, 1], [1, 9]]}, {"table": [[0, 3], [1, 5]]}]
    spec = read(
        {
            "arrivals": {
                "process": "closed_loop",
                "concurrency": 4,
                "think_time_s": {"distribution": "uniform", "max_s": 2},
            },
            "classes": [
                {"name": "chat", "share": 3, "lengths": "azure-conv-2023", "priority": -1},
                {
                    "name": "code",
                    "share": 1,
                    "lengths": LENGTHS | {"output_tokens": {"distribution": "given_prompt", "bins": given}},
                },
                {"name": "pairs", "share": 1, "lengths": {"table": "pairs.csv"}},
            ],
            "duration_s": 60,
        }
    )
    assert isinstance(spec, SyntheticWorkload)
    assert spec.classes is not None
    assert isinstance(spec.classes[2].lengths, LengthTable)
    assert read(spec.model_dump(mode="json")) == spec


SESSIONS = {"turns": 3, "think_time_s": 5}


def test_sessions_and_prefixes_are_none_by_default_and_units_hold_16_tokens() -> None:
    spec = read(synthetic())
    assert isinstance(spec, SyntheticWorkload)
    assert (spec.sessions, spec.prefixes, spec.tokens_per_hash) == (None, None, 16)


def test_plain_numbers_are_fixed_turns_and_times() -> None:
    spec = read(synthetic(sessions=SESSIONS, prefixes={"tokens": 100}))
    assert isinstance(spec, SyntheticWorkload) and spec.sessions is not None and spec.prefixes is not None
    assert spec.sessions.turns == FixedLength(value=3)
    assert spec.sessions.think_time_s == FixedTime(value_s=5)
    assert (spec.prefixes.count, spec.prefixes.tokens) == (1, FixedLength(value=100))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sessions": {"turns": 3}}, "workload.sessions.think_time_s: this key is missing"),
        ({"sessions": SESSIONS | {"turns": 0}}, "workload.sessions.turns: must be at least 1"),
        ({"sessions": SESSIONS | {"think_time_s": -1}}, "workload.sessions.think_time_s: must be at least 0"),
        ({"sessions": SESSIONS | {"think_time": 1}}, "did you mean 'think_time_s'?"),
        ({"sessions": SESSIONS | {"max_context_tokens": 0}}, "max_context_tokens: must be at least 1"),
        ({"sessions": SESSIONS | {"lengths": "nobody-knows"}}, "workload.sessions.lengths: "),
        ({"prefixes": {"count": 3}}, "workload.prefixes.tokens: this key is missing"),
        ({"prefixes": {"count": 0, "tokens": 9}}, "workload.prefixes.count: must be at least 1"),
        ({"prefixes": {"tokens": 9, "count": 2, "shares": [1]}}, "prefixes.shares: 1 shares, but count is 2"),
        (
            {"prefixes": {"tokens": 9, "count": 2, "shares": [1, 1], "zipf_exponent": 1}},
            "workload.prefixes.zipf_exponent: both shares and zipf_exponent are given",
        ),
        ({"prefixes": {"tokens": 9, "count": 2, "shares": [1, 0]}}, "prefixes.shares.1: must be greater than 0"),
        ({"tokens_per_hash": 0}, "workload.tokens_per_hash: must be at least 1"),
    ],
)
def test_a_mistake_in_sessions_or_prefixes_is_told_with_its_place(changes: dict[str, Any], message: str) -> None:
    assert message in refused(synthetic(**changes))


@pytest.mark.parametrize("key", ["sessions", "prefixes"])
def test_a_trace_brings_its_own_sessions(key: str) -> None:
    message = refused({"trace": "a.csv", "format": "azure", key: {}})
    assert f"workload.{key}: a trace brings its own requests" in message


def test_a_class_may_have_sessions_and_prefixes_of_its_own() -> None:
    classes = [{"name": "chat", "share": 1, "sessions": SESSIONS, "prefixes": {"tokens": 5}}]
    spec = read(synthetic(classes=classes))
    assert isinstance(spec, SyntheticWorkload) and spec.classes is not None
    assert spec.classes[0].sessions is not None and spec.classes[0].prefixes is not None


def test_lengths_may_be_borrowed_for_later_turns() -> None:
    spec = read(synthetic(sessions=SESSIONS | {"lengths": "azure-conv-2023"}))
    assert isinstance(spec, SyntheticWorkload) and spec.sessions is not None
    assert spec.sessions.lengths == "azure-conv-2023"
