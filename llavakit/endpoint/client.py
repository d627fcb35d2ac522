"""Client: asks many questions at once, patiently, and never twice for an answer that is in its journal."""

from __future__ import annotations

import email.utils
import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llavakit.base.config import Config
from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.base.log import log
from llavakit.endpoint.journal import Journal
from llavakit.endpoint.meter import Meter
from llavakit.endpoint.request import Failure, Reply, Request, Unusable, reply_of

if TYPE_CHECKING:
    import openai

AHEAD = 4  # questions taken up for each that is in flight, so that a slow one does not hold up the others
NOBODY = 4  # attempts to reach an endpoint that has never answered at all: a wrong address shows in seconds
GIVE_UP = 10  # failures in a row after which the endpoint is taken to be down
FIRST_REST, LONGEST_REST = 0.5, 60.0  # seconds between attempts: doubled from the first to the longest
LONGEST_WAIT = 900.0  # the longest Retry-After that is waited for
NO_KEY = "none"  # a local server wants no key, the client library wants some


class Endpoint(Config):
    """Where and how to ask. The key is read from the environment variable ``key_env``, and is never written anywhere.

    ``concurrency``: questions in flight; ``timeout``: seconds without a byte of the answer; ``attempts``: for one
    question, the first included.
    """

    url: str
    key_env: str = "OPENAI_API_KEY"
    concurrency: int = Field(8, ge=1, le=512)
    timeout: float = Field(300.0, gt=0)
    attempts: int = Field(8, ge=1)


@dataclass
class _Gate:
    """Shut for all threads while the endpoint wants to be left alone; ``stop`` ends every wait."""

    stop: threading.Event
    opens: float = 0.0

    def rest(self, seconds: float) -> None:
        self.opens = max(self.opens, time.monotonic() + seconds)

    def pause(self, seconds: float) -> None:
        if self.stop.wait(max(0.0, seconds)):
            raise WorkFailed("the run was stopped")

    def enter(self) -> None:
        while (left := self.opens - time.monotonic()) > 0 or self.stop.is_set():
            self.pause(left)


class Client:
    """Answers of one endpoint, through a journal. Every answer is journalled before anyone sees it.

    ``blank``: whether an answer without a word is one (of a model that is tested), or is asked for again."""

    def __init__(self, endpoint: Endpoint, journal: Journal, meter: Meter, blank: bool = False) -> None:
        self.endpoint = endpoint
        self.journal = journal
        self.meter = meter
        self.blank = blank
        self._openai = _connect(endpoint)
        self._gate = _Gate(threading.Event())
        self._in_a_row = 0
        self._reached = False

    def answers(self, requests: Iterable[Request]) -> Iterator[Reply | Failure]:
        """The outcome for each request, in their order. One in the journal is not asked; equal ones are asked once.

        Raises :class:`~llavakit.endpoint.meter.OverBudget`, and :class:`WorkFailed` when the endpoint is down or wants
        another key. When the caller stops, answers in flight are still waited for and journalled: they are paid.
        """
        self._gate.stop.clear()
        pool = ThreadPoolExecutor(self.endpoint.concurrency, thread_name_prefix="ask")
        asked: dict[str, Future[Reply | Failure]] = {}
        waiting: deque[tuple[str, Future[Reply | Failure]]] = deque()

        def first() -> Reply | Failure:
            key, future = waiting.popleft()
            if all(key != other for other, _ in waiting):
                asked.pop(key, None)
            return future.result()

        try:
            for request in requests:
                future = asked.get(request.key) or self._begin(pool, request)
                asked[request.key] = future
                waiting.append((request.key, future))
                if len(waiting) >= AHEAD * self.endpoint.concurrency:
                    yield first()
            while waiting:
                yield first()
        finally:
            self._gate.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            if flying := sum(future.running() for _, future in waiting):
                log.info("waiting for %d answers in flight, which are paid for", flying)
            pool.shutdown()

    def _begin(self, pool: ThreadPoolExecutor, request: Request) -> Future[Reply | Failure]:
        known = self.journal[request.key]
        if known is None:
            return pool.submit(self._ask, request)
        done: Future[Reply | Failure] = Future()
        done.set_result(known)
        return done

    def _ask(self, request: Request) -> Reply | Failure:
        reason = ""
        for attempt in range(self.endpoint.attempts):
            if attempt:
                # Full jitter: many threads that failed together must not come back together.
                self._gate.pause(random.uniform(0.5, 1) * min(FIRST_REST * 2 ** (attempt - 1), LONGEST_REST))
            try:
                with self.meter.holding(request):
                    self._gate.enter()  # it may have shut while others held the budget
                    reply = self._post(request)
                    self.meter.add(reply.usage)
                    self.journal.add(reply)
            except Unusable as error:
                reason = str(error)
                if error.usage:
                    self.meter.add(error.usage)
                    self.journal.waste(error.usage)
                if error.refused:
                    return self._failed(Failure(request.key, reason, refused=True))
                if not self._reached and attempt + 1 >= NOBODY:
                    raise WorkFailed(f"nobody answers at {self.endpoint.url}: {reason}") from None
                continue
            self._in_a_row = 0
            return reply
        return self._failed(Failure(request.key, f"{reason} ({self.endpoint.attempts} attempts)"))

    def _failed(self, failure: Failure) -> Failure:
        self._in_a_row += 1
        if self._in_a_row >= GIVE_UP:
            raise WorkFailed(
                f"{self._in_a_row} questions in a row got no answer from {self.endpoint.url}, the last: "
                f"{failure.reason}; run again when it is mended, answers so far are kept"
            )
        return failure

    def _post(self, request: Request) -> Reply:
        """One attempt. Raises :class:`Unusable` for what another attempt may mend and for a refusal, and
        :class:`WorkFailed` for what concerns all questions."""
        import openai

        body = dict(request.body)
        try:
            answer = self._openai.chat.completions.with_raw_response.create(
                model=body.pop("model"),
                messages=body.pop("messages"),
                extra_body=body,
                # Where the endpoint knows this header, an attempt whose answer got lost is not charged again.
                extra_headers={"Idempotency-Key": request.key},
            )
        except openai.APIStatusError as error:
            self._reached = True
            raise self._trouble(error) from None
        except openai.APITimeoutError:
            raise Unusable(f"no answer within {self.endpoint.timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise Unusable(f"the connection failed: {error.__cause__ or error}") from None
        self._reached = True
        return reply_of(answer.http_response.content, request, self.blank)

    def _trouble(self, error: openai.APIStatusError) -> Exception:
        status, said = error.status_code, f"HTTP {error.status_code}: {_said(error)}"
        if status in (401, 403, 404, 405):
            hint = f" (the key comes from ${self.endpoint.key_env})" if status in (401, 403) else ""
            return WorkFailed(f"{self.endpoint.url} will not answer: {said}{hint}")
        if status == 429 and error.code == "insufficient_quota":
            return WorkFailed(f"{self.endpoint.url}: {said}; answers so far are kept")
        if status not in (408, 409, 425, 429) and status < 500:
            return Unusable(said, refused=True)
        wait = _retry_after(error.response.headers)
        if wait > LONGEST_WAIT:
            return WorkFailed(
                f"{self.endpoint.url} wants to be left alone for {wait:.0f} s ({said}); run again then, "
                "answers so far are kept"
            )
        if wait > 10:
            log.info("the endpoint wants to be left alone for %.0f s (%s)", wait, said)
        self._gate.rest(wait)
        return Unusable(said)


def _connect(endpoint: Endpoint) -> openai.OpenAI:
    try:
        import openai
    except ImportError:
        raise BadRequest("asking an endpoint needs the openai package: pip install 'llavakit[endpoint]'") from None
    if not endpoint.url.startswith(("http://", "https://")):
        raise BadRequest(f"the endpoint must be an http(s) address such as http://127.0.0.1:8000/v1: {endpoint.url!r}")
    # No retries in the library: it would neither leave the endpoint alone for long nor count what attempts cost.
    key = os.environ.get(endpoint.key_env) or NO_KEY
    patience = openai.Timeout(endpoint.timeout, connect=min(endpoint.timeout, 10.0))
    return openai.OpenAI(base_url=endpoint.url, api_key=key, timeout=patience, max_retries=0)


def _said(error: openai.APIStatusError) -> str:
    body: Any = error.body
    text = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(text or error.response.text or "no explanation").split())[:300]


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds, from ``retry-after-ms`` or ``Retry-After`` (seconds or a date); 0 where there is none."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * scale)
        except (KeyError, ValueError):
            continue
    moment = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return max(0.0, email.utils.mktime_tz(moment) - time.time()) if moment else 0.0
