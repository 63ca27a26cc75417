"""The files of ``workloads/``, whose lengths can be borrowed by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from servsim.documents import Spec, load_document, validate
from servsim.errors import ScenarioError
from servsim.scenario import catalogue
from servsim.scenario.length_spec import ExplicitLengths, LengthPair, LengthTable

__all__ = ["named_lengths"]


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
