"""A table that breaks no word: where it is too wide for a terminal, its columns are dealt to several tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

__all__ = ["WholeWords"]

_GAP = 3  # between two columns


@dataclass(frozen=True, slots=True)
class WholeWords:
    """Rows of text under a title; the first ``names`` columns say what a row is, and stand in each of the tables.

    Names lie to the left and all else to the right. In a narrow terminal heads and, from the first on as far as it
    takes, names are broken after blanks and dashes. Words break only where not even one figure fits beside the names.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._tables(options.max_width)

    def _tables(self, width: int) -> Iterator[Table]:
        every = range(len(self.header))
        whole = [max(map(len, self._cells(column))) for column in every]
        if _taken(whole) <= width:
            yield self._table(self.title, every, whole)
            return
        heads = map(_longest_piece, self.header)
        widths = [max([head, *(len(row[column]) for row in self.rows)]) for column, head in enumerate(heads)]
        for column in every[: self.names]:
            least = max(map(_longest_piece, self._cells(column)))
            widths[column] = max(least, widths[column] - max(0, _taken(widths) - width))
        names = list(every[: self.names])
        if _taken([*widths[: self.names], max(widths[self.names :])]) > width:
            yield self._table(self.title, every, None)
            return
        title, dealt = self.title, names
        for column in every[self.names :]:
            if _taken([widths[one] for one in (*dealt, column)]) > width:
                yield self._table(title, dealt, widths)
                title, dealt = f"{self.title}, continued", names
            dealt = [*dealt, column]
        yield self._table(title, dealt, widths)

    def _cells(self, column: int) -> list[str]:
        return [self.header[column], *(row[column] for row in self.rows)]

    def _table(self, title: str, columns: Sequence[int], widths: Sequence[int] | None) -> Table:
        """These columns as wide as said; without widths as wide as they come out."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
        width = {column: None if widths is None else widths[column] for column in columns}
        for column in columns:
            side: JustifyMethod = "left" if column < self.names else "right"
            head = _folded(self.header[column], width[column])
            table.add_column(head, overflow="fold", justify=side, width=width[column])
        for row in self.rows:
            table.add_row(*(_folded(row[column], width[column]) for column in columns))
        return table


def _taken(widths: Sequence[int]) -> int:
    """Characters of a line, the blanks at its ends included."""
    return sum(widths) + _GAP * (len(widths) - 1) + 2


def _longest_piece(text: str) -> int:
    return max(map(len, wrap(text, 1, break_long_words=False)), default=0)


def _folded(text: str, width: int | None) -> Text:
    return Text(text if width is None else "\n".join(wrap(text, max(1, width), break_long_words=False)))
