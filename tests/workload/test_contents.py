from __future__ import annotations

import numpy as np
import pytest

from servsim.workload.contents import Content, Contents


def contents() -> Contents:
    columns = ([0, 7, 0], [2, 0, 2], [10, 20, 30], [4, 3, 2])
    return Contents(*(np.array(column, dtype=np.int64) for column in columns))


def test_content_is_the_prefix_and_then_what_is_one_s_own() -> None:
    assert Content(prefix_id=5, prefix_units=2, own_id=40).ids(5) == (5, 6, 40, 41, 42)
    assert Content(prefix_id=5, prefix_units=2, own_id=40).ids(2) == (5, 6)


def test_ids_are_the_same_by_row_by_slice_and_one_after_the_other() -> None:
    expected = [(0, 1, 10, 11), (20, 21, 22), (0, 1)]
    assert list(contents()) == expected
    assert [contents()[row] for row in range(3)] == expected
    assert contents()[1:] == expected[1:]
    assert contents()[-1] == expected[-1]
    assert len(contents()) == 3


def test_a_row_beyond_the_last_is_an_error() -> None:
    with pytest.raises(IndexError):
        contents()[3]


def test_ids_are_plain_integers() -> None:
    assert all(type(one) is int for ids in contents() for one in ids)
