"""Past-Future: admit a request only if the sampled peak of future memory use stays within capacity."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from servsim.request import Sequence
from servsim.scheduler.admissions import Admission
from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.engines.batch_state import BatchState
from servsim.scheduler.engines.peak import SLACK_TOKENS, LengthHistory, expected_growth, pack, peak_tokens
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import UNBOUNDED, Surroundings
from servsim.scheduler.progress import newcomers

__all__ = ["PastFuture", "PastFutureAdmission", "PastFutureParameters", "scenario_count"]

Tokens = NDArray[np.int64]


def scenario_count(batch: int) -> int:
    """How many scenarios are sampled for a running batch of this size: ``min(5, int(200 / batch) + 1)``."""
    return min(5, int(200 / batch) + 1) if batch else 5


class PastFutureParameters(BaseModel):
    """What a scenario may say about Past-Future."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal["original", "later"] = Field(
        "original", description="which of LightLLM's two: March 2024 (original), or that of its chunked queue (later)"
    )
    reserve: float | None = Field(
        None, ge=0, lt=1, description="share of the capacity that the peak must leave free; by default 0.05, later 0"
    )
    window: int = Field(200, ge=2, le=100_000, description="finished outputs that are remembered")
    default_output_tokens: int = Field(
        1024,
        ge=1,
        le=1 << 30,
        description="length that half of the window is filled with at the start (later: router_max_new_token_len)",
    )
    router_max_wait_tokens: int = Field(
        6, ge=1, description="decode steps after which a refused head is drawn again (LightLLM's name)"
    )
    chunked_prefill_size: int = Field(
        4096, ge=1, description="tokens of a prefill chunk, for the later version's estimate of pending chunks"
    )

    @property
    def limit_share(self) -> float:
        """The share of the capacity that the peak must stay below."""
        reserve = self.reserve
        if reserve is None:
            reserve = 0.05 if self.version == "original" else 0.0
        return 1 - reserve


class PastFutureAdmission(Admission):
    """Admits if the sampled peak of future memory use stays within capacity.

    The final length of every running request is drawn from a history of finished outputs, given what it
    has emitted so far, in K scenarios; the head of the line is admitted if in each the peak of future
    tokens stays below ``capacity * (1 - reserve)``. Capacity is usable blocks x block size. A running
    request counts ``a = P + g`` tokens held and ``b = max(0, cap - g - 1)`` to come, ``cap = min(max_tokens,
    max(g, drawn total))``; a waiting one draws its total from the whole history. A request is let in whatever
    the draws say when nothing else runs.

    The original draws in every admission pass. Here a refused head is drawn again when something ended, was
    admitted or preempted, and every ``router_max_wait_tokens`` decode steps besides, so that a stretch of equal steps
    can be taken at once. A head whose declared maximum fits with those of all running ones is admitted
    without sampling (no draw could refuse it), one that overflows with the tokens held already is refused so.

    The ``later`` version counts ``a = P + g + 1`` and ``b = max(0, 7 ceil(lacking / chunk) + cap - g - 1) + 6``
    (7: ``router_max_wait_tokens + 1``), always ends the grid of a running request with its bound, and has no
    reserve unless one is given: its class keeps the constant and does not use it.

    Source: LightLLM, router "future_past" (commit f50e8413), and its later class for the chunked queue (a stored
    file, whose base class was not to be had); Gong et al., ASPLOS 2025.
    """

    Parameters = PastFutureParameters

    def __init__(self, surroundings: Surroundings, parameters: PastFutureParameters | None = None) -> None:
        own = surroundings.parameters
        settings = parameters or (own if isinstance(own, PastFutureParameters) else PastFutureParameters())
        self._later = settings.version == "later"
        self._chunk = settings.chunked_prefill_size
        self.running = surroundings.running
        self.history = LengthHistory(settings.window, settings.default_output_tokens)
        self._memory = memory = surroundings.memory
        self._limit = memory.total_blocks * memory.block_size * settings.limit_share
        self._wait_steps = settings.router_max_wait_tokens
        self._stream = surroundings.stream("past_future")
        self._uniform = np.empty(0)
        self._batch = BatchState(surroundings.running)
        self._declared_tokens = 0  # P + max_tokens over all running
        self._verdicts: dict[Sequence, bool] = {}  # of the pass under way
        self._refused_step: int | None = None
        self._pass: Tokens | None = None  # packed (a, b) of running and admitted ones, [scenarios, requests]

    def admits(self, sequence: Sequence, admitted: int) -> bool:
        """Whether the peak stays within the limit in every scenario of this pass; a lone request is always let in."""
        if self._refused_step is not None and self.running.step - self._refused_step >= self._wait_steps:
            self._forget()
        verdict = self._verdicts.get(sequence)
        if verdict is None:
            alone = not admitted and not self.running.sequences
            verdict = alone or self._judge(sequence)
            self._verdicts[sequence] = verdict
            if not verdict:
                self._refused_step = self.running.step
        return verdict

    def began(self, plan: Plan) -> None:
        """Admitted and preempted sequences change the batch, and end the pass."""
        came, went = newcomers(plan), (*plan.preempted, *plan.swapped_out)
        self._batch.began(plan)
        self._declared_tokens += sum(map(self._declared, came)) - sum(map(self._declared, went))
        if came or went:
            self._forget()

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """The output's length enters the history, the sequence leaves the batch."""
        self.history.append(output_tokens)
        self._batch.finished(sequence)
        self._declared_tokens -= self._declared(sequence)
        self._forget()

    def stable_steps(self) -> int:
        """A refusal holds until the next draw."""
        if self._refused_step is None:
            return UNBOUNDED
        return max(1, self._wait_steps - (self.running.step - self._refused_step))

    def _judge(self, sequence: Sequence) -> bool:
        running = self.running
        pending = [other for other, verdict in self._verdicts.items() if verdict]
        declared = self._declared(sequence) + sum(map(self._declared, pending))
        if self._declared_tokens + declared < self._limit:
            return True
        held = sequence.total_tokens + sum(other.total_tokens for other in pending)
        # A decoder's KV lacks its newest token; a running prefill counts its whole prompt, as the original does.
        held += running.context_tokens + running.decoders
        held += sum(other.total_tokens for other in (*running.prefilling, *self._memory.loading))
        if held >= self._limit:
            return False
        if self._pass is None:
            self._pass = self._draw_running()
            for other in pending:
                self._pass = self._with_waiting(other)
        candidate = self._with_waiting(sequence)
        if peak_tokens(candidate).max() >= self._limit:
            return False
        self._pass = candidate
        return True

    def _draw_running(self) -> Tokens:
        """Packed (a, b) of the running ones in each scenario of a new pass."""
        prompt, bound, generated = self._batch.state()
        scenarios = scenario_count(len(prompt))
        uniform = self._draws(scenarios * len(prompt)).reshape(scenarios, -1)
        total = self.history.draw_running(generated, bound, uniform, always_bounded=self._later)
        cap = np.minimum(bound, np.maximum(generated, total))
        lacking = self._batch.lacking(self._memory.loading) if self._later else 1
        return self._packed(prompt + generated, generated, cap, lacking)

    def _with_waiting(self, sequence: Sequence) -> Tokens:
        """The pass with one more request, its total drawn once a scenario."""
        assert self._pass is not None
        generated = sequence.generated_tokens
        total = self.history.draw_waiting(self._draws(len(self._pass)))
        cap = np.minimum(sequence.max_tokens, np.maximum(generated, total))
        held = np.full(len(cap), sequence.total_tokens, dtype=np.int64)
        column = self._packed(held, generated, cap, sequence.total_tokens - self._memory.cached_tokens(sequence))
        return np.concatenate([self._pass, column[:, None]], axis=1)

    def _draws(self, count: int) -> NDArray[np.float64]:
        """The next uniform numbers of this policy's own stream."""
        if len(self._uniform) < count:
            self._uniform = np.concatenate([self._uniform, self._stream.random(max(count, 8192))])
        drawn, self._uniform = self._uniform[:count], self._uniform[count:]
        return drawn

    def _forget(self) -> None:
        self._verdicts.clear()
        self._refused_step = None
        self._pass = None

    def _declared(self, sequence: Sequence) -> int:
        """At least the tokens that it can be estimated to hold in the end."""
        declared = sequence.prompt_tokens + sequence.max_tokens
        if self._later:
            declared += SLACK_TOKENS - (-declared // self._chunk) * (self._wait_steps + 1)
        return declared

    def _packed(self, held: Tokens, generated: Tokens | int, cap: Tokens, lacking: Tokens | int) -> Tokens:
        """(a, b) of requests that hold so many tokens and are assumed to end at ``cap``."""
        if not self._later:
            return pack(held, np.maximum(0, cap - generated - 1))
        chunk_steps = -(-lacking // self._chunk) * (self._wait_steps + 1)
        return pack(held + 1, expected_growth(np.asarray(generated), cap, chunk_steps))


class PastFuture(VllmV1Batching):
    """Past-Future admission (LightLLM; Gong et al., ASPLOS 2025) on vLLM v1's batching, first come first served.

    What is imitated is the admission, :class:`PastFutureAdmission`; LightLLM's own batches (whole prompts,
    decoders stalled meanwhile) are replaced by chunked prefill, so that policies are compared on one engine.
    """

    Parameters = PastFutureParameters

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings, admission=PastFutureAdmission(surroundings, surroundings.parameters))
