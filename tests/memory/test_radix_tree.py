"""The prefix tree by hand, and against a list of everything that it should hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from servsim.memory.radix_tree import Content, Node, RadixTree


def content(*ids: int, page: int = 1, unit: int = 1) -> Content:
    return Content(ids, len(ids) * unit // page)


def keep(tree: RadixTree, kept: Content) -> None:
    """Insert all of it, and let it go."""
    node, _ = tree.insert(tree.root, kept, kept.pages, 0)
    tree.unlock(node)


def runs(tree: RadixTree) -> list[tuple[int, ...] | None]:
    return sorted((node.ids for node in tree.walk()), key=lambda ids: ids or ())


def test_t17_insertion_splits_at_the_overlap_and_eviction_takes_the_oldest_leaf() -> None:
    tree = RadixTree(1, 1)
    keep(tree, content(1, 2, 3))
    keep(tree, content(1, 2, 4, 5))
    assert runs(tree) == [(1, 2), (3,), (4, 5)]
    tree.evict(1)
    assert runs(tree) == [(1, 2), (4, 5)] and tree.evicted_pages == 1


def test_t17_a_locked_path_cannot_be_evicted() -> None:
    tree = RadixTree(1, 1)
    keep(tree, content(1, 2, 3))
    keep(tree, content(1, 2, 4, 5))
    tree.evict(1)
    node = tree.acquire(content(1, 2, 4, 5), 4, 0)
    assert (tree.protected_pages, tree.evictable_pages) == (4, 0)
    tree.evict(2)
    assert tree.protected_pages == 4 and tree.evicted_pages == 1
    tree.unlock(node)
    tree.evict(2)
    assert runs(tree) == [(1, 2)]


def test_whole_leaves_are_evicted_even_if_less_was_asked_for() -> None:
    tree = RadixTree(1, 1)
    keep(tree, content(*range(10)))
    tree.evict(1)
    assert tree.evicted_pages == 10 and tree.nodes == 0


def test_a_match_ends_inside_a_run_without_splitting_it() -> None:
    tree = RadixTree(1, 1)
    keep(tree, content(1, 2, 3, 4))
    found = tree.match(content(1, 2, 9), 3)
    assert found.pages == 2 and tree.nodes == 1
    node = tree.acquire(content(1, 2, 9), 2, 0)
    assert runs(tree) == [(1, 2), (3, 4)]
    assert (tree.protected_pages, tree.evictable_pages) == (2, 2)
    tree.unlock(node)


def test_a_split_copies_the_locks() -> None:
    tree = RadixTree(1, 1)
    first, _ = tree.insert(tree.root, content(1, 2, 3), 3, 0)
    second, there = tree.insert(tree.root, content(1, 2, 4), 3, 0)
    assert there == 2
    assert sorted((node.ids, node.locks) for node in tree.walk()) == [((1, 2), 2), ((3,), 1), ((4,), 1)]
    tree.unlock(first)
    tree.unlock(second)
    assert tree.protected_pages == 0 and tree.evictable_pages == 4


def test_matches_are_rounded_down_to_pages() -> None:
    tree = RadixTree(4, 1)
    keep(tree, content(*range(12), page=4))
    assert tree.match(content(*range(7), 99, 98, page=4), 2).pages == 1
    assert tree.match(content(0, 1, 2, 99, page=4), 1).pages == 0


def test_a_unit_may_be_larger_than_a_page_or_no_multiple_of_it() -> None:
    tree = RadixTree(48, 512)
    keep(tree, content(1, 2, page=48, unit=512))
    assert tree.match(content(1, 2, page=48, unit=512), 100).pages == 1024 // 48
    assert tree.match(content(1, 3, page=48, unit=512), 100).pages == 512 // 48
    keep(tree, content(1, 3, page=48, unit=512))
    assert tree.nodes == 3
    assert tree.match(content(1, 3, page=48, unit=512), 100).pages == 1024 // 48


def test_own_content_is_found_by_its_owner_alone() -> None:
    tree = RadixTree(1, 1)
    mine = content(1, 2)
    node, _ = tree.insert(tree.root, mine, 5, 0)
    tree.unlock(node)
    assert tree.match(mine, 9).pages == 5
    assert tree.match(content(1, 2), 9).pages == 2


@pytest.mark.parametrize(
    ("policy", "goes_first"),
    [("lru", 2), ("mru", 1), ("fifo", 1), ("filo", 3), ("lfu", 2), ("priority", 3)],
)
def test_leaves_go_in_the_order_of_the_policy(policy: str, goes_first: int) -> None:
    tree = RadixTree(1, 1, policy)
    for one, priority in ((1, 1), (2, 0), (3, 5)):
        node, _ = tree.insert(tree.root, content(one), 1, priority)
        tree.unlock(node)
    tree.unlock(tree.acquire(content(3), 1, 5))
    tree.unlock(tree.acquire(content(1), 1, 1))
    tree.evict(1)
    assert tree.match(content(goes_first), 1).pages == 0 and tree.evicted_pages == 1


def test_locking_again_and_again_does_not_let_the_heap_grow() -> None:
    tree = RadixTree(1, 1)
    keep(tree, content(1))
    for _ in range(1000):
        tree.unlock(tree.acquire(content(1), 1, 0))
    assert len(tree._heap) < 100


def test_a_split_leaf_leaves_nothing_behind_that_could_be_evicted_twice() -> None:
    tree = RadixTree(1, 1)
    keep(tree, content(1, 2, 3))
    tree.unlock(tree.acquire(content(1), 1, 0))
    tree.evict(100)
    assert tree.evicted_pages == 3 and tree.nodes == 0 == tree.evictable_pages


class Listed:
    """Every kept prefix is written down as a whole; a leaf is what no longer prefix has, and is cut where they fork."""

    def __init__(self) -> None:
        self.kept: set[tuple[int, ...]] = set()

    def insert(self, ids: tuple[int, ...]) -> None:
        self.kept |= {ids[:end] for end in range(1, len(ids) + 1)}

    def match(self, ids: tuple[int, ...]) -> int:
        return max((end for end in range(1, len(ids) + 1) if ids[:end] in self.kept), default=0)


IDS = st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), IDS),
        st.tuples(st.just("drop"), st.integers(0, 9)),
        st.tuples(st.just("evict"), st.integers(1, 6)),
    ),
    max_size=30,
)


@examples(150)
@given(STEPS, st.sampled_from(["lru", "lfu", "fifo", "mru", "filo", "priority"]))
def test_the_tree_holds_what_a_list_of_prefixes_holds(steps: list[tuple[str, Any]], policy: str) -> None:
    tree, listed = RadixTree(1, 1, policy), Listed()
    held: list[tuple[tuple[int, ...], Node]] = []
    for what, value in steps:
        if what == "hold":
            assert tree.match(content(*value), len(value)).pages == listed.match(value)
            found = tree.match(content(*value), len(value)).pages
            node = tree.acquire(content(*value), found, 0)
            end, there = tree.insert(node, content(*value), len(value), 0)
            assert there == 0 and end.end == len(value)
            listed.insert(value)
            held.append((value, end))
        elif what == "drop" and held:
            tree.unlock(held.pop(value % len(held))[1])
        elif what == "evict":
            before = tree.evictable_pages
            tree.evict(value)
            gone = before - tree.evictable_pages
            assert gone >= min(value, before)
            listed.kept = {ids for ids in listed.kept if tree.match(content(*ids), len(ids)).pages == len(ids)}
        pinned = {ids[:end] for ids, _ in held for end in range(1, len(ids) + 1)}
        assert pinned <= listed.kept
        assert tree.protected_pages == len(pinned)
        assert tree.protected_pages + tree.evictable_pages == len(listed.kept)
        assert sum(node.pages for node in tree.walk()) == len(listed.kept)


@examples(100)
@given(st.lists(IDS, min_size=1, max_size=8), st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_asking_for_pages_one_by_one_evicts_the_same_leaves_as_asking_at_once(
    kept: list[tuple[int, ...]], wanted: list[int]
) -> None:
    by_steps, at_once = RadixTree(1, 1), RadixTree(1, 1)
    for ids in kept:
        keep(by_steps, content(*ids))
        keep(at_once, content(*ids))
    free = 0
    for pages in wanted:  # as an allocator does: evict what lacks, then take
        before = by_steps.evicted_pages
        by_steps.evict(pages - free)
        free += by_steps.evicted_pages - before - pages
        if free < 0:
            return
    at_once.evict(sum(wanted))
    assert runs(by_steps) == runs(at_once)
