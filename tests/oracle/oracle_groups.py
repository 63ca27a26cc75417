"""A plain vLLM v0 with sequence groups: every member has its block table, every step its own clock.

Shares no code with servsim's engine, scheduler and memory; what becomes of beams it draws from the same stream.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from tables import Tables

from servsim.request import Request


@dataclass(eq=False)
class Group:
    """All that happens to one request."""

    request: Request
    reorderings: Any = None
    tables: Tables | None = None  # from the end of its prefill on
    emitted: int = 0
    first_token_s: float = math.nan
    finish_s: float = math.nan
    preemptions: int = 0
    rejected: bool = False

    @property
    def age(self) -> tuple[float, int]:
        return (self.request.arrival_s, self.request.request_id)

    @property
    def outputs(self) -> list[int]:
        return [self.request.output_tokens, *self.request.further_outputs]

    @property
    def width(self) -> int:
        if self.request.beam_width > 1:
            return self.request.beam_width
        return sum(output > self.emitted for output in self.outputs)

    @property
    def total(self) -> int:
        return self.request.prompt_tokens + self.emitted


@dataclass
class Engine:
    cost: Any
    total_blocks: int
    block_size: int
    max_num_seqs: int
    budget: int
    watermark: float
    copy_s: float  # of a block, one way
    swap: bool  # whether single sequences are swapped, too
    draws: Any
    now_s: float = 0.0
    waiting: list[Group] = field(default_factory=list)
    running: list[Group] = field(default_factory=list)
    swapped: list[Group] = field(default_factory=list)
    steps: list[tuple[float, int, int]] = field(default_factory=list)  # end, decoders, blocks as of then
    copied: int = 0

    def run(self, requests: list[Request]) -> list[Group]:
        groups = [Group(request, self.draws(request)) for request in requests]
        coming = list(groups)
        while coming or self.waiting or self.running or self.swapped:
            if not (self.waiting or self.running or self.swapped):
                self.now_s = max(self.now_s, coming[0].request.arrival_s)
            while coming and coming[0].request.arrival_s <= self.now_s:
                self.arrive(coming.pop(0))
            if self.waiting or self.running or self.swapped:
                self.step()
        return groups

    def blocks(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    @property
    def watermark_blocks(self) -> int:
        return int(self.watermark * self.total_blocks)

    @property
    def used(self) -> int:
        return sum(group.tables.blocks for group in self.running if group.tables is not None)

    @property
    def seats(self) -> int:
        return sum(group.width for group in self.running)

    def arrive(self, group: Group) -> None:
        prompt = self.blocks(group.request.prompt_tokens)
        if self.most(group) > self.total_blocks or self.total_blocks - prompt < self.watermark_blocks:
            group.rejected = True
        else:
            self.waiting.append(group)

    def most(self, group: Group) -> int:
        """Its blocks at their most, if it ran alone and no beam was ever replaced."""
        request = group.request
        tables = Tables(self.block_size, request.width, request.prompt_tokens)
        most = tables.blocks
        for emitted in range(1, request.output_tokens):
            if request.beam_width == 1:
                while len(tables.tables) > sum(output > emitted for output in group.outputs):
                    tables.drop(0)
            tables.append()
            most = max(most, tables.blocks)
        return most

    def step(self) -> None:
        batch = [] if self.swapped else self.admitted()
        if batch:
            chunks = [(group.total, 0) for group in batch]
            self.now_s += self.cost.step_s(chunks, len(batch), 0, 0)
            for group in batch:
                width = group.width
                group.tables = Tables(self.block_size, 1, group.total)
                group.tables.tables = [list(group.tables.tables[0]) for _ in range(width)]
            self.steps.append((self.now_s, 0, self.used))
            self.emit(batch)
        elif self.running or self.swapped:
            self.decode()

    def admitted(self) -> list[Group]:
        batch: list[Group] = []
        free, seats, tokens = self.total_blocks - self.used, self.max_num_seqs - self.seats, self.budget
        while self.waiting:
            group = self.waiting[0]
            needed, alone = self.blocks(group.total), not batch and not self.running
            short = free - needed < (0 if alone else self.watermark_blocks)
            if short or group.width > seats or (batch and group.total > tokens):
                break
            self.waiting.pop(0)
            batch.append(group)
            free, seats, tokens = free - needed, seats - group.width, tokens - group.total
        self.running += batch
        return batch

    def decode(self) -> None:
        todo = sorted(self.running, key=lambda group: group.age)
        alone = len(todo) == 1
        batch: list[Group] = []
        victims: list[Group] = []
        reads = decoders = 0
        copies = 0
        while todo:
            group = todo.pop(0)
            assert group.tables is not None
            while not self.may_grow(group, alone):
                victim = todo.pop() if todo else group
                self.running.remove(victim)
                victims.append(victim)
                if victim is group:
                    break
            else:
                reads, decoders = reads + group.width * group.tables.tokens, decoders + group.width
                self.copied += group.tables.append()
                batch.append(group)
        for victim in victims:
            copies += self.preempt(victim)
        while not victims and self.swapped:
            group = min(self.swapped, key=lambda one: one.age)
            assert group.tables is not None
            short = self.total_blocks - self.used - group.tables.blocks - group.width < self.watermark_blocks
            if (short and self.running) or group.width > self.max_num_seqs - self.seats:
                break
            self.swapped.remove(group)
            self.running.append(group)
            copies += group.tables.blocks
            reads, decoders = reads + group.width * group.tables.tokens, decoders + group.width
            self.copied += group.tables.append()
            batch.append(group)
        if not batch and not copies:
            return
        self.now_s += copies * self.copy_s
        if batch:
            if copies:
                self.now_s += self.cost.step_s([], 0, decoders, reads)
            else:
                self.now_s += self.cost.decode_stride(self.now_s, decoders, reads).first_s
        self.steps.append((self.now_s, decoders, self.used))
        self.emit(batch)

    def may_grow(self, group: Group, alone: bool) -> bool:
        assert group.tables is not None
        free = self.total_blocks - self.used
        return (alone or free >= group.width) and free >= group.tables.lacking

    def preempt(self, group: Group) -> int:
        """Blocks that have to be copied out."""
        group.preemptions += 1
        assert group.tables is not None
        if group.width > 1 or self.swap:
            self.swapped.append(group)
            return group.tables.blocks
        group.tables = None
        self.waiting.insert(0, group)
        return 0

    def emit(self, batch: list[Group]) -> None:
        """Each has one token more; outputs end, and beams fork."""
        for group in batch:
            before = group.width
            group.emitted += 1
            if math.isnan(group.first_token_s):
                group.first_token_s = self.now_s
            assert group.tables is not None
            if group.emitted == group.request.output_tokens:
                group.finish_s = self.now_s
                self.running.remove(group)
            elif group.request.beam_width > 1:
                if group.emitted == group.reorderings.at_tokens:
                    group.tables.replace(*group.reorderings.take())
            else:
                for _ in range(before - group.width):
                    group.tables.drop(0)
