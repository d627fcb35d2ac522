"""One random model and its samples, trained by llavakit and in the plain way: what ``benchmarks/train.py`` times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.lengths import IMAGE, Sample
from llavakit.chat.labels import IGNORE
from llavakit.data.collate import collate
from llavakit.data.loader import Step
from llavakit.data.pack import pack
from llavakit.image.square import Square, normalise
from llavakit.model.connector import Perceptron
from llavakit.model.encode import Example
from llavakit.model.llava import Llava
from llavakit.model.parts import freeze_all_but
from llavakit.model.towers import VisionTower
from llavakit.train.fast import arrange
from llavakit.train.optim import make_optimiser
from llavakit.train.stage import Stage
from llavakit.train.step import train_step

# (width, MLP, layers, heads) of the tower and of the language model
SIZES = {
    "toy": ((64, 128, 2, 2), (64, 128, 2, 2)),
    "small": ((256, 1024, 6, 4), (512, 1408, 8, 8)),
    "7b": ((1024, 4096, 24, 16), (4096, 11008, 32, 32)),
    "13b": ((1024, 4096, 24, 16), (5120, 13824, 40, 40)),
}
WORDS = 32_000
IMAGE_ID = WORDS - 1
SQUARE = Square(size=336)
STAGES = {
    1: {"template": "plain", "train": {"connector": 1e-3}},
    2: {"template": "vicuna_v1", "train": {"connector": 2e-5, "language_model": 2e-5}},
}


def parts(size: str, device: str) -> tuple[Any, Perceptron, Any]:
    """Tower, connector and language model; the same numbers at every call."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    (width, hidden, layers, heads), (h, intermediate, depth, attention) = SIZES[size]
    torch.manual_seed(0)
    with torch.device(device):
        vision = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=width,
                intermediate_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                image_size=SQUARE.size,
                patch_size=14,
            )
        )
        connector = Perceptron(width, h)
        language = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=WORDS,
                hidden_size=h,
                intermediate_size=intermediate,
                num_hidden_layers=depth,
                num_attention_heads=attention,
                max_position_embeddings=2048,
                pad_token_id=0,
            )
        )
    return vision, connector, language


def stage_of(number: int, batch: int, row_tokens: int, checkpoint: str = "none", compile: bool = False) -> Stage:
    given = {"data": {"data": {"path": "none"}}, "batch_size": batch, "row_tokens": row_tokens}
    return Stage.parse({**STAGES[number], **given, "checkpoint": checkpoint, "compile": compile})


def examples(samples: Sequence[Sample], seed: int = 0) -> list[Example]:
    """Random words after a random picture."""
    rng = np.random.default_rng(seed)
    out = []
    for sample in samples:
        ids = rng.integers(3, IMAGE_ID, len(sample))
        ids[0] = 1
        ids[1 : 1 + sample.image] = IMAGE_ID
        labels = ids.copy()
        labels[: len(sample) - sample.supervised] = IGNORE
        pixels = rng.integers(0, 256, (int(sample.image > 0), 3, SQUARE.size, SQUARE.size), dtype=np.uint8)
        out.append(Example(ids, labels, pixels))
    return out


class Ours:
    """llavakit's own step: packed rows, as ``llavakit train`` runs it."""

    def __init__(self, size: str, stage: Stage, precision: torch.dtype, device: str) -> None:
        vision, connector, language = parts(size, device)
        self.model = Llava(VisionTower(vision), connector, language, SQUARE).train()
        freeze_all_but(self.model, stage.train)
        arrange(self.model, stage)
        self.optimiser = make_optimiser(self.model, stage)
        self.stage, self.precision = stage, precision

    def prepare(self, batch: list[Example]) -> Step:
        rows = pack([len(example) for example in batch], self.stage.row_tokens)
        tokens, supervised = sum(map(len, batch)), sum(example.supervised for example in batch)
        packed = [collate([batch[i] for i in row], IMAGE_ID) for row in rows]
        return Step(0, packed, len(batch), tokens, supervised)

    def step(self, step: Step) -> float:
        return train_step(self.model, step, self.optimiser, 1.0, self.precision).loss


class Plain:
    """transformers' own model and loss over a padded batch, as most training scripts have it."""

    def __init__(self, size: str, stage: Stage, precision: torch.dtype, device: str) -> None:
        from transformers import LlavaConfig, LlavaForConditionalGeneration

        vision, connector, language = parts(size, device)
        config = LlavaConfig(
            vision_config=vision.config,
            text_config=language.config,
            image_token_index=IMAGE_ID,
            vision_feature_layer=-2,
            image_seq_length=IMAGE,
        )
        with torch.device("meta"):
            model: Any = LlavaForConditionalGeneration(config)
        projector = model.model.multi_modal_projector
        projector.linear_1, projector.linear_2 = connector.linear_1, connector.linear_2
        model.model.vision_tower, model.model.language_model = vision, language.model
        model.lm_head = language.lm_head
        self.model = model.train()
        if stage.checkpoint != "none":
            model.gradient_checkpointing_enable({"use_reentrant": False})
        trained: list[nn.Module] = [projector]
        if "language_model" in stage.train:
            trained += [model.model.language_model, model.lm_head]
        model.requires_grad_(False)
        self.parameters = [p for module in trained for p in module.requires_grad_(True).parameters()]
        rate = stage.train["connector"]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=rate, weight_decay=0.0, fused=True)
        self.precision, self.device = precision, device

    def prepare(self, batch: list[Example]) -> dict[str, torch.Tensor]:
        longest = max(map(len, batch))
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        labels, mask = torch.full_like(ids, IGNORE), torch.zeros_like(ids)
        for row, example in enumerate(batch):
            ids[row, : len(example)] = torch.from_numpy(example.ids)
            labels[row, : len(example)] = torch.from_numpy(example.labels)
            mask[row, : len(example)] = 1
        pixels = torch.from_numpy(np.concatenate([example.pixels for example in batch]))
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, "pixels": pixels}

    def step(self, given: dict[str, torch.Tensor]) -> float:
        given = {key: value.to(self.device) for key, value in given.items()}
        pixels = given.pop("pixels")
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device, dtype=self.precision, enabled=self.precision != torch.float32):
            seen = normalise(pixels, SQUARE, torch.float32) if len(pixels) else None
            loss = self.model(**given, pixel_values=seen).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        return loss.item()


SIDES: dict[str, type[Ours] | type[Plain]] = {"ours": Ours, "plain": Plain}


@dataclass(frozen=True)
class Work:
    """Multiplications and additions whose result the step needs, counted once for both sides: no padding, the tower up
    to the layer that is used, the head at supervised positions, gradients only for what trains."""

    forward: float
    total: float

    @classmethod
    def of(cls, size: str, stage: int, batch: Sequence[Sample]) -> Work:
        (width, hidden, layers, _), (h, intermediate, depth, _) = SIZES[size]
        tokens, supervised = sum(map(len, batch)), sum(sample.supervised for sample in batch)
        patches = sum(sample.image for sample in batch)
        tower = (layers - 1) * (2 * patches * (4 * width**2 + 2 * width * hidden) + 4 * patches * IMAGE * width)
        connector = 2 * patches * (width * h + h * h)
        attention = 2 * depth * h * sum(len(sample) ** 2 for sample in batch)
        matrices = 2 * tokens * depth * (4 * h * h + 3 * h * intermediate) + 2 * supervised * h * WORDS
        forward = tower + connector + attention + matrices
        weights = matrices if stage == 2 else 0
        return cls(forward, forward + 2 * attention + matrices + weights + 2 * connector)
