"""Keys of blocks, against the tokens that they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servsim.memory.content import block_keys, known_tokens
from servsim.request import Sequence


def sequence(prompt: int, hash_ids: tuple[int, ...], session: int = -1) -> Sequence:
    return Sequence(0, 0.0, prompt, 100, 0, 0, 0, hash_ids, session=session)


def contents(hash_ids: tuple[int, ...], unit: int, block_size: int, blocks: int) -> list[tuple[tuple[int, int], ...]]:
    """All tokens up to the end of each block, a token being its unit's id and its place in the unit."""
    tokens = [(hash_ids[token // unit], token % unit) for token in range(blocks * block_size)]
    return [tuple(tokens[: (block + 1) * block_size]) for block in range(blocks)]


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=2, max_size=6),
    st.sampled_from([(4, 4), (8, 4), (12, 4), (2, 4), (4, 12), (6, 4), (4, 6), (1, 3)]),
)
def test_keys_are_equal_where_all_tokens_up_to_the_end_of_the_block_are(
    ids: list[list[int]], sizes: tuple[int, int]
) -> None:
    unit, block_size = sizes
    seen: dict[object, int] = {}
    for one in ids:
        hash_ids = tuple(one)
        keys = block_keys(sequence(len(one) * unit, hash_ids), unit, block_size)
        assert len(keys) == len(one) * unit // block_size
        for key, content in zip(keys, contents(hash_ids, unit, block_size, len(keys)), strict=True):
            assert seen.setdefault(content, key) == key
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize(
    ("prompt", "ids", "session", "known"),
    [
        (1024, 2, -1, 1024),
        (1000, 2, -1, 512),  # the last id is of a unit that the prompt does not fill
        (1000, 2, 7, 1024),  # of a conversation: the answer fills it
        (1000, 3, -1, 1536),  # an id for the answer: so those before it tell the answer too
        (1000, 1, -1, 512),  # no id for a last unit
        (100, 1, -1, 0),
        (100, 0, -1, 0),
    ],
)
def test_only_whole_units_count(prompt: int, ids: int, session: int, known: int) -> None:
    assert known_tokens(sequence(prompt, tuple(range(ids)), session), 512) == known


def test_without_a_unit_nothing_is_known() -> None:
    assert block_keys(sequence(8, (1, 2)), None, 4) == []
