"""``servsim list``: what there is to choose from."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from servsim.cli.endings import ended
from servsim.cli.output import show

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rich.table import Table

__all__ = ["Kind", "list_"]


class Kind(StrEnum):
    """What can be listed: plug-ins, the files of the catalogue, and the claims of ``servsim reproduce``."""

    SCHEDULERS = "schedulers"
    ORDERS = "orders"
    ADMISSIONS = "admissions"
    BATCHINGS = "batchings"
    ALLOCATORS = "allocators"
    PREDICTORS = "predictors"
    ROUTERS = "routers"
    TRACE_READERS = "trace_readers"
    ENGINES = "engines"
    HARDWARE = "hardware"
    DEVICES = "devices"
    DRIVES = "drives"
    LINKS = "links"
    MODELS = "models"
    WORKLOADS = "workloads"
    SCENARIOS = "scenarios"
    CLAIMS = "claims"


@ended
def list_(kind: Annotated[Kind, typer.Argument(metavar="KIND", help="What to list.", show_default=False)]) -> None:
    """List schedulers, allocators, ... or the hardware, models, workloads and scenarios that ship with servsim.

    Hardware is all of devices, drives and links; claims are those of servsim reproduce.
    """
    from servsim import registry
    from servsim.scenario import catalogue

    table = _table("name", "what it is")
    if kind.value in registry.KINDS:
        table.add_column("parameters and defaults", overflow="fold")
        for name in registry.names(kind.value):
            table.add_row(name, *_plug_in(kind.value, name))
    elif kind is Kind.CLAIMS:
        from servsim.validation import CLAIMS  # half a second that no other kind needs

        for name, claim in CLAIMS.items():
            table.add_row(name, claim.statement)
    else:
        for name in catalogue.names(kind.value):
            table.add_row(name, _about_file(catalogue.find(kind.value, name)))
    show(table)


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column == "name", overflow="fold")
    return table


def _plug_in(kind: str, name: str) -> tuple[str, str]:
    """The first line of a plug-in's docstring, and its parameters."""
    from servsim import registry
    from servsim.errors import ScenarioError
    from servsim.scenario.plug_in import parameter_schema

    try:
        schema = parameter_schema(kind, name)
    except ScenarioError as error:  # a broken plug-in of somebody else's
        return error.message, ""
    plug_in = registry.resolve(kind, name)
    # A trace reader is a function or holds one, and its module's docstring names the format.
    reader = getattr(plug_in, "read", plug_in) if kind == "trace_readers" else None
    document = (sys.modules[reader.__module__] if reader is not None else plug_in).__doc__ or ""
    fields = schema.model_fields if schema is not None else {}
    described = [f"{key}: {_default(field)}" for key, field in fields.items()]
    return _first_sentence(document), "\n".join(described)


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    fields = getattr(type(default), "model_fields", None)
    if fields is None or "name" in fields:  # a plug-in shows its name
        return f"{default}"
    return f"keys {', '.join(fields)}"


def _first_sentence(document: str) -> str:
    """The first paragraph on one line, up to its first full stop."""
    paragraph = " ".join(document.strip().partition("\n\n")[0].split())
    sentence = re.split(r"\.\s+(?=[A-Z])", paragraph)[0].removesuffix(".")
    return re.sub(r":\w+:(?=`)", "", sentence).replace("`", "")


def _about_file(path: Path) -> str:
    """The comment at the head of a catalogue file."""
    return _first_sentence(" ".join(_header(path.read_text(encoding="utf-8").splitlines())))


def _header(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        if not line.startswith("#"):
            return
        yield line.lstrip("# ")
