"""llama.cpp on the files that :mod:`llavakit.convert.gguf` writes, through ``llama-cpp-python``: text and pictures.

A picture is given as the square that our own preprocessing makes of it. Tried with llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.chat.conversation import IMAGE, Conversation
from llavakit.chat.render import render
from llavakit.engine.engine import Engine
from llavakit.model.encode import encode


def package() -> Any:
    """Raises :class:`BadRequest` with the one command where it is not installed."""
    try:
        import llama_cpp
        import llama_cpp.mtmd_cpp
    except ImportError:
        raise BadRequest(
            "llama.cpp needs its Python package, which is built here: pip install llama-cpp-python"
        ) from None
    return llama_cpp


@functools.cache
def _silence() -> Any:
    """Of what mtmd says of every picture. The callback is held by the cache, or C would call what is gone."""
    lib = package()
    silent = lib.llama_log_callback(lambda *_: None)
    lib.mtmd_cpp.mtmd_log_set(silent, None)
    lib.mtmd_cpp.mtmd_helper_log_set(silent, None)
    return silent


class LlamaCpp:
    """``sees``: whether it looks at pictures itself; where its reading of the tower is at fault, our features are
    given to its language model instead."""

    def __init__(self, folder: Path, engine: Engine, sees: bool | None = None) -> None:
        lib = package()
        self.lib, self.mtmd, self.engine = lib, lib.mtmd_cpp, engine
        self.version: str = lib.__version__
        self.sees = not engine.model.vision_tower.has_cls if sees is None else sees
        language, mmproj = next(folder.glob("language-*.gguf")), next(folder.glob("mmproj-*.gguf"))
        length = engine.codec.max_length
        # One batch holds the longest prompt: a picture's tokens are never parted.
        sizes = {"n_ctx": length, "n_batch": length, "n_ubatch": length}
        # Left to itself it keeps keys and values in 16 bits.
        exact = {"type_k": lib.GGML_TYPE_F32, "type_v": lib.GGML_TYPE_F32, "flash_attn": False}
        self.model = lib.Llama(str(language), **sizes, **exact, verbose=False)
        _silence()
        params = self.mtmd.mtmd_context_params_default()
        params.use_gpu, params.print_timings, params.warmup = False, False, False
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.ctx = self.mtmd.mtmd_init_from_file(str(mmproj).encode(), self.model.model, params)
        if self.ctx is None:
            raise WorkFailed(f"llama.cpp does not load {mmproj.name}")

    def close(self) -> None:
        """Frees what Python does not."""
        self.mtmd.mtmd_free(self.ctx)
        self.model.close()

    def answer(self, conversation: Conversation, max_new_tokens: int) -> str:
        """The greedy answer."""
        lib, ctx, codec = self.lib, self.model.ctx, self.engine.codec
        self.read(conversation)
        ids: list[int] = []
        while len(ids) < max_new_tokens:
            best = int(self.logits().argmax())
            if best in codec.eos:
                break
            ids.append(best)
            token = (lib.llama_token * 1)(best)
            self._check(lib.llama_decode(ctx, lib.llama_batch_get_one(token, 1)))
        return str(codec.tokenizer.decode(ids, skip_special_tokens=True))

    def logits(self) -> np.ndarray:
        """After the last token, ``float32[V]``."""
        found = self.lib.llama_get_logits_ith(self.model.ctx, -1)
        return np.ctypeslib.as_array(found, (len(self.engine.codec.tokenizer),)).copy()

    def read(self, conversation: Conversation) -> None:
        """The prompt, pictures and all, into the context, in place of what was there."""
        codec, mtmd = self.engine.codec, self.mtmd
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.model.ctx), True)
        example = encode(conversation, codec, prompt=True)
        tokenizer = codec.tokenizer
        bos, eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
        rendered = render(conversation.checked(), codec.template, bos, eos, prompt=True)
        text = rendered.text.encode().replace(IMAGE.encode(), mtmd.mtmd_default_marker())
        said = mtmd.mtmd_input_text(text=text, text_len=len(text), add_special=False, parse_special=True)
        bitmaps = [self._bitmap(square) for square in example.pixels]
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            given = (mtmd.mtmd_bitmap_p_ctypes * len(bitmaps))(*bitmaps)
            self._check(mtmd.mtmd_tokenize(self.ctx, chunks, ctypes.byref(said), given, len(bitmaps)))
            self._take(chunks, torch.from_numpy(example.pixels))
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            for bitmap in bitmaps:
                mtmd.mtmd_bitmap_free(bitmap)

    def _take(self, chunks: Any, pixels: torch.Tensor) -> None:
        mtmd, ctx = self.mtmd, self.model.ctx
        past, batch = self.lib.llama_pos(0), self.engine.codec.max_length
        with torch.inference_mode():
            model = self.engine.model
            features = iter(() if self.sees else model.image_features(pixels.to(model.device)).float().cpu().unbind())
        count = mtmd.mtmd_input_chunks_size(chunks)
        for number in range(count):
            chunk = mtmd.mtmd_input_chunks_get(chunks, number)
            is_picture = mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE
            if is_picture and not self.sees:
                own = next(features).contiguous().numpy()
                pointer = own.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
                done = mtmd.mtmd_helper_decode_image_chunk(
                    self.ctx, ctx, chunk, pointer, past.value, 0, batch, ctypes.byref(past),
                    mtmd.mtmd_helper_post_decode_callback(), None,
                )  # fmt: skip
            else:
                done = mtmd.mtmd_helper_eval_chunk_single(
                    self.ctx, ctx, chunk, past.value, 0, batch, number == count - 1, ctypes.byref(past)
                )
            self._check(done)

    def _bitmap(self, square: np.ndarray) -> Any:
        """uint8[3, S, S] as the bitmap of S times S pixels that llama.cpp need not resize."""
        pixels = np.ascontiguousarray(square.transpose(1, 2, 0))
        pointer = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        return self.mtmd.mtmd_bitmap_init(pixels.shape[1], pixels.shape[0], pointer)

    def _check(self, code: int) -> None:
        if code:
            raise WorkFailed(f"llama.cpp refuses the prompt (code {code})")
