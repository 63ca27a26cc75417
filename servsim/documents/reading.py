"""YAML and JSON files as plain data that remembers the line of every value.

The YAML is that of version 1.2's core schema: ``1e6`` is a number and ``yes`` a word. Tags that would
make objects, keys written twice and keys that are no text are refused.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

import yaml

from servsim.documents.document import Document, KeyPath, dotted
from servsim.errors import ScenarioError, suggestion

__all__ = ["dump_yaml", "load_document", "parse_scalar"]

_MOST_BYTES = 64 << 20  # a larger file is a trace given by mistake
_MOST_VALUES = 2_000_000  # aliases of aliases can unfold a short file into billions of values
_DEEPEST = 64
_TAG = "tag:yaml.org,2002:"


def load_document(path: Path) -> Document:
    """Read a YAML file, or a JSON file where the name ends so; its top is a mapping or a list.

    Raises ScenarioError with file and line for whatever cannot be read: a missing file, a folder,
    bytes that are no text, an empty file, a syntax error, a key given twice, a forbidden tag.
    """
    text = _read_text(path)
    if path.suffix.lower() == ".json":
        return Document(path, _parse_json(text, path))
    data, lines = _parse_yaml(text, str(path))
    if data is None:
        raise ScenarioError("the file is empty", place=str(path))
    if not isinstance(data, dict | list):
        raise ScenarioError(f"expected keys and values, found {data!r}", place=f"{path}:{lines[()]}")
    return Document(path, data, lines)


def parse_scalar(text: str) -> Any:
    """The value that ``text`` has in YAML: ``.nan``, ``1e6``, ``true``, ``null``, a word.

    Text in brackets or braces (``[1, 2]``, ``{ttft_s: 1}``) is read as a list or a mapping; raises
    ScenarioError when it is none. Anything else that is not a number or a constant is text.
    """
    stripped = text.strip()
    if stripped[:1] in ("[", "{", '"', "'"):
        try:
            return _parse_yaml(stripped, "")[0]
        except ScenarioError as error:
            raise ScenarioError(error.message, remedy=error.remedy) from None
    return _scalar(_LOADER("").resolve(yaml.ScalarNode, stripped, (True, False)), stripped)


def dump_yaml(data: Any) -> str:
    """Plain data as YAML that :func:`load_document` reads back equal, keys in their order."""
    return yaml.dump(data, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=110)


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise ScenarioError("this is a folder, not a file", place=str(path))
        if path.stat().st_size > _MOST_BYTES:
            raise ScenarioError("the file is too large for a YAML file (64 MiB at most)", place=str(path))
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ScenarioError("no such file", place=str(path), remedy=_similar_files(path)) from None
    except UnicodeDecodeError:
        remedy = "write it as YAML in UTF-8"
        raise ScenarioError("this is not a text file", place=str(path), remedy=remedy) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ScenarioError(f"cannot be read: {reason}", place=str(path)) from None


def _similar_files(path: Path) -> str | None:
    if not path.parent.is_dir():
        return f"there is no folder '{path.parent}' either"
    known = [entry.name for entry in path.parent.iterdir() if entry.suffix == path.suffix]
    remedy = suggestion(path.name, known)
    return remedy if remedy.startswith("did you mean") else None


def _parse_json(text: str, path: Path) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ScenarioError(f"the key '{twice}' is given twice", place=str(path))
        return dict(pairs)

    if not text.strip():
        raise ScenarioError("the file is empty", place=str(path))
    try:
        data = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ScenarioError(f"not valid JSON: {error.msg}", place=f"{path}:{error.lineno}") from None
    except RecursionError:
        raise ScenarioError("not valid: nested too deeply", place=str(path)) from None
    if not isinstance(data, dict | list):
        raise ScenarioError(f"expected keys and values, found {data!r}", place=str(path))
    return data


def _parse_yaml(text: str, name: str) -> tuple[Any, dict[KeyPath, int]]:
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        _refuse_syntax(error, text, name)
    except (yaml.YAMLError, RecursionError) as error:
        reason = getattr(error, "reason", None) or "it cannot be parsed"
        raise ScenarioError(f"not valid YAML: {reason}", place=name) from None
    if node is None:
        return None, {(): 1}
    builder = _Builder(name)
    return builder.build(node, ()), builder.lines


def _refuse_syntax(error: yaml.MarkedYAMLError, text: str, name: str) -> NoReturn:
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines()
    line = min(mark.line, len(lines) - 1) if mark else 0
    parts = [part for part in (error.context, error.problem) if part]
    remedy = None
    if lines and "\t" in lines[line][: len(lines[line]) - len(lines[line].lstrip())]:
        remedy = "indent with spaces: YAML allows no tabs there"
    raise ScenarioError(f"not valid YAML: {', '.join(parts)}", place=f"{name}:{line + 1}", remedy=remedy) from None


class _Builder:
    """Turns the nodes of one YAML document into plain data, noting lines on the way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[KeyPath, int] = {}
        self.values = 0

    def build(self, node: yaml.Node, path: KeyPath, line: int | None = None) -> Any:
        self.lines[path] = line if line is not None else node.start_mark.line + 1
        self.values += 1
        if self.values > _MOST_VALUES:
            self.refuse(node, path, "too many values", "write fewer, or use fewer aliases")
        if len(path) > _DEEPEST:
            self.refuse(node, path[:3], "nested too deeply", "an alias may not contain itself")
        if node.tag not in _TAGS:
            self.refuse_tag(node, path)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.build_mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode) or node.tag in (_TAG + "map", _TAG + "seq"):
            self.refuse(node, path, "the tag does not fit the value", "write a plain value")
        try:
            return _scalar(node.tag, node.value)
        except ValueError:
            kind = node.tag.removeprefix(_TAG)
            self.refuse(node, path, f"{node.value!r} is no {kind}", "write the value without a tag")

    def build_mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if key_node.tag not in _TAGS:
                self.refuse_tag(key_node, path)
            if key_node.tag != _TAG + "str":
                self.refuse(key_node, path, f"the key {_shown(key)} is not text", "put it in quotes")
            if key in data:
                first = self.lines[(*path, key)]
                self.refuse(key_node, (*path, key), "this key is given twice", f"the first is on line {first}")
            data[key] = self.build(value_node, (*path, key), key_node.start_mark.line + 1)
        return data

    def refuse_tag(self, node: yaml.Node, path: KeyPath) -> NoReturn:
        found = node.tag.replace(_TAG, "!!")
        self.refuse(node, path, f"the tag '{found}' is not allowed", "write a plain value")

    def refuse(self, node: yaml.Node, path: KeyPath, message: str, remedy: str) -> NoReturn:
        place = f"{self.name}:{node.start_mark.line + 1}"
        raise ScenarioError(message, place=f"{place}: {dotted(path)}" if path else place, remedy=remedy)


def _shown(key: object) -> str:
    return f"'{key}'" if isinstance(key, str) else "written as a list or mapping"


def _scalar(tag: str, text: str) -> Any:
    match tag.removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            if text.lower() not in ("true", "false"):
                raise ValueError(text)
            return text.lower() == "true"
        case "int":
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        case "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


_TAGS = frozenset(_TAG + kind for kind in ("map", "seq", "str", "null", "bool", "int", "float"))
_PATTERNS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
# libyaml is ten times faster than the parser in Python, but PyYAML may come without it.
_LOADER_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER_BASE: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LOADER: Any = type("_Loader", (_LOADER_BASE,), {"yaml_implicit_resolvers": {}})
_DUMPER: Any = type("_Dumper", (_DUMPER_BASE,), {})
_DUMPER.ignore_aliases = lambda _self, _data: True
for _kind, (_pattern, _starts) in _PATTERNS.items():
    # The dumper keeps the words of YAML 1.1 as well, and so puts in quotes what either version would misread.
    for _class in (_LOADER, _DUMPER):
        _class.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_pattern})$"), _starts)
