"""Continuous batching: requests are admitted when there is a place, decoded together, and leave when they are done."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from llavakit.engine.attend import joined
from llavakit.engine.cache import WORTH, Path, Prefixes, chain, tokens
from llavakit.engine.pictures import Pictures
from llavakit.engine.request import Request
from llavakit.engine.sample import choose

# Prompt tokens that are computed while running answers wait; after so many these have their turn.
PATIENCE = 1024
# A longer end of a prompt is computed as a part of its own, by itself, and can be shared too.
LONG = 128

Going = list[tuple[Request, list[tuple[int, int]]]]
"""Requests that go on: for each of its rows, the row that it continues, and the token to read next."""


class Batch:
    """Requests that wait and requests that run, over one decoder. Not thread-safe."""

    def __init__(self, decoder: Any, pictures: Pictures, prefixes: Prefixes, places: int) -> None:
        self.decoder, self.pictures, self.prefixes, self.places = decoder, pictures, prefixes, places
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.rows = decoder.rows()
        self.steps = 0
        self._entering: list[Request] = []
        self._next: list[int] = []

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running)

    def add(self, request: Request) -> None:
        self.pictures.identify(request)
        self.waiting.append(request)

    @torch.inference_mode()
    def step(self) -> list[Request]:
        """Admits what there are places for, then gives every running answer its next token. Returns the requests that
        ended."""
        ended = self.sweep()
        self._entering = new = self._admit()
        if new:
            own = [self._embed(request, tokens(request.path), len(request.keys)) for request in new]
            logits = self.decoder.admit(self.rows, [chain(request.path) for request in new], own)
            staying: Going = [(request, self._pairs(request)) for request in self.running]
            ended += self._advance(new, logits, [[number] for number in range(len(new))], staying)
            self._entering = []
        if self.running:
            self.steps += 1
            logits = self.decoder.step(self.rows, torch.tensor(self._next, device=self.decoder.device))
            ended += self._advance(self.running, logits, [request.rows for request in self.running], [])
        return ended

    def abandon(self) -> list[Request]:
        """Forgets every request, and returns them: after a failure in the middle of a step nothing else is sound."""
        gone = list(dict.fromkeys([*self._entering, *self.running, *self.waiting]))
        for request in gone:
            self._release(request)
        self._entering, self.running, self._next, self.rows = [], [], [], self.decoder.rows()
        self.waiting.clear()
        return gone

    @torch.inference_mode()
    def sweep(self) -> list[Request]:
        """Ends what was cancelled; its places are free."""
        gone = [request for request in (*self.waiting, *self.running) if request.cancelled]
        if not gone:
            return gone
        self.waiting = deque(request for request in self.waiting if not request.cancelled)
        self._settle([(request, self._pairs(request)) for request in self.running if not request.cancelled])
        for request in gone:
            request.finish = "cancelled"
            self._release(request)
        return gone

    def _admit(self) -> list[Request]:
        """The next waiting requests, their shared parts computed and held."""
        new: list[Request] = []
        taken, computed = len(self.rows), 0
        while self.waiting and (computed < PATIENCE or not self.running):
            request = self.waiting[0]
            if taken and taken + request.how.num_beams > self.places:
                break
            before = self.prefixes.misses
            request.path = self._shared(request)
            self.waiting.popleft()
            computed += self.prefixes.misses - before
            taken += request.how.num_beams
            request.rows = [len(self.rows) + len(new)]
            new.append(request)
        return new

    def _shared(self, request: Request) -> Path:
        """The shared parts of a prompt: what is known, up to its last picture what is not, and of a long rest all but
        the last token."""
        keys = request.keys
        pictures = np.flatnonzero(keys < 0)
        boundary = int(pictures[-1]) + 1 if len(pictures) else 0
        path = self.prefixes.find(keys[:-1])
        if 4 * tokens(path) < boundary:
            path = ()  # a few words before another picture: not worth a part of their own in every step
        self.prefixes.hits += tokens(path)
        self.prefixes.misses += len(keys) - tokens(path)
        if tokens(path) < boundary:
            path = self._computed(request, path, boundary)
        if len(keys) - tokens(path) > LONG:
            path = self._computed(request, path, len(keys) - 1)
        self.prefixes.hold(path)
        return path

    def _computed(self, request: Request, path: Path, stop: int) -> Path:
        start = tokens(path)
        shared = self.decoder.share(chain(path), self._embed(request, start, stop))
        return self.prefixes.add(path, request.keys[start:stop], shared)

    def _embed(self, request: Request, start: int, stop: int) -> torch.Tensor:
        return self.pictures.embed(request, start, stop, self.decoder.embed)

    def _advance(
        self, requests: Sequence[Request], logits: torch.Tensor, at: Sequence[list[int]], staying: Going
    ) -> list[Request]:
        """Chooses tokens from ``logits[at[i]]`` for ``requests[i]``; returns those that ended."""
        single = [i for i, request in enumerate(requests) if request.beams is None]
        lines = [at[i][0] for i in single]
        rows = logits if lines == list(range(len(logits))) else logits[lines]
        hows, seen = [requests[i].how for i in single], [requests[i].seen for i in single]
        ids = choose(rows, hows, seen, [requests[i].generator for i in single]) if single else []
        for number, (i, id) in enumerate(zip(single, ids, strict=True)):
            requests[i].take(id, rows[number] if requests[i].logprobs else None)
        going = staying
        ended = []
        for i, request in enumerate(requests):
            if request.beams is not None:
                chosen = request.beams.step(logits[at[i]])
                if chosen is None:
                    request.take_all(request.beams.best)
                else:
                    parents = [request.rows[parent] for parent in chosen.parents]
                    going.append((request, list(zip(parents, chosen.ids, strict=True))))
            elif request.finish is None:
                going.append((request, [(request.rows[0], request.ids[-1])]))
            if request.finish is not None:
                ended.append(request)
                self._keep(request)
        self._settle(going)
        for request in ended:
            self._release(request)
        return ended

    def _pairs(self, request: Request) -> list[tuple[int, int]]:
        return [(row, self._next[row]) for row in request.rows]

    def _settle(self, going: Going) -> None:
        """Gives every row that goes on a place, the fewest moved, and forgets the others."""
        wanted = [row for _, pairs in going for row, _ in pairs]
        places = placed(wanted)
        order = [0] * len(wanted)
        self._next = [0] * len(wanted)
        self.running = []
        filled = iter(places)
        for request, pairs in going:
            request.rows = [next(filled) for _ in pairs]
            self.running.append(request)
            for place, (row, id) in zip(request.rows, pairs, strict=True):
                order[place], self._next[place] = row, id
        if order != list(range(len(self.rows))):
            self.rows.keep(order)

    def _keep(self, request: Request) -> None:
        """Shares what an answered conversation has of its own, joined with all but the first part before it: a talk is
        its picture and one part more, however many turns it has."""
        if not request.keep or request.beams is not None:
            return
        first, rest = request.path[:1], request.path[1:]
        own = self.rows.own(request.rows[0])
        keys = np.concatenate([request.keys, np.array(request.ids, dtype=np.int64)])[: tokens(request.path) + len(own)]
        if len(keys) - tokens(first) < WORTH or tokens(self.prefixes.find(keys)) == len(keys):
            return
        self.prefixes.add(first, keys[tokens(first) :], joined((*chain(rest), own)))

    def _release(self, request: Request) -> None:
        self.prefixes.release(request.path)
        request.path, request.rows = (), []


def placed(wanted: Sequence[int]) -> list[int]:
    """For each wanted row its new place, below ``len(wanted)``: its own where that exists and is free."""
    places = [-1] * len(wanted)
    free = set(range(len(wanted)))
    for number, row in enumerate(wanted):
        if row in free:
            places[number] = row
            free.discard(row)
    left = iter(sorted(free))
    return [next(left) if place < 0 else place for place in places]
