"""`llavakit teach` as a person uses it, against real servers on loopback: whole, killed, refused, over budget."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from PIL import Image

from llavakit.cli import main
from llavakit.demo.teacher import answer
from llavakit.endpoint.local import LocalEndpoint, completion
from llavakit.endpoint.request import Request
from llavakit.world.sample import sample_scene
from llavakit.world.told import told
from tests.endpoint.server import Rude

KINDS = "conversation,detail,reasoning"


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "llavakit", "teach", *map(str, words)]


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def teach(*words: object) -> Done:
    """The command in this process: a new one for each would take longer than the work."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["teach", *map(str, words)])
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is told of 30 pictures of the world."""
    path = tmp_path_factory.mktemp("told") / "captions.jsonl"
    records = [told(sample_scene(0, n, "train"), f"{n:05d}", f"{n:05d}.jpg") for n in range(30)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def summary(out: Path) -> dict[str, Any]:
    found = json.loads(out.with_name(f"{out.stem}.teach.json").read_text())
    assert isinstance(found, dict)
    return found


class Ruled(Rude):
    """The rule-based teacher with bad manners; told apart by the picture's captions, for each kind."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answers = answer


def test_the_three_kinds_in_miniature(captions: Path, tmp_path: Path) -> None:
    out = tmp_path / "a" / "instruct.json"
    done = teach(KINDS, "--captions", captions, "--endpoint", "rules", "--price", "1,2", "--out", out)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:3] for line in done.stdout.splitlines()[2:5]] == [[k, "30", "30"] for k in KINDS.split(",")]
    records = json.loads(out.read_text())
    assert len(records) == 90 and out.with_name("instruct.rejected.jsonl").read_text() == ""
    first = records[0]
    assert first["teacher"]["model"] == "rules" and first["teacher"]["cost"] > 0
    assert sum(r["conversations"][0]["value"].startswith("<image>\n") for r in records) in range(25, 65)
    spent = summary(out)
    assert spent["cost"] == pytest.approx(sum(record["teacher"]["cost"] for record in records), abs=1e-6)
    again = teach(KINDS, "--captions", captions, "--endpoint", "rules", "--price", "1,2", "--out", out)
    assert again.stdout == done.stdout and json.loads(out.read_text()) == records, "a function of its journal"


def test_what_was_made_is_true_and_can_be_read_for_training(captions: Path, tmp_path: Path) -> None:
    from llavakit.data.sources.llava import LlavaSource

    out = tmp_path / "instruct.json"
    assert teach(KINDS, "--captions", captions, "--endpoint", "rules", "--out", out).returncode == 0
    source = LlavaSource(out, tmp_path)
    colours = 0
    for index in range(len(source)):
        conversation = source[index].checked()
        scene = sample_scene(0, int(conversation.id), "train")
        for question, reply in zip(conversation.turns[::2], conversation.turns[1::2], strict=True):
            if (
                question.text.replace("<image>", "")
                .strip()
                .startswith("What is the color of the thing at the top left")
            ):
                (thing,) = [thing for thing in scene.things if thing.place == "top left"]
                assert thing.colour in reply.text
                colours += 1
    assert colours


def test_a_teacher_that_is_unfit_is_asked_again_once_with_the_reason(captions: Path, tmp_path: Path) -> None:
    bad, worse = "Question: Why?\nAnswer: The caption says so.", "no"
    seen: list[list[Any]] = []

    def teacher(body: Mapping[str, Any]) -> str:
        seen.append(body["messages"])
        if len(body["messages"]) == 8:
            return worse if len(seen) % 2 else answer({**body, "messages": body["messages"][:6]})
        return bad

    out = tmp_path / "out.json"
    with LocalEndpoint(teacher) as server:
        words = ("conversation", "--captions", captions, "--endpoint", server.url, "--model", "t", "--out", out)
        done = teach(*words, "--concurrency", 1, "--limit", 10, "--json")
    assert done.returncode == 0, done.stderr
    assert len(seen) == 20 and "names its source" in seen[-1][-1]["content"] and seen[-1][-2]["content"] == bad
    count = json.loads(done.stdout)["kinds"]["conversation"]
    assert (count["asked"], count["kept"], count["second"], count["aside"]) == (10, 5, 5, 5)
    assert count["reasons"] == {"format": 5}
    aside = [json.loads(line) for line in out.with_name("out.rejected.jsonl").read_text().splitlines()]
    assert [record["answers"] for record in aside] == [[bad, worse]] * 5
    assert all(len(record["reasons"]) == 2 for record in aside)
    assert {record["teacher"]["asked"] for record in json.loads(out.read_text())} == {2}


def test_cut_answers_are_not_kept(captions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with Rude(lambda question, n: "long") as server:
        done = teach("detail", "--captions", captions, "--endpoint", server.url, "--model", "t", "--out", out,
                     "--limit", 3, "--json")  # fmt: skip
    assert json.loads(done.stdout)["kinds"]["detail"]["reasons"] == {"cut": 3}
    assert json.loads(out.read_text()) == []


def test_killed_in_the_middle_it_goes_on_and_pays_nothing_twice(captions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    dice = {"status 500": 0, "hung_up": 1, "empty": 2}

    def manners(question: str, n: int) -> str:
        return next((m for m, k in dice.items() if n == 0 and len(question) % 11 == k), "well")

    with Ruled(manners, slow=0.03) as server:
        words = (KINDS, "--captions", captions, "--endpoint", server.url, "--model", "t", "--out", out,
                 "--concurrency", 4)  # fmt: skip
        process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL)
        while len(server.seen) < 40:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.1)
        assert not out.exists()
        journal = out.with_name("out.journal.jsonl").read_text().split("\n")[:-1]
        paid = {line["reply"]["key"] for line in map(json.loads, journal) if "reply" in line}
        cut = len(server.keys)
        assert 10 < len(paid) < 90
        done = teach(*words)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(out.read_text())) == 90
        assert not paid & set(server.keys[cut:]), "what was answered is not asked again"
        assert len(set(server.keys)) == 90


def test_the_budget_stops_it_and_what_there_is_is_written(captions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    words = ("detail", "--captions", captions, "--endpoint", "rules", "--price", "1,2", "--out", out)
    done = teach(*words, "--budget", 0.03)
    assert done.returncode == 1 and "of 0.03 is spent" in done.stderr
    some, spent = len(json.loads(out.read_text())), summary(out)["cost"]
    assert 0 < some < 30 and spent <= 0.03
    assert teach(*words, "--budget", 1).returncode == 0
    assert len(json.loads(out.read_text())) == 30


def test_a_dry_run_asks_nothing_and_is_near_the_truth(captions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    words = ("conversation", "--captions", captions, "--model", "rules", "--price", "1,2", "--out", out, "--json")
    shown = json.loads(teach(*words, "--dry-run").stdout)
    assert not list(tmp_path.iterdir())
    assert shown["questions"] == 30 and 0 < shown["cost"]["typical"] < shown["cost"]["most"]
    assert teach(*words, "--endpoint", "rules").returncode == 0
    assert summary(out)["tokens"]["prompt"] == shown["prompt_tokens"]
    assert json.loads(teach(*words, "--dry-run").stdout)["questions"] == 0


def test_by_batch(captions: Path, tmp_path: Path) -> None:
    out, folder = tmp_path / "out.json", tmp_path / "batch"
    words = (KINDS, "--captions", captions, "--model", "t", "--out", out)
    assert "requests-000.jsonl: 90" in teach(*words, "--batch-write", folder).stdout
    results = []
    for line in map(json.loads, (folder / "requests-000.jsonl").read_text().splitlines()[:-1]):
        response = {"status_code": 200, "body": completion(Request(line["body"]), answer(line["body"]))}
        results.append(json.dumps({"custom_id": line["custom_id"], "response": response, "error": None}) + "\n")
    (tmp_path / "results.jsonl").write_text("".join(reversed(results)))
    done = teach(*words, "--batch-read", tmp_path / "results.jsonl")
    assert done.returncode == 1 and "1 questions are open" in done.stderr
    assert len(json.loads(out.read_text())) == 89
    assert "requests-000.jsonl: 1" in teach(*words, "--batch-write", tmp_path / "rest").stdout


def test_a_teacher_that_sees(tmp_path: Path) -> None:
    import base64

    photos = tmp_path / "photos"
    photos.mkdir()
    Image.effect_noise((60, 40), 80).convert("RGB").save(photos / "a.jpg")
    Image.effect_noise((60, 40), 80).convert("RGB").save(photos / "b.bmp")
    (photos / "c.png").write_bytes(b"no picture")
    (tmp_path / "list.csv").write_text("image,caption\na.jpg,Noise.\nb.bmp,Noise.\nc.png,Noise.\n")
    seen = []

    def teacher(body: Mapping[str, Any]) -> str:
        seen.append(body["messages"][-1]["content"])
        return "Gray noise fills the whole picture, from one edge to the other, with no thing that stands out. " * 3

    out = tmp_path / "out.json"
    with LocalEndpoint(teacher) as server:
        done = teach("describe", "--captions", tmp_path / "list.csv", "--images", photos, "--endpoint", server.url,
                     "--model", "t", "--concurrency", 1, "--out", out, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kinds"]["describe"]["reasons"] == {"unusable picture": 1}
    sent = [content[0]["image_url"]["url"].partition(",") for content in seen]
    assert sent[0][0] == "data:image/jpeg;base64" and base64.b64decode(sent[0][2]) == (photos / "a.jpg").read_bytes()
    assert sent[1][0] == "data:image/png;base64"
    assert [content[1]["text"] for content in seen] == ["Noise.", "Noise."]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["detial", "--endpoint", "rules"], 2, "did you mean 'detail'"),
        (["detail", "--endpoint", "rules", "--batch-write", "x"], 2, "name one of"),
        (["detail"], 2, "name one of"),
        (["detail", "--endpoint", "http://127.0.0.1:9/v1"], 2, "--model"),
        (["detail", "--endpoint", "127.0.0.1:9", "--model", "m"], 2, "http(s) address"),
        (["detail", "--endpoint", "rules", "--budget", "1"], 2, "prices"),
        (["detail", "--endpoint", "rules", "--price", "1"], 2, "IN,OUT"),
        (["detail", "--endpoint", "rules", "--concurrency", "0"], 2, "concurrency"),
        (["describe", "--endpoint", "rules"], 2, "name their folder"),
    ],
)
def test_a_wrong_request_is_one_clear_line(
    captions: Path, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    done = teach(*words, "--captions", captions, "--out", tmp_path / "out.json")
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert said in done.stderr and not (tmp_path / "out.json").exists()


def test_other_settings_do_not_pay_again_unseen(captions: Path, tmp_path: Path) -> None:
    words = ("detail", "--captions", captions, "--endpoint", "rules", "--out", tmp_path / "o.json", "--limit", 1)
    assert teach(*words).returncode == 0
    done = teach(*words, "--body", "temperature=0.1")
    assert done.returncode == 2 and "holds answers to other questions: temperature" in done.stderr
