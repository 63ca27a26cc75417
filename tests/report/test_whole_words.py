"""A table that is too wide for a terminal is several, and no word is broken."""

from __future__ import annotations

from collections import Counter

import pytest
from rich.console import Console

from servsim.report.whole_words import WholeWords

PEERS = [f"somebody's-simulator-{number}" for number in range(8)]
OFF = [f"+{100 + number}.1 %" for number in range(8)]
HEADER = ["run", "role", "metric", "measured", *PEERS]
ROWS = [
    [f"20260217-15545{run}/0 a-model TP1 5/s", "test", metric, f"{1e4 + run}", *OFF]
    for run in range(3)
    for metric in ("ttft_mean", "tpot_mean")
]


def printed(width: int) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(WholeWords("everything", HEADER, ROWS, names=3))
    return capture.get()


@pytest.mark.parametrize("width", [90, 120, 160, 400])
def test_no_word_is_broken_and_every_cell_is_there(width: int) -> None:
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    for row in ROWS:
        for cell in row:
            assert set(cell.split()) <= set(words)


def test_a_table_that_fits_is_one_and_a_wider_one_repeats_what_its_rows_are() -> None:
    one, several = printed(400), printed(120)
    assert "continued" not in one and "somebody's-simulator-7" in one
    tables = several.count("everything")
    assert tables == 1 + several.count("everything, continued") > 1
    assert several.count("ttft_mean") == 3 * tables
    assert several.count("+107.1 %") == len(ROWS)  # a figure stands in one of them


def test_a_terminal_too_narrow_for_the_names_breaks_words_and_drops_nothing() -> None:
    console = Console(width=44)
    with console.capture() as capture:
        console.print(WholeWords("", HEADER[:5], [row[:5] for row in ROWS], names=3))
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 44
    expected = Counter("".join(cell for row in (HEADER, *ROWS) for cell in row[:5]))
    assert Counter(text) - Counter(" \n─" * 10_000) == expected - Counter(" " * 10_000)


def test_a_table_without_rows_has_its_heads() -> None:
    console = Console(width=60)
    with console.capture() as capture:
        console.print(WholeWords("nothing", ["asked of", "figure", ""], [], names=2))
    assert "asked of   figure" in capture.get()
