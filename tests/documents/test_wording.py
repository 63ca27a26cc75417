"""A schema's complaints come as one message with place, finding and remedy."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from servsim.documents import Document, Spec, WholeNumber, load_document, refusal, validate
from servsim.errors import ScenarioError


class Poisson(Spec):
    process: Literal["poisson"]
    rate_per_s: float = Field(gt=0)


class Constant(Spec):
    process: Literal["constant"]
    gap_s: float = 1.0


class Inner(Spec):
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _check_order(self) -> "Inner":
        if self.low > self.high:
            raise refusal("low is above high", remedy="swap them", at=("low",))
        return self


class Outer(Spec):
    count: WholeNumber = Field(1, ge=1)
    sizes: Annotated[tuple[float, ...], Field(strict=False)] = ()
    arrivals: Annotated[Poisson | Constant, Field(discriminator="process")] | None = None
    inner: Inner | None = None
    either: str | Inner | None = None
    flag: bool = False
    named: dict[str, Inner] = Field(default_factory=dict)


def complaint(folder: Path, text: str) -> str:
    path = folder / "x.yaml"
    path.write_text(text)
    document = load_document(path)
    with pytest.raises(ScenarioError) as caught:
        validate(Outer, document.data, document=document)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count: 0", "x.yaml:1: count: must be at least 1, found 0"),
        ("count: true", "x.yaml:1: count: must be an integer, found true"),
        ("count: 1.5", "x.yaml:1: count: must be an integer, found 1.5"),
        ("count: 1e30", "x.yaml:1: count: must be an integer, found 1e+30"),
        ("count: '5'", "x.yaml:1: count: must be an integer, found '5'\n  write 5, without quotes or separators"),
        (
            "count: 1_000",
            "x.yaml:1: count: must be an integer, found '1_000'\n  write 1000, without quotes or separators",
        ),
        ("count:", "x.yaml:1: count: must be an integer, found nothing"),
        ("count: [1]", "x.yaml:1: count: must be an integer, found a list"),
        ("flag: yes", "x.yaml:1: flag: must be true or false, found 'yes'"),
        ("flag: 1", "x.yaml:1: flag: must be true or false, found 1"),
        ("sizes:\n- 1\n- .nan", "x.yaml:3: sizes.1: must be a finite number, found nan"),
        ("sizes: [.inf]", "x.yaml:1: sizes.0: must be a finite number, found inf"),
        ("sizes: [true]", "x.yaml:1: sizes.0: must be a number, found true"),
        ("sizes: 3", "x.yaml:1: sizes: must be a list, found 3"),
        ("coutn: 3", "x.yaml:1: coutn: unknown key\n  did you mean 'count'?"),
        ("inner:\n  lo: 3", "x.yaml:2: inner.lo: unknown key\n  did you mean 'low'?"),
        ("inner: 3", "x.yaml:1: inner: must be keys and values, found 3"),
        ("inner:\n  high: 1\n  low: 3", "x.yaml:3: inner.low: low is above high\n  swap them"),
        ("low: 3", "x.yaml:1: low: unknown key\n  write it in its place: either.low or inner.low"),
        (
            "inner: {rate_per_s: 3}",
            "x.yaml:1: inner.rate_per_s: unknown key\n  write it in its place: arrivals.rate_per_s",
        ),
        (
            "arrivals: {process: constant, rate_per_s: 3}",
            "x.yaml:1: arrivals.rate_per_s: unknown key\n  known are: gap_s, process",
        ),
        ("inner: {zzz: 3}", "x.yaml:1: inner.zzz: unknown key\n  known are: high, low"),
        ("named: {chat: {hihg: 3}}", "x.yaml:1: named.chat.hihg: unknown key\n  did you mean 'high'?"),
        ("either: {hihg: 3}", "x.yaml:1: either.hihg: unknown key\n  did you mean 'high'?"),
        (
            "arrivals: {process: poison}",
            "x.yaml:1: arrivals.process: unknown process 'poison'\n  did you mean 'poisson'?",
        ),
        ("arrivals: {rate_per_s: 1}", "x.yaml:1: arrivals: the key 'process' is missing"),
        ("arrivals:\n  process: poisson", "x.yaml:1: arrivals.rate_per_s: this key is missing and has no default"),
        (
            "arrivals:\n  process: poisson\n  rate_per_s: -1",
            "x.yaml:3: arrivals.rate_per_s: must be greater than 0, found -1",
        ),
        ("- 1", "x.yaml:1: must be keys and values, found a list"),
    ],
)
def test_the_message_says_where_what_and_what_would_do(tmp_path: Path, text: str, message: str) -> None:
    assert complaint(tmp_path, text) == message


def test_of_several_mistakes_the_first_by_line_is_told(tmp_path: Path) -> None:
    text = "flag: true\nsizes: [a]\ncount: 0\ninner: {x: 1, high: z}"
    assert (
        complaint(tmp_path, text)
        == "x.yaml:2: sizes.0: must be a number, found 'a'\n  (3 more mistakes after this one)"
    )


def test_a_misspelt_key_is_told_before_the_missing_one_it_explains(tmp_path: Path) -> None:
    message = complaint(tmp_path, "arrivals:\n  process: poisson\n  rate_per_second: 3")
    assert message.startswith("x.yaml:3: arrivals.rate_per_second: unknown key\n  did you mean 'rate_per_s'?")


def test_a_whole_number_may_be_written_with_an_exponent() -> None:
    assert validate(Outer, {"count": 1e6}, document=None).count == 1_000_000


def test_a_prefix_says_which_part_of_the_document_is_checked() -> None:
    document = Document(Path("x.yaml"), {}, {(): 1, ("a",): 3, ("a", "count"): 4})
    with pytest.raises(ScenarioError, match=r"^x.yaml:4: a.count: must be at least 1, found -2$"):
        validate(Outer, {"count": -2}, document=document, prefix=("a",))


def test_data_from_python_is_placed_in_the_scenario() -> None:
    with pytest.raises(ScenarioError, match=r"^scenario: inner.low: must be an integer, found 'x'$"):
        validate(Outer, {"inner": {"low": "x"}}, document=None)
