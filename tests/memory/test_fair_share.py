"""Processor sharing by a counter of attained service, by hand."""

import math

import pytest

from servsim.memory.fair_share import FairShare, Share


def test_two_members_have_half_each_and_leave_in_the_order_of_their_work() -> None:
    server: FairShare[Share] = FairShare()
    long, short = Share(0, 3.0), Share(1, 1.0)
    server.join(0.0, long)
    assert server.next_end_s() == 3.0
    server.join(1.0, short)
    assert server.next_end_s() == 3.0  # one second of work at a half
    assert server.end(2.999) == []
    assert server.end(3.0) == [short]
    assert server.attained_s(3.5, long) == 2.5
    assert server.next_end_s() == 4.0
    assert server.end(4.0) == [long]
    assert server.next_end_s() == math.inf


def test_equal_ends_come_in_the_order_of_numbers() -> None:
    server: FairShare[Share] = FairShare()
    members = [Share(number, 1.0) for number in (2, 0, 1)]
    for member in members:
        server.join(0.0, member)
    assert [member.number for member in server.end(3.0)] == [0, 1, 2]


def test_the_limit_lets_in_whoever_came_first() -> None:
    server: FairShare[Share] = FairShare(1)
    first, second, third = (Share(number, 1.0) for number in range(3))
    for member in (first, second, third):
        server.join(0.0, member)
    assert (server.active, server.waiting) == (1, 2)
    assert server.leave(0.25, second) == 0.0
    assert server.end(1.0) == [first]
    assert list(server.members()) == [third]
    assert server.end(2.0) == [third]


def test_who_leaves_makes_room_and_says_what_it_had() -> None:
    server: FairShare[Share] = FairShare(2)
    first, second, third = (Share(number, 2.0) for number in range(3))
    for member in (first, second, third):
        server.join(0.0, member)
    assert server.leave(2.0, first) == 1.0
    assert (server.active, server.waiting) == (2, 0)
    assert server.end(4.0) == [second]
    assert server.end(5.0) == [third]


def test_members_without_work_end_at_once_and_let_the_next_in() -> None:
    server: FairShare[Share] = FairShare(1)
    members = [Share(number, 0.0) for number in range(3)]
    for member in members:
        server.join(1.0, member)
    assert server.end(1.0) == members
    assert server.active == 0


def test_looking_between_does_not_move_an_end() -> None:
    quiet: FairShare[Share] = FairShare()
    watched: FairShare[Share] = FairShare()
    for number in range(7):
        for server in (quiet, watched):
            server.join(0.1 * number, Share(number, 1.0 / 3.0))
        for look in range(20):
            now_s = 0.1 * number + 0.1 * look / 20
            for member in watched.members():
                watched.attained_s(now_s, member)
            watched.end(now_s)
        quiet.end(0.1 * number)
    assert watched.next_end_s() == quiet.next_end_s()


def test_the_counter_starts_again_when_nobody_is_served() -> None:
    # At a billion seconds a counter that went on would have lost all digits below a tenth of a microsecond.
    server: FairShare[Share] = FairShare()
    server.join(0.0, Share(0, 1e9))
    server.end(1e9)
    member = Share(1, 1e-9)
    server.join(1e9, member)
    assert server.leave(1e9, member) == 0.0
    tiny = Share(2, 1e-9)
    server.join(0.0 + 1e9, tiny)
    assert server.attained_s(2e9, tiny) == pytest.approx(1e-9, rel=1e-12)
