"""OpenVINO under our own engine: for a processor without a GPU beside it.

Prompts, shared prefixes, batches and sampling are the engine's own (:mod:`llavakit.engine`), and so is the server; the
language model and a picture's way to its embeddings run as OpenVINO graphs. Tried with openvino 2026.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llavakit.base.errors import BadRequest
from llavakit.base.log import log
from llavakit.engine.attend import Chain, Shared, length
from llavakit.engine.decoder import fits
from llavakit.engine.engine import Engine
from llavakit.engine.load import Precision
from llavakit.engine.plain import Listed
from llavakit.model import checkpoint
from llavakit.serve.openvino_graph import language_graph, number_of, openvino, picture_graph

# Fast: bfloat16 where the processor has it, and keys and values in 8 bits.
HINTS = {"float32": "ACCURACY", "fast": "PERFORMANCE"}
HIDDEN = float(np.finfo(np.float32).min)


def load(model: str | Path, batch_size: int = 32, precision: Precision = "float32") -> Engine:
    """An engine whose model runs in OpenVINO. Raises :class:`BadRequest` where that is not installed, or for a
    language model that is not built like Llama's."""
    ov = openvino()
    llava, codec = checkpoint.load(model)
    if why := fits(llava.language_model):
        raise BadRequest(f"the OpenVINO engine runs language models built like Llama's: {why}; take --engine builtin")
    core, hints = ov.Core(), {"EXECUTION_MODE_HINT": HINTS[precision]}
    see = core.compile_model(picture_graph(llava), "CPU", hints)
    config = llava.language_model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shape = (config.num_hidden_layers, config.num_key_value_heads, width)
    speak = core.compile_model(language_graph(llava.language_model, shape), "CPU", hints)

    def image_features(pixels: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(see([pixels.numpy()])[0])

    llava.image_features = image_features  # type: ignore[method-assign]
    log.info(f"OpenVINO {ov.__version__.split('-')[0]} on {core.get_property('CPU', 'FULL_DEVICE_NAME').strip()}")
    return Engine(llava, codec, batch_size, decoder=OpenvinoDecoder(speak, llava.language_model, shape))


class OpenvinoRows(Listed):
    """Rows of one infer request's state, their ends together. ``order``: which of its rows they are, taken at the next
    step; ``width``: the state's length, that of its longest row or more."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request
        self.order: list[int] = []
        self.width = 0

    def keep(self, rows: Sequence[int]) -> None:
        super().keep(rows)
        self.order = [self.order[row] for row in rows]

    def own(self, row: int) -> Shared:
        start = self.width - self.lengths[row]
        at = self.order[row]
        found = torch.stack([torch.from_numpy(s.state.data[at, :, start:].copy()) for s in states(self.request)])
        return Shared(found[0::2], found[1::2])

    def join(self, others: Sequence[list[np.ndarray]]) -> None:
        """Adds rows, each given by its caches ``float[1, heads, M, d]``."""
        totals = self.totals
        self.width = max(totals)
        kept = len(totals) - len(others)
        for number, state in enumerate(states(self.request)):
            parts = [caches[number] for caches in others]
            if kept:
                old = state.state.data
                parts.insert(0, old[self.order[:kept], :, max(0, old.shape[2] - self.width) :])
            out = np.zeros((len(totals), *parts[0].shape[1:2], self.width, parts[0].shape[3]), np.float32)
            at = 0
            for part in parts:
                out[at : at + len(part), :, self.width - part.shape[2] :] = part
                at += len(part)
            set_state(state, out)
        self.order = list(range(len(totals)))


class OpenvinoDecoder:
    """A compiled language model, with the methods of :class:`~llavakit.engine.decoder.Decoder`."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, compiled: Any, language_model: Any, shape: tuple[int, int, int]) -> None:
        self.compiled, self.shape = compiled, shape
        self.embeddings = language_model.get_input_embeddings()
        self.alone = compiled.create_infer_request()

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.embeddings(ids)
        return out

    def rows(self) -> OpenvinoRows:
        return OpenvinoRows(self.compiled.create_infer_request())

    def share(self, chain: Chain, embeddings: torch.Tensor) -> Shared:
        self._prefill(chain, embeddings)
        past = length(chain)
        found = torch.stack([torch.from_numpy(s.state.data[0, :, past:].copy()) for s in states(self.alone)])
        return Shared(found[0::2], found[1::2])

    def admit(self, rows: OpenvinoRows, chains: Sequence[Chain], embeddings: Sequence[torch.Tensor]) -> torch.Tensor:
        logits, caches = [], []
        for chain, part in zip(chains, embeddings, strict=True):
            logits.append(self._prefill(chain, part))
            caches.append([state.state.data.copy() for state in states(self.alone)])
            rows.chains.append(chain)
            rows.lengths.append(len(part))
        rows.join(caches)
        return torch.cat(logits)

    def step(self, rows: OpenvinoRows, ids: torch.Tensor) -> torch.Tensor:
        positions = np.array(rows.totals, dtype=np.int64)[:, None]
        rows.lengths = [count + 1 for count in rows.lengths]
        rows.width += 1
        hidden = np.arange(rows.width) < rows.width - 1 - positions
        mask = np.where(hidden, np.float32(HIDDEN), np.float32(0))[:, None, None]
        out = self._run(rows.request, self.embed(ids)[:, None], mask, positions, rows.order)
        rows.order = list(range(len(rows)))
        return out

    def _prefill(self, chain: Chain, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits ``[1, V]`` after tokens that come behind ``chain``; their caches are then the request's state."""
        past, count = length(chain), len(embeddings)
        self.alone.reset_state()
        if chain:
            sides = [torch.cat([getattr(shared, name) for shared in chain], 2) for name in ("keys", "values")]
            for number, state in enumerate(states(self.alone)):
                set_state(state, sides[number % 2][number // 2][None].numpy())
        positions = np.arange(past, past + count, dtype=np.int64)[None]
        hidden = np.arange(past + count) > positions[0][:, None]
        mask = np.where(hidden, np.float32(HIDDEN), np.float32(0))[None, None]
        return self._run(self.alone, embeddings[None], mask, positions, [0])

    def _run(
        self, request: Any, x: torch.Tensor, mask: np.ndarray, positions: np.ndarray, order: Sequence[int]
    ) -> torch.Tensor:
        inputs = (x.detach().contiguous().numpy(), mask, positions, np.array(order, dtype=np.int32))
        found = request.infer(dict(enumerate(inputs)))
        return torch.from_numpy(found[0].copy())


def states(request: Any) -> list[Any]:
    """Keys and values of each layer, in order."""
    return sorted(request.query_state(), key=number_of)


def set_state(state: Any, value: np.ndarray) -> None:
    state.state = openvino().Tensor(np.ascontiguousarray(value, dtype=np.float32))
