"""A small Llama-architecture language model and its tokenizer, from scratch: texts, then conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from llavakit.base.errors import BadRecord, BadRequest
from llavakit.base.files import JsonlLog, writing
from llavakit.base.log import log
from llavakit.chat.conversation import Conversation, ImageRef
from llavakit.chat.template import TEMPLATES, get_template
from llavakit.data.collate import collate
from llavakit.data.mixture import Mixture, SourceSpec
from llavakit.image.square import Square
from llavakit.model.build import grow_tokenizer
from llavakit.model.encode import Codec, Example, encode
from llavakit.model.fused import cross_entropy
from llavakit.model.lean import packed_states
from llavakit.model.quiet import quiet
from llavakit.train.backbones_regions import Region, described, regions_for
from llavakit.train.backbones_spec import Backbones
from llavakit.train.scratch import optimise
from llavakit.train.start_language import start_language
from llavakit.train.told import told_picture

BOS, EOS, UNK, PAD = "<s>", "</s>", "<unk>", "<pad>"


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Any:
    """Byte-level BPE: every text can be written, if need be byte by byte. Digits stay single, as Llama has them: ten
    are learnt sooner than all numbers. Texts are split as GPT-2 does it, which travels best."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    splitting = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # Digits that are apart when merges are learnt never are merged; the tokenizer itself need not know.
    apart = pre_tokenizers.Split(Regex(r" ?\p{N}"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([apart, splitting])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[UNK, BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = splitting
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def tokenizer_for(spec: Backbones, captions: Sequence[str]) -> Any:
    """The tokenizer of both backbones, from all that they are to read."""
    texts, talks = _lessons(spec, captions)
    # The tokenizer sees what the templates add, too, or their fixed text would be cut into many pieces.
    fixed = [" ".join((t.system_text, t.user, t.prompt)) for t in TEMPLATES.values()]
    said = [turn.text for talk in talks for c in talk for turn in c.turns]
    tokenizer = train_tokenizer([*texts, *captions, *said, *(fixed * 50)], spec.language.vocabulary)
    grow_tokenizer(tokenizer)
    return tokenizer


def _lessons(spec: Backbones, captions: Sequence[str]) -> tuple[list[str], list[list[Conversation]]]:
    """Texts, and files of conversations."""
    talks = [[*_conversations(lesson.data)] for lesson in spec.conversations]
    texts = [text for path in spec.texts for text in _documents(Path(path))]
    return (texts if talks else [*texts, *captions]), talks


def pretrain_language(spec: Backbones, captions: Sequence[str], tokenizer: Any, out: Path, metrics: JsonlLog) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    size = spec.language
    texts, talks = _lessons(spec, captions)
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
    side = spec.tower.image_size // spec.tower.patch_size
    # A told picture has as many patches as the tower will give; of pixels it has one, which nobody looks at.
    codec = Codec(tokenizer, get_template(spec.template), Square(size=1), side * side, size.context)
    lessons = [(0.0, 1.0, [_document(text, codec) for text in texts])] if texts else []
    for lesson, talk in zip(spec.conversations, talks, strict=True):
        lessons.append((lesson.begins, lesson.share, [encode(_without_pixels(c), codec) for c in talk]))
    pictures = _told(spec, [c for talk in talks for c in talk if c.images], tokenizer)
    told = Counter(word for all_ in pictures.values() for region in all_ for word in region.ids[1:])
    start_language(model, [word for word, _ in told.most_common()], tokenizer.get_vocab())
    rows = _rows(lessons, size.batch_tokens, size.steps, np.random.default_rng((spec.seed, 1)))

    def loss() -> torch.Tensor:
        row = next(rows)
        batch = collate(row, codec.image_id)
        table: Any = model.get_input_embeddings()
        embeddings = table(batch.ids)
        seen = [told_picture(pictures[e.source], side, table.weight) for e in row if e.source in pictures]
        if seen:
            embeddings = embeddings.index_copy(0, batch.image_at, torch.cat(seen).to(embeddings.dtype))
        given = {"inputs_embeds": embeddings[None]}
        states = packed_states(model, batch.positions, batch.segments, batch.predict, batch.asked, **given)
        losses = cross_entropy(model.lm_head(states), batch.targets)
        weights = _by_answer(batch.predict)
        return (losses * weights).sum() / weights.sum()

    examples = [example for *_, lesson in lessons for example in lesson]
    log.info(f"language: {sum(map(len, examples)):,} tokens of {len(examples):,} texts, {len(tokenizer)} words")
    # What comes late in the lessons is learnt at the full rate, too.
    optimise("language", model, loss, size.steps, size.lr, spec.precision, metrics, falls=0.25)
    with writing(out) as temporary, quiet():
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def _conversations(spec: SourceSpec) -> Iterator[Conversation]:
    mixture = Mixture.of({spec.path: spec}, image_first=False)
    return (mixture.at(int(source), int(record)) for source, record in mixture.order(0))


def _without_pixels(conversation: Conversation) -> Conversation:
    return replace(conversation, images=(ImageRef(Image.new("RGB", (1, 1))),) * len(conversation.images))


def _told(spec: Backbones, pictured: Sequence[Conversation], tokenizer: Any) -> dict[str, list[Region]]:
    """The regions of each conversation's picture, by the conversation's source."""
    if not pictured:
        return {}
    if spec.told is None:
        raise BadRequest(f"backbones.told: {pictured[0].where} has a picture, and nothing tells what it shows")
    known = described(spec.told, tokenizer)
    if several := [c for c in pictured if len(c.images) > 1]:
        raise BadRecord("has more than one picture; one can be told", several[0].where)
    return {c.source: regions_for(c, known, spec.told) for c in pictured}


def _document(text: str, codec: Codec) -> Example:
    """A text of which every token is to be learnt; cut at the context."""
    tokenizer = codec.tokenizer
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    tokens = np.asarray(ids[: codec.max_length], dtype=np.int64)
    return Example(tokens, tokens.copy(), np.empty((0, 3, 1, 1), dtype=np.uint8))


def _by_answer(predict: torch.Tensor) -> torch.Tensor:
    """Weights of supervised positions ``int64[S]`` by which an answer four times as long counts twice as
    much: else descriptions, most of whose words can be foretold, drown what must be looked up."""
    _, answer, length = torch.unique_consecutive(
        predict - torch.arange(len(predict)), return_inverse=True, return_counts=True
    )
    return length[answer] ** -0.5


def _rows(
    lessons: Sequence[tuple[float, float, Sequence[Example]]], tokens: int, steps: int, rng: np.random.Generator
) -> Iterator[list[Example]]:
    """``steps`` rows of about ``tokens``, of lessons (when it begins, its share, its texts)."""
    streams = [_round_and_round(lesson, rng) for *_, lesson in lessons]
    for step in range(steps):
        shares = np.array([share if step >= begins * steps else 0.0 for begins, share, _ in lessons])
        row: list[Example] = []
        while sum(map(len, row)) < tokens:
            row.append(next(streams[rng.choice(len(lessons), p=shares / shares.sum())]))
        yield row


def _round_and_round(lesson: Sequence[Example], rng: np.random.Generator) -> Iterator[Example]:
    while True:
        for index in rng.permutation(len(lesson)):
            yield lesson[index]


def _documents(path: Path) -> list[str]:
    """Documents of a text file: one a line, or blocks between blank lines where there are any."""
    if not path.is_file():
        raise BadRequest(f"no text file at {path}")
    text = path.read_text(encoding="utf-8")
    parts = text.split("\n\n") if "\n\n" in text else text.splitlines()
    return [part.strip() for part in parts if part.strip()]
