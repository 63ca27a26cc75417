"""A scenario: everything that one simulation needs to know, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from servsim.documents import Document, KeyPath, Spec, WholeNumber, dump_yaml, load_document, refusal, validate
from servsim.errors import ScenarioError, suggestion
from servsim.scenario import catalogue
from servsim.scenario.anchoring import DATA_VARIABLE, anchored, files
from servsim.scenario.engine_preset import with_engine
from servsim.scenario.group_rules import check_groups, sequences_each
from servsim.scenario.instance_spec import InstanceSpec
from servsim.scenario.overrides import with_override
from servsim.scenario.scheduler_spec import Router, RouterSpec
from servsim.scenario.slo_spec import MetricsSpec, SloBounds, SloSpec
from servsim.scenario.tier_rules import check_tiers
from servsim.scenario.tier_spec import tier_references
from servsim.scenario.workload_spec import SyntheticWorkload, WorkloadSpec

__all__ = ["Scenario", "build_scenario"]

_LARGEST = (1 << 63) - 1  # numpy's integers end here


class Scenario(Spec):
    """One runnable experiment, as the user wrote it and with every default filled in.

    File names in it are absolute; names of the catalogue stay names. Two scenarios are equal when
    they say the same, wherever it was written.
    """

    name: str = Field("scenario", min_length=1, max_length=120, description="What results are called; also a folder.")
    seed: WholeNumber = Field(0, ge=0, description="All random draws follow from it.")
    model: str = Field(description="The network: a name in the catalogue, a path, or a Hugging Face config.json.")
    instance: InstanceSpec = Field(description="One serving engine on its devices.")
    instances: WholeNumber = Field(1, ge=1, le=100_000, description="How many such engines serve the requests.")
    router: Router = Field(
        default_factory=RouterSpec, description="What spreads requests over instances: a name, or one with parameters."
    )
    workload: WorkloadSpec = Field(description="The requests: a name in the catalogue, a trace, or distributions.")
    slo: SloSpec | None = Field(None, description="Upper bounds on latencies, or a map from SLO class to them.")
    metrics: MetricsSpec = Field(default_factory=MetricsSpec, description="Which requests are measured.")

    _source: Document | None = PrivateAttr(default=None)

    @property
    def model_path(self) -> Path:
        """The file of the model's shape; raises ScenarioError where there is none."""
        return catalogue.locate("models", self.model)

    @property
    def num_engines(self) -> int:
        """Engines of all instances; in a pipeline, the virtual ones."""
        return self.instances * self.instance.pipeline_parallel_size

    @property
    def hardware_path(self) -> Path:
        """The file of the device; raises ScenarioError where there is none."""
        return catalogue.locate("hardware", self.instance.hardware)

    @property
    def path(self) -> Path | None:
        """The file this was read from, as the user gave it; None if it came from Python."""
        return self._source.path if self._source else None

    def place(self, path: KeyPath) -> str:
        """Where a part was written, for the message of an error found later: ``chat.yaml:9: model``."""
        return (self._source or Document(None, {})).place(path)

    def slo_for(self, class_name: str) -> SloBounds | None:
        """The bounds that requests of an SLO class have to keep; None where they have none."""
        if isinstance(self.slo, dict):
            return self.slo.get(class_name)
        return self.slo

    def to_dict(self) -> dict[str, Any]:
        """The scenario as plain data, defaults written out, that can be loaded again."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The scenario as YAML, defaults written out, that can be loaded again from any directory."""
        return dump_yaml(self.to_dict())

    def with_overrides(self, overrides: Iterable[str], option: str = "--set") -> Scenario:
        """The same scenario with values replaced, each written ``a.b=value`` as for ``--set``.

        Only what the user wrote is carried over, so that another policy brings its own defaults.
        Raises ScenarioError, placed at ``--set a.b=value`` where the new value is at fault, or at another ``option``.
        """
        source = self._source or Document(None, anchored(self.to_dict(), Path.cwd(), place="scenario"))
        return build_scenario(source, overrides, option=option)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scenario) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name.startswith(".") or not name.isprintable() or any(mark in name for mark in "/\\:"):
            raise refusal(f"{name!r} cannot be the name of a folder", remedy="use letters, digits, dashes and dots")
        return name

    @model_validator(mode="after")
    def _check_slo_classes(self) -> Self:
        if not isinstance(self.slo, dict) or not isinstance(self.workload, SyntheticWorkload):
            return self
        used = {one.slo_class or one.name for one in self.workload.classes or ()} or {"default"}
        for name in self.slo:
            if name not in used:
                remedy = suggestion(name, used)
                raise refusal(f"the workload has no SLO class '{name}'", remedy=remedy, at=("slo", name))
        return self

    @model_validator(mode="after")
    def _check_what_goes_together(self) -> Self:
        check_tiers(self.instance, grouped=sequences_each(self.workload)[0] > 1)
        check_groups(self.workload, self.instance)
        return self


def build_scenario(
    document: Document, overrides: Iterable[str], *, option: str = "--set", check_files: bool = True
) -> Scenario:
    """Check anchored data and turn it into a scenario that remembers where it was written."""
    document = _with_workload_file(document)
    for override in overrides:
        document = _with_workload_file(with_override(document, override, option))
    if isinstance(document.data, dict) and "name" not in document.data and document.path is not None:
        document = replace(document, data={"name": document.path.stem, **document.data})
    for path, message in _impossible_numbers(document.data, ()):
        raise ScenarioError(message, place=document.place(path))
    scenario = validate(Scenario, with_engine(document).data, document=document)
    scenario._source = document
    if check_files:
        _check_files(scenario, document)
    return scenario


def _with_workload_file(document: Document) -> Document:
    """The document with the workload's own file in place of its name."""
    reference = document.data.get("workload") if isinstance(document.data, dict) else None
    if not isinstance(reference, str):
        return document
    path = _found(document, ("workload",), "workloads", reference)
    part = load_document(path)
    data = anchored(part.data, path.parent, ("workload",), place=part.name)
    return replace(
        document,
        data={**document.data, "workload": data},
        overrides={key: text for key, text in document.overrides.items() if key != ("workload",)},
        includes={**document.includes, ("workload",): replace(part, data=data)},
    )


def _impossible_numbers(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path, f"must be a finite number, found {value}"
    elif isinstance(value, int) and abs(value) > _LARGEST:
        yield path, "this number is too large for 64 bits"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _impossible_numbers(item, (*path, index))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _impossible_numbers(item, (*path, key))


def _check_files(scenario: Scenario, document: Document) -> None:
    _found(document, ("model",), "models", scenario.model)
    _found(document, ("instance", "hardware"), "devices", scenario.instance.hardware)
    memory = scenario.instance.memory
    for path, kind, name in tier_references(memory.tiers):
        _found(document, ("instance", "memory", "tiers", *path), kind, name)
    if scenario.instance.pipeline_link is not None:
        _found(document, ("instance", "pipeline_link"), "links", scenario.instance.pipeline_link)
    if memory.compression.link is not None:
        _found(document, ("instance", "memory", "compression", "link"), "links", memory.compression.link)
    for path, name in files(document.data["workload"], ("workload",)):
        if not Path(name).is_file():
            wrong = "is a folder, not a file" if Path(name).is_dir() else "does not exist"
            message = f"the file '{catalogue.shown(Path(name))}' {wrong}"
            unset = f"${DATA_VARIABLE}" in Path(name).parts
            remedy = f"set {DATA_VARIABLE} to the folder of real data (docs/data.md)" if unset else catalogue.RELATIVE
            raise ScenarioError(message, place=document.place(path), remedy=remedy)


def _found(document: Document, path: KeyPath, kind: str, reference: str) -> Path:
    try:
        return catalogue.locate(kind, reference)
    except ScenarioError as error:
        raise ScenarioError(error.message, place=document.place(path), remedy=error.remedy) from None
