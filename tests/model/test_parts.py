"""Every family of tower and language model, built from parts. Equal logits are a row each of the parity table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.rows.models import BOUND, difference, made, talks
from llavakit.base.errors import BadRequest
from llavakit.chat.conversation import Conversation, Turn
from llavakit.data.collate import collate
from llavakit.model import attention, checkpoint, lean
from llavakit.model.build import ModelSpec, build
from llavakit.model.connector import make_connector
from llavakit.model.encode import encode
from tests.tiny import save_language, save_tower


def test_the_comparison_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lean, "_window", lambda _: None)
        assert difference("clip", "mistral") > 0.1, "windows of attention"
    read = checkpoint.read_config
    monkeypatch.setattr(checkpoint, "read_config", lambda p: (read(p)[0], read(p)[1].evolve(feature_layer=-1)))
    assert difference("siglip", "llama") > 1e-3, "the layer of the tower"


@pytest.mark.parametrize(
    ("vision", "choices", "tokens"),
    [
        ("clip", {}, 16),
        ("clip", {"keep_cls": True}, 17),
        ("siglip", {}, 16),
        ("dinov2_registers", {}, 16 + 3),
        ("dinov3", {"keep_cls": True}, 16 + 4 + 1),
        ("dinov3", {"keep_registers": False, "format": "llavakit"}, 16),
        ("dinov3", {"keep_registers": False, "keep_cls": True, "format": "llavakit"}, 17),
        ("clip", {"connector": "resampler32", "format": "llavakit"}, 32),
    ],
)
def test_tokens_of_an_image(vision: str, choices: dict[str, Any], tokens: int, tmp_path: Path) -> None:
    model, codec = made(vision, "llama", tmp_path, **choices)
    example = encode(talks()[0], codec)
    assert model.image_tokens == tokens == int((example.ids == codec.image_id).sum())
    assert model.image_features(torch.from_numpy(example.pixels)).shape == (1, tokens, 48)


def test_registers_are_what_is_left_out(tmp_path: Path) -> None:
    model, codec = made("dinov3", "llama", tmp_path, keep_cls=True)
    pixels = torch.from_numpy(encode(talks()[0], codec).pixels).float()
    tower = model.vision_tower
    whole = tower(pixels)
    tower.keep_registers = False
    torch.testing.assert_close(tower(pixels), torch.cat([whole[:, :1], whole[:, 5:]], dim=1))


@pytest.mark.parametrize(
    ("language", "choices"),
    [("llama", {"connector": "mlp3x_gelu"}), ("llama", {"connector": "resampler40"}), ("gemma2", {}), ("phi", {})],
)
def test_what_only_llavakit_can_hold_is_refused_or_kept_apart(
    language: str, choices: dict[str, Any], tmp_path: Path
) -> None:
    """Before anything trains; and asked for all the same, it comes back bit for bit, and transformers declines it."""
    from transformers import AutoConfig

    with pytest.raises(BadRequest, match=r"transformers' llava .*say model\.format: llavakit"):
        ModelSpec.parse({"vision": "a", "language": "b", **choices})
        made("clip", language, tmp_path, **choices)
    model, codec = made("clip", language, tmp_path, **choices, format="llavakit")
    checkpoint.save(model, codec, tmp_path / "model")
    again, codec = checkpoint.load(tmp_path / "model")
    assert again.form == "llavakit" and again.image_tokens == model.image_tokens
    batch = collate([encode(talk, codec) for talk in talks()], codec.image_id)
    assert torch.equal(model(batch), again(batch))
    with pytest.raises(ValueError, match="llavakit"):
        AutoConfig.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("language", ["gemma2", "phi", "gemma3"])
def test_the_language_model_alone_says_the_same(language: str, tmp_path: Path) -> None:
    """Text through ours, packed, and through transformers' model of that family: caps, windows, biases, scales."""
    from transformers import AutoModelForCausalLM

    model, codec = made("clip", language, tmp_path, format="llavakit")
    # Not by the default: up to 5.17 that was sdpa for Gemma 2, too, which leaves out its caps.
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "language", attn_implementation="eager").eval()
    theirs.resize_token_embeddings(model.language_model.config.vocab_size)
    theirs.load_state_dict(model.language_model.state_dict())
    said = [Conversation((Turn("user", f"{n} stars? " * n), Turn("assistant", "Yes, blue."))) for n in (3, 7)]
    examples = [encode(talk, codec) for talk in said]
    with torch.no_grad():
        expected = torch.cat([theirs(torch.from_numpy(e.ids)[None]).logits[0] for e in examples])
        ours = model.logits(model.hidden(collate(examples, codec.image_id)))
    assert (ours - expected).abs().max() <= BOUND * expected.abs().max()


def test_a_tokenizer_without_bos_or_pad(tmp_path: Path) -> None:
    model, codec = made("clip", "qwen3", tmp_path)
    tokenizer, vocabulary = codec.tokenizer, model.language_model.config.vocab_size
    assert tokenizer.bos_token is None and tokenizer.pad_token == "<pad>"
    assert vocabulary == len(tokenizer) == model.language_model.get_input_embeddings().weight.shape[0]
    assert "None" not in tokenizer.decode(encode(talks()[1], codec).ids)


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    for family in ("gemma", "qwen2"):
        model, codec = made("clip", family, tmp_path / family)
        checkpoint.save(model, codec, tmp_path / family / "model")
        again, _ = checkpoint.load(tmp_path / family / "model")
        assert again.language_model.get_output_embeddings().weight is again.language_model.get_input_embeddings().weight
        names = checkpoint.native_state(again)
        assert torch.equal(names["language_model.lm_head.weight"], names["language_model.model.embed_tokens.weight"])


def test_what_cannot_be_is_said_before_anything_is_read(tmp_path: Path) -> None:
    for kind in ("mlp1x_gelu", "resampler16", "resampler145", "qformer"):
        with pytest.raises(BadRequest, match=f"no connector '{kind}'; there are linear, mlp2x_gelu"):
            ModelSpec.parse({"connector": kind})
    with pytest.raises(BadRequest, match=r"keep_registers: false .*say model\.format"):
        ModelSpec.parse({"keep_registers": False})
    language = str(save_language("llama", tmp_path / "language"))
    siglip = str(save_tower("siglip", tmp_path / "siglip"))
    with pytest.raises(BadRequest, match="has no CLS token to keep"):
        build(ModelSpec(vision=siglip, language=language, keep_cls=True))
    with pytest.raises(BadRequest, match="feature layer -5 does not exist in a tower of 3 layers"):
        build(ModelSpec(vision=siglip, language=language, feature_layer=(-2, -5)))
    with pytest.raises(BadRequest, match="no vision tower for LLaVA"):
        build(ModelSpec(vision=language, language=language))


def test_an_unknown_change_of_attention_is_not_swallowed(tmp_path: Path) -> None:
    q = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ValueError, match="not sinks"):
        attention.packed_attention(torch.nn.Identity(), q, q, q, None, segments=[4], sinks=q)


def test_a_resampler_reads_the_whole_picture() -> None:
    torch.manual_seed(0)
    connector = make_connector(32, 48, "resampler32")
    features = torch.randn(2, 16, 32, requires_grad=True)
    out = connector(features)
    assert out.shape == (2, 32, 48)
    out[0].sum().backward()
    assert features.grad is not None and (features.grad[0].abs().sum(-1) > 0).all() and not features.grad[1].any()
