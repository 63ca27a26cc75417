"""What happens inside a sequence group while it decodes: outputs end, beams are replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from servsim.engine.parts import Parts
from servsim.request import Request, Sequence
from servsim.workload.beams import Reorderings

__all__ = ["Forking", "Groups"]


class Forking(Protocol):
    """What a group asks of an allocator whose ``forks`` is true, besides what all are asked.

    Both are called between ``leave`` and ``join``, with ``sequence.kv_tokens`` up to date.
    """

    def fits_group(self, request: Request) -> bool:
        """Whether a lone group could ever be held to its end."""
        ...

    def end_outputs(self, sequence: Sequence, outputs: int) -> None:
        """So many outputs of a group end, but not all."""
        ...

    def replace_beam(self, sequence: Sequence, beam: int, source: int) -> None:
        """A beam of a group is dropped for a fork of another."""
        ...


class Groups:
    """Groups that decode, and what happens next to each, counted in the tokens of each of its members.

    Outputs end one by one, the shortest first; beams are replaced by forks of others now and then. Either leaves the
    group decoding, and with its last output it ends as any sequence does. A beam search emits its first token when its
    prompt is prefilled, as vLLM counts, although nobody can read it before the end.
    """

    def __init__(self, parts: Parts) -> None:
        self._running = parts.running
        self._memory = cast(Forking, parts.memory)
        self._draws: Callable[[Request], Reorderings] | None = parts.reorderings
        self._beams: dict[Sequence, Reorderings] = {}
        self.requests: dict[Sequence, Request] = {}
        """What groups that have begun to decode are to come to."""

    def next_tokens(self, sequence: Sequence, request: Request) -> int:
        """Tokens of each member at which something happens to a group next."""
        self.requests[sequence] = request
        if request.beam_width == 1:
            return (request.output_tokens, *request.further_outputs)[sequence.width - 1]
        beams = self._beams.get(sequence)
        if beams is None:
            if self._draws is None:
                return request.output_tokens
            beams = self._beams[sequence] = self._draws(request)
        return min(beams.at_tokens, request.output_tokens)

    def happen(self, sequence: Sequence) -> None:
        """What was to happen to a group that does not decode just now."""
        request = self.requests[sequence]
        if request.beam_width > 1:
            self._memory.replace_beam(sequence, *self._beams[sequence].take())
            return
        tokens = sequence.generated_tokens
        left = sum(output > tokens for output in (request.output_tokens, *request.further_outputs))
        self._memory.end_outputs(sequence, sequence.width - left)
        self._running.narrow(sequence, left)
        if left == 1:
            self.end(sequence)

    def end(self, sequence: Sequence) -> None:
        """A group has ended, or is none any more."""
        del self.requests[sequence]
        self._beams.pop(sequence, None)
