"""The ground floor: units, the wording of errors, random streams."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from servsim import errors
from servsim.errors import ServsimError, suggestion
from servsim.streams import Streams
from servsim.units import format_bytes, format_si, parse_bytes


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("512 GiB", 512 << 30),
        ("80 GB", 80 * 10**9),
        ("1.5TB", 1_500_000_000_000),
        ("3 kb", 3000),
        ("2Ki", 2048),
        ("1e3 MB", 10**9),
        (" 7 ", 7),
        (42, 42),
        (1e6, 1_000_000),
    ],
)
def test_bytes_are_read_as_people_write_them(text: str | float, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1 GB", "12 XB", "1 2 GB", "nan", "0x10"])
def test_what_is_no_number_of_bytes_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number of bytes; write for example 512 GiB") as raised:
        parse_bytes(text)
    assert repr(text) in str(raised.value)


def test_bytes_and_rates_are_written_with_three_or_four_digits() -> None:
    assert [format_bytes(size) for size in (0, 1023, 1024, 3 << 29, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.00 KiB",
        "1.50 GiB",
        "5.00 TiB",
    ]
    assert format_si(3.35e12, "B/s") == "3.35 TB/s"
    assert format_si(989.4e12, "FLOP/s") == "989.4 TFLOP/s"
    assert format_si(12.0, "s") == "12 s"


def test_an_error_says_place_finding_and_remedy() -> None:
    error = ServsimError("unknown key", place="chat.yaml:9: instance.x", remedy="did you mean 'y'?")
    assert str(error) == "chat.yaml:9: instance.x: unknown key\n  did you mean 'y'?"
    assert str(ServsimError("nothing fits")) == "nothing fits"


@pytest.mark.parametrize("name", ["ScenarioError", "TraceError", "ResultError", "CapacityError"])
def test_every_user_error_is_a_servsim_error_and_crosses_processes_unharmed(name: str) -> None:
    error = getattr(errors, name)("x", place="p", remedy="r")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ServsimError) and type(again) is type(error)
    assert (again.message, again.place, again.remedy, str(again)) == ("x", "p", "r", "p: x\n  r")


def test_our_own_bug_is_no_user_error() -> None:
    assert not issubclass(errors.SimulationError, ServsimError)


def test_the_closest_name_is_suggested_or_all_are_listed() -> None:
    assert suggestion("fcsf", ["fcfs", "sjf"]) == "did you mean 'fcfs'?"
    assert suggestion("FCFS", ["fcfs", "sjf"]) == "did you mean 'fcfs'?"
    assert suggestion("zzz", ["sjf", "fcfs"]) == "known are: fcfs, sjf"
    assert suggestion("zzz", []) == "none are known"


def test_a_stream_depends_on_seed_and_name_alone() -> None:
    first = Streams(5).get("arrivals").random(4).tolist()
    streams = Streams(5)
    streams.get("lengths").random(100)
    assert streams.get("arrivals").random(4).tolist() == first  # nobody else's draws shift it
    assert Streams(5).get("arrivals").random(4).tolist() == first  # and it begins anew each time
    assert Streams(6).get("arrivals").random(4).tolist() != first
    assert Streams(5).get("arrivals ").random(4).tolist() != first


def test_streams_are_the_same_on_every_machine() -> None:
    """PCG64 seeded from SHA-256: fixed by both, and written down here."""
    assert Streams(0).get("arrivals").integers(0, 1 << 32, 3).tolist() == [2575410502, 3911012606, 913506113]


def test_two_streams_are_uncorrelated() -> None:
    streams = Streams(1)
    one, other = (streams.get(name).standard_normal(20_000) for name in ("a", "b"))
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / 20_000**0.5
