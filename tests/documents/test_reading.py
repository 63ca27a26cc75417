"""Files are read strictly, and every refusal names its place."""

from pathlib import Path

import pytest

from servsim.documents import Document, dump_yaml, load_document, parse_scalar
from servsim.errors import ScenarioError


def written(folder: Path, text: str, name: str = "chat.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refused(path: Path) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        load_document(path)
    return caught.value


def test_every_value_knows_its_line(tmp_path: Path) -> None:
    document = load_document(written(tmp_path, "a: 1\nb:\n  c: {d: 2}\n  e:\n    - 3\n    - x: 4\n"))
    assert document.data == {"a": 1, "b": {"c": {"d": 2}, "e": [3, {"x": 4}]}}
    assert document.lines[("a",)] == 1
    assert document.lines[("b", "c", "d")] == 3
    assert document.lines[("b", "e", 1, "x")] == 6
    assert document.place(("b", "e", 1, "x")) == f"{tmp_path}/chat.yaml:6: b.e.1.x"


def test_what_was_not_written_is_placed_at_what_surrounds_it(tmp_path: Path) -> None:
    document = load_document(written(tmp_path, "a: 1\nb:\n  c: 2\n"))
    assert document.place(("b", "missing", "deep")).endswith("chat.yaml:2: b.missing.deep")
    assert Document(None, {}).place(("b",)) == "scenario: b"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e6", 1e6),
        ("-2.5E-3", -2.5e-3),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("yes", "yes"),
        ("true", True),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("-.inf", float("-inf")),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("[1, x]", [1, "x"]),
        ("{a: 1e3}", {"a": 1000.0}),
        ("a: b", "a: b"),
        ("*x", "*x"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


def test_nan_may_be_written_and_is_left_to_the_schema() -> None:
    assert parse_scalar(".nan") != parse_scalar(".nan")


def test_brackets_that_do_not_close_are_refused_without_a_place() -> None:
    with pytest.raises(ScenarioError, match=r"^not valid YAML"):
        parse_scalar("[1, 2")


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "", "the file is empty"),
        ("# only a remark\n", "", "the file is empty"),
        ("hello", ":1", "expected keys and values, found 'hello'"),
        ("a: 1\nb: 2\na: 3\n", ":3: a", "this key is given twice"),
        ("x:\n  a: 1\n  a: 3\n", ":3: x.a", "this key is given twice"),
        ("a: [1\nb: 2\n", ":2", "not valid YAML"),
        ("a: b: c\n", ":1", "mapping values are not allowed"),
        ("a:\n\t- 1\n", ":2", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", ":2", "expected a single document"),
        ("a: \x01\n", "", "not valid YAML"),
        ("1: x\n", ":1", "the key '1' is not text"),
        ("? [1]\n: x\n", ":1", "is not text"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", ":2: b", "!!python/object/apply:os.system"),
        ("!!python/name:os.system a: 1\n", ":1", "!!python/name:os.system"),
        ("a: !mine 3\n", ":1: a", "the tag '!mine' is not allowed"),
        ("a: !!int three\n", ":1: a", "'three' is no int"),
        ("a: !!map 3\n", ":1: a", "the tag does not fit the value"),
        ("a: &x [*x]\n", ":1: a.0.0", "nested too deeply"),
        ("[" * 5000, ":1", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_plain_yaml_is_refused(tmp_path: Path, text: str, place: str, message: str) -> None:
    path = written(tmp_path, text)
    error = refused(path)
    assert error.place == f"{path}{place}"
    assert message in error.message


def test_a_tab_is_named_as_such(tmp_path: Path) -> None:
    assert refused(written(tmp_path, "a:\n\t- 1\n")).remedy == "indent with spaces: YAML allows no tabs there"


def test_aliases_of_aliases_do_not_fill_the_memory(tmp_path: Path) -> None:
    rows = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "too many values" in refused(written(tmp_path, "\n".join(rows))).message


def test_a_missing_file_suggests_a_similar_one(tmp_path: Path) -> None:
    written(tmp_path, "a: 1")
    error = refused(tmp_path / "chatt.yaml")
    assert (error.message, error.remedy) == ("no such file", "did you mean 'chat.yaml'?")
    assert "no folder" in str(refused(tmp_path / "nowhere" / "chat.yaml"))


def test_a_relative_path_stays_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "a: 1\na: 2")
    assert str(refused(Path("chat.yaml"))).startswith("chat.yaml:2: a: ")


def test_folders_and_binary_files_are_refused(tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path).message
    binary = tmp_path / "a.yaml"
    binary.write_bytes(b"\x80\x02\xff\x00")
    assert "not a text file" in refused(binary).message


def test_json_is_read_as_json(tmp_path: Path) -> None:
    path = written(tmp_path, '{\n\t"a": 1,\n\t"b": [true, null]\n}', "config.json")
    assert load_document(path).data == {"a": 1, "b": [True, None]}
    assert refused(written(tmp_path, '{"a": 1, "a": 2}', "twice.json")).message == "the key 'a' is given twice"
    assert refused(written(tmp_path, '{"a": 1,\n', "cut.json")).place == f"{tmp_path}/cut.json:2"
    assert "empty" in refused(written(tmp_path, "", "empty.json")).message
    assert "expected keys" in refused(written(tmp_path, "3", "three.json")).message
    assert "nested too deeply" in refused(written(tmp_path, "[" * 100_000, "deep.json")).message


def test_what_is_dumped_reads_back_equal(tmp_path: Path) -> None:
    words = ["1e6", "yes", "010", "0o7", "null", "", ".nan", "a: b", "1:30", "é", "2024-01-01", "~", "#x"]
    data = {"words": words, "numbers": [1, 0.1, 1e17, 1e-300, -3], "none": None, "flags": [True, False], "empty": {}}
    assert load_document(written(tmp_path, dump_yaml(data))).data == data
