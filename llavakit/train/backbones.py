"""Small backbones from scratch: a tokenizer, a Llama-architecture language model, a CLIP.

For people without downloaded weights, and for the demo: minutes on a CPU. They are saved as ordinary transformers
directories and loaded by the code that loads ``openai/clip-vit-large-patch14-336`` and ``lmsys/vicuna-7b-v1.5``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from copy import deepcopy
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from llavakit.base import log
from llavakit.base.errors import BadRecord, WorkFailed
from llavakit.base.files import JsonlLog
from llavakit.base.log import Clock, progress, untimed
from llavakit.data.mixture import Mixture
from llavakit.image.open import check_there, open_image
from llavakit.image.square import normalise, square
from llavakit.model.connector import Perceptron
from llavakit.model.encode import Codec
from llavakit.model.llava import Llava
from llavakit.train.backbones_clip import pretrain_clip
from llavakit.train.backbones_language import pretrain_language, tokenizer_for
from llavakit.train.backbones_regions import described, regions_for
from llavakit.train.backbones_spec import Backbones
from llavakit.train.start_connector import start_connector
from llavakit.train.told import words_by_patch

_STARTED_ON = 1200  # captions


def pretrain(spec: Backbones, out: Path, clock: Clock = untimed) -> None:
    """Trains ``out/language`` and ``out/clip``; whichever is there already is kept.

    Side by side, each on its share of the cores: their products are so small that a second core adds little to one.
    """
    language, clip = out / "language", out / "clip"
    if language.exists() and clip.exists():
        return
    from transformers import AutoTokenizer

    mixture = Mixture.of({"captions": spec.captions}, image_first=False, seed=spec.seed)
    conversations = [mixture.at(0, index) for index in range(len(mixture.sources["captions"]))]
    for conversation in conversations:  # now, not when the other backbone has been trained
        if not conversation.images:
            raise BadRecord("has no picture, and a CLIP learns from captions of pictures", conversation.where)
        check_there(conversation.images[0].source, conversation.where)
    captions = [turn.text for c in conversations for turn in c.turns if turn.role == "assistant"]
    with clock("pretrain backbones"):
        tokenizer = AutoTokenizer.from_pretrained(language) if language.exists() else tokenizer_for(spec, captions)
        metrics = out / "metrics.jsonl"
        jobs = {
            # To each its own: a call with truncation changes a tokenizer, and the other's may be on its way meanwhile.
            language: partial(pretrain_language, spec, captions, deepcopy(tokenizer), language, JsonlLog(metrics)),
            clip: partial(pretrain_clip, spec, conversations, tokenizer, clip, JsonlLog(metrics)),
        }
        _side_by_side([job for path, job in jobs.items() if not path.exists()])


def _side_by_side(jobs: list[Callable[[], None]]) -> None:
    threads = torch.get_num_threads()
    if len(jobs) == 1 or threads == 1:
        for job in jobs:
            job()
        return
    first, second = jobs
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        other = pool.submit(_beside, threads // 2, first)
        _on_threads(threads - threads // 2, second)
        try:
            other.result()
        except BrokenProcessPool:
            raise WorkFailed(
                "the process that pretrained the language model was killed, perhaps for want of memory; "
                "what is finished is kept: go on with --resume"
            ) from None


def _beside(number: int, job: Callable[[], None]) -> None:
    log.row = 1
    _on_threads(number, job)


def _on_threads(number: int, job: Callable[[], None]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        job()
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def connect(model: Llava, spec: Backbones, codec: Codec) -> None:
    """Gives a connector between backbones that are minutes old a start from some of the captions, or better from
    regions; one whose vectors belong to no patch, a resampler, keeps its own."""
    connector = model.multi_modal_projector
    if not isinstance(connector, Perceptron):
        return
    mixture = Mixture.of({"captions": spec.captions.evolve(cap=_STARTED_ON)}, image_first=False, seed=spec.seed)
    known = described(spec.regions, codec.tokenizer) if spec.regions is not None else None
    embedding = model.language_model.get_input_embeddings().weight
    side = codec.side
    pictures, words = [], []
    for record in progress(range(len(mixture)), desc="pictures"):
        conversation = mixture.at(0, record)
        pictures.append(square(open_image(conversation.images[0].source, conversation.where), model.square))
        if spec.regions is not None and known is not None:
            bags = words_by_patch(regions_for(conversation, known, spec.regions), side, len(embedding))
        else:
            bags = torch.zeros(side * side, len(embedding))
            bags[:, codec.tokenizer(conversation.turns[1].text, add_special_tokens=False).input_ids] = 1.0
        words.append(bags @ embedding)
    pixels = torch.from_numpy(np.stack(pictures)).split(64)
    features = [model.vision_tower(normalise(some, model.square, torch.float32)).flatten(0, 1) for some in pixels]
    targets = torch.cat(words)
    targets[:, 0] = embedding[:, 0].mean()  # the loud channel is all words' own, whatever a patch shows
    start_connector(connector, torch.cat(features), targets, spec.seed)
