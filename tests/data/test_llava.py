"""LLaVA's own format: what is read, and what is refused by file, record and id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llavakit.base.errors import BadRecord, BadRequest
from llavakit.data.sources.llava import LlavaSource
from tests.data.samples import records

ASK, SAY = {"from": "human", "value": "What?"}, {"from": "gpt", "value": "This."}


def one(tmp_path: Path, record: Any) -> LlavaSource:
    path = tmp_path / "one.json"
    path.write_text(json.dumps([record]))
    return LlavaSource(path)


def test_json_and_jsonl_hold_the_same_conversations(tmp_path: Path) -> None:
    made = records(5, tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(made))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in made))
    listed, lines = LlavaSource(tmp_path / "a.json"), LlavaSource(tmp_path / "a.jsonl")
    assert len(listed) == len(lines) == 5
    for i in range(5):
        assert (listed[i].turns, listed[i].images, listed[i].id) == (lines[i].turns, lines[i].images, lines[i].id)
    assert listed[0].images[0].source == tmp_path / "0.png"
    assert listed[3].images == () and [turn.role for turn in listed[3].turns] == ["user", "assistant"] * 2


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("What?\n<image>", "<image>\nWhat?"),
        ("<image>\nWhat?", "<image>\nWhat?"),
        ("<image>What?", "<image>\nWhat?"),
        ("Is <image> like <image>?", "<image>\n<image>\nIs  like ?"),
    ],
)
def test_image_first_moves_the_mark_to_the_head_of_its_turn(tmp_path: Path, text: str, moved: str) -> None:
    said = [{"from": "human", "value": text}, SAY, {"from": "human", "value": " Sure? "}, SAY]
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"id": 1, "image": ["a.png"] * text.count("<image>"), "conversations": said}]))
    assert LlavaSource(path, image_first=True)[0].turns[0].text == moved
    assert LlavaSource(path, image_first=True)[0].turns[2].text == " Sure? ", "a turn without a mark is left alone"
    assert LlavaSource(path, image_first=False)[0].turns[0].text == text


def test_at_random_the_mark_goes_before_or_after_and_stays_there(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "<image>\nWhat?"}, SAY]
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"id": n, "image": "a.png", "conversations": said} for n in range(60)]))
    texts = [conversation.turns[0].text for conversation in LlavaSource(path, image_first="random")]
    assert 15 < texts.count("<image>\nWhat?") < 45 and set(texts) == {"<image>\nWhat?", "What?\n<image>"}
    moved = tmp_path / "elsewhere.json"
    moved.write_bytes(path.read_bytes())
    assert [conversation.turns[0].text for conversation in LlavaSource(moved, image_first="random")] == texts


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"conversations": [ASK, ASK]}, "turn 2 is 'user' where 'assistant' must speak"),
        ({"conversations": [SAY, ASK]}, "turn 1 is 'assistant' where 'user' must speak"),
        ({"conversations": []}, "has no turns"),
        ({"conversations": [ASK, {"from": "gpt", "value": " "}]}, "answer, is empty"),
        ({"conversations": [{"from": "human", "value": "<image>"}, SAY]}, "1 <image> in its text but 0 image"),
        ({"image": "a.png", "conversations": [ASK, SAY]}, "0 <image> in its text but 1 image"),
        ({"conversations": [{"from": "bard", "value": "?"}, SAY]}, "turn 1 is from 'bard'; known: human"),
        ({"conversations": [ASK, {"from": "gpt", "value": None}]}, "turn 2.* must be text"),
        ({"conversations": [ASK, {"from": ["gpt"], "value": "x"}]}, "turn 2.* must be text"),
        ({"conversations": [ASK, {"from": "gpt"}]}, '"conversations" must be a list'),
        ({"conversations": "hello"}, '"conversations" must be a list'),
        ({"image": 5, "conversations": [ASK, SAY]}, '"image" must be a file name'),
    ],
)
def test_an_unsound_record_is_named(tmp_path: Path, record: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecord, match=rf"one\.json record 0 id 'x7': .*{reason}"):
        one(tmp_path, {"id": "x7", **record})[0]


def test_a_record_that_is_no_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=r"one\.json record 0: is str, not an object"):
        one(tmp_path, "hello")[0]


def test_broken_json_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"id": 1},\n {"id": 2,}]')
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": 2\n')
    with pytest.raises(BadRequest, match=r"a\.json, line 2"):
        LlavaSource(tmp_path / "a.json")
    with pytest.raises(BadRequest, match=r"a\.jsonl, line 2"):
        LlavaSource(tmp_path / "a.jsonl")
    (tmp_path / "b.json").write_text('{"id": 1}')
    with pytest.raises(BadRequest, match=r"b\.json must hold a list"):
        LlavaSource(tmp_path / "b.json")
    with pytest.raises(BadRequest, match="no file at"):
        LlavaSource(tmp_path / "none.json")
