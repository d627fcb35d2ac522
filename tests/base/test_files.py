"""Files are whole or absent, logs survive a kill, and what is broken is named with its line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.base.files import JsonlLog, read_json, read_jsonl, sha256, write_json, write_text, writing


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), writing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"], "nothing temporary stays"
    write_text(path, "new\n")
    assert path.read_bytes() == b"new\n"


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for name in ("one", "two"):
        with writing(path) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert [p.name for p in path.iterdir()] == ["two"]
    with pytest.raises(RuntimeError), writing(path) as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["two"] and list(tmp_path.iterdir()) == [path]


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"word": "é中", "n": [1, 2.5, None]})
    assert read_json(path) == {"word": "é中", "n": [1, 2.5, None]}
    assert "é" in path.read_text(encoding="utf-8")
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(path) == {}, "a byte order mark is no fault"
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(BadRequest, match=r"a\.json, line 2, column 7: broken JSON"):
        read_json(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(BadRequest, match="not UTF-8"):
        read_json(path)
    with pytest.raises(BadRequest, match="no file at"):
        read_json(tmp_path / "absent")


def test_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"b": "\u2028"}\n3', encoding="utf-8")
    assert read_jsonl(path) == [{"a": 1}, {"b": "\u2028"}, 3]
    path.write_text('{"a": 1}\n{"b"\n')
    with pytest.raises(BadRequest, match=r"a\.jsonl, line 2: broken JSON"):
        read_jsonl(path)
    with pytest.raises(BadRequest, match="no file at"):
        read_jsonl(tmp_path / "absent")


@pytest.mark.parametrize("torn", [b'{"n": ', b'{"n": 2}', "é".encode()[:1]])
def test_a_torn_last_line_is_cut(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "log.jsonl"
    log = JsonlLog(path)
    log.append({"n": 0})
    log.append({"n": 1, "word": "é"})
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    log = JsonlLog(path)
    assert log.records == [{"n": 0}, {"n": 1, "word": "é"}] and path.read_bytes() == whole
    log.append({"n": 2})
    assert read_jsonl(path) == log.records == JsonlLog(path).records


def test_log_forgets_what_came_after(tmp_path: Path) -> None:
    log = JsonlLog(tmp_path / "log.jsonl")
    for n in range(5):
        log.append(n)
    log.truncate(2)
    log.append(9)
    assert JsonlLog(log.path).records == log.records == [0, 1, 9]


def test_a_log_broken_inside_is_not_repaired(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("1\n{\n3\n")
    with pytest.raises(WorkFailed, match=r"log\.jsonl, line 2: broken JSON"):
        JsonlLog(path)
    assert path.read_text() == "1\n{\n3\n"


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(json.dumps(list(range(9999))).encode())
    assert sha256(tmp_path / "a") == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
