"""A benchmark asked of a model behind an endpoint: the pictures arrive, the score is the same as anyone's."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from PIL import Image

from llavakit.chat.conversation import Conversation, ImageRef, Turn
from llavakit.cli import main
from llavakit.endpoint.local import LocalEndpoint
from llavakit.eval.remote import messages


def test_images_keep_their_places(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (3, 2), "red").save(path)
    images = (
        ImageRef(tmp_path / "a.png"),
        ImageRef((tmp_path / "a.png").read_bytes()),
        ImageRef(Image.new("L", (2, 2))),
    )
    turns = (Turn("user", "<image>\nOne <image> two"), Turn("assistant", "Yes."), Turn("user", "And <image>"))
    system, first, reply, last = messages(Conversation(turns, images, system="Be brief."))
    assert system == {"role": "system", "content": "Be brief."}
    assert reply == {"role": "assistant", "content": "Yes."}
    assert [part["type"] for part in first["content"]] == ["image_url", "text", "image_url", "text"]
    assert [part["type"] for part in last["content"]] == ["text", "image_url"]
    urls = [part["image_url"]["url"] for part in first["content"][::2]]
    assert urls[0] == urls[1] and base64.b64decode(urls[0].split(",")[1]) == path.read_bytes()
    (plain,) = messages(Conversation((Turn("user", "Hello?"),)))
    assert plain == {"role": "user", "content": "Hello?"}


def test_eval_against_an_endpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for colour in ("red", "blue"):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{colour}.png")
    lines = [
        {"question_id": n, "image": f"{c}.png", "text": f"{n}: red?", "metric": "exact", "answers": [a]}
        for n, (c, a) in enumerate([("red", "yes"), ("blue", "no")] * 5)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    seen: list[Mapping[str, Any]] = []

    def model(body: Mapping[str, Any]) -> str:
        seen.append(body)
        image, text = body["messages"][0]["content"]
        if text["text"].startswith("4"):
            return ""  # an answer too, and a wrong one
        picture = (tmp_path / "red.png").read_bytes()
        return "Yes" if base64.b64decode(image["image_url"]["url"].split(",")[1]) == picture else "No"

    with LocalEndpoint(model) as server:
        words = ["eval", "seer", "--endpoint", server.url, "--bench", "records", "--data", tmp_path / "questions.jsonl",
                 "--out", tmp_path / "out", "--json"]  # fmt: skip
        assert main([str(word) for word in words]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["count"], result["score"]) == (10, 90.0)
    assert len(seen) == 10 and seen[0]["temperature"] == 0.0 and seen[0]["max_tokens"] == 128
