"""A SentencePiece ``tokenizer.model`` as a fast tokenizer with the same ids.

Llama, Vicuna and Mistral ship one: BPE pieces, bytes for what no piece covers, text untouched but for a space put
before it. Here every stretch of text between special tokens is tokenised as SentencePiece tokenises it alone, that
space included. The original LLaVA does so behind BOS and ``<image>`` (it tokenises the pieces of a text apart) and
llama.cpp behind every special token; transformers' ``LlamaTokenizer`` only at the very beginning of a text, so that
behind a rendered BOS its first word is another token than the original's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json

SPACE = "\u2581"
_BPE, _NORMAL, _CONTROL, _USER, _BYTE = 2, 1, 3, 4, 6


def read_pieces(file: Path) -> Any:
    """The parsed ``ModelProto`` of a SentencePiece file. Raises :class:`BadRequest` when it is none."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    schema: Any = sentencepiece_model_pb2
    proto = schema.ModelProto()
    try:
        proto.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise BadRequest(f"{file} is no SentencePiece model: {error}") from None
    if not proto.pieces:
        raise BadRequest(f"{file} is no SentencePiece model: it holds no pieces")
    return proto


def sentencepiece_tokenizer(file: Path) -> Any:
    """A ``PreTrainedTokenizerFast`` of Llama's kind of SentencePiece model; it begins a text with BOS. Tokens that
    were added to the model, and its pad token, are read from the JSON files beside ``file``, where there are any.

    Raises :class:`BadRequest` for a model with other settings: its ids could not be promised.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    proto = read_pieces(file)
    trainer, normaliser = proto.trainer_spec, proto.normalizer_spec
    if trainer.model_type != _BPE or normaliser.precompiled_charsmap or normaliser.remove_extra_whitespaces:
        raise BadRequest(f"{file} is not of Llama's kind (BPE, text taken as it is); give a tokenizer.json instead")
    if not any(piece.type == _BYTE for piece in proto.pieces):
        raise BadRequest(f"{file} has no byte pieces, so it cannot write every text; give a tokenizer.json instead")
    if min(trainer.unk_id, trainer.bos_id, trainer.eos_id) < 0:
        raise BadRequest(f"{file} has no BOS or EOS; give a tokenizer.json instead")
    vocabulary = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    unk, bos, eos = (proto.pieces[i].piece for i in (trainer.unk_id, trainer.bos_id, trainer.eos_id))
    model = models.BPE(vocab=vocabulary, merges=_merges(proto), unk_token=unk, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    before = [normalizers.Prepend(SPACE)] if normaliser.add_dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", SPACE)])
    after = [decoders.Strip(" ", 1, 0)] if normaliser.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *after]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, trainer.bos_id)]
    )
    tokenizer.add_tokens([AddedToken(p.piece, normalized=False) for p in proto.pieces if p.type == _USER])
    tokenizer.add_special_tokens([p.piece for p in proto.pieces if p.type == _CONTROL])
    _add_tokens(tokenizer, file, len(proto.pieces))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        pad_token=_pad_token(file.parent),
        clean_up_tokenization_spaces=False,
    )


def _add_tokens(tokenizer: Any, file: Path, size: int) -> None:
    """``added_tokens.json``, such as LLaVA v1's ``<im_start>``: text -> id, from the number of pieces on."""
    path = file.with_name("added_tokens.json")
    listed = read_json(path) if path.is_file() else {}
    added = sorted(((text, n) for text, n in listed.items() if n >= size), key=lambda item: item[1])
    if [number for _, number in added] != list(range(size, size + len(added))):
        raise BadRequest(f"{path}: ids do not follow the {size} of {file.name}: {added}")
    tokenizer.add_special_tokens([text for text, _ in added])


def _pad_token(directory: Path) -> str | None:
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = directory / name
        token = read_json(path).get("pad_token") if path.is_file() else None
        if token is not None:
            return str(token["content"] if isinstance(token, dict) else token)
    return None


def _merges(proto: Any) -> list[tuple[str, str]]:
    """Every pair of pieces that joins to a piece, the better piece first: SentencePiece joins by that order alone."""
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == _NORMAL}
    pairs = [
        (-score, cut, piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    return [(left, right) for _, _, left, right in sorted(pairs)]
