"""The journal's lines, the run that they belong to, and the provider's batch files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.endpoint import batch
from llavakit.endpoint.batch import read_batch, write_batches
from llavakit.endpoint.journal import Journal
from llavakit.endpoint.local import completion
from llavakit.endpoint.meter import Budget, Meter, OverBudget
from llavakit.endpoint.request import Reply, Request, Unusable, Usage, reply_of


def ask(text: str, trial: int = 0) -> Request:
    return Request({"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 20}, trial)


@given(st.text(), st.text(min_size=1).filter(str.strip), st.integers(0, 9))
def test_a_reply_survives_the_wire_and_the_journal(question: str, answer: str, trial: int) -> None:
    request = ask(question, trial)
    wire = json.dumps(completion(request, answer)).encode()
    reply = reply_of(wire, request)
    assert (reply.text, reply.key, reply.model) == (answer.strip(), request.key, "m")
    assert Reply.of_plain(json.loads(json.dumps(reply.plain()))) == reply
    assert (ask(question, trial + 1).key == request.key) is False


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["choices", "message", "content", "usage", "prompt_tokens", "finish_reason"]), inner)))  # fmt: skip
def test_whatever_comes_is_a_reply_or_unusable(body: object) -> None:
    try:
        assert reply_of(json.dumps(body).encode(), ask("q")).text
    except Unusable as error:
        assert str(error)


def test_the_journal_knows_its_run(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.settle({"model": "a", "temperature": 0.7})
    journal.add(Reply("k", "text", "a-1", "stop", Usage(3, 4)))
    journal.add(Reply("k", "another", "a-1", "stop", Usage(3, 4)))
    journal.waste(Usage(1, 1))
    journal.close()
    journal = Journal(path)
    assert len(journal) == 1 and journal["k"].text == "text" and journal["l"] is None  # type: ignore[union-attr]
    assert sum(usage.prompt for usage in journal.usages()) == 4
    journal.settle({"model": "a", "prompt": "x"})
    with pytest.raises(BadRequest, match=r"model 'a' \(now 'b'\)"):
        journal.settle({"model": "b"})
    journal.close()


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text('{"about": {}}\n{"reply": {"key": "k"}}\n')
    with pytest.raises(WorkFailed, match="line 2"):
        Journal(path)


def test_batch_files_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, meter = Journal(tmp_path / "j.jsonl"), Meter()
    requests = [ask(f"q{n}") for n in range(7)]
    journal.add(Reply(requests[0].key, "known", "m", "stop", Usage(1, 1)))
    monkeypatch.setattr(batch, "MOST_REQUESTS", 4)
    counts = write_batches(tmp_path / "batch", [*requests, requests[1]], journal, meter)
    assert counts == {"requests-000.jsonl": 4, "requests-001.jsonl": 2}
    lines = [json.loads(line) for name in counts for line in (tmp_path / "batch" / name).open()]
    assert {(line["method"], line["url"]) for line in lines} == {("POST", "/v1/chat/completions")}
    assert [line["custom_id"] for line in lines] == [request.key for request in requests[1:]]

    def outcome(line: dict, status: int = 200, error: object = None) -> str:  # type: ignore[type-arg]
        body = completion(Request(line["body"]), "yes")
        return json.dumps({"custom_id": line["custom_id"], "response": {"status_code": status, "body": body},
                           "error": error})  # fmt: skip

    out = tmp_path / "out.jsonl"
    expired = json.dumps({"custom_id": lines[4]["custom_id"], "response": None, "error": {"code": "batch_expired"}})
    out.write_text("\n".join([*map(outcome, reversed(lines[:3])), outcome(lines[3], 400), expired]) + "\n")
    new, failures = read_batch(out, journal, meter)
    assert new == 3 and [failure.refused for failure in failures] == [True, False]
    assert "batch_expired" in failures[1].reason
    assert [journal[request.key] is not None for request in requests] == [True] * 4 + [False] * 3
    assert meter.tokens == sum(u.prompt + u.answer for u in journal.usages()) - 2
    assert read_batch(out, journal, meter)[0] == 0, "reading it again pays nothing again"
    with pytest.raises(BadRequest, match="exists"):
        write_batches(tmp_path / "batch", requests, journal, meter)
    with pytest.raises(BadRequest, match="line 1"):
        read_batch(_file(tmp_path / "x", "[]\n"), journal, meter)
    with pytest.raises(OverBudget):
        write_batches(tmp_path / "more", requests, journal, Meter(Budget(tokens=30)))
    assert not (tmp_path / "more").exists()
    journal.close()


def _file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
