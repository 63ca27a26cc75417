"""A schema's complaints in the words of servsim: one place, what was found there, what would do."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from servsim.documents.document import Document, KeyPath, dotted
from servsim.errors import ScenarioError, suggestion

__all__ = ["found", "validate"]

Model = TypeVar("Model", bound=BaseModel)

_DEEPEST = 6  # keys below keys: no document goes deeper
_FEW_PLACES = 3  # a key that stands in more is no hint


def validate(model: type[Model], data: Any, *, document: Document | None, prefix: KeyPath = ()) -> Model:
    """``data`` as an instance of ``model``.

    ``document`` says where the data was written and ``prefix`` which part of the document it is.
    Raises one ScenarioError for the first mistake in the order of reading, with the number of others;
    keys that are missing come last, since a misspelt one explains them.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        complaints = [_complaint(model, data, detail) for detail in error.errors(include_url=False)]
    written = document or Document(None, data)
    complaints = _without_echoes(complaints)
    complaints.sort(key=lambda complaint: (complaint.missing, written.order((*prefix, *complaint.path))))
    first = complaints[0]
    remedy = [first.remedy] if first.remedy else []
    if more := len(complaints) - 1:
        remedy.append(f"({more} more {'mistake' if more == 1 else 'mistakes'} after this one)")
    place = written.place((*prefix, *first.path))
    raise ScenarioError(first.message, place=place, remedy="\n  ".join(remedy) or None)


def found(value: Any) -> str:
    """A value as a message shows it: ``3``, ``'text'``, ``true``, ``nothing``, ``a list``."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "keys and values"
        case list() | tuple():
            return "a list"
        case float() if not math.isfinite(value):
            return str(value)
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


class _Complaint(NamedTuple):
    path: KeyPath
    message: str
    remedy: str | None
    missing: bool
    wrong_type: bool


def _complaint(model: type[BaseModel], data: Any, detail: ErrorDetails) -> _Complaint:
    kind, context = detail["type"], detail.get("ctx", {})
    path = _written_path(data, detail)
    if "message" in context and "remedy" in context:
        within = isinstance(_part(data, path), dict | list)  # and not a name that is short for a mapping
        at = context.get("at", ()) if within else ()
        return _Complaint((*path, *at), context["message"], context["remedy"] or None, False, False)
    message, remedy = _worded(detail)
    if kind == "extra_forbidden":
        remedy = _unknown_key(model, path, detail["loc"][:-1])
    if kind == "union_tag_invalid":
        path = (*path, context["discriminator"].strip("'"))
    wrong_type = kind.endswith("_type") or kind == "literal_error"
    return _Complaint(path, message, remedy, kind == "missing", wrong_type)


def _without_echoes(complaints: list[_Complaint]) -> list[_Complaint]:
    """One complaint a path; where one branch of a union got further, the others are not heard."""
    kept: dict[KeyPath, _Complaint] = {}
    for complaint in complaints:
        depth = len(complaint.path)
        deeper = any(len(other.path) > depth and other.path[:depth] == complaint.path for other in complaints)
        if not (complaint.wrong_type and deeper):
            kept.setdefault(complaint.path, complaint)
    return list(kept.values())


def _written_path(data: Any, detail: ErrorDetails) -> KeyPath:
    """pydantic's location without the names it adds for the branches of unions."""
    path: list[str | int] = []
    location = detail["loc"]
    for index, part in enumerate(location):
        if _leads_on(data, part):
            data = data[part]
        elif not (detail["type"] == "missing" and index == len(location) - 1):
            continue
        path.append(part)
    return tuple(path)


def _part(data: Any, path: KeyPath) -> Any:
    for key in path:
        if not _leads_on(data, key):
            return None
        data = data[key]
    return data


def _leads_on(data: Any, part: str | int) -> bool:
    if isinstance(part, int):
        return isinstance(data, list | tuple) and part < len(data)
    return isinstance(data, dict) and part in data


def _unknown_key(model: type[BaseModel], path: KeyPath, location: tuple[str | int, ...]) -> str:
    """The key that was meant, its right place where it stands in another one, or all that are known here."""
    key = str(path[-1])
    remedy = suggestion(key, _known_keys(model, location))
    places = set(_places(model, key))
    # Where its place is right, but for another kind of the same part, the keys of this kind are what helps.
    if remedy.startswith("did you mean") or path in places or not 0 < len(places) <= _FEW_PLACES:
        return remedy
    return f"write it in its place: {' or '.join(sorted(map(dotted, places)))}"


def _places(model: type[BaseModel], key: str, within: KeyPath = ()) -> Iterator[KeyPath]:
    """Where a key of that name stands in a document of this model, lists and free mappings aside."""
    if key in model.model_fields:
        yield (*within, key)
    if len(within) < _DEEPEST:
        for name, field in model.model_fields.items():
            for inner in _models_in(field.annotation, containers=False):
                yield from _places(inner, key, (*within, name))


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> Iterator[str]:
    candidates = [model]
    for part in location:
        fields = [one.model_fields[part] for one in candidates if isinstance(part, str) and part in one.model_fields]
        if fields:
            candidates = [inner for one in fields for inner in _models_in(one.annotation)]
        else:  # an index, a key of a free mapping, or pydantic's name for a branch of a union
            candidates = [one for one in candidates if _is_branch(one, part)] or candidates
    for one in candidates:
        yield from one.model_fields


def _models_in(annotation: Any, *, containers: bool = True) -> Iterator[type[BaseModel]]:
    """Every schema that an annotation names; without ``containers`` not those of the items in lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    if not containers and get_origin(annotation) in (dict, list, tuple):
        return
    for argument in get_args(annotation):
        yield from _models_in(argument, containers=containers)


def _is_branch(model: type[BaseModel], label: str | int) -> bool:
    if model.__name__ == label:
        return True
    annotations = (info.annotation for info in model.model_fields.values())
    return any(get_origin(one) is Literal and label in get_args(one) for one in annotations)


def _worded(detail: ErrorDetails) -> tuple[str, str | None]:
    """What is wrong, and what would do where the wording does not say it already."""
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind in _NEEDS_NO_VALUE:
        return _NEEDS_NO_VALUE[kind]
    if kind in _EXPECTED:
        return f"must be {_EXPECTED[kind](context)}, found {found(value)}", _retyped(kind, value)
    if kind == "value_error":
        return str(context["error"]), None
    if kind == "union_tag_invalid":
        key = str(context["discriminator"]).strip("'")
        return f"unknown {key} '{context['tag']}'", suggestion(context["tag"], _quoted(context["expected_tags"]))
    if kind == "union_tag_not_found":
        return f"the key {context['discriminator']} is missing", None
    if kind == "literal_error":
        remedy = suggestion(value, _quoted(context["expected"])) if isinstance(value, str) else None
        return f"must be {context['expected']}, found {found(value)}", remedy
    if kind == "too_short":
        what = "key" if isinstance(value, dict) else "item"
        few = "none" if not value else str(context["actual_length"])
        return (
            f"must have at least {context['min_length']} {what}{'s' * (context['min_length'] > 1)}, found {few}",
            None,
        )
    message = detail["msg"][:1].lower() + detail["msg"][1:]
    return message if found(value) in message else f"{message}, found {found(value)}", None


def _bound(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _quoted(listed: str) -> list[str]:
    return [part for part in listed.split("'")[1::2] if part]


def _retyped(kind: str, value: Any) -> str | None:
    if isinstance(value, str) and kind in ("int_type", "float_type", "bool_type"):
        if kind != "bool_type" and re.fullmatch(r"-?[\d.]+ *[a-zA-Zµ%/]+", value):
            return "write the number alone: units stand in the names of keys"
        number = value.replace("_", "").replace(",", "")
        try:
            plain = float(number)
        except ValueError:
            return None
        return f"write {number}, without quotes or separators" if math.isfinite(plain) else None
    return None


_NEEDS_NO_VALUE: dict[str, tuple[str, str | None]] = {
    "extra_forbidden": ("unknown key", None),
    "missing": ("this key is missing and has no default", None),
}
_Context = dict[str, Any]
_EXPECTED: dict[str, Callable[[_Context], str]] = {
    "int_type": lambda _: "an integer",
    "int_from_float": lambda _: "an integer",
    "int_parsing": lambda _: "an integer",
    "float_type": lambda _: "a number",
    "float_parsing": lambda _: "a number",
    "bool_type": lambda _: "true or false",
    "bool_parsing": lambda _: "true or false",
    "string_type": lambda _: "text",
    "path_type": lambda _: "a path",
    "none_required": lambda _: "left out",
    "finite_number": lambda _: "a finite number",
    "greater_than": lambda c: f"greater than {_bound(c['gt'])}",
    "greater_than_equal": lambda c: f"at least {_bound(c['ge'])}",
    "less_than": lambda c: f"less than {_bound(c['lt'])}",
    "less_than_equal": lambda c: f"at most {_bound(c['le'])}",
    "model_type": lambda _: "keys and values",
    "model_attributes_type": lambda _: "keys and values",
    "dict_type": lambda _: "keys and values",
    "list_type": lambda _: "a list",
    "tuple_type": lambda _: "a list",
    "string_too_short": lambda _: "some text",
}
