"""The client against a server that misbehaves: everything is answered, nothing is lost, nothing is asked twice."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("openai")

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.endpoint import client as module
from llavakit.endpoint.client import Client, Endpoint
from llavakit.endpoint.journal import Journal
from llavakit.endpoint.meter import Budget, Meter, OverBudget, Prices
from llavakit.endpoint.request import Failure, Reply, Request
from tests.endpoint.server import Rude


def ask(text: str, trial: int = 0, **more: object) -> Request:
    return Request({"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 20, **more}, trial)


@pytest.fixture()
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Client]]:
    """A client for a server, its journal in ``tmp_path``; attempts follow each other quickly."""
    monkeypatch.setattr(module, "FIRST_REST", 0.01)
    journals = []

    def made(server: Rude, budget: Budget | None = None, prices: Prices | None = None, **more: object) -> Client:
        for journal in journals:
            journal.close()
        journals.append(Journal(tmp_path / "journal.jsonl"))
        endpoint = Endpoint.parse({"url": server.url, "timeout": 5.0, **more})
        return Client(endpoint, journals[-1], Meter(budget, prices, journals[-1].usages()))

    yield made
    for journal in journals:
        journal.close()


def test_many_at_once_within_the_limit_and_in_order(connect) -> None:  # type: ignore[no-untyped-def]
    with Rude(slow=0.02) as server:
        client = connect(server, concurrency=5)
        outcomes = list(client.answers(ask(f"q{n}") for n in range(40)))
        assert [outcome.text for outcome in outcomes] == [f"answer to q{n}" for n in range(40)]
        assert server.most_at_once == 5
        assert set(server.keys) == {ask(f"q{n}").key for n in range(40)}


FLAWS = ["broken", "page", "empty", "blank", "cut", "hung_up", "status 500", "status 503", "status 408", "limited 0"]


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_is_asked_again(connect, flaw: str) -> None:  # type: ignore[no-untyped-def]
    with Rude(lambda question, n: flaw if n < 2 else "well") as server:
        (outcome,) = connect(server).answers([ask("q")])
        assert isinstance(outcome, Reply) and outcome.text == "answer to q"
        assert server.asked["q"] == 3
        assert len(set(server.keys)) == 1, "an attempt that is repeated must be recognisable as such"


def test_all_flaws_at_once(connect) -> None:  # type: ignore[no-untyped-def]
    dice = random.Random(0)
    with Rude(lambda question, n: dice.choice([*FLAWS, "well", "well"]) if n < 6 else "well") as server:
        outcomes = list(connect(server, concurrency=16).answers(ask(f"q{n}") for n in range(60)))
    assert [outcome.text for outcome in outcomes] == [f"answer to q{n}" for n in range(60)]


def test_a_slow_answer_times_out_and_is_asked_again(connect) -> None:  # type: ignore[no-untyped-def]
    with Rude(lambda question, n: "slow 1" if n == 0 else "well") as server:
        (outcome,) = connect(server, timeout=0.2).answers([ask("q")])
        assert isinstance(outcome, Reply) and server.asked["q"] == 2


def test_retry_after_silences_all_threads(connect) -> None:  # type: ignore[no-untyped-def]
    with Rude(lambda question, n: "limited 1" if question == "q0" and n == 0 else "well", slow=0.01) as server:
        outcomes = list(connect(server, concurrency=2).answers(ask(f"q{n}") for n in range(30)))
        assert all(isinstance(outcome, Reply) for outcome in outcomes)
        times = [moment for moment, _ in server.seen]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert max(gaps) > 0.9, "one thread was told to wait, and the others went on"


def test_a_date_to_wait_for_is_understood() -> None:
    from email.utils import formatdate

    assert 4 < module._retry_after({"retry-after": formatdate(time.time() + 6, usegmt=True)}) < 7
    assert module._retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert module._retry_after({"retry-after": "soon"}) == module._retry_after({}) == 0


def test_too_long_a_wait_ends_the_run(connect) -> None:  # type: ignore[no-untyped-def]
    with Rude(lambda question, n: "limited 86400") as server, pytest.raises(WorkFailed, match="86400 s"):
        list(connect(server).answers([ask("q")]))


@pytest.mark.parametrize(("manner", "said"), [("status 401", "OPENAI_API_KEY"), ("quota", "no money left")])
def test_what_concerns_all_ends_the_run(connect, manner: str, said: str) -> None:  # type: ignore[no-untyped-def]
    with Rude(lambda question, n: manner) as server:
        with pytest.raises(WorkFailed, match=said):
            list(connect(server, concurrency=1).answers(ask(f"q{n}") for n in range(50)))
        assert server.asked.total() < 10


def test_a_refusal_is_one_failure_and_not_repeated(connect) -> None:  # type: ignore[no-untyped-def]
    with Rude(lambda question, n: "status 400" if question == "q1" else "well") as server:
        good, bad, other = connect(server).answers(ask(f"q{n}") for n in range(3))
        assert isinstance(good, Reply) and isinstance(other, Reply)
        assert isinstance(bad, Failure) and bad.refused and "told to be status 400" in bad.reason
        assert server.asked["q1"] == 1


def test_a_wrong_address_shows_soon(connect) -> None:  # type: ignore[no-untyped-def]
    with Rude() as server:
        client = connect(server)
    with pytest.raises(WorkFailed, match="nobody answers at http"):
        list(client.answers(ask(f"q{n}") for n in range(50)))


def test_a_dead_endpoint_ends_the_run_soon(connect) -> None:  # type: ignore[no-untyped-def]
    with Rude(lambda question, n: "status 500") as server:
        with pytest.raises(WorkFailed, match="in a row got no answer"):
            list(connect(server, attempts=2).answers(ask(f"q{n}") for n in range(1000)))
        assert server.asked.total() < 100


def test_some_without_an_answer_leave_the_others(connect) -> None:  # type: ignore[no-untyped-def]
    with Rude(lambda question, n: "broken" if question == "q1" else "well") as server:
        outcomes = list(connect(server, attempts=3).answers(ask(f"q{n}") for n in range(4)))
        assert [isinstance(outcome, Reply) for outcome in outcomes] == [True, False, True, True]
        assert outcomes[1].reason.startswith("malformed JSON") and not outcomes[1].refused


def test_equal_questions_are_asked_once_unless_they_are_trials(connect) -> None:  # type: ignore[no-untyped-def]
    with Rude(slow=0.05) as server:
        client = connect(server)
        assert len({outcome.text for outcome in client.answers([ask("q")] * 20)}) == 1
        assert server.asked["q"] == 1
        list(client.answers(ask("q", trial) for trial in range(3)))
        assert server.asked["q"] == 3


def test_a_budget_of_tokens_is_never_overdrawn(connect) -> None:  # type: ignore[no-untyped-def]
    with Rude(slow=0.01) as server:
        client = connect(server, Budget(tokens=400), concurrency=8)
        with pytest.raises(OverBudget, match="of 400 tokens are spent"):
            list(client.answers(ask(f"question {n}") for n in range(200)))
        assert 300 < client.meter.tokens <= 400
        before = server.asked.total()
        again = connect(server, Budget(tokens=400))
        with pytest.raises(OverBudget):
            list(again.answers(ask(f"other {n}") for n in range(9)))
        assert server.asked.total() == before, "what an earlier run spent counts"


def test_money(connect) -> None:  # type: ignore[no-untyped-def]
    prices = Prices(prompt=1e6, answer=2e6)
    with Rude(lambda question, n: "empty" if n == 0 else "well") as server:
        client = connect(server, Budget(money=1000.0), prices)
        (reply,) = client.answers([ask("q")])
        assert client.meter.money == 2 * prices.of(reply.usage), "the empty answer was charged too"
        assert connect(server, None, prices).meter.money == client.meter.money
    with pytest.raises(BadRequest, match="prices"):
        Meter(Budget(money=1.0))


def test_tokens_that_are_not_counted_are_estimated(connect) -> None:  # type: ignore[no-untyped-def]
    with Rude(lambda question, n: "uncounted") as server:
        client = connect(server)
        (reply,) = client.answers([ask("q" * 40)])
        assert reply.usage.prompt == 14 and reply.usage.estimated and client.meter.estimated


def test_a_caller_that_stops_loses_no_paid_answer(connect) -> None:  # type: ignore[no-untyped-def]
    with Rude(slow=0.1) as server:
        client = connect(server, concurrency=4)
        answers = client.answers(ask(f"q{n}") for n in range(100))
        next(answers)
        answers.close()
        assert len(client.journal) == server.asked.total() < 20


SCRIPT = """
import sys
from llavakit.endpoint.client import Client, Endpoint
from llavakit.endpoint.journal import Journal
from llavakit.endpoint.meter import Meter
from tests.endpoint.test_client import ask
journal = Journal(sys.argv[2])
client = Client(Endpoint(url=sys.argv[1], concurrency=6), journal, Meter())
print(sum(1 for _ in client.answers(ask(f"q{n}") for n in range(120))))
"""


def test_killed_in_the_middle_nothing_is_lost_or_asked_twice(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Rude(slow=0.02) as server:
        command = [sys.executable, "-c", SCRIPT, server.url, str(path)]
        process = subprocess.Popen(command)
        while len(server.asked) < 50:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        time.sleep(0.1)
        with open(path, "a") as file:
            file.write('{"reply": {"key": "torn')
        lines = path.read_text().splitlines()[:-1]
        kept = {json.loads(line)["reply"]["text"].removeprefix("answer to ") for line in lines}
        before = dict(server.asked)
        assert 20 < len(kept) < 120
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stdout == "120\n", done.stderr
        assert set(server.asked) == {f"q{n}" for n in range(120)}
        assert all(server.asked[q] == before[q] == 1 for q in kept), "what was answered is never asked again"
        assert server.asked.total() <= 120 + 6, "beyond those, only what was in flight at the kill"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    code = "import sys; from llavakit.endpoint.journal import Journal; Journal(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "j.jsonl")], capture_output=True, text=True)
    assert "another process is writing" in done.stderr
    journal.close()
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "j.jsonl")]).returncode == 0
