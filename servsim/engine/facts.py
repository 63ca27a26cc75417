"""What an instance writes down: one row for a request that ended, one for a stride, one for a pause."""

from __future__ import annotations

from servsim.cost.stride import Stride
from servsim.memory.allocator import Allocator
from servsim.records.recorder import FINISHED, REJECTED, UNFINISHED, Recorder
from servsim.request import Request, Sequence

__all__ = ["Facts"]

_NAN = float("nan")
_PREEMPTED, _LEFT_OUT, _SWAPPED = 0, 1, 2


class Facts:
    """Rows in the order of :mod:`servsim.records.recorder`'s columns."""

    def __init__(self, recorder: Recorder) -> None:
        self._requests = recorder.requests.append
        self._strides = recorder.strides.append
        self._pauses = recorder.pauses.append
        self._further_tokens = recorder.further_tokens

    def group(self, request: Request) -> None:
        """A request with several outputs, or beams, has arrived."""
        self._further_tokens[request.request_id] = request.further_tokens

    def finished(self, sequence: Sequence, output_tokens: int, instance: int, now_s: float) -> None:
        """A request has its last token."""
        self._request(sequence, output_tokens, instance, now_s, FINISHED)

    def unfinished(self, sequence: Sequence, output_tokens: int, instance: int) -> None:
        """The simulation ended before the request did."""
        self._request(sequence, output_tokens, instance, _NAN, UNFINISHED)

    def rejected(self, request: Request, instance: int) -> None:
        """A request that can never be held was turned away on arrival."""
        row = (request.request_id, request.arrival_s, request.prompt_tokens, request.output_tokens, 0, request.tenant)
        self._requests((*row, request.slo_class, instance, _NAN, _NAN, _NAN, 0.0, 0, REJECTED))

    def stride(
        self,
        instance: int,
        stride: Stride,
        steps: int,
        prefill_tokens: int,
        decoders: int,
        waiting: int,
        memory: Allocator,
    ) -> None:
        """A stride, or a step with prefill, has ended; states are as of its end, before what ends there is freed."""
        self._strides(
            (
                instance,
                stride.start_s,
                stride.end_s(steps),
                steps,
                stride.first_s,
                stride.step_s(steps),
                prefill_tokens,
                decoders,
                waiting,
                memory.used_blocks,
                memory.total_blocks,
                memory.stored_tokens,
                memory.reserved_tokens,
                memory.external_fragmentation,
            )
        )

    def paused(self, sequence: Sequence, now_s: float) -> None:
        """A sequence that had stopped emitting at ``paused_s`` has emitted again."""
        if sequence.swapped:
            reason = _SWAPPED
            sequence.swapped = False
        else:
            reason = _LEFT_OUT if sequence.decoding else _PREEMPTED
        self._pauses((sequence.request_id, sequence.paused_s, now_s, reason))
        sequence.paused_s = _NAN

    def _request(self, sequence: Sequence, output_tokens: int, instance: int, finish_s: float, status: int) -> None:
        self._requests(
            (
                sequence.request_id,
                sequence.arrival_s,
                sequence.prompt_tokens,
                output_tokens,
                sequence.cached_tokens,
                sequence.tenant,
                sequence.slo_class,
                instance,
                sequence.scheduled_s,
                sequence.first_token_s,
                finish_s,
                sequence.transfer_wait_s,
                sequence.preemptions,
                status,
            )
        )
