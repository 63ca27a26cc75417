"""A request, as a user asked for it, and a sequence: how far it has got in an engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Request", "Sequence"]


class Request(NamedTuple):
    """What a user asked for; never changes.

    A NamedTuple and not a frozen dataclass: one is made for every arrival, and this is three times
    cheaper (benchmarks/speed.py).
    """

    request_id: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int  # the truth: the engine and an oracle predictor read it, a policy never does
    max_tokens: int  # the declared bound on the output, at least output_tokens
    tenant: int = 0  # index into the workload's tenants
    slo_class: int = 0  # index into the workload's SLO classes
    priority: int = 0  # lower is more urgent, as in vLLM
    hash_ids: tuple[int, ...] = ()  # content in units of tokens, maybe of the output too; equal ids are equal content
    session: int = -1  # the conversation that it belongs to; -1: none
    further_outputs: tuple[int, ...] = ()  # how long its other outputs are, longest first; none exceeds output_tokens
    beam_width: int = 1  # beams of a beam search, all as long as output_tokens; 1: none is made

    @property
    def width(self) -> int:
        """Sequences that it takes: its outputs, or the beams that are searched."""
        return self.beam_width + len(self.further_outputs)  # a beam search has no further outputs

    @property
    def further_tokens(self) -> int:
        """Tokens of all its outputs but the longest; of all its beams but one."""
        return sum(self.further_outputs) + (self.beam_width - 1) * self.output_tokens


@dataclass(slots=True, eq=False)
class Sequence:
    """How far a request has got. Policies and allocators are handed these.

    One stands for a whole *sequence group* where a request has several outputs, or beams: they are prefilled once, and
    from then on each of ``width`` rows takes every step with the others, so that all are equally long.

    While a sequence decodes, its progress is not stored but follows from a step counter that all
    decoders share (:class:`servsim.scheduler.running.Running`): nothing in it changes from step to
    step. ``generated_tokens`` and ``kv_tokens`` hold its progress whenever it does *not* decode.
    """

    request_id: int
    arrival_s: float
    prompt_tokens: int
    max_tokens: int
    tenant: int
    slo_class: int
    priority: int
    hash_ids: tuple[int, ...]  # for allocators alone: beyond the prompt they tell how long the output will be
    predicted_tokens: float = 0.0  # what the predictor believes of the output's length
    generated_tokens: int = 0  # tokens emitted so far
    kv_tokens: int = 0  # tokens whose KV is resident
    preemptions: int = 0
    admission: int = -1  # running number of its latest admission; -1 while it waits
    decoding: bool = False
    decode_base: int = 0  # generated_tokens = step counter - decode_base while it decodes
    scheduled_s: float = float("nan")
    first_token_s: float = float("nan")
    cached_tokens: int = 0
    token_s: float = float("nan")  # when its latest prefill ended with a token
    paused_s: float = float("nan")  # its latest token before a pause, until it emits again
    swapped: bool = False  # out of the device, or back and about to emit
    transfer_wait_s: float = 0.0  # spent waiting for its KV to be copied back
    session: int = -1  # the conversation that it belongs to; -1: none
    width: int = 1  # live sequences of its group: outputs that have not ended, or beams
    held: Any = field(default=None, repr=False)  # the allocator's own note about it

    @property
    def total_tokens(self) -> int:
        """Tokens that a prefill has to cover: the prompt and what was emitted before a preemption."""
        return self.prompt_tokens + self.generated_tokens
