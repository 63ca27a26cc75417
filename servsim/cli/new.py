"""``servsim new``: a scenario of one's own, copied from a shipped one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from servsim.cli.endings import ended
from servsim.cli.output import show_text

__all__ = ["new"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called; NAME.yaml is written.")]
Origin = Annotated[
    str, typer.Option("--from", metavar="SCENARIO", help="The shipped scenario to copy: servsim list scenarios.")
]


@ended
def new(name: Name, origin: Origin = "chat-on-one-h100") -> None:
    """Copy a shipped scenario to NAME.yaml, to be changed at will."""
    from servsim.errors import ResultError, ScenarioError
    from servsim.scenario import catalogue

    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    if path.exists() or path.is_symlink():
        raise ResultError("exists already", place=str(path), remedy="choose another name, or delete it yourself")
    if not path.parent.is_dir():
        raise ResultError("there is no such folder", place=str(path.parent))
    if not re.fullmatch(r"[^\s.'\"#:{}\[\],&*!|>%@`\\-][^'\"#:{}\[\],&*!|>%@`\\]*", path.stem):
        raise ScenarioError(f"{path.stem!r} cannot name a scenario", remedy="use letters, digits, dashes and dots")
    text = catalogue.find("scenarios", origin.removesuffix(".yaml")).read_text(encoding="utf-8")
    text, renamed = re.subn(r"(?m)^name:.*$", f"name: {path.stem}", text, count=1)
    path.write_text(text if renamed else f"name: {path.stem}\n{text}", encoding="utf-8")
    show_text(f"{path}, copied from {origin}; servsim check {path} tells what it means\n")
