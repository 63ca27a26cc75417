"""Who met a service-level objective, and the share that did: by bound, by class, by tenant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["BOUNDS", "Bounds", "Judgement", "Slo", "attainment", "bounds_by_class", "judge"]

BOUNDS = ("ttft_s", "tpot_s", "e2e_s")


class Bounds(Protocol):
    """Upper bounds in seconds, each of which may be absent: :class:`servsim.scenario.SloBounds`."""

    @property
    def ttft_s(self) -> float | None:
        """Bound on the time to the first token."""

    @property
    def tpot_s(self) -> float | None:
        """Bound on the time per output token after the first."""

    @property
    def e2e_s(self) -> float | None:
        """Bound on the time from arrival to the last token."""


Slo = Bounds | Mapping[str, Bounds] | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of every request's bounds; arrays have a row a request.

    ``judged``: it was given a bound; ``met``: it was judged, finished, and met every bound it was
    given. ``by_bound`` has the same pair for each bound that somebody was given.
    """

    judged: NDArray[np.bool_]
    met: NDArray[np.bool_]
    by_bound: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]


def bounds_by_class(slo: Slo, classes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """The bounds in seconds that each class was given; a class without one has an empty mapping."""
    found: dict[str, dict[str, float]] = {}
    for name in classes:
        bounds = slo.get(name) if isinstance(slo, Mapping) else slo
        given = {bound: getattr(bounds, bound, None) for bound in BOUNDS}
        found[name] = {bound: float(limit_s) for bound, limit_s in given.items() if limit_s is not None}
    return found


def judge(
    slo: Slo,
    *,
    classes: tuple[str, ...],
    slo_class: NDArray[Any],
    finished: NDArray[np.bool_],
    latencies_s: Mapping[str, NDArray[np.float64]],
) -> Judgement:
    """Hold every request's latencies against the bounds of its class (``slo_class`` indexes ``classes``).

    A bound is met at equality. A request that did not finish missed every bound it was given; one with
    a single output token has no TPOT and meets that bound vacuously.
    """
    given = bounds_by_class(slo, classes)
    judged = np.zeros(len(finished), dtype=bool)
    met = finished.copy()
    by_bound: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    for bound in BOUNDS:
        limits_s = np.array([given[name].get(bound, np.inf) for name in classes])
        if not np.isfinite(limits_s).any():
            continue
        limit_s = limits_s[slo_class]
        bound_judged = np.isfinite(limit_s)
        bound_met = finished & ~(latencies_s[bound] > limit_s)
        judged |= bound_judged
        met &= bound_met
        by_bound[bound] = (bound_judged, bound_judged & bound_met)
    return Judgement(judged=judged, met=met & judged, by_bound=by_bound)


def attainment(
    judgement: Judgement,
    select: NDArray[np.bool_],
    *,
    groups: Mapping[str, tuple[tuple[str, ...], NDArray[Any]]],
) -> dict[str, Any] | None:
    """Shares of the selected requests that met their SLO; None where no request was given a bound.

    ``groups`` maps ``"class"`` or ``"tenant"`` to its names and to every request's index into them.
    Attainment is met / judged, and every submitted request that was given a bound is judged, so a
    rejected one counts as missed; it is None where nobody was judged. Requests of a class without bounds
    are counted as ``not_judged``.
    """
    if not judgement.by_bound:
        return None
    judged, met = judgement.judged & select, judgement.met & select
    found: dict[str, Any] = _share(int(judged.sum()), int(met.sum()))
    found["not_judged"] = int(select.sum()) - found["judged"]
    found["by_bound"] = {
        bound: _share(int((select & bound_judged).sum()), int((select & bound_met).sum()))
        for bound, (bound_judged, bound_met) in judgement.by_bound.items()
    }
    for group, (names, codes) in groups.items():
        submitted = np.bincount(codes[select], minlength=len(names))
        judged_by_name = np.bincount(codes[judged], minlength=len(names))
        met_by_name = np.bincount(codes[met], minlength=len(names))
        found[f"by_{group}"] = {
            name: {"submitted": int(submitted[code]), **_share(int(judged_by_name[code]), int(met_by_name[code]))}
            for code, name in enumerate(names)
        }
    return found


def _share(judged: int, met: int) -> dict[str, Any]:
    return {"attainment": met / judged if judged else None, "judged": judged, "met": met}
