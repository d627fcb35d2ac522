"""Small backbones from scratch: a tokenizer, a Llama-architecture language model, a CLIP.

For people without downloaded weights, and for the demo: minutes on a CPU. They are saved as ordinary transformers
directories and loaded by the code that loads ``openai/clip-vit-large-patch14-336`` and ``lmsys/vicuna-7b-v1.5``.
"""

from __future__ import annotations

from pathlib import Path

import torch

from llavakit.base.files import JsonlLog
from llavakit.base.log import Clock, untimed
from llavakit.data.mixture import Mixture
from llavakit.image.open import open_image
from llavakit.image.square import normalise, square
from llavakit.model.encode import Codec
from llavakit.model.llava import Llava
from llavakit.train.backbones_clip import pretrain_clip
from llavakit.train.backbones_language import pretrain_language
from llavakit.train.backbones_regions import described, regions_for
from llavakit.train.backbones_spec import Backbones
from llavakit.train.start import start_connector
from llavakit.train.told import words_by_patch

_STARTED_ON = 1500  # captions


def pretrain(spec: Backbones, out: Path, clock: Clock = untimed) -> None:
    """Trains ``out/language`` and ``out/clip``; whichever is there already is kept."""
    mixture = Mixture.of({"captions": spec.captions}, image_first=False, seed=spec.seed)
    conversations = [mixture.at(0, index) for index in range(len(mixture.sources["captions"]))]
    metrics = JsonlLog(out / "metrics.jsonl")
    if not (out / "language").exists():
        captions = [turn.text for c in conversations for turn in c.turns if turn.role == "assistant"]
        with clock("pretrain language"):
            pretrain_language(spec, captions, out / "language", metrics)
    if not (out / "clip").exists():
        with clock("pretrain vision"):
            pretrain_clip(spec, conversations, out / "language", out / "clip", metrics)


@torch.no_grad()
def connect(model: Llava, spec: Backbones, codec: Codec) -> None:
    """Gives a two-layer connector between backbones that are minutes old a start from some of the captions, or better
    from regions; any other connector keeps its own."""
    if model.multi_modal_projector.kind != "mlp2x_gelu":
        return
    mixture = Mixture.of({"captions": spec.captions.evolve(cap=_STARTED_ON)}, image_first=False, seed=spec.seed)
    known = described(spec.regions, codec.tokenizer) if spec.regions is not None else None
    features, words = [], []
    embedding = model.language_model.get_input_embeddings().weight
    side = codec.side
    for record in range(len(mixture)):
        conversation = mixture.at(0, record)
        picture = square(open_image(conversation.images[0].source, conversation.where), model.square)
        features.append(model.vision_tower(normalise(torch.from_numpy(picture)[None], model.square, torch.float32))[0])
        if spec.regions is not None and known is not None:
            bags = words_by_patch(regions_for(conversation, known, spec.regions), side, len(embedding))
        else:
            bags = torch.zeros(side * side, len(embedding))
            bags[:, codec.tokenizer(conversation.turns[1].text, add_special_tokens=False).input_ids] = 1.0
        words.append(bags @ embedding)
    start_connector(model.multi_modal_projector, torch.cat(features), torch.cat(words), embedding)
