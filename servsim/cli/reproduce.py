"""``servsim reproduce``: published claims, tried in simulation."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from servsim.cli import options
from servsim.cli.endings import ended, leave
from servsim.cli.output import note, show
from servsim.cli.progress import counted

__all__ = ["reproduce"]

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        help="Claims, for example past-future (servsim list claims names them); all by default.",
        show_default=False,
    ),
]


@ended
def reproduce(
    names: Names = None,
    jobs: options.Jobs = None,
    seeds: options.Seeds = 1,
    out: options.OptionalOut = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Try published claims: each one's figures beside ours, a verdict, and what was assumed.

    A claim comes out, in part, or not; the ranges are fixed beforehand (docs/claims.md). Nothing is written
    without --out.
    """
    from servsim.report.folder import check_free
    from servsim.validation import claims_report, find_claims, write_claims
    from servsim.validation import reproduce as try_claims

    claims = find_claims(names or ())
    if out is not None:
        check_free(out, overwrite)
    began_s = time.perf_counter()
    runs = seeds * sum(claim.repeats * len(claim.variants) for claim in claims)
    with counted("runs", runs) as tick:
        found = try_claims(claims, seeds, jobs, tick)
    tried = f"{len(found)} of {len(claims)} claims"
    note(f"{tried} in {time.perf_counter() - began_s:.1f} s")
    partial = f"partial: {tried}" if len(found) < len(claims) else None
    show(*([claims_report(found)] if found else []), *([partial] if partial else []))
    if out is not None and found:
        write_claims(out, found, overwrite=overwrite)
        note(f"results in {out}{f', {partial}' if partial else ''}")
    failures = [failure for one in found for failure in one.failures]
    kept = "the claims of which every run had ended were kept" if found else _NOTHING
    leave(failures, kept if partial else None)


_NOTHING = "of no claim had every run ended, and nothing was written"
