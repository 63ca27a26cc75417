"""The scenario's schema for editors, in JSON Schema."""

from __future__ import annotations

from typing import Any

from servsim import registry
from servsim.errors import ScenarioError
from servsim.scenario import catalogue
from servsim.scenario.instance_spec import MemorySpec
from servsim.scenario.plug_in import PlugInSpec, parameter_schema
from servsim.scenario.scenario import Scenario
from servsim.scenario.scheduler_spec import PredictorSpec, RouterSpec, SchedulerSpec
from servsim.scenario.workload_spec import TraceWorkload

__all__ = ["scenario_schema"]


def scenario_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of scenario files, with the known plug-ins and their parameters."""
    schema = Scenario.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "servsim scenario"
    parts = schema["$defs"]
    for spec in (SchedulerSpec, MemorySpec, PredictorSpec, RouterSpec, TraceWorkload):
        _describe_plug_ins(spec, parts)
    top = schema["properties"]
    instance = parts["InstanceSpec"]["properties"]
    tier = parts["TierSpec"]["properties"]
    for entry, kind in (
        (top["model"], "models"),
        (instance["hardware"], "devices"),
        (instance["pipeline_link"], "links"),
        (tier["link"], "links"),
        (tier["device"], "drives"),
    ):
        entry["examples"] = catalogue.names(kind)
    _allow_name(top, "router", registry.names("routers"))
    _allow_name(parts["SchedulerSpec"]["properties"], "predictor", registry.names("predictors"))
    _allow_name(top, "workload", None)
    _allow_names_of_parts(parts)
    _name_bounds(schema)
    return schema


_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_NAMED = ("properties", "$defs")  # their keys are names that users gave, not words of JSON Schema
_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems", "items", "additionalProperties")


def _name_bounds(schema: dict[str, Any]) -> None:
    """Write bounds in JSON Schema's words.

    Where a validator runs before the number is read, as :data:`WholeNumber`'s does, pydantic leaves ``ge`` and the like
    as they are, which editors ignore.
    """
    for word in [word for word in _BOUNDS if word in schema]:
        schema[_BOUNDS[word]] = schema.pop(word)
    inner = [part for key in _NAMED for part in schema.get(key, {}).values()]
    for key in _SCHEMAS:
        found = schema.get(key)
        inner.extend(found if isinstance(found, list) else [found])
    for part in inner:
        if isinstance(part, dict):
            _name_bounds(part)


def _allow_names_of_parts(parts: dict[str, Any]) -> None:
    """The parts of a scheduler that is put together, by name or with parameters."""
    for key in ("batching", "order", "admission"):
        if key in parts["SchedulerSpec"]["properties"]:
            names = registry.names(f"{key}s")
            parts[f"{key.capitalize()}Part"]["properties"]["name"]["enum"] = names
            _allow_name(parts["SchedulerSpec"]["properties"], key, names)


def _describe_plug_ins(spec: type[PlugInSpec], parts: dict[str, Any]) -> None:
    """List a plug-in's names, and the parameters of all plug-ins of its kind beside them."""
    part = parts[spec.__name__]
    names = registry.names(spec.kind)
    part["properties"][spec.key]["enum"] = names
    for name in names:
        try:
            parameters = parameter_schema(spec.kind, name)
        except ScenarioError:  # a broken plug-in of somebody else's must not take the schema away
            continue
        if parameters is None:
            continue
        own = parameters.model_json_schema(ref_template="#/$defs/{model}")
        parts.update(own.pop("$defs", {}))
        for key, entry in own.get("properties", {}).items():
            described = f"{entry.get('description', '')} ({name})".strip()
            part["properties"].setdefault(key, {**entry, "description": described})


def _allow_name(properties: dict[str, Any], key: str, names: list[str] | None) -> None:
    """Let a bare name stand where the schema has only the written-out form."""
    entry = properties[key]
    about = {word: entry.pop(word) for word in ("description", "default", "title") if word in entry}
    name = {"type": "string"} | ({"enum": names} if names else {})
    properties[key] = {**about, "anyOf": [name, *entry.get("anyOf", [entry])]}
