"""LightLLM's router: admission by the peak of future memory use, conservative or aggressive."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servsim.request import Sequence
from servsim.scheduler.admissions import Admission
from servsim.scheduler.engines.batch_state import BatchState
from servsim.scheduler.engines.lightllm_batching import LightLlmBatching
from servsim.scheduler.engines.lightllm_parameters import AdmissionParameters, LightLlmParameters
from servsim.scheduler.engines.peak import expected_growth, pack, peak_tokens
from servsim.scheduler.plan import Plan
from servsim.scheduler.policy import UNBOUNDED, Surroundings

__all__ = ["LightLlm", "LightLlmAdmission"]

Tokens = NDArray[np.int64]
_TRIES = 16  # of looking further ahead for the end of a refusal, each a peak over the batch


class LightLlmAdmission(Admission):
    """Admits if the peak of future tokens, each output at its assumed length, stays strictly below the capacity.

    Of each request, running or asking, ``a = P + g + 1`` tokens are held and ``b = max(0, w + cap - g - 1) + 6`` are
    to come; ``w`` is 0, and with chunked prefill ``ceil(lacking / chunk) x (router_max_wait_tokens + 1)``, so that
    a decoder has 7 more. ``cap`` is the declared maximum M when busy, else ``min(M, max(int(1.1 g),
    router_max_new_token_len))``; busy is ``used / capacity >= router_token_ratio``: always in the conservative mode. A
    lone request is let in whatever the estimate says.

    ``a`` counts shared prefixes once for each, as LightLLM's does, so that with much sharing the peak is
    over-estimated; what a prefix cache holds for nobody counts as free.

    Source: LightLLM (fc72ffab), router queue.
    """

    Parameters = AdmissionParameters

    def __init__(self, surroundings: Surroundings) -> None:
        own = surroundings.parameters
        settings = own if isinstance(own, AdmissionParameters) else AdmissionParameters()
        self.running = surroundings.running
        self.memory = surroundings.memory
        self.capacity_tokens = self.memory.total_blocks * self.memory.block_size
        self._busy_share = settings.busy_share
        self._assumed_tokens = settings.router_max_new_token_len
        budget = getattr(settings, "batch_max_tokens", None) or surroundings.max_num_batched_tokens
        self._chunk = settings.chunk_tokens(budget)
        self._wait_steps = settings.router_max_wait_tokens
        self._batch = BatchState(surroundings.running)
        self._busy = True
        self._stages: list[Tokens] = []  # packed (a, b) of the running and the first 0, 1, ... admitted of this pass
        self._refused: tuple[int, Tokens] | None = None  # at which step, and the packed request

    def admits(self, sequence: Sequence, admitted: int) -> bool:
        """Whether the peak stays below the capacity with those that this pass has admitted."""
        if not admitted:
            self._busy = self.memory.stored_tokens >= self._busy_share * self.capacity_tokens
            self._stages = [self._running()]
            self._refused = None
        del self._stages[admitted + 1 :]
        one = self._packed(
            np.array([sequence.total_tokens]),
            np.array([sequence.generated_tokens]),
            np.array([sequence.max_tokens]),
            np.array([sequence.total_tokens - self.memory.cached_tokens(sequence)]),
        )
        together = np.concatenate([self._stages[admitted], one])
        if len(together) > 1 and peak_tokens(together) >= self.capacity_tokens:
            self._refused = (self.running.step, one)
            return False
        self._stages.append(together)
        return True

    def began(self, plan: Plan) -> None:
        """Keep the batch."""
        self._batch.began(plan)
        self._refused = None

    def finished(self, sequence: Sequence, output_tokens: int) -> None:
        """The sequence leaves the batch."""
        self._batch.finished(sequence)
        self._refused = None

    def stable_steps(self) -> int:
        """For how many steps the latest refusal surely holds.

        While nobody ends, a decode step lets the peak with the head fall by one token at most (the running hold one
        more each and have one less to come, the head is as it was; assumed lengths only grow). So the step is
        looked for at which it could be below the capacity, by jumps of what it is too high.
        """
        if self._refused is None or self._refused[0] != self.running.step:
            return UNBOUNDED
        one, running = self._refused[1], self._stages[0]
        held, growth = running & ((1 << 32) - 1), running >> 32
        steps = 0
        for _ in range(_TRIES):
            aged = pack(held + steps, np.maximum(0, growth - steps))
            above = int(peak_tokens(np.concatenate([aged, one]))) - self.capacity_tokens
            if above < 0:
                break
            steps += above + 1
        return max(1, steps)

    def _running(self) -> Tokens:
        prompt, bound, generated = self._batch.state()
        lacking = self._batch.lacking(self.memory.loading) if self._chunk else np.ones_like(prompt)
        return self._packed(prompt + generated, generated, bound, lacking)

    def _packed(self, tokens: Tokens, generated: Tokens, bound: Tokens, lacking: Tokens) -> Tokens:
        """(a, b) of requests with so many tokens in prompt and output."""
        cap = bound
        if not self._busy:
            assumed = np.maximum((1.1 * generated).astype(np.int64), self._assumed_tokens)
            cap = np.minimum(bound, assumed)
        chunk_steps = -(-lacking // self._chunk) * (self._wait_steps + 1) if self._chunk else 0
        return pack(tokens + 1, expected_growth(generated, cap, chunk_steps))


class LightLlm(LightLlmBatching):
    """LightLLM's router, conservative or aggressive: first come first served, if the peak of future tokens fits.

    :class:`LightLlmAdmission` on :class:`LightLlmBatching`. The conservative mode assumes that every output takes
    its declared maximum, and never has to pause; the aggressive one assumes less until memory is used to the ratio.
    The ratio 1 that the aggressive mode has by default is ours.
    """

    Parameters = LightLlmParameters

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings, admission=LightLlmAdmission(surroundings))
