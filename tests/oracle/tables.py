"""Block tables with reference counts, as vLLM v0 keeps them: block by block, and written to be read."""

from __future__ import annotations


class Tables:
    """The members of one group, equally long, each with its list of block numbers."""

    def __init__(self, block_size: int, width: int, tokens: int) -> None:
        self.block_size, self.tokens = block_size, tokens
        self.made = 0
        self.filled: dict[int, int] = {}  # tokens in each block that somebody has
        prompt = [self._new(min(block_size, tokens - start)) for start in range(0, tokens, block_size)]
        self.tables = [list(prompt) for _ in range(width)]

    @property
    def blocks(self) -> int:
        return len(self._owners())

    @property
    def stored(self) -> int:
        return sum(self.filled[block] for block in self._owners())

    @property
    def lacking(self) -> int:
        """Blocks that the next token of each takes, copies among them."""
        if self.tokens % self.block_size == 0:
            return len(self.tables)
        owners = self._owners()
        return sum(owners[block] - 1 for block in {table[-1] for table in self.tables})

    def append(self) -> int:
        """One more token for each; blocks that were copied on write."""
        copied = 0
        for table in self.tables:
            if self.tokens % self.block_size == 0:
                table.append(self._new(0))
            elif self._owners()[table[-1]] > 1:
                table[-1] = self._new(self.filled[table[-1]])
                copied += 1
            self.filled[table[-1]] += 1
        self.tokens += 1
        return copied

    def drop(self, member: int) -> None:
        del self.tables[member]

    def replace(self, member: int, source: int) -> None:
        self.tables[member] = list(self.tables[source])

    def _new(self, filled: int) -> int:
        self.made += 1
        self.filled[self.made] = filled
        return self.made

    def _owners(self) -> dict[int, int]:
        owners: dict[int, int] = {}
        for table in self.tables:
            for block in table:
                owners[block] = owners.get(block, 0) + 1
        return owners
