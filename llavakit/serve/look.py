"""What the model saw of a picture, and where it looked as it wrote a word.

The heat map of a token is the attention, at the position that wrote it, over the positions of the picture's patches:
the mean over all heads of the middle half of the layers, where attention is known to follow the things that are spoken
of (Zhang et al., "MLLMs Know Where to Look", 2025). A word's is the mean of its tokens'.
"""

from __future__ import annotations

import base64
import io
import re
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from llavakit.base.errors import BadRecord
from llavakit.chat.conversation import Conversation
from llavakit.chat.labels import IGNORE
from llavakit.engine.engine import Engine
from llavakit.model.attention import packed_attention
from llavakit.model.encode import Codec, Example, encode
from llavakit.model.llava import Llava
from llavakit.serve.wire import Look, View, Word

NAME = "llavakit_looking"


@torch.inference_mode()
def look(engine: Engine, conversation: Conversation) -> Look:
    """Views of all pictures and, where the last message is the assistant's, the words of it with their heat maps.

    Raises :class:`BadRecord` for a conversation that cannot be encoded or is longer than the context.
    """
    codec = engine.codec
    example = encode(conversation, codec, prompt=not conversation.answered)
    if example.cut:
        raise BadRecord(f"is {example.cut} tokens longer than the context", conversation.where)
    side = codec.side
    views = [View(image=_png(pixels), rows=side, columns=side) for pixels in example.pixels]
    if not conversation.answered:
        return Look(views=views, text="", words=[])
    written = _last_answer(example, codec)
    text, tokens = _spans(codec, example.ids[written])
    heat = attention(engine.model, codec, example, written - 1) if len(views) else np.zeros((len(written), 0, 0))
    words = []
    for match in re.finditer(r"\S+", text):
        parts = [n for n, (start, end) in enumerate(tokens) if start < match.end() and end > match.start()]
        words.append(_word(match, heat[parts].mean(0)))
    return Look(views=views, text=text, words=words)


def attention(model: Llava, codec: Codec, example: Example, rows: np.ndarray) -> np.ndarray:
    """Attention at the positions ``rows`` ``int64[R]`` over each picture's patches, ``float32[R, n, patches]``."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _looking)
    ids = torch.from_numpy(example.ids).to(model.device)
    image_at = (ids == codec.image_id).nonzero().squeeze(-1)
    take = None if example.take is None else torch.from_numpy(example.take).to(model.device)
    embeddings = model.embed(ids, torch.from_numpy(example.pixels).to(model.device), image_at, take)
    seen: list[torch.Tensor] = []
    language = model.language_model
    before = language.config._attn_implementation
    language.config._attn_implementation = NAME
    try:
        language.base_model(
            inputs_embeds=embeddings[None],
            position_ids=torch.arange(len(ids), device=model.device)[None],
            use_cache=False,
            segments=[len(ids)],
            rows=torch.from_numpy(rows).to(model.device),
            columns=image_at,
            seen=seen,
        )
    finally:
        language.config._attn_implementation = before
    middle = seen[len(seen) // 4 : max(1, len(seen) - len(seen) // 4)]
    shares = torch.stack(middle).mean(0).cpu().numpy()
    view, patch = _patches(codec, example)
    shown = (view >= 0) & (patch >= 0)
    over = np.zeros((len(rows), len(example.pixels), codec.side**2), dtype=np.float32)
    over[:, view[shown], patch[shown]] = shares[:, shown]
    return over


def _patches(codec: Codec, example: Example) -> tuple[np.ndarray, np.ndarray]:
    """Of each image token its view and its patch there; negative for a row end, and for a kept CLS."""
    if example.take is not None:
        return example.take[:, 0], np.where(example.take[:, 0] < 0, -1, example.take[:, 1])
    each = codec.image_tokens
    tokens = np.arange(len(example.pixels) * each)
    return tokens // each, tokens % each - (each - codec.side**2)


def _looking(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    segments: list[int],
    rows: torch.Tensor,
    columns: torch.Tensor,
    seen: list[torch.Tensor],
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface. Attends as :func:`packed_attention`; adds ``float32[R, C]`` to ``seen``."""
    out = packed_attention(module, query, key, value, attention_mask, scaling, dropout, segments=segments)
    keys = key[0].repeat_interleave(query.shape[1] // key.shape[1], dim=0)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    scores = (query[0, :, rows].float() @ keys.float().transpose(1, 2)) * scale
    later = torch.arange(keys.shape[1], device=rows.device)[None] > rows[:, None]
    weights = scores.masked_fill(later, float("-inf")).softmax(-1)
    seen.append(weights[..., columns].mean(0))
    return out


def _last_answer(example: Example, codec: Codec) -> np.ndarray:
    """Positions ``int64[R]`` of the last answer's tokens, its end-of-answer token not among them."""
    learnt = np.flatnonzero(example.labels != IGNORE)
    breaks = np.flatnonzero(np.diff(learnt) > 1)
    last: np.ndarray = learnt[breaks[-1] + 1 :] if len(breaks) else learnt
    return last[example.ids[last] != codec.tokenizer.eos_token_id]


def _spans(codec: Codec, ids: np.ndarray) -> tuple[str, list[tuple[int, int]]]:
    """The text of an answer, and the range of characters that each of its tokens wrote."""

    def text(count: int) -> str:
        decoded: str = codec.tokenizer.decode(ids[:count].tolist(), skip_special_tokens=True)
        # A character that is not whole yet belongs to the token that completes it.
        return decoded.rstrip("\ufffd")

    ends = [len(text(count)) for count in range(len(ids) + 1)]
    return text(len(ids)), list(pairwise(ends))


def _word(match: re.Match[str], heat: np.ndarray) -> Word:
    """``heat`` ``float[n, patches]``, shares of the whole attention."""
    peak = float(heat.max(initial=0.0))
    levels = np.rint(heat * (255 / peak if peak else 0)).astype(np.uint8)
    return Word(
        start=match.start(),
        end=match.end(),
        share=float(heat.sum()),
        heat=[base64.b64encode(level.tobytes()).decode() for level in levels],
    )


def _png(pixels: np.ndarray) -> str:
    """uint8 ``[3, S, S]`` -> a data URL."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
