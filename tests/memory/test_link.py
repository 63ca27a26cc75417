"""Transfers that share a link: closed forms, a fluid simulation that works otherwise, and the order of ends."""

from __future__ import annotations

import math

import pytest
import simpy
from fluid import Start, fluid
from hypothesis import assume, example, given
from hypothesis import strategies as st

from servsim.clock import ARRIVAL, schedule_at
from servsim.errors import SimulationError
from servsim.hardware import Direction, Route
from servsim.memory.link import Link, Transfer

GB = 1e9
PLAIN = Route(in_bytes_per_s=10 * GB, out_bytes_per_s=10 * GB)


def ran(route: Route, starts: list[Start]) -> tuple[list[Transfer], Link]:
    """The transfers once the last has ended; each started, and perhaps cancelled, at its time."""
    env = simpy.Environment()
    link = Link(env, route)
    transfers: list[Transfer] = []

    def begin(start: Start) -> None:
        transfers.append(link.start(start.size_bytes, start.operations, start.direction, lambda _: None))
        if start.cancel_s < math.inf:
            at(env, start.cancel_s, transfers[-1].cancel)

    for start in sorted(starts, key=lambda start: start.at_s):
        at(env, start.at_s, lambda start=start: begin(start))
    env.run()
    return transfers, link


def at(env: simpy.Environment, time_s: float, call: object) -> None:
    event = simpy.Event(env)
    assert event.callbacks is not None
    event.callbacks.append(lambda _: call())  # type: ignore[operator]
    schedule_at(env, event, time_s, ARRIVAL)


def ends_s(route: Route, *starts: Start) -> list[float]:
    return [transfer.finished_s for transfer in ran(route, list(starts))[0]]


def test_alone_a_transfer_has_all_the_bandwidth() -> None:
    assert ends_s(PLAIN, Start(3.0, 20 * GB, 0, "in")) == [5.0]


def test_two_equal_transfers_at_once_take_twice_as_long_each() -> None:
    assert ends_s(PLAIN, Start(0, 10 * GB, 0, "in"), Start(0, 10 * GB, 0, "in")) == [2.0, 2.0]


def test_a_staggered_pair_shares_only_while_both_move() -> None:
    # Alone for 1 s (10 GB), then shared: the first has 10 GB left at 5 GB/s, the second then 10 GB alone.
    assert ends_s(PLAIN, Start(0, 20 * GB, 0, "in"), Start(1, 20 * GB, 0, "in")) == [3.0, 4.0]


def test_n_transfers_of_sizes_1_to_n_end_by_the_processor_sharing_formula() -> None:
    # The k-th smallest of n ends at sum over j <= k of (n - j + 1)(s_j - s_(j-1)): here k n - k (k - 1) / 2.
    n = 12
    found = ends_s(PLAIN, *(Start(0, 10 * GB * k, 0, "out") for k in range(1, n + 1)))
    assert found == [k * n - k * (k - 1) / 2 for k in range(1, n + 1)]


def test_full_duplex_directions_do_not_share() -> None:
    assert ends_s(PLAIN, Start(0, 10 * GB, 0, "in"), Start(0, 10 * GB, 0, "out")) == [1.0, 1.0]


def test_half_duplex_directions_share_the_link_s_time() -> None:
    half = Route(10 * GB, 5 * GB, half_duplex=True)
    pair, link = ran(half, [Start(0, 10 * GB, 0, "in"), Start(0, 10 * GB, 0, "out")])
    # 1 s and 2 s of the link: shared until 2 s, then the second goes on alone.
    assert [transfer.finished_s for transfer in pair] == [2.0, 3.0]
    use = link.use()
    assert (use.in_busy_s, use.out_busy_s) == (1.0, 2.0)


def test_latency_and_launches_come_first_and_take_no_bandwidth() -> None:
    route = Route(10 * GB, 10 * GB, latency_s=0.5, launch_s=0.25)
    assert ends_s(route, Start(0, 10 * GB, 2, "in")) == [2.0]
    # The second launches for 2 s while the first moves alone.
    assert ends_s(route, Start(0, 10 * GB, 2, "in"), Start(0, 10 * GB, 6, "in")) == [2.0, 3.0]


def test_beyond_the_queue_depth_transfers_wait_first_come_first_served() -> None:
    one = Route(10 * GB, 10 * GB, queue_depth=1)
    found = ends_s(one, Start(0, 20 * GB, 0, "in"), Start(0, 10 * GB, 0, "in"), Start(0.5, 5 * GB, 0, "in"))
    assert found == [2.0, 3.0, 3.5]
    two = Route(10 * GB, 10 * GB, queue_depth=2)
    assert ends_s(two, *(Start(0, 10 * GB, 0, "in") for _ in range(3))) == [2.0, 2.0, 3.0]


def test_the_line_is_in_the_order_in_which_launches_end() -> None:
    route = Route(10 * GB, 10 * GB, launch_s=0.25, queue_depth=1)
    found = ends_s(route, Start(0, 20 * GB, 0, "in"), Start(0, 10 * GB, 4, "in"), Start(0, 10 * GB, 1, "in"))
    assert found == [2.0, 4.0, 3.0]


def test_small_operations_take_a_drive_s_time_for_them() -> None:
    drive = Route(6 * GB, 6 * GB, in_operations_per_s=1e6)
    assert ends_s(drive, Start(0, 4096e6, 1_000_000, "in")) == [1.0]
    assert ends_s(drive, Start(0, 6 * GB, 1_000, "in")) == [1.0]
    assert ends_s(drive, Start(0, 4096e6, 1_000_000, "in"), Start(0, 6 * GB, 1_000, "in")) == [2.0, 2.0]


def test_a_swap_of_2000_tokens_takes_21_ms_and_101_ms_block_by_block() -> None:
    size_bytes = 2000 * 128 * 1024
    env = simpy.Environment()
    for operations, launch_s, expected_s in ((0, 0.0, 0.02097152), (8_000, 5e-6, 0.10097152)):
        link = Link(env, Route(25 * GB, 25 * GB, launch_s=launch_s))
        ended: list[Transfer] = []
        began_s = env.now
        link.start(
            size_bytes,
            operations,
            "out",
            lambda _, link=link, n=operations, ended=ended: link.start(size_bytes, n, "in", ended.append),
        )
        env.run()
        assert ended[0].finished_s - began_s == pytest.approx(expected_s, rel=1e-12)
        assert link.route.round_trip_s(size_bytes, operations) == pytest.approx(expected_s, rel=1e-12)
        assert link.idle_time_s(size_bytes, operations, "in") == pytest.approx(expected_s / 2, rel=1e-12)


def test_a_cancelled_transfer_gives_its_share_back_and_is_never_done() -> None:
    (first, second), link = ran(PLAIN, [Start(0, 20 * GB, 0, "in"), Start(0, 20 * GB, 0, "in", cancel_s=2)])
    assert first.finished_s == 3.0
    assert second.cancelled and not second.under_way
    assert math.isnan(second.finished_s)
    assert second.moved_bytes == 10 * GB
    assert (link.use().in_bytes, link.use().in_busy_s, link.use().in_transfers) == (30 * GB, 3.0, 1)


def test_a_cancelled_transfer_in_line_or_in_its_launch_moves_nothing() -> None:
    route = Route(10 * GB, 10 * GB, launch_s=0.25, queue_depth=1)
    waiting = [Start(0, 10 * GB, 0, "in"), Start(0, 10 * GB, 1, "in", cancel_s=0.5), Start(0, 10 * GB, 2, "in")]
    transfers, link = ran(route, [*waiting, Start(0, 10 * GB, 100, "in", cancel_s=1)])
    assert [transfer.moved_bytes for transfer in transfers] == [10 * GB, 0, 10 * GB, 0]
    assert transfers[2].finished_s == 2.0
    assert (link.use().in_bytes, link.use().in_transfers, link.in_flight) == (20 * GB, 2, 0)


def test_a_cancel_after_the_end_changes_nothing() -> None:
    env = simpy.Environment()
    link = Link(env, PLAIN)
    transfer = link.start(10 * GB, 3, "in", lambda _: None)
    env.run()
    before = link.use()
    transfer.cancel()
    transfer.cancel()
    assert link.use() == before
    assert not transfer.cancelled
    assert (before.in_transfers, before.in_operations, link.in_flight) == (1, 3, 0)


def test_what_has_moved_is_known_at_any_time() -> None:
    env = simpy.Environment()
    link = Link(env, Route(10 * GB, 10 * GB, latency_s=1.0))
    first = link.start(20 * GB, 1, "in", lambda _: None)
    second = link.start(40 * GB, 1, "in", lambda _: None)
    env.run(until=0.5)
    assert (first.moved_bytes, second.moved_bytes, link.use().in_busy_s, link.in_flight) == (0, 0, 0, 2)
    env.run(until=3.0)
    assert (first.moved_bytes, second.moved_bytes) == (10 * GB, 10 * GB)
    assert (link.use().in_bytes, link.use().in_busy_s, link.use().in_transfers) == (20 * GB, 2.0, 0)
    env.run()
    assert (first.finished_s, second.finished_s) == (5.0, 7.0)
    assert (link.use().in_bytes, link.use().in_busy_s, link.use().out_busy_s) == (60 * GB, 6.0, 0.0)


def test_looking_at_a_transfer_does_not_change_when_it_ends() -> None:
    starts = [Start(0.1 * i, (1 + i * 0.37) * GB, i, "in") for i in range(12)]
    route = Route(7 * GB, 7 * GB, latency_s=1e-6, launch_s=1e-5, queue_depth=5)
    env = simpy.Environment()
    link = Link(env, route)
    transfers: list[Transfer] = []
    for start in starts:
        at(env, start.at_s, lambda s=start: transfers.append(link.start(s.size_bytes, s.operations, "in", lambda _: 0)))
    for i in range(1000):
        at(env, i * 0.0037, lambda: (link.use(), [one.moved_bytes for one in transfers], link._set_wake_up()))
    env.run()
    assert [transfer.finished_s for transfer in transfers] == ends_s(route, *starts)


def test_a_stream_that_never_pauses_does_not_drift() -> None:
    # Two at a time for 20,000 transfers of a third of a second's work: the last ends where arithmetic says.
    env = simpy.Environment()
    link = Link(env, PLAIN)
    ended = 0

    def again(_: Transfer) -> None:
        nonlocal ended
        ended += 1
        if ended <= 20_000 - 2:
            link.start(10 * GB / 3, 0, "in", again)

    link.start(10 * GB / 3, 0, "in", again)
    link.start(10 * GB / 3, 0, "in", again)
    env.run()
    assert ended == 20_000
    assert env.now == pytest.approx(20_000 / 3, rel=1e-12)
    assert link.use().in_busy_s == pytest.approx(env.now, rel=1e-12)


def test_ends_at_one_instant_come_before_arrivals_and_in_the_order_of_starts() -> None:
    env = simpy.Environment()
    link = Link(env, Route(10 * GB, 5 * GB))
    order: list[str] = []
    at(env, 2.0, lambda: order.append("arrival"))
    for number, (size, direction) in enumerate([(10, "out"), (10, "in"), (10, "in")]):
        link.start(size * GB, 0, direction, lambda _, number=number: order.append(str(number)))
    env.run()
    assert order == ["0", "1", "2", "arrival"]


def test_a_transfer_may_start_or_stop_others_when_it_ends() -> None:
    env = simpy.Environment()
    link = Link(env, PLAIN)
    ended: list[Transfer] = []
    second = link.start(30 * GB, 0, "in", ended.append)

    def done(transfer: Transfer) -> None:
        ended.append(transfer)
        second.cancel()
        link.start(10 * GB, 0, "in", ended.append)

    link.start(10 * GB, 0, "in", done)
    env.run()
    assert [transfer.finished_s for transfer in ended] == [2.0, 3.0]
    assert second.moved_bytes == 10 * GB
    assert link.use().in_bytes == 30 * GB


def test_an_empty_transfer_ends_at_once_but_not_before_start_returns() -> None:
    env = simpy.Environment()
    link = Link(env, PLAIN)
    order: list[str] = []

    def begin() -> None:
        link.start(0, 0, "in", lambda _: order.append("done"))
        order.append("started")

    at(env, 1.0, begin)
    at(env, 1.0, lambda: order.append("arrival"))
    env.run()
    assert order == ["started", "done", "arrival"]
    assert env.now == 1.0


def test_without_bytes_a_transfer_ends_with_its_launch_in_the_order_of_starts() -> None:
    env = simpy.Environment()
    link = Link(env, Route(10 * GB, 10 * GB, launch_s=0.5))
    order: list[int] = []
    link.start(0, 2, "in", lambda transfer: order.append(transfer.number))
    link.start(5 * GB, 1, "in", lambda transfer: order.append(transfer.number))
    env.run()
    assert order == [0, 1]
    assert env.now == 1.0


def test_one_wake_up_is_pending_however_often_it_is_moved_to_an_earlier_time() -> None:
    env = simpy.Environment()
    link = Link(env, PLAIN)
    ends = [link.start((40 - i) * GB, 0, "in", lambda _: None) for i in range(20)]
    env.run(until=0.5)
    for transfer in reversed(ends[1:]):
        transfer.cancel()
        assert sum(bool(event.callbacks) for *_, event in env._queue) == 1
    env.run()
    assert ends[0].finished_s == pytest.approx(0.5 + (40 - 5 / 20) / 10, rel=1e-12)


@pytest.mark.parametrize(("size_bytes", "operations"), [(-1, 0), (math.inf, 0), (math.nan, 0), (1, -1)])
def test_an_impossible_transfer_is_a_bug(size_bytes: float, operations: int) -> None:
    with pytest.raises(SimulationError, match="a transfer of"):
        Link(simpy.Environment(), PLAIN).start(size_bytes, operations, "in", lambda _: None)


TIMES = st.one_of(st.integers(0, 8).map(float), st.floats(0, 8))
SIZES = st.one_of(st.integers(0, 6).map(lambda n: n * GB), st.floats(0, 6e9))
DIRECTIONS: st.SearchStrategy[Direction] = st.sampled_from(["in", "out"])
STARTS = st.builds(
    Start, TIMES, SIZES, st.integers(0, 5), DIRECTIONS, st.one_of(st.just(math.inf), st.floats(0.01, 20))
)
ROUTES = st.builds(
    Route,
    in_bytes_per_s=st.sampled_from([1 * GB, 3 * GB]),
    out_bytes_per_s=st.sampled_from([1 * GB, 0.7 * GB]),
    latency_s=st.sampled_from([0.0, 0.25]),
    launch_s=st.sampled_from([0.0, 0.1]),
    half_duplex=st.booleans(),
    queue_depth=st.sampled_from([None, 1, 2, 3]),
    in_operations_per_s=st.sampled_from([None, 2.0]),
)


@given(route=ROUTES, starts=st.lists(STARTS, min_size=1, max_size=12))
@example(route=Route(GB, GB), starts=[Start(float(i), 2 * GB, 0, "in") for i in range(8)])
@example(route=Route(GB, GB, queue_depth=2), starts=[Start(0.1 * i, GB / 3, 1, "in") for i in range(12)])
def test_ends_and_bytes_agree_with_a_fluid_simulation(route: Route, starts: list[Start]) -> None:
    starts = [start._replace(cancel_s=max(start.cancel_s, start.at_s + 0.01)) for start in starts]
    starts.sort(key=lambda start: start.at_s)
    expected = fluid(route, starts)
    assume(expected.closest_call_s > 1e-6)  # cancelled or ended: either would do
    transfers, link = ran(route, starts)
    for transfer, end_s, moved_bytes in zip(transfers, expected.ends_s, expected.moved_bytes, strict=True):
        if end_s == math.inf:
            assert transfer.cancelled
        else:
            assert transfer.finished_s == pytest.approx(end_s, abs=1e-9)
        assert transfer.moved_bytes == pytest.approx(moved_bytes, abs=10)
    use = link.use()
    assert use.in_bytes + use.out_bytes == pytest.approx(sum(one.moved_bytes for one in transfers), rel=1e-12)
    assert link.in_flight == 0


@given(route=ROUTES, starts=st.lists(STARTS, min_size=1, max_size=12), looks=st.lists(st.floats(0, 30), max_size=6))
def test_no_direction_ever_moves_more_than_its_bandwidth(route: Route, starts: list[Start], looks: list[float]) -> None:
    env = simpy.Environment()
    link = Link(env, route)
    for start in sorted(starts, key=lambda start: start.at_s):
        at(env, start.at_s, lambda s=start: link.start(s.size_bytes, s.operations, s.direction, lambda _: None))
    before, before_s = link.use(), 0.0
    for look_s in sorted(looks):
        if look_s > env.now:
            env.run(until=look_s)
        use, passed_s = link.use(), env.now - before_s
        in_s, out_s = use.in_busy_s - before.in_busy_s, use.out_busy_s - before.out_busy_s
        assert (in_s + out_s if route.half_duplex else max(in_s, out_s)) <= passed_s + 1e-9
        assert -1 <= use.in_bytes - before.in_bytes <= route.in_bytes_per_s * in_s + 10
        assert -1 <= use.out_bytes - before.out_bytes <= route.out_bytes_per_s * out_s + 10
        before, before_s = use, env.now
    env.run()
    assert link.use().in_bytes == pytest.approx(sum(s.size_bytes for s in starts if s.direction == "in"))
    assert link.use().out_bytes == pytest.approx(sum(s.size_bytes for s in starts if s.direction == "out"))
