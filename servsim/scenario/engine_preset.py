"""Presets of engines: what one version of a serving engine does, laid under what a scenario writes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from servsim.documents import Document, Spec, load_document, validate
from servsim.errors import ScenarioError
from servsim.scenario import catalogue
from servsim.scenario.instance_spec import CostSpec, FrontendSpec, MemorySpec, RooflineCost
from servsim.scenario.scheduler_spec import SchedulerSpec

__all__ = ["EnginePreset", "load_preset", "with_engine"]

_PARTS = ("scheduler", "memory", "cost", "frontend")
_PLUG_INS = {"scheduler": "policy", "memory": "allocator", "cost": "law"}
_COMMON = {
    "scheduler": ("max_num_seqs", "max_num_batched_tokens"),
    "memory": ("block_size", "gpu_memory_utilization", "prefix_hit_fraction"),
    "cost": (),
}


class EnginePreset(Spec):
    """An engine's file: keys of ``instance`` with where each number comes from."""

    name: str = Field(min_length=1)
    sources: dict[str, str] = Field(min_length=1)
    scheduler: dict[str, Any] = Field(default_factory=dict)
    memory: dict[str, Any] = Field(default_factory=dict)
    cost: dict[str, Any] = Field(default_factory=dict)
    frontend: dict[str, Any] = Field(default_factory=dict)


class _Parts(Spec):
    """What a preset's keys have to make sense as, so that its mistakes are found in its own file."""

    scheduler: SchedulerSpec = Field(default_factory=SchedulerSpec)
    memory: MemorySpec = Field(default_factory=MemorySpec)
    cost: CostSpec = Field(default_factory=RooflineCost)
    frontend: FrontendSpec = Field(default_factory=FrontendSpec)


def load_preset(reference: str) -> EnginePreset:
    """A preset by its name in the catalogue or its path; raises ScenarioError with the place in its file."""
    document = load_document(catalogue.locate("engines", reference))
    if not isinstance(document.data, dict):
        raise ScenarioError("an engine's file holds keys and values, found a list", place=document.place())
    preset = validate(EnginePreset, document.data, document=document)
    validate(_Parts, {part: document.data[part] for part in _PARTS if part in document.data}, document=document)
    return preset


def with_engine(document: Document) -> Document:
    """The document with the preset's keys wherever the scenario has none.

    Where the scenario names another policy, allocator or law than the preset, it takes from that part only what
    has a meaning for any. Raises ScenarioError for an unknown engine.
    """
    data = document.data
    instance = data.get("instance") if isinstance(data, Mapping) else None
    reference = instance.get("engine") if isinstance(instance, Mapping) else None
    if not isinstance(reference, str):
        return document
    assert isinstance(instance, Mapping)
    try:
        preset = load_preset(reference)
    except ScenarioError as error:
        if error.place is not None:
            raise
        raise ScenarioError(error.message, place=document.place(("instance", "engine")), remedy=error.remedy) from None
    merged = dict(instance)
    for part in _PARTS:
        written = instance.get(part, {})
        if isinstance(written, Mapping):
            merged[part] = {**_kept(part, getattr(preset, part), written), **written}
    return replace(document, data={**data, "instance": merged})


def _kept(part: str, preset: Mapping[str, Any], written: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a preset's part stands beside what was written."""
    key = _PLUG_INS.get(part)
    if key is None or written.get(key, preset.get(key)) == preset.get(key):
        return preset
    return {name: preset[name] for name in _COMMON[part] if name in preset}
