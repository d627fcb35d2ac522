"""Small backbones from scratch: a tokenizer, a Llama-architecture language model, a CLIP.

For people without downloaded weights, and for the demo: minutes on a CPU. They are saved as ordinary transformers
directories and loaded by the code that loads ``openai/clip-vit-large-patch14-336`` and ``lmsys/vicuna-7b-v1.5``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llavakit.base.errors import BadRequest
from llavakit.base.files import JsonlLog, writing
from llavakit.base.log import Clock, log, progress, untimed
from llavakit.chat.conversation import Conversation
from llavakit.chat.template import TEMPLATES
from llavakit.data.mixture import Mixture
from llavakit.image.open import open_image
from llavakit.image.square import Square, normalise, square
from llavakit.model.quiet import quiet
from llavakit.train.backbones_spec import Backbones
from llavakit.train.optim import muon, set_rates
from llavakit.train.schedule import schedule
from llavakit.train.start import start_language, start_tower

BOS, EOS, UNK, PAD = "<s>", "</s>", "<unk>", "<pad>"


def pretrain(spec: Backbones, out: Path, clock: Clock = untimed) -> None:
    """Trains ``out/language`` and ``out/clip``; whichever is there already is kept."""
    mixture = Mixture.of({"captions": spec.captions}, image_first=False, seed=spec.seed)
    conversations = [mixture.at(0, index) for index in range(len(mixture.sources["captions"]))]
    metrics = JsonlLog(out / "metrics.jsonl")
    if not (out / "language").exists():
        texts = [text for path in spec.texts for text in _documents(Path(path))]
        texts += [turn.text for c in conversations for turn in c.turns if turn.role == "assistant"]
        with clock("pretrain language"):
            _language(spec, texts, out / "language", metrics)
    if not (out / "clip").exists():
        with clock("pretrain vision"):
            _clip(spec, conversations, out / "language", out / "clip", metrics)


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Any:
    """Byte-level BPE: every text can be written, if need be byte by byte. Plain GPT-2 splitting travels best."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[UNK, BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def _language(spec: Backbones, texts: Sequence[str], out: Path, metrics: JsonlLog) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    size = spec.language
    # The tokenizer sees what the templates add, too, or their fixed text would be cut into many pieces.
    fixed = [" ".join((t.system_text, t.user, t.prompt)) for t in TEMPLATES.values()]
    tokenizer = train_tokenizer([*texts, *(fixed * 50)], size.vocabulary)
    torch.manual_seed(spec.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.width,
            intermediate_size=size.width * 8 // 3 // 32 * 32,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=size.context,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    start_language(model)
    rng = np.random.default_rng((spec.seed, 1))
    encoded = [
        [tokenizer.bos_token_id, *e.ids, tokenizer.eos_token_id]
        for e in tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
    ]

    def rows() -> Iterator[torch.Tensor]:
        while True:
            ids = np.concatenate([encoded[i] for i in rng.permutation(len(encoded))])
            whole = ids[: len(ids) // size.row * size.row].reshape(-1, size.row)
            yield from torch.from_numpy(whole).split(max(1, size.batch_tokens // size.row))

    source = rows()

    def loss() -> torch.Tensor:
        ids = next(source)
        states = model.model(input_ids=ids, use_cache=False).last_hidden_state
        logits = model.lm_head(states[:, :-1])
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())

    log.info(f"language: {sum(map(len, encoded)):,} tokens of {len(encoded):,} documents, {len(tokenizer)} words")
    _optimise("language", model, loss, size.steps, size.lr, spec.precision, metrics)
    with writing(out) as temporary, quiet():
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def _clip(spec: Backbones, conversations: Sequence[Conversation], language: Path, out: Path, metrics: JsonlLog) -> None:
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel

    size = spec.tower
    if size.image_size % size.patch_size:
        raise BadRequest(f"image_size {size.image_size} is not a multiple of patch_size {size.patch_size}")
    tokenizer = AutoTokenizer.from_pretrained(language)
    how = Square(size=size.image_size)
    pixels = torch.from_numpy(
        np.stack(
            [square(open_image(c.images[0].source, c.where), how) for c in progress(conversations, desc="pictures")]
        )
    )
    captions = [c.turns[1].text for c in conversations]
    text = tokenizer(
        [BOS + caption + EOS for caption in captions],
        add_special_tokens=False,
        padding=True,
        truncation=True,
        max_length=77,
        return_tensors="pt",
    )
    torch.manual_seed(spec.seed)
    shared = {
        "hidden_act": "gelu",
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_attention_heads": size.heads,
        "projection_dim": size.width,
    }
    model = CLIPModel(
        CLIPConfig(
            text_config={
                **shared,
                "num_hidden_layers": 2,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": text.input_ids.shape[1],
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config={
                **shared,
                "num_hidden_layers": size.layers,
                "image_size": size.image_size,
                "patch_size": size.patch_size,
            },
            projection_dim=size.width,
        )
    )
    # Plain attention: at some 65 tokens torch's fused CPU kernel is slower, most of all backward.
    model.set_attn_implementation("eager")
    start_tower(model.vision_model.embeddings, normalise(pixels[:300], how, torch.float32))
    rng = np.random.default_rng((spec.seed, 2))

    def loss() -> torch.Tensor:
        chosen = torch.from_numpy(rng.choice(len(captions), min(size.batch_size, len(captions)), replace=False))
        out = model(
            pixel_values=normalise(pixels[chosen], how, torch.float32),
            input_ids=text.input_ids[chosen],
            attention_mask=text.attention_mask[chosen],
            return_loss=True,
        )
        loss: torch.Tensor = out.loss
        return loss

    _optimise("clip", model, loss, size.steps, size.lr, spec.precision, metrics)
    with writing(out) as temporary, quiet():
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        CLIPImageProcessorPil(
            size={"shortest_edge": size.image_size},
            crop_size={"height": size.image_size, "width": size.image_size},
        ).save_pretrained(temporary)


def _optimise(
    name: str,
    model: torch.nn.Module,
    loss_of_next: Callable[[], torch.Tensor],
    steps: int,
    lr: float,
    precision: str,
    metrics: JsonlLog,
) -> None:
    """Muon for the matrices inside the layers, AdamW for the rest; linear warm-up and cosine, clip 1.0."""
    optimiser = muon(model, lr, weight_decay=0.01)
    model.train()
    bar = progress(total=steps, desc=name, unit="step")
    start = time.perf_counter()
    for step in range(steps):
        rate = set_rates(optimiser, schedule(step, steps, 0.05))["all"]
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = loss_of_next()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        bar.update()
        bar.set_postfix_str(f"loss {loss.item():.3f} lr {rate:.1e}")
        metrics.append({"stage": name, "step": step + 1, "loss": loss.item(), "lr/all": rate})
    bar.close()
    log.info(f"{name}: {steps} steps in {time.perf_counter() - start:.0f} s, loss {loss.item():.3f}")
    model.eval()


def _documents(path: Path) -> list[str]:
    """Documents of a text file: one a line, or blocks between blank lines where there are any."""
    if not path.is_file():
        raise BadRequest(f"no text file at {path}")
    text = path.read_text(encoding="utf-8")
    parts = text.split("\n\n") if "\n\n" in text else text.splitlines()
    return [part.strip() for part in parts if part.strip()]
