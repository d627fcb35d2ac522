"""A small Llama-architecture language model and its tokenizer, from scratch: texts, then conversations in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llavakit.base.errors import BadRequest
from llavakit.base.files import JsonlLog, writing
from llavakit.base.log import log
from llavakit.chat.conversation import Conversation
from llavakit.chat.template import TEMPLATES, get_template
from llavakit.data.collate import collate
from llavakit.data.mixture import Mixture, SourceSpec
from llavakit.image.square import Square
from llavakit.model.build import grow_tokenizer
from llavakit.model.encode import Codec, Example, encode
from llavakit.model.fused import cross_entropy
from llavakit.model.lean import packed_states
from llavakit.model.llava import Batch
from llavakit.model.quiet import quiet
from llavakit.train.backbones_spec import Backbones
from llavakit.train.scratch import optimise
from llavakit.train.start import start_language

BOS, EOS, UNK, PAD = "<s>", "</s>", "<unk>", "<pad>"


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


def pretrain_language(spec: Backbones, captions: Sequence[str], out: Path, metrics: JsonlLog) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    size = spec.language
    talks = [[*_conversations(source)] for source in spec.conversations]
    texts = [text for path in spec.texts for text in _documents(Path(path))]
    if not talks:
        texts += captions
    # The tokenizer sees what the templates add, too, or their fixed text would be cut into many pieces.
    fixed = [" ".join((t.system_text, t.user, t.prompt)) for t in TEMPLATES.values()]
    said = [turn.text for talk in talks for c in talk for turn in c.turns]
    tokenizer = train_tokenizer([*texts, *captions, *said, *(fixed * 50)], size.vocabulary)
    grow_tokenizer(tokenizer)
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
    codec = Codec(tokenizer, get_template(spec.template), Square(size=spec.tower.image_size), 0, size.context)
    lessons = [[_document(text, codec) for text in texts]] if texts else []
    lessons += [[encode(conversation, codec) for conversation in talk] for talk in talks]
    source = _batches(lessons, size.batch_tokens, codec.image_id, np.random.default_rng((spec.seed, 1)))

    def loss() -> torch.Tensor:
        batch = next(source)
        states = packed_states(model, batch.positions, batch.segments, batch.predict, input_ids=batch.ids[None])
        return cross_entropy(model.lm_head(states), batch.targets) / len(batch.targets)

    tokens = sum(len(example) for lesson in lessons for example in lesson)
    log.info(f"language: {tokens:,} tokens of {sum(map(len, lessons)):,} texts, {len(tokenizer)} words")
    optimise("language", model, loss, size.steps, size.lr, spec.precision, metrics)
    with writing(out) as temporary, quiet():
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def _conversations(spec: SourceSpec) -> Iterator[Conversation]:
    mixture = Mixture.of({spec.path: spec}, image_first=False)
    return (mixture.at(int(source), int(record)) for source, record in mixture.order(0))


def _document(text: str, codec: Codec) -> Example:
    """A text of which every token is to be learnt; cut at the context."""
    tokenizer = codec.tokenizer
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    tokens = np.asarray(ids[: codec.max_length], dtype=np.int64)
    return Example(tokens, tokens.copy(), np.empty((0, 3, 1, 1), dtype=np.uint8))


def _batches(
    lessons: Sequence[Sequence[Example]], tokens: int, image_id: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """One lesson after the other, each in random order, and again from the first; about ``tokens`` at a time."""
    while True:
        row: list[Example] = []
        for lesson in lessons:
            for index in rng.permutation(len(lesson)):
                row.append(lesson[index])
                if sum(map(len, row)) >= tokens:
                    yield collate(row, image_id)
                    row = []


def _documents(path: Path) -> list[str]:
    """Documents of a text file: one a line, or blocks between blank lines where there are any."""
    if not path.is_file():
        raise BadRequest(f"no text file at {path}")
    text = path.read_text(encoding="utf-8")
    parts = text.split("\n\n") if "\n\n" in text else text.splitlines()
    return [part.strip() for part in parts if part.strip()]
