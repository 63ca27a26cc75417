"""A scenario is read from a file, a name or a dict, and knows where it came from."""

import pickle
from pathlib import Path

import pytest

from servsim.documents import load_document
from servsim.errors import ScenarioError
from servsim.scenario import Scenario, catalogue, load_scenario
from servsim.scenario.workload_spec import SyntheticWorkload, TraceWorkload


def test_defaults_are_those_of_the_design(chat: Path) -> None:
    scenario = load_scenario(chat)
    instance = scenario.instance
    assert (scenario.seed, scenario.instances, scenario.router.policy) == (0, 1, "round_robin")
    assert (instance.tensor_parallel_size, instance.dtype, instance.quantization) == (1, "bf16", "none")
    assert (instance.memory.gpu_memory_utilization, instance.memory.num_blocks) == (0.9, None)
    assert (instance.kv_cache_dtype, instance.stepping, instance.cost.law) == ("auto", "strided", "roofline")
    assert (scenario.metrics.warmup_s, scenario.metrics.cooldown_s) == (0, 0)
    assert instance.cost.async_scheduling


def test_relative_paths_are_relative_to_the_scenarios_file(chat: Path) -> None:
    scenario = load_scenario(chat)
    assert scenario.path == chat
    assert scenario.model_path == Path.cwd() / "scenarios/model.yaml"
    assert scenario.hardware_path == Path.cwd() / "scenarios/device.yaml"


def test_a_path_in_an_override_is_relative_to_the_working_directory(chat: Path) -> None:
    Path("mine.yaml").touch()
    scenario = load_scenario(chat, ["model=./mine.yaml", "workload={trace: scenarios/trace.csv, format: azure}"])
    assert scenario.model == str(Path.cwd() / "mine.yaml")
    assert isinstance(scenario.workload, TraceWorkload)
    assert scenario.workload.trace == Path.cwd() / "scenarios/trace.csv"


def test_the_resolved_scenario_loads_again_from_any_directory(chat: Path, tmp_path: Path) -> None:
    scenario = load_scenario(chat, ["instance.scheduler.predictor=lognormal_noise", "slo={default: {e2e_s: 9}}"])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "again.yaml").write_text(scenario.to_yaml())
    assert load_scenario(elsewhere / "again.yaml") == scenario
    assert load_scenario(elsewhere / "again.yaml").to_yaml() == scenario.to_yaml()
    assert load_scenario(scenario.to_dict()) == scenario
    assert load_scenario(scenario) == scenario


def test_a_trace_scenario_loads_again_too(chat: Path, tmp_path: Path) -> None:
    scenario = load_scenario(chat, ["workload={trace: scenarios/trace.csv, format: azure}"])
    (tmp_path / "again.yaml").write_text(scenario.to_yaml())
    assert load_scenario(tmp_path / "again.yaml") == scenario


def test_the_resolved_scenario_writes_parameters_of_plug_ins_flat(chat: Path, tmp_path: Path) -> None:
    overrides = ["instance.scheduler={policy: past_future, window: 50, predictor: {name: lognormal_noise, sigma: 0.1}}"]
    (tmp_path / "again.yaml").write_text(load_scenario(chat, overrides).to_yaml())
    scheduler = load_document(tmp_path / "again.yaml").data["instance"]["scheduler"]
    assert scheduler["window"] == 50
    assert scheduler["reserve"] is None  # the version says
    assert scheduler["predictor"] == {"name": "lognormal_noise", "latency_s": 0.0, "sigma": 0.1}


def test_a_scenario_survives_pickling(chat: Path) -> None:
    scenario = load_scenario(chat, ["instance.scheduler.policy=past_future"])
    copy = pickle.loads(pickle.dumps(scenario))
    assert copy == scenario
    assert copy.instance.scheduler.parameters == scenario.instance.scheduler.parameters
    assert copy.with_overrides(["seed=7"]).seed == 7


def test_a_file_without_a_name_is_called_like_the_file(chat: Path) -> None:
    text = chat.read_text().replace("name: chat\n", "")
    chat.with_name("night.yaml").write_text(text)
    assert load_scenario(chat.with_name("night.yaml")).name == "night"


def test_a_dict_may_hold_what_python_has(chat: Path) -> None:
    numpy = pytest.importorskip("numpy")
    data = load_document(chat).data
    data["model"] = Path("scenarios/model.yaml")
    data["instance"]["hardware"] = "./scenarios/device.yaml"
    data["seed"] = numpy.int64(5)
    data["slo"] = {"ttft_s": numpy.float64(2.0)}
    data["workload"]["arrivals"] = {"process": "constant", "rate_per_s": numpy.float32(0.5)}
    scenario = load_scenario(data)
    assert (scenario.seed, scenario.slo_for("default").ttft_s) == (5, 2.0)
    assert scenario.path is None
    assert data["model"] == Path("scenarios/model.yaml"), "the caller's dict is left alone"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "x"}, "scenario: seed: must be an integer, found 'x'"),
        ({"seed": object()}, "scenario: seed: object is no plain value"),
        ({3: 4}, "scenario: the key 3 is not text"),
        ({"instance": None}, "scenario: instance: must be keys and values, found nothing"),
    ],
)
def test_a_mistake_in_a_dict_is_placed_in_the_scenario(chat: Path, change: dict, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario({**load_document(chat).data, **change})
    assert str(caught.value) == message


def test_a_workload_given_by_name_points_into_its_own_file(chat: Path) -> None:
    own = chat.with_name("day.yaml")
    own.write_text("num_requests: 5\narrivals: {process: poisson, rate_per_s: 1}\nlengths: {table: trace.csv}\n")
    assert isinstance(load_scenario(chat, ["workload=scenarios/day.yaml"]).workload, SyntheticWorkload)
    scenario = load_scenario(chat, ["workload=scenarios/day.yaml", "workload.num_requests=7"])
    assert scenario.workload.num_requests == 7
    assert scenario.to_dict()["workload"]["lengths"]["table"] == str(Path.cwd() / "scenarios/trace.csv")

    own.write_text("num_requests: 5\narrivals: {process: poisson, rate_per_s: -1}\nlengths: {table: trace.csv}\n")
    with pytest.raises(ScenarioError, match=r"day\.yaml:2: arrivals\.rate_per_s: must be greater than 0, found -1"):
        load_scenario(chat, ["workload=scenarios/day.yaml"])
    assert load_scenario(chat, ["workload=scenarios/day.yaml", "workload.arrivals.rate_per_s=3"])


def test_a_missing_file_named_in_a_scenario_is_told_with_its_line(chat: Path) -> None:
    chat.write_text(chat.read_text().replace("./model.yaml", "./modell.yaml"))
    with pytest.raises(ScenarioError, match=r"^scenarios/chat.yaml:2: model: no such file 'scenarios/modell.yaml'"):
        load_scenario(chat)
    assert load_scenario(chat, check_files=False).model.endswith("modell.yaml")
    with pytest.raises(ScenarioError, match=r"workload.trace: the file 'gone.csv' does not exist"):
        load_scenario(chat, ["model=scenarios/model.yaml", "workload={trace: gone.csv, format: azure}"])
    with pytest.raises(ScenarioError, match="is a folder, not a file"):
        load_scenario(chat, ["model=scenarios/model.yaml", "workload={trace: scenarios, format: azure}"])


def test_an_unknown_scenario_lists_those_there_are(chat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "names", lambda kind: ["chat-on-one-h100"])
    with pytest.raises(
        ScenarioError, match=r"there is no scenario 'chatt'\n  give a file, or one of: chat-on-one-h100"
    ):
        load_scenario("chatt")
    with pytest.raises(ScenarioError, match=r"^nowhere/chat.yaml: no such file"):
        load_scenario("nowhere/chat.yaml")


def test_bounds_are_found_by_class(chat: Path) -> None:
    assert load_scenario(chat).slo_for("anything").ttft_s == 1.0
    by_class = load_scenario(chat, ["slo={default: {ttft_s: 2}}"])
    assert by_class.slo_for("default").ttft_s == 2.0
    assert by_class.slo_for("batch") is None
    assert load_scenario(chat, ["slo=null"]).slo_for("default") is None


def test_a_later_error_can_still_be_placed(chat: Path) -> None:
    scenario = load_scenario(chat, ["instance.tensor_parallel_size=3"])
    assert scenario.place(("model",)) == "scenarios/chat.yaml:2: model"
    assert scenario.place(("instance", "tensor_parallel_size")) == "--set instance.tensor_parallel_size=3"
    assert Scenario.model_validate(scenario.to_dict()).place(("model",)) == "scenario: model"
