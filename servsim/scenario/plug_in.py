"""A part of a scenario that names a plug-in and gives its parameters beside the name."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from servsim import registry
from servsim.documents import Spec, refusal
from servsim.errors import ScenarioError, suggestion

__all__ = ["PlugInSpec", "parameter_schema", "plug_ins_with"]


class PlugInSpec(Spec):
    """A plug-in by name, with its parameters as flat keys.

    The keys that the subclass does not declare are those of the plug-in's own schema, the class
    attribute ``Parameters`` of what the registry finds; a plug-in without one has no parameters.
    ``model_dump`` writes them flat again, defaults included.
    """

    model_config = ConfigDict(extra="allow")

    kind: ClassVar[str]  # of plug-in, as the registry calls it
    key: ClassVar[str]  # the field that holds the plug-in's name
    _parameters: BaseModel | None = PrivateAttr(default=None)

    @property
    def parameters(self) -> BaseModel | None:
        """The checked parameters, an instance of the plug-in's ``Parameters``; None if it has none."""
        return self._parameters

    @property
    def plug_in(self) -> Any:
        """The plug-in itself, usually a class."""
        return registry.resolve(self.kind, getattr(self, self.key))

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        name = getattr(self, self.key)
        try:
            schema = parameter_schema(self.kind, name)
        except ScenarioError as error:
            raise refusal(error.message, remedy=error.remedy, at=(self.key,)) from None
        extra = self.__pydantic_extra__
        assert extra is not None  # the configuration allows extra keys
        known = schema.model_fields if schema else {}
        unknown = [_unknown_key(self, name, key, known) for key in extra if key not in known]
        if unknown:
            raise ValidationError.from_exception_data(type(self).__name__, unknown)
        if schema is not None:
            # By way of JSON: strict about numbers there, and yet a list may become a tuple.
            parameters = schema.model_validate_json(json.dumps(_plain(extra), default=str), strict=True)
            extra.clear()
            extra.update((field, getattr(parameters, field)) for field in known)
            self._parameters = parameters
        return self


def parameter_schema(kind: str, name: str) -> type[BaseModel] | None:
    """The ``Parameters`` of a plug-in, or None.

    Raises ScenarioError, without a place, for an unknown name and for a plug-in that cannot be imported.
    """
    try:
        plug_in = registry.resolve(kind, name)
    except (ImportError, AttributeError) as error:
        raise ScenarioError(f"the plug-in '{name}' cannot be imported: {error}") from error
    schema: type[BaseModel] | None = getattr(plug_in, "Parameters", None)
    return schema


def plug_ins_with(kind: str, attribute: str) -> str:
    """The plug-ins of a kind with such an attribute, in words."""
    return " or ".join(name for name in registry.names(kind) if _has(kind, name, attribute))


def _has(kind: str, name: str, attribute: str) -> bool:
    try:
        return bool(getattr(registry.resolve(kind, name), attribute, False))
    except (ImportError, AttributeError):  # a broken plug-in that nobody asked for
        return False


def _plain(value: Any) -> Any:
    """The value with ``1e6`` as an integer, which serves as a float too."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float() if value.is_integer():
            return int(value)
    return value


def _unknown_key(spec: PlugInSpec, name: str, key: str, parameters: dict[str, Any]) -> InitErrorDetails:
    remedy = suggestion(key, [*type(spec).model_fields, *parameters])
    if owners := _owners(spec.kind, key):
        remedy = f"it is a parameter of {' and '.join(owners)}, and {spec.key} is {name}"
    return InitErrorDetails(type=refusal("unknown key", remedy=remedy), loc=(key,), input=None)


def _owners(kind: str, key: str) -> list[str]:
    owners = []
    for name in registry.names(kind):
        try:
            schema = parameter_schema(kind, name)
        except ScenarioError:  # a broken plug-in that nobody asked for
            continue
        if schema is not None and key in schema.model_fields:
            owners.append(name)
    return owners
