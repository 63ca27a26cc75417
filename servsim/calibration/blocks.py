"""Fits written into a device's YAML file; what is not refitted, comments included, stays as it is."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from servsim.calibration.fit import Fit
from servsim.documents import Document

__all__ = ["device_text"]


def device_text(text: str, document: Document, fits: Iterable[Fit], source: str) -> str:
    """The text of a device file with the blocks of ``fits`` in the place of those that it had.

    ``document`` is the same file, read; ``source`` says in words where the tables come from.
    """
    fits = list(fits)
    blocks = [fit.block(source) for fit in fits]
    rows = {block["group"]: block for block in blocks if "group" in block}
    found = {(block["operator"], block["dtype"]): block for block in blocks if "operator" in block}
    if found:
        for entry in document.data.get("efficiencies", ()):
            found.setdefault((entry["operator"], entry.get("dtype", "any")), entry)
        lines = ["efficiencies:"]
        for key in sorted(found, key=_order):
            lines += _entry(found[key], "  ")
        text = _replaced(text, "efficiencies", "", lines)
        text = _replaced(text, "calibrated", "", ["calibrated: true"])
    if rows and "interconnect" in document.data:
        for entry in document.data["interconnect"]["all_reduce"]:
            rows.setdefault(entry["group"], entry)
        lines = ["  all_reduce:"]
        for group in sorted(rows):
            lines += _entry(rows[group], "    ")
        text = _replaced(text, "all_reduce", "  ", lines)
        text = _replaced(text, "measured", "  ", ["  measured: true"])
        whence = "; ".join(sorted({f"{fit.work.what}; {source}; measured with {fit.work.measured_with}"
                                   for fit in fits if fit.work.group}))  # fmt: skip
        written = re.split("; (?:table|all-reduce fit to)", document.data["interconnect"]["source"])[0]
        text = _replaced(text, "source", "  ", _folded("source", f"{written}; all-reduce fit to {whence}", "  "))
    return text


_KINDS = ("gemm", "attention_prefill", "attention_decode", "experts", "elementwise")


def _order(key: tuple[str, str]) -> tuple[int, str]:
    return _KINDS.index(key[0]), key[1]


def _entry(block: Mapping[str, Any], indent: str) -> list[str]:
    """One item of a list, a key a line, its correction last."""
    lines: list[str] = []
    for key, value in block.items():
        if key == "correction":
            lines += [f"{indent}  correction:", f"{indent}    axes:"]
            for axis in value["axes"]:
                knots = ", ".join(_number(knot) for knot in axis["knots"])
                lines.append(f"{indent}      - {{name: {axis['name']}, knots: [{knots}]}}")
            lines += _folded("thousandths", _factors(value["thousandths"]), f"{indent}    ")
        elif key == "covers":
            ranges = ", ".join(f"{name}: [{_number(low)}, {_number(high)}]" for name, (low, high) in value.items())
            lines.append(f"{indent}  covers: {{{ranges}}}")
        elif key == "switches_bytes":
            lines.append(f"{indent}  {key}: [{', '.join(map(str, value))}]")
        elif key == "source":
            lines += _folded(key, value, f"{indent}  ")
        else:
            lines.append(f"{indent}  {key}: {_number(value)}")
    return [f"{indent}- {lines[0].strip()}", *lines[1:]]


def _factors(thousandths: Any) -> str:
    return thousandths if isinstance(thousandths, str) else " ".join(map(str, thousandths))


def _number(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        if value == int(value) and abs(value) < 1e12:
            return str(int(value))
        return f"{value * 1e6:.6g}e-6" if 0 < abs(value) < 1e-3 else f"{value:.6g}"
    return str(value)


def _folded(key: str, words: str, indent: str) -> list[str]:
    body = textwrap.wrap(words, 116, initial_indent=f"{indent}  ", subsequent_indent=f"{indent}  ")
    return [f"{indent}{key}: >-", *body]


def _replaced(text: str, key: str, indent: str, lines: list[str]) -> str:
    """The text with the block of a key replaced; added before ``sources`` where the file has none."""
    old = text.splitlines()
    start = next((i for i, line in enumerate(old) if line.startswith(f"{indent}{key}:")), None)
    if start is None:
        start = end = next((i for i, line in enumerate(old) if line.startswith("sources:")), len(old))
    else:
        within = re.compile(rf"{indent} |\s*$")
        end = start + 1
        while end < len(old) and within.match(old[end]):
            end += 1
        while end > start + 1 and not old[end - 1].strip():
            end -= 1
    return "\n".join([*old[:start], *lines, *old[end:]]) + "\n"
