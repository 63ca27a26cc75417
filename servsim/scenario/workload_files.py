"""The files of ``workloads/``, whose lengths can be borrowed by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Tag

from servsim.documents import Spec, load_document, refusal, validate
from servsim.errors import ScenarioError
from servsim.scenario import catalogue
from servsim.scenario.length_spec import ExplicitLengths, LengthPair, LengthTable, form_of_lengths

__all__ = ["LengthSpec", "named_lengths"]


def named_lengths(name: str) -> LengthPair | LengthTable:
    """The lengths that the workload ``name`` spells out: a name of the catalogue, or a path.

    A table in it is a path relative to its file. Raises ScenarioError, without a place where the name is unknown.
    """
    document = load_document(catalogue.locate("workloads", name))
    data = document.data
    if not isinstance(data, Mapping) or not isinstance(data.get("lengths"), Mapping):
        remedy = "name one that has prompt_tokens and output_tokens, such as azure-conv-2023"
        raise ScenarioError("this workload spells no lengths out", place=document.place(), remedy=remedy)
    lengths = validate(_Lengths, {"lengths": data["lengths"]}, document=document).lengths
    if isinstance(lengths, LengthTable):
        folder = (document.path or Path()).resolve().parent
        return lengths.model_copy(update={"table": folder / lengths.table})
    return lengths


class _Lengths(Spec):
    lengths: ExplicitLengths


def _known(name: str) -> str:
    try:
        named_lengths(name)
    except ScenarioError as error:
        if error.place is not None:  # the mistake is in the file of that name
            raise
        raise refusal(error.message, remedy=error.remedy) from None
    return name


def _form_of_lengths(value: Any) -> str:
    if isinstance(value, str):
        return "<name>"
    return form_of_lengths(value)


LengthSpec = Annotated[
    Annotated[str, AfterValidator(_known), Tag("<name>")]
    | Annotated[LengthPair, Tag("LengthPair")]
    | Annotated[LengthTable, Tag("LengthTable")],
    Discriminator(_form_of_lengths),
]
"""The name, or the file, of a workload whose lengths are meant; or lengths spelt out."""
