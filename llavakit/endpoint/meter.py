"""Meter: what was spent, and a stop before more than the budget is. Tokens always; money where the prices are known."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator

from pydantic import Field

from llavakit.base.config import Config
from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.endpoint.request import Request, Usage


class Prices(Config):
    """Money for a million tokens of the prompt and of the answer, in whatever currency the budget is."""

    prompt: float = Field(ge=0)
    answer: float = Field(ge=0)

    def of(self, usage: Usage) -> float:
        return (usage.prompt * self.prompt + usage.answer * self.answer) / 1e6


class Budget(Config):
    """The most that may be spent, None for no limit."""

    tokens: int | None = Field(None, gt=0)
    money: float | None = Field(None, gt=0)


class OverBudget(WorkFailed):
    """The next question could cost more than is left."""


class Meter:
    """Counts what answers cost. Each question in flight holds its possible cost back, so that many at once cannot
    overdraw; what it holds is freed when its true cost is known. Safe between threads.

    Raises :class:`BadRequest` for a budget of money without prices.
    """

    def __init__(self, budget: Budget | None = None, prices: Prices | None = None, spent: Iterable[Usage] = ()) -> None:
        self.budget = budget or Budget()
        self.prices = prices
        if self.budget.money is not None and prices is None:
            raise BadRequest("a budget of money needs the prices of a million prompt and answer tokens")
        self._free = threading.Condition()
        self._held = (0, 0.0)
        self.prompt = self.answer = 0
        self.estimated = False
        for usage in spent:
            self.add(usage)

    @property
    def tokens(self) -> int:
        return self.prompt + self.answer

    @property
    def money(self) -> float | None:
        """None where no prices are known."""
        return self.prices.of(Usage(self.prompt, self.answer)) if self.prices else None

    def add(self, usage: Usage) -> None:
        with self._free:
            self.prompt += usage.prompt
            self.answer += usage.answer
            self.estimated |= usage.estimated

    @contextlib.contextmanager
    def holding(self, request: Request) -> Iterator[None]:
        """Holds the possible cost of a question while it is in flight; waits while others in flight hold what it needs.

        Raises :class:`OverBudget` when what is spent leaves too little for it.
        """
        tokens, money = self._most(request)
        with self._free:
            while True:
                self._check(tokens, money, (0, 0.0))
                try:
                    self._check(tokens, money, self._held)
                    break
                except OverBudget:
                    self._free.wait()
            self._held = self._held[0] + tokens, self._held[1] + money
        try:
            yield
        finally:
            with self._free:
                self._held = self._held[0] - tokens, self._held[1] - money
                self._free.notify_all()

    def hold(self, request: Request) -> None:
        """Holds the possible cost of a question that is handed in for later, and does not free it.

        Raises :class:`OverBudget` when what is spent and held leaves too little for it.
        """
        tokens, money = self._most(request)
        with self._free:
            self._check(tokens, money, self._held)
            self._held = self._held[0] + tokens, self._held[1] + money

    def _most(self, request: Request) -> tuple[int, float]:
        # A third more than the estimate: tokenizers differ.
        usage = Usage(request.prompt_tokens * 4 // 3, request.most_tokens)
        return usage.prompt + usage.answer, self.prices.of(usage) if self.prices else 0.0

    def _check(self, tokens: int, money: float, held: tuple[int, float]) -> None:
        limit, most = self.budget.tokens, self.budget.money
        if limit is not None and self.tokens + held[0] + tokens > limit:
            raise OverBudget(
                f"{self.tokens:,} of {limit:,} tokens are spent, and the next question may take {tokens:,}"
            )
        spent = self.money or 0.0
        # 1e-12: sums of floats that are held and freed need not come back to nought.
        if most is not None and spent + held[1] + money > most + 1e-12:
            raise OverBudget(f"{spent:.4f} of {most:g} is spent; the next question may cost {money:.4f}")
