"""Mooncake (kvcache-ai/Mooncake): lines with ``timestamp`` (ms), ``input_length``, ``output_length``, ``hash_ids``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from servsim.documents import Spec, WholeNumber
from servsim.scenario.workload_spec import TraceWorkload
from servsim.workload.readers.hashed_lines import Keys, read_hashed_lines
from servsim.workload.trace import Reader, TraceTable

__all__ = ["Parameters", "read"]


class Parameters(Spec):
    """How prompts are hashed."""

    tokens_per_hash: Annotated[WholeNumber, Field(ge=1, le=1 << 20)] = Field(
        512, description="Prompt tokens that one of hash_ids stands for."
    )


def _read(path: Path, spec: TraceWorkload) -> TraceTable:
    assert isinstance(spec.parameters, Parameters)  # the schema of this reader
    return read_hashed_lines(
        path,
        Keys(),
        seconds_per_unit=1e-3,
        tokens_per_hash=spec.parameters.tokens_per_hash,
        hash_remedy="set workload.tokens_per_hash to the number of tokens that a hash stands for",
    )


read = Reader(Parameters, _read)
