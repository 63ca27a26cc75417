"""The blocks of a sequence group: which of them its members share, and what is copied before it is written to."""

from __future__ import annotations

from dataclasses import dataclass

from servsim.errors import SimulationError
from servsim.request import Request, Sequence

__all__ = ["ForkTree", "held_blocks", "most_blocks", "next_blocks"]


@dataclass(slots=True, eq=False)
class _Segment:
    """Full blocks that one member wrote before it was forked, behind those of ``parent``."""

    parent: _Segment | None
    blocks: int
    references: int  # members and segments that go on from its end


class ForkTree:
    """The block tables of a group whose members are all equally long, as a tree.

    A member's table is a chain of closed segments, shared by reference, and an open tail of its own. When a member
    forks, the full blocks of its tail are closed; its last block, if partial, is common to both until the next token:
    then each but the last owner copies it (copy-on-write). Since all members are as long, the distinct blocks are those
    of the segments, and for every member those from where its tail starts, less the copies not made yet. Nothing in
    here changes while tokens come; lengths are handed in.

    Source: vLLM 0.4's block manager (``fork``, ``append_slots``, ``free``), which counts references by block.
    """

    __slots__ = ("_block_size", "_closed", "_forked_at", "_parents", "_pending", "_starts", "_twins", "saved_blocks")

    def __init__(self, block_size: int, width: int, kv_tokens: int) -> None:
        """``width`` members that have all of ``kv_tokens`` tokens in common."""
        full = kv_tokens // block_size
        prompt = _Segment(None, full, width)
        self._block_size = block_size
        self._closed = full  # blocks of all segments
        self._parents: list[_Segment | None] = [prompt] * width  # of every member's tail
        self._starts = [full] * width  # the first block of the tail
        self.saved_blocks = (width - 1) * full
        """Blocks that sharing saves once no copy is pending: it depends on no length."""
        self._forked_at = kv_tokens  # the length at which the latest fork took place; only there copies are pending
        self._twins = [0] * width  # members with one number had a partial block in common then
        self._pending = width - 1

    @property
    def width(self) -> int:
        """How many members there are."""
        return len(self._starts)

    def copies(self, kv_tokens: int) -> int:
        """Blocks that the next token of every member has copied first, since others own them too."""
        return self._pending if kv_tokens == self._forked_at and kv_tokens % self._block_size else 0

    def blocks(self, kv_tokens: int) -> int:
        """Distinct blocks where every member stores so many tokens."""
        each = -(-kv_tokens // self._block_size)
        return len(self._starts) * each - self.saved_blocks - self.copies(kv_tokens)

    def tokens(self, kv_tokens: int) -> int:
        """Tokens in them."""
        size = self._block_size
        unique = len(self._starts) * kv_tokens - self.saved_blocks * size
        return unique - self.copies(kv_tokens) * (kv_tokens % size)

    def drop(self, member: int) -> None:
        """A member ends; the others keep their numbers but for those behind it, which move up."""
        self._part(member)
        self._let_go(self._parents[member])
        self.saved_blocks -= self._starts[member]
        for column in (self._parents, self._starts, self._twins):
            del column[member]

    def replace(self, member: int, source: int, kv_tokens: int) -> None:
        """A member ends, and a fork of ``source`` takes its place and number."""
        if kv_tokens != self._forked_at:
            self._forked_at, self._pending = kv_tokens, 0
            self._twins = list(range(len(self._starts)))
        self._close(source, kv_tokens // self._block_size)
        segment, before = self._parents[source], self._parents[member]
        if segment is not None:
            segment.references += 1  # before the other is let go, which may be the same
        self._part(member)
        self._let_go(before)
        self.saved_blocks += self._starts[source] - self._starts[member]
        self._parents[member], self._starts[member] = segment, self._starts[source]
        self._twins[member] = self._twins[source]
        self._pending += 1

    def check_integrity(self) -> None:
        """Raise SimulationError unless references, blocks and copies are what a walk through the tree finds."""
        references: dict[_Segment, int] = {}
        for parent, start in zip(self._parents, self._starts, strict=True):
            segment = parent
            while segment is not None:
                references[segment] = references.get(segment, 0) + 1
                segment = segment.parent if references[segment] == 1 else None
            if start != _reach(parent):
                raise SimulationError(f"a tail starts at block {start}, its segments end at {_reach(parent)}")
        closed = sum(segment.blocks for segment in references)
        wrong = [segment for segment, count in references.items() if segment.references != count]
        if wrong or closed != self._closed or self.saved_blocks != sum(self._starts) - closed:
            raise SimulationError(f"{self._closed} closed blocks, {closed} found; {len(wrong)} wrong counts")
        if self._pending != len(self._twins) - len(set(self._twins)):
            raise SimulationError(f"{self._pending} copies pending, but the twins are {self._twins}")

    def _close(self, member: int, full: int) -> None:
        """The full blocks of a member's tail become a segment."""
        blocks = full - self._starts[member]
        if blocks:
            self._parents[member] = _Segment(self._parents[member], blocks, 1)
            self._starts[member] = full
            self._closed += blocks

    def _part(self, member: int) -> None:
        """A member that ends owns its partial block no more; if one other owns it, that one need not copy it."""
        self._pending -= self._twins.count(self._twins[member]) > 1

    def _let_go(self, segment: _Segment | None) -> None:
        while segment is not None:
            segment.references -= 1
            if segment.references:
                return
            self._closed -= segment.blocks
            self.saved_blocks += segment.blocks
            segment = segment.parent


def _reach(segment: _Segment | None) -> int:
    """The block after the last one of a segment."""
    blocks = 0
    while segment is not None:
        blocks += segment.blocks
        segment = segment.parent
    return blocks


def held_blocks(sequence: Sequence, kv_tokens: int, block_size: int) -> int:
    """Distinct blocks of a sequence, or of a group that stores so many tokens each, here or where it was swapped to."""
    if sequence.width > 1 and sequence.held is not None:
        tree: ForkTree = sequence.held
        return tree.blocks(kv_tokens)
    return -(-kv_tokens // block_size)


def next_blocks(sequence: Sequence, kv_tokens: int, block_size: int) -> int:
    """Blocks that the next token of a decoding sequence takes, or of a group; copies on write count."""
    if kv_tokens % block_size == 0:
        return sequence.width
    if sequence.width == 1:
        return 0
    tree: ForkTree = sequence.held
    return tree.copies(kv_tokens)


def most_blocks(request: Request, block_size: int) -> int:
    """The most blocks that a group ever takes; of beams, whose fate is chance, if they share but the prompt."""
    prompt_tokens = request.prompt_tokens
    common = prompt_tokens // block_size
    most = -(-prompt_tokens // block_size)
    longest = (request.output_tokens,) * request.beam_width
    lengths = longest if request.beam_width > 1 else (request.output_tokens, *request.further_outputs)
    for number, output_tokens in enumerate(lengths, 1):
        if output_tokens > 1:  # the first token comes with the prompt's prefill, and is stored a step later
            own = -(-(prompt_tokens + output_tokens - 1) // block_size) - common
            most = max(most, common + number * own)
    return most
