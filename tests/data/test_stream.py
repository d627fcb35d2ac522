"""Reading JSON record by record: what json.load gives, in pieces of any size, and past what is broken."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.base.errors import BadRequest
from llavakit.data import stream
from llavakit.data.pickles import read_plain_pickle
from llavakit.data.stream import items, survey

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(
    values=st.lists(VALUES, max_size=6) | st.dictionaries(st.text(max_size=5), VALUES, max_size=6),
    indent=st.sampled_from([None, 1]),
    chunk=st.sampled_from([1, 7, 1 << 20]),
    ascii=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_it_reads_what_json_reads(
    tmp_path_factory: pytest.TempPathFactory, values: Any, indent: int | None, chunk: int, ascii: bool
) -> None:
    path = tmp_path_factory.mktemp("stream") / "a.json"
    path.write_text(json.dumps(values, indent=indent, ensure_ascii=ascii), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "CHUNK", chunk)
        found = list(items(path))
    assert [item.index for item in found] == list(range(len(values)))
    if isinstance(values, dict):
        assert {item.key: item.value for item in found} == values
    else:
        assert [item.value for item in found] == values


def test_every_record_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[\n{"a": 1},\n\n{"a":\n 2}, {"a": 3}\n]')
    assert [(item.line, item.value["a"]) for item in items(path)] == [(2, 1), (4, 2), (5, 3)]
    lines = tmp_path / "a.jsonl"
    lines.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}\n')
    assert [(item.line, item.value["a"]) for item in items(lines)] == [(1, 1), (3, 2)]


@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_after_a_broken_record_it_goes_on(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHUNK", chunk)
    said = '{"id": "%s", "conversations": [{"from": "human", "value": "a"}]}'
    path = tmp_path / "a.json"
    path.write_text("[\n" + ",\n".join([said % 1, '{"id": 2, "conversations": [{"from" "human"}]}', said % 3]) + "\n]")
    found = list(survey(path))
    assert [(item.line, bool(item.error)) for item in found] == [(2, False), (3, True), (4, False)]
    assert found[2].value["id"] == "3" and "line 3" in found[1].error
    with pytest.raises(BadRequest, match=r"a\.json, line 3: broken JSON: Expecting ':' delimiter"):
        list(items(path))
    lines = tmp_path / "a.jsonl"
    lines.write_bytes((said % 1 + "\n{\n").encode() + b'{"a": "\xff"}\n' + (said % 4).encode())
    assert [bool(item.error) for item in survey(lines)] == [False, True, True, False]
    with pytest.raises(BadRequest, match=r"a\.jsonl, line 2: broken JSON: Expecting .* \(character 3\)"):
        list(items(lines))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "line 1: is empty"),
        ("x", "begins with 'x'"),
        ("[1 2]", "'2' where ',' or ']' must stand"),
        ("[1,]", "',' before ']'"),
        ("[1, 2", "'the end of the file' where ',' or ']' must stand"),
        ('{"a": 1, 2: 3}', "a key and ':' must stand here"),
        ('["a', "Unterminated string"),
        ("[,1]", "Expecting value"),
    ],
)
def test_broken_files_are_refused_with_the_line(tmp_path: Path, text: str, wrong: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(BadRequest) as error:
        list(items(path))
    assert wrong in str(error.value) and "line 1" in str(error.value)
    with pytest.raises(BadRequest, match="no file at"):
        list(items(tmp_path / "none.json"))


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("run!",))


def test_a_pickle_is_data_or_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "refs(unc).p"
    for protocol in (0, 2):
        path.write_bytes(pickle.dumps([{"a": [1, 2.5, "x", None]}], protocol=protocol))
        assert read_plain_pickle(path) == [{"a": [1, 2.5, "x", None]}]
    # A Python 2 str, which is bytes: a dict {'sent': 'caf\xe9'}.
    path.write_bytes(b"\x80\x02}U\x04sentU\x04caf\xe9s.")
    assert read_plain_pickle(path) == {"sent": "café"}
    for bad, reason in ((pickle.dumps(Evil()), "asks for"), (b"not a pickle", "is not a pickle of plain data")):
        path.write_bytes(bad)
        with pytest.raises(BadRequest, match=reason):
            read_plain_pickle(path)
    assert "run!" not in capsys.readouterr().out
