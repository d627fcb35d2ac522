"""A fast tokenizer's vocabulary in llama.cpp's words: SentencePiece (``llama``) or byte-level BPE (``gpt2``)."""

from __future__ import annotations

import json
import re
from typing import Any

from llavakit.base.errors import BadRequest

# What stands in tokenizer.json -> llama.cpp's name of the same way to cut a text into words.
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
_REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
SPLITS = {
    None: "gpt-2",  # the regular expression that is part of ByteLevel
    f"{_CONTRACTIONS}\\p{{N}}{_REST}": "qwen2",
    f"{_CONTRACTIONS}\\p{{N}}{{1,3}}{_REST}": "llama-bpe",
}
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# What llama.cpp's converter gives tokens that no pair makes.
_UNMADE = -1000.0


def add_vocabulary(gguf: Any, writer: Any, tokenizer: Any) -> None:
    """Adds tokens, their kinds, how text becomes them, and the special ids.

    Raises :class:`BadRequest` for a tokenizer of another kind than these two.
    """
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    if data["model"]["type"] != "BPE":
        raise BadRequest(f"no GGUF form of a {data['model']['type']} tokenizer is known here")
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    kinds = _kinds(gguf.TokenType, data, tokens)
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in data["model"]["merges"]]
    if data["model"].get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(tokens, merges))
        writer.add_add_space_prefix(_spaced(data))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_split(data))
        writer.add_token_merges([" ".join(pair) for pair in merges])
        writer.add_add_space_prefix(False)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    # Of a bare text. A chat's begins with BOS already: its template writes it.
    writer.add_add_bos_token(tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(False)


def _kinds(kinds: Any, data: dict[str, Any], tokens: list[str]) -> list[Any]:
    added = {token["id"]: token["special"] for token in data["added_tokens"]}
    found = []
    for number, token in enumerate(tokens):
        if number in added:
            unknown = token == data["model"].get("unk_token")
            found.append(kinds.UNKNOWN if unknown else kinds.CONTROL if added[number] else kinds.USER_DEFINED)
        else:
            byte = data["model"].get("byte_fallback") and _BYTE.fullmatch(token)
            found.append(kinds.BYTE if byte else kinds.NORMAL)
    return found


def _scores(tokens: list[str], merges: list[tuple[str, ...]]) -> list[float]:
    """SentencePiece joins by score: the earlier a token's first pair, the higher. Only their order is known, and only
    their order matters."""
    first: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        first.setdefault("".join(pair), rank)
    return [-float(first[token]) if token in first else _UNMADE * max(1, len(merges)) for token in tokens]


def _spaced(data: dict[str, Any]) -> bool:
    """Whether a space is put before every stretch of text between special tokens, which is what llama.cpp asks."""
    normaliser = data["normalizer"] or {}
    steps = normaliser.get("normalizers", [normaliser])
    if any(step.get("type") == "Prepend" for step in steps):
        return True
    # transformers' own LlamaTokenizer puts it at the very beginning of a text alone, where a chat's BOS stands.
    return (data["pre_tokenizer"] or {}).get("prepend_scheme") == "always"


def _split(data: dict[str, Any]) -> str:
    before = data["pre_tokenizer"] or {}
    steps = before.get("pretokenizers", [before])
    patterns = [step["pattern"].get("Regex") for step in steps if step["type"] == "Split"]
    level = next((step for step in steps if step["type"] == "ByteLevel"), None)
    pattern = patterns[0] if patterns else None
    plain = level and not level["add_prefix_space"] and level["use_regex"] == (not patterns) and len(patterns) < 2
    if not plain or pattern not in SPLITS:
        raise BadRequest(f"llama.cpp's name for this tokenizer's way to cut words is not known here: {before}")
    return SPLITS[pattern]
