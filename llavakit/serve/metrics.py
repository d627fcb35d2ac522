"""What the server is doing, as Prometheus reads it."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque

from llavakit.engine.service import Stats

WINDOW = 10.0
"""Seconds over which tokens/s is taken."""
BOUNDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


class Histogram:
    """Counts of observations up to each bound, as Prometheus wants them: cumulative."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(BOUNDS, value)] += 1
        self.sum += value

    def lines(self, name: str) -> list[str]:
        total, lines = 0, []
        for bound, count in zip((*BOUNDS, "+Inf"), self.counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self.sum:.6f}", f"{name}_count {total}"]


class Metrics:
    """Counts what passes through the server. Used from the event loop's thread alone."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.first_token = Histogram()
        self.request = Histogram()
        self._tokens: deque[tuple[float, int]] = deque()
        self._ends: deque[float] = deque(maxlen=64)

    def answered(self, status: int) -> None:
        self.statuses[status] += 1

    def began(self, seconds: float) -> None:
        """The first token of an answer, so long after its request."""
        self.first_token.observe(seconds)

    def wrote(self, tokens: int) -> None:
        now = time.monotonic()
        self._tokens.append((now, tokens))
        self._forget(now)

    def finished(self, seconds: float) -> None:
        self.request.observe(seconds)
        self._ends.append(time.monotonic())

    def seconds_until(self, count: int) -> float:
        """Seconds until ``count`` requests have ended, at the pace of the latest."""
        if len(self._ends) < 2:
            return 1.0
        # Up to now, not to the last end: a server that stands still has no pace.
        return count * (time.monotonic() - self._ends[0]) / len(self._ends)

    def tokens_per_second(self) -> float:
        self._forget(time.monotonic())
        return sum(tokens for _, tokens in self._tokens) / WINDOW

    def _forget(self, now: float) -> None:
        while self._tokens and self._tokens[0][0] < now - WINDOW:
            self._tokens.popleft()

    def text(self, stats: Stats) -> str:
        """The page that Prometheus scrapes."""
        rows: list[tuple[str, str, str, float]] = [
            ("requests_waiting", "gauge", "answers that wait for a place", stats.queue),
            ("requests_running", "gauge", "answers that are written now: the batch", stats.running),
            ("batch_size", "gauge", "places of the batch", stats.batch_size),
            ("tokens_per_second", "gauge", f"tokens written, over {WINDOW:g} s", self.tokens_per_second()),
            ("prompt_tokens_total", "counter", "tokens of questions", stats.prompt_tokens),
            ("completion_tokens_total", "counter", "tokens written", stats.completion_tokens),
            ("steps_total", "counter", "times that the batch was advanced by a token", stats.steps),
            ("prefix_hits_total", "counter", "prompt tokens found in the cache", stats.prefix_hits),
            ("prefix_misses_total", "counter", "prompt tokens computed", stats.prefix_misses),
            ("image_hits_total", "counter", "pictures found in the cache", stats.image_hits),
            ("image_misses_total", "counter", "pictures computed", stats.image_misses),
            ("cache_bytes", "gauge", "memory of the caches", stats.cache_bytes),
        ]
        lines = []
        for name, kind, says, value in rows:
            lines += [*_head(name, kind, says), f"llavakit_{name} {value:.3f}".removesuffix(".000")]
        lines += _head("responses_total", "counter", "responses by HTTP status")
        lines += [f'llavakit_responses_total{{status="{s}"}} {n}' for s, n in sorted(self.statuses.items())]
        lines += _head("time_to_first_token_seconds", "histogram", "from a request to the first token of its answer")
        lines += self.first_token.lines("llavakit_time_to_first_token_seconds")
        lines += _head("request_seconds", "histogram", "from a request to the end of its answer")
        lines += self.request.lines("llavakit_request_seconds")
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, says: str) -> list[str]:
    return [f"# HELP llavakit_{name} {says}", f"# TYPE llavakit_{name} {kind}"]
