"""Predictors: what each says of a request, that its noise is the request's own, and how it comes into a run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from by_hand import Constant as Drawn
from pydantic import ValidationError

import servsim
from servsim import registry
from servsim.errors import ScenarioError
from servsim.request import Request
from servsim.scheduler.predictors import (
    Bucket,
    ClairvoyantClasses,
    Constant,
    History,
    MaeNoise,
    Oracle,
    RankAccuracy,
    Trained,
    sigma_for_accuracy,
)
from servsim.simulation import Simulation
from servsim.streams import Streams


def asked(output: int, request_id: int = 0, *, tenant: int = 0, max_tokens: int = 4096, prompt: int = 10) -> Request:
    return Request(request_id, 0.0, prompt, output, max_tokens, tenant)


def stream(seed: int = 0) -> np.random.Generator:
    return Streams(seed).get("predictor")


def lengths(*outputs: int) -> Any:
    """A run's requests, as far as a predictor looks at them."""
    block = SimpleNamespace(output_tokens=np.array(outputs))
    return SimpleNamespace(blocks=lambda: iter([block]), tenants=("default",))


def test_a_constant_is_the_same_for_all() -> None:
    predictor = Constant(Constant.Parameters(tokens=77), stream())
    assert {predictor.predict(asked(output)) for output in (1, 50, 4000)} == {77.0}


def test_a_mean_absolute_error_of_46_1_is_a_sigma_of_57_78() -> None:
    assert MaeNoise(None, stream()).sigma_tokens == pytest.approx(57.78, abs=0.005)


def test_mae_noise_errs_by_as_much_as_stated_and_says_at_least_one_token() -> None:
    predictor = MaeNoise(MaeNoise.Parameters(mae_tokens=46.1), stream())
    errors = np.array([predictor.predict(asked(2000, number)) - 2000 for number in range(20_000)])
    assert np.abs(errors).mean() == pytest.approx(46.1, rel=0.02)
    assert errors.mean() == pytest.approx(0, abs=2)
    assert min(predictor.predict(asked(1, number)) for number in range(100)) == 1.0


def test_one_pair_of_100_and_1000_is_ranked_rightly_in_four_of_five_cases_at_sigma_1_9346() -> None:
    assert sigma_for_accuracy(np.array([100, 1000]), 0.8) == pytest.approx(1.9346, abs=5e-5)
    assert sigma_for_accuracy(np.array([100, 1000, 400, 799, 200]), 0.8) == pytest.approx(1.9346, abs=5e-5)  # medium
    assert sigma_for_accuracy(np.array([100, 1000]), 1.0) == 0.0


@pytest.mark.parametrize("accuracy", [0.62, 0.8, 0.96])
def test_the_wanted_ranking_accuracy_is_reached_over_short_long_pairs(accuracy: float) -> None:
    outputs = np.random.default_rng(5).lognormal(math.log(300), 1.2, 3000).astype(int) + 1
    predictor = RankAccuracy(RankAccuracy.Parameters(accuracy=accuracy), stream())
    predictor.prepare(lengths(*outputs.tolist()))
    scores = np.array([predictor.predict(asked(int(output), number)) for number, output in enumerate(outputs)])
    short, long = scores[outputs < 200], scores[outputs >= 800]
    assert (long[:, None] > short[None, :]).mean() == pytest.approx(accuracy, abs=0.02)


def test_a_workload_without_long_outputs_has_nothing_to_rank() -> None:
    predictor = RankAccuracy(None, stream())
    with pytest.raises(ScenarioError, match="2 outputs below 200 tokens and 0 of 800 or more"):
        predictor.prepare(lengths(5, 6, 300))


def test_a_bucket_is_told_by_its_upper_edge_or_its_midpoint_and_the_last_one_ends_at_the_declared_bound() -> None:
    upper = Bucket(Bucket.Parameters(edges=(64, 128)), stream())
    assert [upper.predict(asked(output)) for output in (1, 64, 65, 128, 129)] == [64, 64, 128, 128, 4096]
    middle = Bucket(Bucket.Parameters(edges=(64, 128), key="midpoint"), stream())
    assert [middle.predict(asked(output, max_tokens=228)) for output in (64, 65, 200)] == [32, 96, 178]


def test_a_confusion_matrix_says_how_often_which_class_is_named() -> None:
    rows = ((0.7, 0.2, 0.1), (0.0, 1.0, 0.0), (0.5, 0.0, 0.5))
    predictor = ClairvoyantClasses(ClairvoyantClasses.Parameters(confusion=rows, long_tokens=900), stream())
    for row, output in zip(rows, (100, 200, 800), strict=True):
        named = [predictor.predict(asked(output, number)) for number in range(20_000)]
        shares = [named.count(tokens) / len(named) for tokens in (100.0, 500.0, 900.0)]
        assert shares == pytest.approx(row, abs=0.015)


def test_clairvoyant_s_classes_end_below_200_and_800_and_an_accuracy_leaves_the_rest_to_the_neighbours() -> None:
    right = ClairvoyantClasses(None, stream())
    assert [right.predict(asked(output)) for output in (199, 200, 799, 800)] == [100, 500, 500, 1200]
    settings = ClairvoyantClasses.Parameters(accuracy=0.6)
    for uniform, expected in ((0.1, 100), (0.3, 500), (0.9, 1200)):
        assert ClairvoyantClasses(settings, Drawn(uniform)).predict(asked(500)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [{"confusion": [[1.0]]}, {"confusion": [[1, 0, 0], [0, 1, 0], [0, 0, 0.9]]}, {"accuracy": 1.1}],
    ids=["shape", "sum", "accuracy"],
)
def test_a_confusion_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ClairvoyantClasses.Parameters(**wrong)


def test_edges_that_fall_are_refused() -> None:
    with pytest.raises(ValidationError, match="larger than the one before"):
        Bucket.Parameters(edges=(64, 64))


def test_history_expects_what_the_tenant_s_latest_outputs_had() -> None:
    history = History(History.Parameters(window=2, default_output_tokens=50), stream())
    assert history.predict(asked(9)) == 50
    history.learn(asked(100, tenant=1), 100)
    assert history.predict(asked(9, tenant=2)) == 100  # of whom nothing is known: all that finished
    for tokens in (300, 10, 20):
        history.learn(asked(tokens, tenant=2), tokens)
    assert history.predict(asked(9, tenant=2)) == 15  # 300 has left the window
    assert history.predict(asked(9, tenant=1)) == 100


def test_history_may_expect_a_quantile() -> None:
    history = History(History.Parameters(window=5, quantile=0.75), stream())
    for tokens in (50, 10, 40, 20, 30):
        history.learn(asked(tokens), tokens)
    assert history.predict(asked(1)) == 40


NOISY: dict[str, dict[str, Any]] = {
    "bucket": {"accuracy": 0.3},
    "clairvoyant_classes": {"accuracy": 0.3},
    "lognormal_noise": {"sigma": 0.7},
    "mae_noise": {"mae_tokens": 30.0},
    "rank_accuracy": {"accuracy": 0.7},
}


@pytest.mark.parametrize("name", sorted(NOISY))
def test_a_prediction_belongs_to_the_request_and_not_to_the_order_of_asking(name: str) -> None:
    def predictor() -> Any:
        kind = registry.resolve("predictors", name)
        made = kind(kind.Parameters(**NOISY[name]), stream(3))
        made.prepare(lengths(100, 1000))
        return made

    requests = [asked(400, number) for number in (0, 5, 70, 9000)]
    forwards, backwards = predictor(), predictor()
    guessed = [forwards.predict(one) for one in requests]
    assert guessed == [backwards.predict(one) for one in reversed(requests)][::-1]
    assert len({predictor().predict(asked(400, number)) for number in range(50)}) > 1


def scenario(predictor: Any, **more: Any) -> dict[str, Any]:
    return {
        "model": "llama-3.1-8b",
        "instance": {
            "hardware": "h100-sxm",
            "scheduler": {"policy": "sjf", "max_num_seqs": 8, "predictor": predictor},
            "max_model_len": 8192,
        },
        "workload": {
            "arrivals": {"process": "poisson", "rate_per_s": 10},
            "lengths": {
                "prompt_tokens": 64,
                "output_tokens": {"distribution": "lognormal", "median": 200, "sigma": 1.2, "max": 4000},
            },
            "num_requests": 120,
            "max_tokens": 4000,
        },
        **more,
    }


def table(folder: Path) -> Path:
    """Tenant a has long outputs, b short ones; with long prompts they are longer still."""
    rows = ["arrived,prompt,output,who"]
    for number in range(400):
        tenant, prompt = "ab"[number % 2], 50 if number % 4 < 2 else 500
        output = (400 if tenant == "a" else 20) + (100 if prompt == 500 else 0)
        rows.append(f"{number / 10},{prompt},{output},{tenant}")
    path = folder / "past.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


COLUMNS = {"arrival_s": "arrived", "prompt_tokens": "prompt", "output_tokens": "output", "tenant": "who"}


@pytest.mark.parametrize("name", [name for name in registry.names("predictors") if name != "trained"])
def test_every_predictor_runs_and_its_stepping_changes_nothing_with_latency_too(name: str) -> None:
    for latency_s in (0.0, 0.37):
        given = scenario({"name": name, "latency_s": latency_s, **NOISY.get(name, {})}, instances=2)
        strided = servsim.simulate(given)
        single = servsim.simulate(given, ["instance.stepping=single"])
        for column, values in strided.records.requests.items():
            assert values.tobytes() == single.records.requests[column].tobytes()
        assert (strided.records.requests["status"] == 0).all()
        waited_s = strided.records.requests["scheduled_s"] - strided.records.requests["arrival_s"]
        assert waited_s.min() >= latency_s - 1e-9


def test_a_request_waits_outside_for_its_prediction_and_is_counted_as_waiting() -> None:
    simulation = Simulation(servsim.load_scenario(scenario({"name": "oracle", "latency_s": 5.0})))
    simulation.env.run(until=3.0)
    instance = simulation.instances[0]
    assert instance.policy.waiting == 0 and len(instance.running) == 0
    submitted = len(instance.unfinished())
    assert submitted > 10
    assert instance.observe(3.0).waiting == submitted


def test_latency_is_added_to_the_wait_on_an_empty_instance() -> None:
    lone = {"workload": {**scenario("oracle")["workload"], "num_requests": 1}}
    for latency_s in (0.0, 0.25):
        given = {**scenario({"name": "constant", "latency_s": latency_s}), **lone}
        requests = servsim.simulate(given).records.requests
        assert requests["scheduled_s"][0] == requests["arrival_s"][0] + latency_s


def test_a_worse_ranking_gives_up_a_part_of_what_sjf_gains() -> None:
    def mean_ttft_s(predictor: Any) -> float:
        records = servsim.simulate(scenario(predictor), ["workload.num_requests=400"]).records.requests
        return float((records["first_token_s"] - records["arrival_s"]).mean())

    means = [mean_ttft_s({"name": "rank_accuracy", "accuracy": accuracy}) for accuracy in (1.0, 0.75, 0.51)]
    assert means[0] == mean_ttft_s("oracle")
    assert all(better < worse for better, worse in pairwise(means))


def test_history_learns_in_a_run_from_what_finishes_on_any_instance() -> None:
    simulation = Simulation(servsim.load_scenario(scenario("history", instances=2)))
    records = simulation.run()
    history: Any = simulation.instances[0]._predictor
    assert history is simulation.instances[1]._predictor
    assert history.predict(asked(1)) == pytest.approx(records.requests["output_tokens"].mean())


def test_a_tree_trained_on_a_trace_knows_tenants_by_name_and_prompts(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    predictor = Trained(_trained_on(table(tmp_path)), stream())
    predictor.prepare(SimpleNamespace(tenants=("b", "stranger", "a")))  # type: ignore[arg-type]
    assert predictor.predict(asked(1, tenant=2, prompt=50)) == 400
    assert predictor.predict(asked(1, tenant=2, prompt=500)) == 500
    assert predictor.predict(asked(1, tenant=0, prompt=50)) == 20
    assert predictor.predict(asked(1, tenant=1, prompt=50)) in (20, 400)  # wherever the mean of all tenants falls


def _trained_on(path: Path) -> Trained.Parameters:
    return Trained.Parameters(trace=path, format="table", reader={"columns": COLUMNS})


def test_the_training_trace_is_found_from_the_scenario_s_folder(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    table(tmp_path)
    given = scenario({"name": "trained", "trace": "past.csv", "format": "table", "reader": {"columns": COLUMNS}})
    file = tmp_path / "chat.yaml"
    file.write_text(json.dumps(given))  # which is YAML too
    loaded = servsim.load_scenario(file)
    assert loaded.instance.scheduler.predictor is not None
    assert loaded.instance.scheduler.predictor.parameters.trace == tmp_path / "past.csv"  # type: ignore[union-attr]
    assert servsim.load_scenario(loaded.to_dict()) == loaded
    assert (servsim.simulate(loaded).records.requests["status"] == 0).all()


def test_without_scikit_learn_a_trained_predictor_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.tree", None)
    with pytest.raises(ScenarioError, match=r"pip install 'servsim\[predictors\]'"):
        Trained(_trained_on(table(tmp_path)), stream())


def test_a_missing_training_trace_is_a_plain_message(tmp_path: Path) -> None:
    with pytest.raises(servsim.ServsimError, match="no such file"):
        Trained(_trained_on(tmp_path / "nowhere.csv"), stream())


def test_scikit_learn_is_not_imported_by_those_who_do_not_use_it() -> None:
    code = "import sys, servsim.scheduler.predictors; print('sklearn' in sys.modules, 'scipy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def test_the_oracle_is_right() -> None:
    assert Oracle(None, stream()).predict(asked(123)) == 123


def test_a_workload_that_a_predictor_cannot_rank_is_refused_at_its_place(tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    file.write_text(
        "model: llama-3.1-8b\n"
        "instance:\n"
        "  hardware: h100-sxm\n"
        "  scheduler: {predictor: rank_accuracy}\n"
        "workload: {arrivals: {process: constant, rate_per_s: 1}, num_requests: 2,\n"
        "           lengths: {prompt_tokens: {distribution: fixed, value: 5},\n"
        "                     output_tokens: {distribution: fixed, value: 5}}}\n",
        encoding="utf-8",
    )
    with pytest.raises(ScenarioError, match=r"short.yaml:4: instance.scheduler.predictor: rank_accuracy: the workload"):
        servsim.simulate(file)
