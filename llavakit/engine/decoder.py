"""A forward pass of our own over transformers' modules, for decoders built like Llama's.

Llama, Mistral, Qwen2, Qwen3 and whatever else has the same structure: RMS norms before attention and MLP, rotary
positions over whole heads, a gated MLP. That it is the same is not assumed: :func:`fits` compares the structure and
then the logits. Other families go through transformers' own cache (:mod:`llavakit.engine.plain`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from llavakit.engine.attend import Chain, Shared
from llavakit.engine.block import Block, Norm
from llavakit.engine.linear import Linear, Packing
from llavakit.engine.rows import OneEach, Rows, Several, View
from llavakit.engine.step import Step


class Decoder:
    """A causal language model with shared prefixes. Weights are taken as they are when it is made."""

    def __init__(self, language_model: Any, pack: Packing | None) -> None:
        base = language_model.base_model
        blocks = base.layers
        self.pack = pack
        self.embeddings: Any = language_model.get_input_embeddings()
        self.rotary = base.rotary_emb
        self.norm = Norm(base.norm, blocks[0].self_attn.head_dim)
        self.head = Linear(language_model.get_output_embeddings(), pack=pack)
        self.blocks = [Block(block, pack, last=block is blocks[-1]) for block in blocks]
        first = blocks[0].self_attn
        self.shape = (len(blocks), first.k_proj.out_features // first.head_dim, first.head_dim)
        self.native = Step.of(self.blocks, self.norm, self.head, self.dtype)
        self._turns: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def device(self) -> torch.device:
        return self.embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embeddings.weight.dtype

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """``int64[T]`` -> ``float[T, hidden]``."""
        return self.embeddings(ids)

    def share(self, chain: Chain, embeddings: torch.Tensor) -> Shared:
        """Keys and values of tokens ``float[T, hidden]`` that come after ``chain``."""
        rows = Rows(*self.shape, self.dtype, self.device)
        rows.add([chain], [len(embeddings)])
        # Of the last layer only keys and values are wanted: no attention, no MLP.
        self._run(embeddings, Several(rows, 0), rows.positions(0), None)
        return rows.own(0)

    def admit(self, rows: Rows, chains: Sequence[Chain], embeddings: Sequence[torch.Tensor]) -> torch.Tensor:
        """Adds rows whose own tokens are ``embeddings``, each ``float[T, hidden]`` with T at least 1. Returns the
        logits after each, ``float[n, V]``."""
        first = len(rows)
        rows.add(chains, [len(part) for part in embeddings])
        view = Several(rows, first)
        return self._run(torch.cat(list(embeddings)), view, rows.positions(first), OneEach(rows, first))

    def step(self, rows: Rows, ids: torch.Tensor) -> torch.Tensor:
        """Gives each row its next token ``int64[n]``; returns the logits after it ``float[n, V]``."""
        rows.grow()
        view, positions = OneEach(rows, 0), rows.ends()
        if self.native is not None and view.native is not None:
            return self.native(self.embed(ids), view.native, *self._turned_to(view, positions))
        return self._run(self.embed(ids), view, positions, view)

    def rows(self) -> Rows:
        """A batch without rows."""
        return Rows(*self.shape, self.dtype, self.device)

    def _run(self, x: torch.Tensor, view: View, positions: torch.Tensor, end: OneEach | None) -> torch.Tensor:
        """Logits after each row's last token where ``end`` asks for them, else none: ``float[n, V]``."""
        cos, sin = self._turned_to(view, positions)
        x = self._padded(x)
        for number, block in enumerate(self.blocks if end is view else self.blocks[:-1]):
            x = block(number, x, cos, sin, view)
        if end is not view:
            last = self.blocks[-1]
            normed = last.store(len(self.blocks) - 1, x, cos, sin, view)
            if end is None:
                return x[:0]
            x, normed, cos, sin = (tensor[view.last] for tensor in (x, normed, cos, sin))
            x, normed = self._padded(x), self._padded(normed)
            x = last.finish(len(self.blocks) - 1, x, normed, cos, sin, end)
        return self.head(self.norm(x))[: len(cos)]

    def _padded(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of zeros after those of ``x``, which end before attention, where the kernels want a round number."""
        size = len(x) if self.head.packed is None else self.head.packed.even(len(x))
        return x if size == len(x) else nn.functional.pad(x, (0, 0, 0, size - len(x)))

    def _turned_to(self, view: View, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine of ``positions``, each ``[T, 1, head width]``."""
        cos, sin = (table[positions][:, None] for table in self._turn(view.longest))
        return cos, sin

    def _turn(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine ``[positions, head width]``; the sine's first half negative, so that turning needs a roll."""
        if self._turns is None or len(self._turns[0]) < count:
            places = torch.arange(max(count, 1024, 2 * len(self._turns[0]) if self._turns else 0), device=self.device)
            cos, sin = self.rotary(torch.empty(0, dtype=self.dtype, device=self.device), places[None])
            half = sin.shape[-1] // 2
            self._turns = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)
        return self._turns


def fits(language_model: Any) -> str:
    """Why :class:`Decoder` cannot run this model, or nothing where it can: same structure, same logits."""
    config = language_model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or (getattr(config, "sliding_window", None) and "layer_types" not in config):
        return "it attends through a sliding window"
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ("default", "linear", "llama3", "yarn"):
        return f"its rotary positions ({rope}) depend on the length of the text"
    base = language_model.base_model
    wanted = (
        ("self_attn", ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling")),
        ("mlp", ("gate_proj", "up_proj", "down_proj", "act_fn")),
        ("input_layernorm", ("weight", "variance_epsilon")),
        ("post_attention_layernorm", ("weight", "variance_epsilon")),
    )
    for name in ("layers", "norm", "rotary_emb"):
        if not hasattr(base, name):
            return f"it has no {name}"
    for block in base.layers:
        for name, parts in wanted:
            lacks = [part for part in parts if not hasattr(getattr(block, name, None), part)]
            if lacks:
                return f"its layers have no {name}.{lacks[0]}"
    lacks = [name for name in ("weight", "variance_epsilon") if not hasattr(base.norm, name)]
    if lacks:
        return f"it has no norm.{lacks[0]}"
    if 2 * base.rotary_emb.inv_freq.numel() != base.layers[0].self_attn.head_dim:
        return "its rotary positions turn a part of each head"
    return _differs(language_model)


@torch.inference_mode()
def _differs(language_model: Any) -> str:
    vocabulary = language_model.get_input_embeddings().num_embeddings
    ids = torch.arange(1, 13, device=language_model.device) * 7919 % vocabulary
    theirs = language_model(input_ids=ids[None], use_cache=False).logits[0, -1].float()
    decoder = Decoder(language_model, pack=None)
    rows = decoder.rows()
    shared = decoder.share((), decoder.embed(ids[:5]))
    decoder.admit(rows, [(shared,)], [decoder.embed(ids[5:11])])
    ours = decoder.step(rows, ids[11:])[0].float()
    off = float((ours - theirs).abs().max() / theirs.abs().max())
    bound = 1e-3 if language_model.dtype == torch.float32 else 5e-2
    return "" if off < bound else f"its logits come out differently ({off:.1e})"
