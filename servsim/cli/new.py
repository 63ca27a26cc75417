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

_OTHER_NAME = "choose another name"


@ended
def new(name: Name, origin: Origin = "chat-on-one-h100") -> None:
    """Copy a shipped scenario to NAME.yaml, to be changed at will."""
    from servsim.errors import ScenarioError
    from servsim.scenario import catalogue
    from servsim.writing import check_file, writing

    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    check_file(path, _OTHER_NAME)
    if not re.fullmatch(r"[^\s.'\"#:{}\[\],&*!|>%@`\\-][^'\"#:{}\[\],&*!|>%@`\\]*", path.stem):
        raise ScenarioError(f"{path.stem!r} cannot name a scenario", remedy="use letters, digits, dashes and dots")
    text = catalogue.find("scenarios", origin.removesuffix(".yaml")).read_text(encoding="utf-8")
    text, renamed = re.subn(r"(?m)^name:.*$", f"name: {path.stem}", text, count=1)
    with writing(path, _OTHER_NAME):
        path.write_text(text if renamed else f"name: {path.stem}\n{text}", encoding="utf-8")
    show_text(f"{path}, copied from {origin}; servsim check {path} tells what it means\n")
