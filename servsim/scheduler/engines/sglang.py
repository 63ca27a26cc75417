"""SGLang's scheduler: admission by a new-token ratio that decays, retraction when it was too bold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydantic import Field, field_validator

from servsim.documents import refusal
from servsim.errors import suggestion
from servsim.memory.radix_protocol import PrefixTree
from servsim.request import Sequence
from servsim.scheduler.admissions import Admission
from servsim.scheduler.engines.batch_state import BatchState
from servsim.scheduler.engines.sglang_batching import RetractionParameters, SglangBatching
from servsim.scheduler.engines.sglang_cache_orders import DfsWeightOrder, LongestPrefixOrder, ShortestPrefillOrder
from servsim.scheduler.engines.sglang_orders import LongestOutputOrder, RandomOrder, RejoinOrder
from servsim.scheduler.lengths.hrrn import ResponseRatioOrder
from servsim.scheduler.orders import Order
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import UNBOUNDED, Surroundings

__all__ = ["NewTokenRatioParameters", "Sglang", "SglangAdmission", "SglangParameters"]

_ORDERS: dict[str, Callable[[Surroundings], Order]] = {
    "dfs-weight": DfsWeightOrder,
    "fcfs": RejoinOrder,
    "hrrn": lambda surroundings: ResponseRatioOrder(),
    "lof": LongestOutputOrder,
    "lpm": LongestPrefixOrder,
    "random": RandomOrder,
    "shortest-prefill-first": ShortestPrefillOrder,
}


class NewTokenRatioParameters(RetractionParameters):
    """Of the admission rule ``sglang``."""

    schedule_conservativeness: float = Field(
        1.0, gt=0, le=100, description="multiplies the ratio that the instance starts with (SGLang's name)"
    )
    init_new_token_ratio: float = Field(
        0.7, gt=0, le=1, description="share of the declared output to come that is kept free, at the start"
    )
    min_new_token_ratio_factor: float = Field(
        0.14, gt=0, le=1, description="where the ratio's decay ends, as a share of its start"
    )
    new_token_ratio_decay_steps: int = Field(
        600, ge=1, description="decode steps in which the ratio falls from its start to its end"
    )
    clip_max_new_tokens: int = Field(4096, ge=1, description="at most so many tokens to come count of a request")

    @property
    def first_ratio(self) -> float:
        """The ratio of an instance that was idle; at most 1."""
        return min(1.0, self.init_new_token_ratio * self.schedule_conservativeness)


class SglangParameters(NewTokenRatioParameters):
    """Of the preset ``sglang``."""

    schedule_policy: str = Field(
        "fcfs",
        description="order of the waiting: fcfs, lof, random, shortest-prefill-first, hrrn, and with the allocator "
        "radix lpm or dfs-weight (SGLang's name)",
    )

    @field_validator("schedule_policy")
    @classmethod
    def _known(cls, name: str) -> str:
        if name in _ORDERS:
            return name
        raise refusal(f"unknown schedule_policy '{name}'", remedy=suggestion(name, list(_ORDERS)))


class SglangAdmission(Admission):
    """Admits who needs less, in prompt and output, than is free beside what the running may need (SGLang).

    ``uncached + min(M - g, 4096) < free - sum over the running of min(M - g, 4096) x ratio``, with those admitted in
    the same pass counted as the candidate, in whole pages and without the ratio. The ratio starts at 0.7 x
    conservativeness and falls linearly, within 600 decode steps, to 14 % of that. A retraction sets it to ``min(1,
    (sum of g + 20 n) / (sum of M + 1))`` over the n survivors, from where it falls as fast. A refusal stands until
    somebody ends or is retracted (``batch_is_full``). A lone request is let in whatever it declares.

    Where the allocator keeps prefixes, what it could evict is free, what it would find is not needed, and what is found
    is free no more once it is locked: SGLang tests again after that, and it is this second, stricter test that is made.

    Source: SGLang, ``PrefillAdder``; defaults are weakly sourced. Not modelled: the page more that newer versions ask
    for each candidate; the decode step by which SGLang notices a finish late.
    """

    Parameters = NewTokenRatioParameters

    def __init__(self, surroundings: Surroundings) -> None:
        own = surroundings.parameters
        self._settings = own if isinstance(own, NewTokenRatioParameters) else NewTokenRatioParameters()
        self.running = surroundings.running
        self.memory = surroundings.memory
        self._cache = self.memory if isinstance(self.memory, PrefixTree) else None
        self._batch = BatchState(surroundings.running)
        self._least_ratio = self._settings.first_ratio * self._settings.min_new_token_ratio_factor
        self._decay = (self._settings.first_ratio - self._least_ratio) / self._settings.new_token_ratio_decay_steps
        self._full = False
        self._ended_full = False  # the pass under way ended for lack of tokens
        self._free_tokens = 0.0  # of the pass under way, what the running ones may need taken off
        self._taken: list[int] = []  # of it by those admitted ...
        self._admitted: list[Sequence] = []  # ... who are these
        self.reset()

    @property
    def ratio(self) -> float:
        """The new-token ratio now."""
        steps = max(0, self.running.step - self._since_step)
        return max(self._ratio - steps * self._decay, self._least_ratio)

    @property
    def refuses_all(self) -> bool:
        """Whether nobody is let in beside others until somebody ends or is retracted (``batch_is_full``)."""
        return self._full

    def reset(self) -> None:
        """The instance is idle, and the ratio starts again."""
        self._ratio = self._settings.first_ratio
        self._since_step = self.running.step

    def admits(self, sequence: Sequence, admitted: int) -> bool:
        """Whether its prompt and its output, clipped, are below what is left."""
        alone = not admitted and not self.running.sequences
        if not admitted:
            self._ended_full = False
            if self._full and not alone:
                return False
            self._free_tokens = self._left_by_running()
        del self._taken[admitted:], self._admitted[admitted:]
        lacking_tokens = sequence.total_tokens - self.memory.cached_tokens(sequence)
        output_tokens = self._to_come(sequence)
        free_tokens = self._free_tokens - sum(self._taken)
        if self._cache is not None:
            free_tokens -= self._cache.claimed_tokens([*self._admitted, sequence])
        if lacking_tokens + output_tokens >= free_tokens and not alone:
            self._ended_full = True
            self._full = not admitted
            return False
        self._taken.append(self._paged(lacking_tokens) + output_tokens)
        self._admitted.append(sequence)
        return True

    def began(self, plan: Plan) -> None:
        """Keep the batch, and after a retraction set the ratio by the survivors."""
        self._batch.began(plan)
        if plan.preempted or plan.swapped_out:
            self._full = False
            _, bound, generated = self._batch.state()
            expected = int(generated.sum()) + self._settings.retract_decode_steps * len(generated)
            self._ratio = min(1.0, expected / (int(bound.sum()) + 1))
            self._since_step = self.running.step + plan.decode  # the ratio does not fall in this step
        elif plan.admitted and self._ended_full:
            self._full = True
        self._ended_full = False

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """There is room again."""
        self._batch.finished(sequence)
        self._full = self._ended_full = False

    def _left_by_running(self) -> float:
        """Free tokens less those that the running ones may still need."""
        memory = self.memory
        free = (memory.total_blocks - memory.used_blocks) * memory.block_size
        _, bound, generated = self._batch.state()
        expected = int(np.minimum(bound - generated, self._settings.clip_max_new_tokens).sum())
        needed = 0
        # The one in chunks counts like those admitted in this pass, and so do those whose KV is on its way.
        for sequence in (*self.running.prefilling, *memory.loading):
            expected -= self._to_come(sequence)
            needed += self._paged(sequence.total_tokens - sequence.kv_tokens) + self._to_come(sequence)
        return free - expected * self.ratio - needed

    def _to_come(self, sequence: Sequence) -> int:
        return min(max(sequence.max_tokens - sequence.generated_tokens, 0), self._settings.clip_max_new_tokens)

    def _paged(self, tokens: int) -> int:
        return -(-tokens // self.memory.block_size) * self.memory.block_size


class Sglang(SglangBatching):
    """SGLang's scheduler: a new-token ratio that decays with decode steps admits, and retraction mends it.

    :class:`SglangAdmission` on :class:`SglangBatching`, in the order ``schedule_policy``. A block is a page. The
    orders lpm and dfs-weight need the allocator ``radix``, which is SGLang's.
    """

    Parameters = SglangParameters

    def __init__(self, surroundings: Surroundings) -> None:
        own = surroundings.parameters
        settings = own if isinstance(own, SglangParameters) else SglangParameters()
        self._rule = SglangAdmission(surroundings)
        super().__init__(surroundings, _ORDERS[settings.schedule_policy](surroundings), self._rule)

    def stable_steps(self) -> int:
        """A refusal for lack of tokens, or of a place, holds whoever is the head."""
        running = self.running
        if running.sequences and (self._rule.refuses_all or len(running.sequences) >= self.max_num_seqs):
            return UNBOUNDED
        return super().stable_steps()

    def add(self, sequence: Sequence) -> None:
        """A sequence arrives; an idle instance starts with the first ratio again."""
        if not self.running.sequences and not len(self.queue):
            self._rule.reset()
        super().add(sequence)
