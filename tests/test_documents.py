"""Files of settings that a machine must not choke on: what a text stands for is counted before it is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oncontour.cli import main
from oncontour.contour.external.bundle import _Config
from oncontour.documents import MAX_DEPTH, MAX_VALUES, MAX_YAML_BYTES, read_json, read_yaml
from oncontour.errors import FormatError, InputError, LimitError

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
"""2^40 values in 40 lines."""
ITSELF = "a: &a [1, *a]\n"


def put(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGHS, f"stands for more than {MAX_VALUES} values"),
        (ITSELF, "stands within itself"),
        ("a: " + "[" * 3000, f"more than {MAX_DEPTH} deep"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} deep"),
        ("# " + "x" * MAX_YAML_BYTES, f"{MAX_YAML_BYTES + 2} bytes of text"),
    ],
    ids=["laughs", "itself", "deep", "one too deep", "long"],
)
def test_yaml_that_would_fill_the_machine_is_refused_by_a_limit(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(LimitError, match=says):
        read_yaml(put(tmp_path / "a.yaml", text))


def test_yaml_within_the_limits_is_read_as_it_stands(tmp_path: Path) -> None:
    """Aliases count what they stand for: 1 + 1 + 3 + (1 + 3 + 3) values and names here."""
    text = "base: &b [1, 2]\nboth: [*b, *b]\nempty: &e\nagain: *e\n"
    assert read_yaml(put(tmp_path / "a.yaml", text)) == {"base": [1, 2], "both": [[1, 2], [1, 2]], "empty": None, "again": None}
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert str(read_yaml(put(tmp_path / "b.yaml", deep))) == deep
    with pytest.raises(FormatError, match="no YAML"):
        read_yaml(put(tmp_path / "c.yaml", "a: [1"))
    with pytest.raises(FormatError, match="no YAML"):
        read_yaml(put(tmp_path / "c.yaml", "!!python/object/apply:os.system [ls]"))


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 500, 100_000])
def test_json_nested_too_deep_is_refused(tmp_path: Path, depth: int) -> None:
    with pytest.raises(LimitError, match=f"more than {MAX_DEPTH} deep"):
        read_json(put(tmp_path / "a.json", "[" * depth + "]" * depth))


def test_json_that_is_none(tmp_path: Path) -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert str(read_json(put(tmp_path / "a.json", deep))) == deep
    with pytest.raises(FormatError, match="no JSON"):
        read_json(put(tmp_path / "b.json", '{"a": '))
    with pytest.raises(FormatError, match=r"no JSON that can be read \('b' comes twice\)"):
        read_json(put(tmp_path / "b.json", '{"a": {"b": 1, "c": 2, "b": 1}}'))
    assert read_json(put(tmp_path / "b.json", '\ufeff{"a": {"b": 1}, "b": 2}')) == {"a": {"b": 1}, "b": 2}
    (tmp_path / "c.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(FormatError, match="as text"):
        read_json(tmp_path / "c.json")
    with pytest.raises(InputError, match=r"no such file .*d\.json\]\. Way out: check the path"):
        read_json(tmp_path / "d.json")


@pytest.mark.parametrize(("text", "says"), [(LAUGHS, "values once"), (ITSELF, "within itself"), ("a: " + "[" * 500, "deep")])
def test_a_config_file_of_the_command_line_has_the_same_limits(
    tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = put(tmp_path / "bad.yaml", text)
    assert main(["evaluate", str(tmp_path), "--out", str(tmp_path / "out"), "--config", str(bad)]) == 2
    assert says in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), "--out", str(tmp_path / "out"), f"--structures={text}"]) == 2


def test_a_config_file_of_any_length_is_refused_unread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "long.yaml").open("wb") as file:
        file.truncate(2**40)  # sparse
    for words in (["--config", str(tmp_path / "long.yaml")], [f"--config={tmp_path / 'long.yaml'}"]):
        assert main(["evaluate", str(tmp_path), "--out", str(tmp_path / "out"), *words]) == 2
        assert f"{2**40} bytes of text" in capsys.readouterr().err


def test_references_of_a_bundle_that_laugh_are_refused(tmp_path: Path) -> None:
    """MONAI's own references do what YAML's aliases do: 8^9 values here."""
    values = {"a0": "x"} | {f"a{n}": [f"@a{n - 1}"] * 8 for n in range(1, 10)}
    (tmp_path / "configs").mkdir()
    put(tmp_path / "configs/inference.json", json.dumps(values))
    config = _Config.of(tmp_path)
    assert config.plain("@a2") == [["x"] * 8] * 8
    with pytest.raises(LimitError, match=f"more than {MAX_VALUES} values"):
        config.plain("@a9")


@pytest.mark.parametrize("text", [LAUGHS, "[" * 500])
def test_a_bundle_in_yaml_has_the_same_limits(tmp_path: Path, text: str) -> None:
    (tmp_path / "configs").mkdir()
    put(tmp_path / "configs/inference.yaml", text)
    with pytest.raises(LimitError):
        _Config.of(tmp_path)
