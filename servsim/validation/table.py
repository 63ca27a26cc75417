"""What came of the claims, for people and as a file."""

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
    from rich.console import Group, RenderableType
    from rich.table import Table

__all__ = ["CLAIMS_FILE", "claims_markdown", "claims_report", "write_claims"]

CLAIMS_FILE = "claims.json"


def claims_report(found: Sequence[Reproduction]) -> Group:
    """For each claim a heading with the verdict, a table of its figures, and its source and assumptions as text."""
    from rich.console import Group

    return Group(*(part for reproduction in found for part in _section(reproduction)))


def _section(reproduction: Reproduction) -> Iterator[RenderableType]:
    from rich.constrain import Constrain
    from rich.padding import Padding
    from rich.text import Text

    claim = reproduction.claim
    yield Text(f"{claim.name}: {reproduction.verdict or 'not judged, a run failed'}", style="bold")
    yield Constrain(Padding(Text(f"{claim.statement}."), (0, 0, 0, 1)), _PARAGRAPH)
    yield _figures(reproduction) if reproduction.findings else Text()
    paragraphs = [f"Source: {claim.source}.", f"Assumed: {'; '.join(claim.assumptions)}."]
    if _has_reason(reproduction):
        paragraphs.append(f"Likely reason: {claim.likely_reason}.")
    for paragraph in paragraphs:
        yield Constrain(Padding(Text(paragraph), (0, 0, 1, 1)), _PARAGRAPH)


def _figures(reproduction: Reproduction) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in _HEADER:
        table.add_column(name, overflow="fold", max_width=_WIDEST, no_wrap=name == "verdict")
    for finding in reproduction.findings:
        row = (finding.what, finding.published, finding.shown, finding.verdict.value)
        table.add_row(*(Text(cell) for cell in row))
    return table


_HEADER = ("figure", "published", "ours", "verdict")
_WIDEST = 60  # characters of a cell
_PARAGRAPH = 100  # characters of a line


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
