"""Many callers, one model: every one gets their own answer, a place is free when its caller is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from llavakit.base.errors import BadRecord, WorkFailed
from llavakit.chat.conversation import question
from llavakit.engine.engine import Engine
from llavakit.engine.sample import GREEDY, Decoding
from llavakit.engine.service import Piece, Service
from llavakit.model.encode import Codec
from llavakit.model.llava import Llava
from tests.engine.reference import mixed

SHORT, LONG = Decoding(max_new_tokens=9), Decoding(max_new_tokens=300)
ASKED = mixed(40)


@pytest.fixture()
def service(parts: tuple[Llava, Codec]) -> Iterator[Service]:
    service = Service(Engine(*parts, batch_size=4))
    yield service
    service.close(drain=False)
    assert not service._thread.is_alive()


def endless(parts: tuple[Llava, Codec]) -> Decoding:
    """No toy answer with these settings ends by itself."""
    return LONG.evolve(temperature=3.0)


def until(true: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_concurrent_callers_get_their_own_answers(parts: tuple[Llava, Codec], service: Service) -> None:
    wanted = list(Engine(*parts).answer(ASKED, SHORT))
    said = [""] * len(ASKED)

    def ask(i: int) -> None:
        said[i] = "".join(piece.text for piece in service.submit(ASKED[i], SHORT))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(ASKED))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == wanted
    stats = service.stats()
    assert (stats.queue, stats.running, stats.batch_size) == (0, 0, 4)
    assert stats.prefix_hits > 0 and stats.image_misses == len({id(ref) for one in ASKED for ref in one.images})


def test_a_ticket_tells_how_it_went(service: Service) -> None:
    ticket = service.submit(ASKED[6], Decoding(max_new_tokens=3), logprobs=2)
    pieces = list(ticket)
    assert all(isinstance(piece, Piece) for piece in pieces)
    told = [one for piece in pieces for one in piece.logprobs or []]
    assert [one.id for one in told] == [id for piece in pieces for id in piece.ids]
    assert all(len(one.top) == 2 for one in told)
    assert ticket.finish == "length" and ticket.completion_tokens == 3
    assert ticket.prompt_tokens > 20
    ended = [service.submit(conversation, SHORT) for conversation in ASKED]
    assert {ticket.finish for ticket in ended if list(ticket) or True} == {"stop", "length"}
    stats = service.stats()
    assert stats.completion_tokens == 3 + sum(ticket.completion_tokens for ticket in ended)
    assert stats.prompt_tokens == ticket.prompt_tokens + sum(t.prompt_tokens for t in ended)


def test_cancelling_frees_the_place(parts: tuple[Llava, Codec], service: Service) -> None:
    hogs = [service.submit(ASKED[i], endless(parts)) for i in range(6)]
    until(lambda: service.stats().running == 4)
    assert service.stats().queue == 2
    for hog in hogs:
        hog.cancel()
    assert "".join(piece.text for piece in service.submit(ASKED[7], SHORT))
    for hog in hogs:
        list(hog)
        assert hog.finish == "cancelled"
    until(lambda: service.stats().running == 0)
    hogs[0].cancel()
    assert hogs[0].finish == "cancelled"


def test_a_next_turn_computes_only_what_is_new(service: Service) -> None:
    first = question("What is it? " * 5, ASKED[0].images[0])
    answer = "".join(piece.text for piece in service.submit(first, SHORT))
    before = service.stats()
    list(service.submit(first.answer(answer).ask("Sure?"), SHORT))
    after = service.stats()
    assert after.image_misses == before.image_misses
    assert after.prefix_misses - before.prefix_misses <= 30 < after.prefix_hits - before.prefix_hits


def test_a_bad_conversation_is_refused_where_it_is_submitted(service: Service) -> None:
    with pytest.raises(BadRecord, match="shorten it"):
        service.submit(question("why " * 600))
    with pytest.raises(BadRecord, match="image"):
        service.submit(question("<image> what?"))
    assert service.stats().queue == 0


def test_closing_drains_or_fails(parts: tuple[Llava, Codec]) -> None:
    service = Service(Engine(*parts, batch_size=2))
    tickets = [service.submit(conversation, SHORT) for conversation in ASKED[:6]]
    service.close(drain=True)
    assert all(ticket.finish in ("stop", "length") for ticket in tickets)
    with pytest.raises(WorkFailed, match="closed"):
        service.submit(ASKED[0], SHORT)
    service = Service(Engine(*parts, batch_size=2))
    tickets = [service.submit(conversation, endless(parts)) for conversation in ASKED[:4]]
    service.close(drain=False)
    for ticket in tickets:
        with pytest.raises(WorkFailed, match="closed before"):
            list(ticket)


def test_a_failing_step_fails_its_tickets_and_no_later_one(
    parts: tuple[Llava, Codec], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = service.engine.batch

    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(batch.decoder, "step", broken)
        ticket = service.submit(ASKED[0], GREEDY)
        with pytest.raises(WorkFailed, match="the engine failed: RuntimeError: out of memory"):
            list(ticket)
    wanted = next(Engine(*parts).answer([ASKED[0]], SHORT))
    assert "".join(piece.text for piece in service.submit(ASKED[0], SHORT)) == wanted
