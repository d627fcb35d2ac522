"""Records: what json.load gives, from places in the file, which are kept while it stays as it is."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.base import cache
from llavakit.base.errors import BadRequest
from llavakit.data.index import Records
from tests.data.test_stream import VALUES


@given(
    values=st.lists(VALUES, max_size=6),
    layout=st.sampled_from(["list", "indented", "windows", "lines"]),
    mark=st.booleans(),
    ascii=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_every_record_is_found_by_its_place(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], layout: str, mark: bool, ascii: bool
) -> None:
    path = tmp_path_factory.mktemp("index") / ("a.jsonl" if layout == "lines" else "a.json")
    if layout == "lines":
        text = "".join(json.dumps(value, ensure_ascii=ascii) + "\n\n" for value in values)
    else:
        text = json.dumps(values, indent=None if layout == "list" else 1, ensure_ascii=ascii)
    text = text.replace("\n", "\r\n") if layout == "windows" else text
    path.write_bytes(text.encode("utf-8-sig" if mark else "utf-8"))
    records = Records(path)
    assert list(records) == values and records[1:] == values[1:]
    assert list(pickle.loads(pickle.dumps(records))) == values


def test_places_are_kept_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LEAST", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "a.json"
    path.write_text('[1, 2, "three"]')
    assert list(Records(path)) == [1, 2, "three"]
    (kept,) = (tmp_path / "cache" / "llavakit").iterdir()
    np.save(kept, np.array([[7, 8]], dtype=np.uint64))  # what is there is believed
    assert len(Records(path)) == 1
    path.write_text("[1, 2]")
    assert list(Records(path)) == [1, 2]
    assert len(list((tmp_path / "cache" / "llavakit").iterdir())) == 1, "the old file's places are gone"
    (only,) = (tmp_path / "cache" / "llavakit").iterdir()
    only.write_bytes(b"torn")
    assert list(Records(path)) == [1, 2]


def test_where_nothing_can_be_kept_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache, "LEAST", 1)
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.json").write_text("[1]")
    assert list(Records(tmp_path / "a.json")) == [1]
    assert "is read again at every start" in capsys.readouterr().err


def test_a_file_that_changes_underneath_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}, {"b": 2}]')
    records = Records(path)
    path.write_text("[1]")
    with pytest.raises(BadRequest, match=r"a\.json has changed since it was opened \(record 1\)"):
        records[1]
