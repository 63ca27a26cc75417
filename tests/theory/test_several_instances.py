"""Four instances behind a random router: four independent queues at a quarter of the rate."""

from __future__ import annotations

import numpy as np
from queues import assert_close, pollaczek_khinchine_s, rate_per_s, run, services_s, waits_s

LENGTHS = {"distribution": "uniform", "min": 1, "max": 19}
LOAD = 0.7


def test_each_of_four_instances_behind_a_random_router_is_a_queue_at_a_quarter_of_the_rate() -> None:
    """Pollaczek-Khinchine at a quarter of the rate, over all and for each instance; to 8 and 15 %."""
    rate = 4 * LOAD / 10
    runs = [run(LENGTHS, rate, seed=seed, num_requests=40_000, instances=4, router="random") for seed in (0, 1)]
    service = np.concatenate([services_s(one) for one in runs])
    expected = pollaczek_khinchine_s(float(np.mean([rate_per_s(one) for one in runs])) / 4, service)
    assert_close([waits_s(one) for one in runs], expected, relative=0.08)
    for index in range(4):
        waits = [waits_s(one)[one.requests["instance"] == index] for one in runs]
        assert_close(waits, expected, relative=0.15)


def test_taking_turns_waits_less_than_chance() -> None:
    """Round robin gives each instance every fourth arrival (Erlang gaps), which are more even than Poisson's."""
    random, in_turn = (
        run(LENGTHS, 4 * LOAD / 10, num_requests=20_000, instances=4, router=router)
        for router in ("random", "round_robin")
    )
    assert waits_s(in_turn).mean() < 0.75 * waits_s(random).mean()


def test_one_instance_with_room_for_four_has_no_queue_where_four_have_their_own() -> None:
    """Batching is free under fixed step times: an engine of four places serves as M/G/4 at least."""
    apart = run(LENGTHS, 4 * LOAD / 10, num_requests=10_000, instances=4, router="random")
    together = run(LENGTHS, 4 * LOAD / 10, num_requests=10_000, max_num_seqs=4)
    assert waits_s(together).mean() < waits_s(apart).mean()
