"""A table that breaks no word: where it is too wide for a terminal, its columns are dealt to several tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

__all__ = ["WholeWords"]

_GAP = 3  # between two columns


@dataclass(frozen=True, slots=True)
class WholeWords:
    """Rows of text under a title; the first ``names`` columns say what a row is, and stand in each of the tables.

    Names lie to the left and all else to the right. In a narrow terminal heads are broken after blanks and dashes and
    the first column after blanks. Only where the names alone take more than half of it do words break.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._tables(options.max_width)

    def _tables(self, width: int) -> Iterator[Table]:
        every = range(len(self.header))
        if self._taken([self._width(column, self.header[column]) for column in every]) <= width:
            yield self._table(self.title, self.header, every, None)
            return
        header = [name.replace("-", "-\n").replace(" ", "\n") for name in self.header]
        widths = [self._width(column, header[column]) for column in every]
        shortest = max(len(word) for row in self.rows for word in row[0].split())
        first = max(shortest, len(header[0]), min(widths[0], width - self._taken(widths[1:]) - _GAP))
        names = [first, *widths[1 : self.names]]
        if 2 * self._taken(names) > width:
            yield self._table(self.title, header, every, None, breaking=True)
            return
        title, dealt = self.title, list(every[: self.names])
        for column in every[self.names :]:
            if self._taken([first, *(widths[one] for one in dealt[1:]), widths[column]]) > width:
                yield self._table(title, header, dealt, first)
                title, dealt = f"{self.title}, continued", list(every[: self.names])
            dealt.append(column)
        yield self._table(title, header, dealt, first)

    def _width(self, column: int, head: str) -> int:
        return max(len(text) for text in (*head.split("\n"), *(row[column] for row in self.rows)))

    def _taken(self, widths: Sequence[int]) -> int:
        """Characters of a line, the blanks at its ends included."""
        return sum(widths) + _GAP * (len(widths) - 1) + 2

    def _table(
        self, title: str, header: Sequence[str], columns: Sequence[int], first: int | None, *, breaking: bool = False
    ) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
        for column in columns:
            side, fixed = "left" if column < self.names else "right", first if column == 0 else None
            whole = fixed is None and not breaking
            table.add_column(Text(header[column]), overflow="fold", justify=side, width=fixed, no_wrap=whole)
        for row in self.rows:
            table.add_row(*(Text(row[column]) for column in columns))
        return table
