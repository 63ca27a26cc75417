"""ShareGPT: a JSON list of conversations, of which the first two turns make a request.

The file holds text. Without a tokenizer its length in tokens is taken to be its length in characters divided by
``characters_per_token``: 4 is a common rule of thumb for English text; code and other languages have fewer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from servsim.documents import Spec, WholeNumber
from servsim.errors import TraceError
from servsim.scenario.workload_spec import TraceWorkload
from servsim.workload.trace import Reader, TraceTable

__all__ = ["Parameters", "read"]

Tokens = Annotated[WholeNumber, Field(ge=1, le=1 << 40)]


class Parameters(Spec):
    """How text becomes tokens, and which requests are kept: by default those that ``vllm bench serve`` keeps."""

    characters_per_token: float = Field(4.0, gt=0, le=1000, description="Characters of text that make a token.")
    min_prompt_tokens: Tokens = Field(4, description="Shorter prompts are left out.")
    min_output_tokens: Tokens = Field(4, description="Shorter outputs are left out.")
    max_prompt_tokens: Tokens = Field(1024, description="Longer prompts are left out.")
    max_total_tokens: Tokens = Field(2048, description="Requests longer than this in all are left out.")
    output_tokens: Tokens | None = Field(
        None, description="Every output is this long (vLLM's --sharegpt-output-len) and none too short."
    )


def _read(path: Path, spec: TraceWorkload) -> TraceTable:
    """Requests in the order of the file (vLLM shuffles them), without times; rows are the conversations, from 0."""
    rules = spec.parameters
    assert isinstance(rules, Parameters)  # the schema of this reader
    turns = [_turns(one, f"{path}: conversation {row}") for row, one in enumerate(_conversations(path))]
    rows = np.array([row for row, two in enumerate(turns) if two is not None], dtype=np.int64)
    characters = np.array([two for two in turns if two is not None], dtype=np.float64).reshape(-1, 2)
    tokens = np.ceil(characters / rules.characters_per_token)
    prompt_tokens, output_tokens = tokens[:, 0], tokens[:, 1]
    short = (prompt_tokens < rules.min_prompt_tokens) | (output_tokens < rules.min_output_tokens)
    if rules.output_tokens is not None:
        output_tokens = np.full(len(rows), float(rules.output_tokens))
        short = prompt_tokens < rules.min_prompt_tokens
    long = (prompt_tokens > rules.max_prompt_tokens) | (prompt_tokens + output_tokens > rules.max_total_tokens)
    keep = ~(short | long)
    return TraceTable(
        path,
        prompt_tokens=prompt_tokens[keep],
        output_tokens=output_tokens[keep],
        rows=rows[keep],
        lines=lambda row: f"{path}: conversation {row}",
        notes=_notes(rules, len(turns) - len(rows), int(short.sum()), int((long & ~short).sum())),
    )


def _notes(rules: Parameters, single: int, short: int, long: int) -> tuple[str, ...]:
    lengths = f"lengths are characters divided by {rules.characters_per_token:g}, not a tokenizer's"
    if not single + short + long:
        return (lengths,)
    return (lengths, f"conversations left out: {single} with fewer than two turns, {short} too short, {long} too long")


def _conversations(path: Path) -> list[Any]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            conversations = json.load(file)
    except json.JSONDecodeError as error:
        raise TraceError(f"not valid JSON: {error.msg}", place=f"{path}:{error.lineno}") from None
    except UnicodeDecodeError:
        raise TraceError("this is not a text file", place=str(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise TraceError(f"cannot be read: {error}", place=str(path)) from None
    if not isinstance(conversations, list):
        raise TraceError("the file is not a list of conversations", place=f"{path}:1")
    return conversations


def _turns(conversation: Any, place: str) -> tuple[int, int] | None:
    """Characters of the first two turns; None where there are fewer."""
    turns = conversation.get("conversations") if isinstance(conversation, Mapping) else None
    if not isinstance(turns, list):
        remedy = "each entry has a list 'conversations' of turns {from: .., value: ..}"
        raise TraceError("this is no conversation", place=place, remedy=remedy)
    if len(turns) < 2:
        return None
    texts = [turn.get("value") if isinstance(turn, Mapping) else None for turn in turns[:2]]
    if not isinstance(texts[0], str) or not isinstance(texts[1], str):
        raise TraceError("a turn has no text", place=place, remedy="each turn has a text 'value'")
    return len(texts[0]), len(texts[1])


read = Reader(Parameters, _read)
