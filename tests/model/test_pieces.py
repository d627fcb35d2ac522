"""A SentencePiece file as a fast tokenizer: the ids of SentencePiece itself, whatever the text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llavakit.base.errors import BadRequest
from llavakit.model.build import ModelSpec, build, load_tokenizer
from llavakit.model.pieces import SPACE, sentencepiece_tokenizer
from tests.convert import originals


@pytest.fixture(scope="module")
def vicuna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vicuna")
    return originals.vicuna(path / "vicuna", originals.pieces_model())


@pytest.fixture(scope="module")
def both(vicuna: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Ours, saved and loaded again as engines do, and SentencePiece."""
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoTokenizer

    saved = tmp_path_factory.mktemp("saved")
    sentencepiece_tokenizer(vicuna / "tokenizer.model").save_pretrained(saved)
    return AutoTokenizer.from_pretrained(saved), SentencePieceProcessor(model_file=str(vicuna / "tokenizer.model"))


WORDS = [*"aetr .,:\n0123", "the ", "assist", "USER", " \n", "   ", SPACE, "\u00e9", "\u4e2d"]
words = st.lists(st.sampled_from(WORDS))


@given(st.one_of(st.text(max_size=30), words.map("".join)))
@settings(max_examples=300, deadline=None)
@example("")
@example(" ")
@example("\n\n  \x00 \U0001f600")
def test_ids_are_those_of_sentencepiece(both: tuple[Any, Any], text: str) -> None:
    ours, theirs = both
    if any(special in text for special in ours.all_special_tokens):
        return
    ids = theirs.encode(text)
    assert ours.encode(text, add_special_tokens=False) == ids
    assert ours.encode(text) == [ours.bos_token_id, *ids]
    assert ours.decode(ids) == theirs.decode(ids)


def test_every_stretch_between_special_tokens_is_a_text_of_its_own(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    text = "<s>A chat\n</s>USER: <unk> x"
    expected = [1, *theirs.encode("A chat\n"), 2, *theirs.encode("USER: "), 0, *theirs.encode(" x")]
    assert ours.encode(text, add_special_tokens=False) == expected


def test_a_model_built_on_vicuna_takes_it(vicuna: Path, backbones: Path) -> None:
    model, tokenizer = build(ModelSpec(vision=str(backbones / "clip"), language=str(vicuna)))
    assert tokenizer.convert_tokens_to_ids(["<image>", "<pad>"]) == [500, 501]
    assert len(model.language_model.get_input_embeddings().weight) == len(tokenizer) == 502
    assert tokenizer.tokenize("<s>A")[1].startswith(SPACE)


def test_added_tokens_and_pad_are_read_from_the_files_beside(vicuna: Path, tmp_path: Path) -> None:
    originals.write_tokenizer(tmp_path, (vicuna / "tokenizer.model").read_bytes())
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<im_end>": 501, "<im_start>": 500, "</s>": 2}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "<unk>"}}))
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.encode("<im_start><im_end>", add_special_tokens=False) == [500, 501]
    assert tokenizer.pad_token_id == 0 and len(tokenizer) == 502
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<im_start>": 600}))
    with pytest.raises(BadRequest, match="ids do not follow the 500"):
        load_tokenizer(str(tmp_path))


def test_models_whose_ids_cannot_be_promised_are_refused(tmp_path: Path) -> None:
    import io

    import sentencepiece

    (tmp_path / "tokenizer.model").write_bytes(b"not a model at all")
    with pytest.raises(BadRequest, match="is no SentencePiece model"):
        load_tokenizer(str(tmp_path))
    out = io.BytesIO()
    lines = iter(originals.TEXT * 3)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=out, vocab_size=200, model_type="unigram", minloglevel=2, num_threads=1
    )
    (tmp_path / "tokenizer.model").write_bytes(out.getvalue())
    with pytest.raises(BadRequest, match=r"not of Llama's kind .*give a tokenizer\.json instead"):
        load_tokenizer(str(tmp_path))
