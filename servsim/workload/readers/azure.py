"""Azure LLM inference traces: ``TIMESTAMP,ContextTokens,GeneratedTokens`` (Azure/AzurePublicDataset)."""

from __future__ import annotations

from pathlib import Path

from servsim.scenario.workload_spec import TraceWorkload
from servsim.workload.columns import read_columns
from servsim.workload.trace import TraceTable

__all__ = ["read"]


def read(path: Path, spec: TraceWorkload) -> TraceTable:
    """The file as a table; raises TraceError at the first row that cannot be a request.

    Times are wall times with up to nine decimals; those of 2024 carry an offset from UTC. The multimodal traces of 2025
    have a column NumImages besides: their images are not modelled, which a note says.
    """
    columns = read_columns(
        path,
        {"TIMESTAMP": "wall_time", "ContextTokens": "number", "GeneratedTokens": "number"},
        {"NumImages": "number"},
    )
    notes: tuple[str, ...] = ()
    if "NumImages" in columns and (with_images := int((columns.numbers("NumImages") > 0).sum())):
        notes = (f"requests with images, which are not modelled: {with_images}",)
    return TraceTable(
        path,
        prompt_tokens=columns.numbers("ContextTokens"),
        output_tokens=columns.numbers("GeneratedTokens"),
        arrival_s=columns.wall_times_s("TIMESTAMP"),
        lines=columns.place,
        notes=notes,
    )
