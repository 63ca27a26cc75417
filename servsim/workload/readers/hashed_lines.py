"""JSON Lines of requests whose prompts are described by hashes of their blocks, as Mooncake first wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from servsim.errors import TraceError
from servsim.workload import json_lines
from servsim.workload.trace import TraceTable

__all__ = ["Keys", "read_hashed_lines"]


class Keys(NamedTuple):
    """What the keys of a row are called."""

    timestamp: str = "timestamp"
    input_length: str = "input_length"
    output_length: str = "output_length"
    hash_ids: str = "hash_ids"


def read_hashed_lines(
    path: Path, keys: Keys, *, seconds_per_unit: float, tokens_per_hash: int, hash_remedy: str
) -> TraceTable:
    """The file as a table; raises TraceError at the first row that cannot be a request.

    ``hash_ids`` holds one id for every ``tokens_per_hash`` tokens of the prompt, with or without one for a last block
    that is not full; rows may lack it. ``hash_remedy`` is what to do where their number does not fit.
    """
    lines: list[int] = []
    numbers: list[tuple[float, float, float]] = []
    hash_ids: list[tuple[int, ...]] = []
    for line, row in json_lines.rows(path):
        place = f"{path}:{line}"
        if keys.timestamp not in row and "session_id" in row:
            remedy = "give every turn its time; the turns of a session cannot wait for each other in this version"
            raise TraceError(f"a turn of a session without {keys.timestamp}", place=place, remedy=remedy)
        length = json_lines.number(row, keys.input_length, place)
        numbers.append(
            (json_lines.number(row, keys.timestamp, place), length, json_lines.number(row, keys.output_length, place))
        )
        hash_ids.append(_hashes(row, keys.hash_ids, length / tokens_per_hash, place, hash_remedy))
        lines.append(line)
    table = np.array(numbers).reshape(-1, 3)
    return TraceTable(
        path,
        prompt_tokens=table[:, 1],
        output_tokens=table[:, 2],
        arrival_s=table[:, 0] * seconds_per_unit,
        hash_ids=hash_ids if any(hash_ids) else None,
        tokens_per_hash=tokens_per_hash if any(hash_ids) else None,
        lines=lambda row: f"{path}:{lines[row]}",
    )


def _hashes(row: Mapping[str, Any], key: str, blocks: float, place: str, remedy: str) -> tuple[int, ...]:
    ids = row.get(key)
    if ids is None or ids == []:
        return ()
    if not isinstance(ids, list) or not all(type(one) is int for one in ids):
        raise TraceError(f"{key} is not a list of whole numbers", place=place)
    if not blocks - 1 < len(ids) < blocks + 1:
        message = f"{len(ids)} {key} for a prompt of {blocks:.3g} blocks"
        raise TraceError(message, place=place, remedy=remedy)
    return tuple(ids)
