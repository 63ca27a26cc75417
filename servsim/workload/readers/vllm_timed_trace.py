"""The dataset ``timed_trace`` of ``vllm bench serve``: JSON Lines whose keys, unit and hashes its flags describe."""

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
    """vLLM's flags, by their names and with their defaults.

    Mooncake's traces need ``timed_trace_chunk_hash_size: 512`` and ``timed_trace_sec_multiplier: 0.001``.
    """

    timed_trace_sec_multiplier: float = Field(1.0, gt=0, le=1e9, description="Seconds in a unit of the timestamps.")
    timed_trace_chunk_hash_size: Annotated[WholeNumber, Field(ge=1, le=1 << 20)] = Field(
        16, description="Prompt tokens that one hash stands for."
    )
    timed_trace_label_timestamp: str = Field("timestamp", description="The key of the arrival.")
    timed_trace_label_input_length: str = Field("input_length", description="The key of the prompt's length.")
    timed_trace_label_output_length: str = Field("output_length", description="The key of the output's length.")
    timed_trace_label_hash_ids: str = Field("hash_ids", description="The key of the prompt's hashes.")


def _read(path: Path, spec: TraceWorkload) -> TraceTable:
    flags = spec.parameters
    assert isinstance(flags, Parameters)  # the schema of this reader
    return read_hashed_lines(
        path,
        Keys(
            flags.timed_trace_label_timestamp,
            flags.timed_trace_label_input_length,
            flags.timed_trace_label_output_length,
            flags.timed_trace_label_hash_ids,
        ),
        seconds_per_unit=flags.timed_trace_sec_multiplier,
        tokens_per_hash=flags.timed_trace_chunk_hash_size,
        hash_remedy="set workload.timed_trace_chunk_hash_size; Mooncake's traces have 512, vLLM's default is 16",
    )


read = Reader(Parameters, _read)
