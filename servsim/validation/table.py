"""What came of the claims, as a table for people and as a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servsim.report.folder import json_bytes, result_folder
from servsim.validation.claim import Verdict
from servsim.validation.reproducing import Reproduction
from servsim.version import VERSION

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["CLAIMS_FILE", "claims_markdown", "claims_table", "write_claims"]

CLAIMS_FILE = "claims.json"
_HEADER = ("claim", "source", "figure", "published", "ours", "verdict", "assumed; likely reason")


def claims_table(found: Sequence[Reproduction]) -> Table:
    """A row a finding, the claim's own words beside its first."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_lines=False)
    for name in _HEADER:
        table.add_column(name, overflow="fold", max_width=_WIDTHS.get(name), justify=_JUSTIFY.get(name, "left"))
    for reproduction in found:
        rows = list(_rows(reproduction))
        for place, row in enumerate(rows):
            table.add_row(*(Text(cell) for cell in row), end_section=place == len(rows) - 1)
    return table


_WIDTHS = {"claim": 34, "source": 28, "figure": 38, "assumed; likely reason": 70}
_JUSTIFY: dict[str, Any] = {"ours": "right"}


def claims_markdown(found: Sequence[Reproduction]) -> str:
    """The same as Markdown: a section a claim, a table of its figures, what was assumed, the likely reason."""
    lines: list[str] = []
    for reproduction in found:
        claim = reproduction.claim
        lines += [f"## {claim.name}: {reproduction.verdict or 'not judged'}", "", f"{claim.statement}.", ""]
        lines += [f"Source: {claim.source}. Scenario: `{claim.scenario}`.", ""]
        lines += ["| figure | published | ours | verdict |", "|---|---|---|---|"]
        lines += [
            f"| {finding.what} | {finding.published} | {finding.shown} | {finding.verdict} |"
            for finding in reproduction.findings
        ]
        lines += ["", f"Assumed: {'; '.join(claim.assumptions)}."]
        if _has_reason(reproduction):
            lines += ["", f"Likely reason: {claim.likely_reason}."]
        lines.append("")
    return "\n".join(lines)


def write_claims(out: Path, found: Sequence[Reproduction], *, overwrite: bool = False) -> None:
    """Write ``claims.json``: every claim with its findings, verdict, and what was measured of each variant.

    Raises ResultError where the folder is in the way.
    """
    with result_folder(out, overwrite) as folder:
        (folder / CLAIMS_FILE).write_bytes(json_bytes({"servsim_version": VERSION, "claims": [*map(_plain, found)]}))


def _rows(reproduction: Reproduction) -> Iterator[tuple[str, ...]]:
    claim = reproduction.claim
    notes = "; ".join(claim.assumptions)
    if _has_reason(reproduction):
        notes += f". Likely reason: {claim.likely_reason}"
    about = [f"{claim.name}: {claim.statement}", claim.source, notes]
    if reproduction.verdict is None:
        yield about[0], about[1], "a run failed", "", "", "not judged", notes
    for place, finding in enumerate(reproduction.findings):
        first, source, last = about if place == 0 else ("", "", "")
        yield first, source, finding.what, finding.published, finding.shown, finding.verdict.value, last


def _has_reason(reproduction: Reproduction) -> bool:
    return reproduction.verdict is not Verdict.COMES_OUT and reproduction.claim.likely_reason is not None


def _plain(reproduction: Reproduction) -> dict[str, Any]:
    claim = reproduction.claim
    return {
        "name": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "scenario": claim.scenario,
        "seeds": reproduction.seeds,
        "verdict": None if reproduction.verdict is None else reproduction.verdict.value,
        "findings": [
            {
                "figure": finding.what,
                "published": finding.published,
                "ours": _number(finding.ours),
                "shown": finding.shown,
                "verdict": finding.verdict.value,
            }
            for finding in reproduction.findings
        ],
        "assumptions": list(claim.assumptions),
        "likely_reason": claim.likely_reason,
        "measured": {
            label: {name: _number(value) for name, value in by_name.items()}
            for label, by_name in reproduction.measured.items()
        },
        "failures": [{"run": failure.title, "message": failure.message} for failure in reproduction.failures],
    }


def _number(value: float) -> float | None:
    """JSON knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None
