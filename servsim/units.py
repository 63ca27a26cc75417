"""Units: what a quantity is called in a YAML file, and what it is inside.

Inside servsim there are only seconds, bytes and FLOPs. People write ``512 GiB`` or ``2.5 TB/s``.
"""

from __future__ import annotations

import re

__all__ = ["GIB", "MIB", "format_bytes", "format_si", "parse_bytes"]

MIB = 1 << 20
GIB = 1 << 30

_MULTIPLES = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}
_BYTES = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([kmgtKMGT]?i?)[bB]?\s*$")


def parse_bytes(text: str | int | float) -> int:
    """Bytes from ``'512 GiB'``, ``'80 GB'`` or a plain number of bytes.

    Raises ValueError, naming the text, when it is not a number of bytes.
    """
    if isinstance(text, (int, float)):
        return int(text)
    match = _BYTES.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number of bytes; write for example 512 GiB or 80 GB")
    return int(float(match[1]) * _MULTIPLES[match[2].lower()])


def format_bytes(size_bytes: float) -> str:
    """Bytes for people, in powers of 1,024: ``'14.96 GiB'``."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", GIB), ("MiB", MIB), ("KiB", 1 << 10)):
        if abs(size_bytes) >= factor:
            return f"{size_bytes / factor:.2f} {unit}"
    return f"{size_bytes:.0f} B"


def format_si(value: float, unit: str) -> str:
    """A number with an SI prefix: ``format_si(3.35e12, 'B/s') == '3.35 TB/s'``."""
    for prefix, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}"
