"""The classes of clients of a workload, as arrays over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servsim.scenario.session_spec import PrefixSpec, SessionSpec
from servsim.scenario.workload_spec import ClassSpec, SyntheticWorkload
from servsim.workload.blocks import Floats, Ints
from servsim.workload.lengths import LengthPairs, length_pairs

__all__ = ["Mixture", "drawn_lengths"]


@dataclass(frozen=True, slots=True)
class Mixture:
    """What requests of each class look like; one class where the workload names none."""

    reached: Floats  # cumulated shares, the last one 1
    lengths: tuple[LengthPairs, ...]
    tenant: NDArray[np.int32]
    slo_class: NDArray[np.int32]
    priority: NDArray[np.int32]
    max_tokens: Ints
    tenants: tuple[str, ...]
    slo_classes: tuple[str, ...]
    sessions: tuple[SessionSpec | None, ...]
    prefixes: tuple[tuple[str | None, PrefixSpec] | None, ...]  # with the class's name, None where they are for all

    @classmethod
    def of(cls, spec: SyntheticWorkload) -> Mixture:
        """The classes of a workload; raises ScenarioError or TraceError for a file of lengths that is wrong."""
        only = ClassSpec(name="default", share=1.0)
        classes = spec.classes or (only,)
        tenants = tuple(dict.fromkeys(one.tenant or one.name for one in classes))
        slo_classes = tuple(dict.fromkeys(one.slo_class or one.name for one in classes))
        shares = np.cumsum([one.share for one in classes])
        opened = []
        for one in classes:
            lengths = one.lengths if one.lengths is not None else spec.lengths
            assert lengths is not None  # the schema saw to it
            opened.append(length_pairs(lengths))
        return cls(
            reached=shares / shares[-1],
            lengths=tuple(opened),
            tenant=np.array([tenants.index(one.tenant or one.name) for one in classes], dtype=np.int32),
            slo_class=np.array([slo_classes.index(one.slo_class or one.name) for one in classes], dtype=np.int32),
            priority=np.array([one.priority for one in classes], dtype=np.int32),
            max_tokens=np.array([one.max_tokens or spec.max_tokens for one in classes], dtype=np.int64),
            tenants=tenants,
            slo_classes=slo_classes,
            sessions=tuple(one.sessions or spec.sessions for one in classes),
            prefixes=tuple(_prefixes(one, spec) for one in classes),
        )

    def members(self, w: Floats) -> Ints:
        """The classes that uniform numbers choose."""
        if len(self.lengths) == 1:
            return np.zeros(len(w), dtype=np.int64)
        return np.searchsorted(self.reached, w, side="right")


def drawn_lengths(choices: Sequence[LengthPairs], which: Ints, u: Floats, v: Floats) -> tuple[Ints, Ints]:
    """Prompt and output lengths of requests, of which the i-th draws from ``choices[which[i]]``."""
    if len(choices) == 1:
        return choices[0](u, v)
    prompt_tokens, output_tokens = np.empty(len(u), np.int64), np.empty(len(u), np.int64)
    for number, lengths in enumerate(choices):
        mine = which == number
        prompt_tokens[mine], output_tokens[mine] = lengths(u[mine], v[mine])
    return prompt_tokens, output_tokens


def _prefixes(one: ClassSpec, spec: SyntheticWorkload) -> tuple[str | None, PrefixSpec] | None:
    if one.prefixes is not None:
        return one.name, one.prefixes
    return None if spec.prefixes is None else (None, spec.prefixes)
