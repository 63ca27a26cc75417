"""Where scenarios come from: a file, a name in the catalogue, a dict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from servsim.documents import Document, load_document
from servsim.errors import ScenarioError, suggestion
from servsim.scenario import catalogue
from servsim.scenario.anchoring import anchored
from servsim.scenario.scenario import Scenario, build_scenario

__all__ = ["load_scenario"]


def load_scenario(
    source: str | Path | Mapping[str, Any] | Scenario, overrides: Iterable[str] = (), *, check_files: bool = True
) -> Scenario:
    """Read a scenario and check all of it.

    ``source`` is a file, the name of a shipped scenario (a file wins), or its data as a dict.
    ``overrides`` are written ``a.b=value`` and applied in their order. With ``check_files`` the model,
    the device and the trace have to exist; without, a scenario of the past can still be read.
    Raises ScenarioError with the place, what was found there and what would do.
    """
    overrides = [overrides] if isinstance(overrides, str) else overrides
    if isinstance(source, Scenario):
        return source.with_overrides(overrides)
    if isinstance(source, Mapping):
        document = Document(None, anchored(source, Path.cwd(), place="scenario"))
    else:
        document = load_document(_file(source))
        folder = Path.cwd() / document.name
        document = replace(document, data=anchored(document.data, folder.parent, place=document.name))
    return build_scenario(document, overrides, check_files=check_files)


def _file(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if path.is_dir():
        raise ScenarioError("this is a folder, not a file", place=str(source), remedy="give the scenario.yaml in it")
    if isinstance(source, Path) or path.exists():
        return path
    name = source.removesuffix(".yaml")
    if name in (shipped := catalogue.names("scenarios")):
        return catalogue.find("scenarios", name)
    if catalogue.is_path(source):
        return path  # reading it will say what is wrong with it
    remedy = f"give a file, or one of: {', '.join(shipped)}" if shipped else "give a file"
    if here := [file for suffix in (".yaml", ".yml") if (file := path.with_name(path.name + suffix)).is_file()]:
        remedy = f"did you mean '{here[0]}'?"
    elif (close := suggestion(name, shipped)).startswith("did you mean"):
        remedy = close
    raise ScenarioError(f"there is no scenario '{source}'", remedy=remedy)
