"""The model card: what a native directory says of itself, as the README.md that a hub shows.

Every fact is read from ``config.json``, ``llavakit.json`` and the certificates beside them. What none of them says is
not written, or its absence is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llavakit.base.errors import BadRequest
from llavakit.base.files import read_json, write_json, write_text
from llavakit.convert.card_use import ways
from llavakit.convert.checkpoint import HEAD, Checkpoint, native
from llavakit.model.checkpoint import native_state

README = "README.md"
RESULT = {"benchmark", "protocol", "score", "unit", "count"}


def write_card(path: Path, name: str, license: str | None = None) -> None:
    """Writes README.md into a native directory. Raises :class:`BadRequest` where there is one: it may be edited."""
    if (path / README).exists():
        raise BadRequest(f"{path / README} is there already; remove it to have it written anew")
    write_text(path / README, card(path, name, license))


def card(path: Path, name: str, license: str | None = None) -> str:
    """The text for a native directory that will be known as ``name`` (``user/model``)."""
    checkpoint = native(path)
    facts = checkpoint.card
    parts = [
        f"# {name.rpartition('/')[2]}",
        _what(checkpoint),
        _parts(checkpoint),
        _training(facts),
        _scores(facts.get("scores", [])),
        _agreement(path),
        "## Use\n\n" + ways(checkpoint, name),
        _license(facts, license),
    ]
    return f"---\n{_metadata(checkpoint, name, license)}\n---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def add_scores(path: Path, folder: str | Path) -> None:
    """Puts every ``result.json`` below ``folder`` (what ``llavakit eval --out`` writes) into ``llavakit.json``; of a
    benchmark and protocol the newer result takes the older one's place."""
    found = [read_json(file) for file in sorted(Path(folder).rglob("result.json"))]
    if not found:
        raise BadRequest(f"no result.json in {folder}; give the folder that llavakit eval --out wrote")
    for result in found:
        if not isinstance(result, dict) or not result.keys() >= RESULT:
            raise BadRequest(f"a result.json in {folder} is not one of llavakit eval's")
    file = path / "llavakit.json"
    facts: dict[str, Any] = read_json(file) if file.is_file() else {"llavakit": 1}
    kept = {(result["benchmark"], result["protocol"]): result for result in [*facts.get("scores", []), *found]}
    write_json(file, {**facts, "scores": list(kept.values())})


def _metadata(checkpoint: Checkpoint, name: str, license: str | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=score["benchmark"],
            dataset_name=score["benchmark"],
            metric_type=f"{score['protocol']} score",
            metric_value=score["score"],
        )
        for score in checkpoint.card.get("scores", [])
    ]
    form = checkpoint.model.form
    data = ModelCardData(
        library_name="transformers" if form == "llava" else "llavakit",
        pipeline_tag="image-text-to-text",
        license=license,
        base_model=_bases(checkpoint.card) or None,
        tags=["llava", "llavakit"],
        model_name=name.rpartition("/")[2],
        eval_results=results or None,
    )
    return data.to_yaml().strip()


def _bases(facts: dict[str, Any]) -> list[str]:
    """Hub ids of the backbones that a recipe names; directories are somebody's own."""
    parts = facts.get("recipe", {}).get("model", {})
    named = [str(parts.get(key) or "") for key in ("vision", "language")]
    named += [str(facts.get("original", {}).get("config", {}).get("mm_vision_tower") or "")]
    ids = [base for base in named if base.count("/") == 1 and not base.startswith((".", "/", "~"))]
    return [base for base in ids if not Path(base).exists()]


def _what(checkpoint: Checkpoint) -> str:
    bases = _bases(checkpoint.card)
    of = f", from {' and '.join(f'`{base}`' for base in bases)}" if bases else ""
    return f"A LLaVA: it answers in text about pictures and text. {_size(checkpoint, '')} parameters{of}."


def _parts(checkpoint: Checkpoint) -> str:
    model, codec = checkpoint.model, checkpoint.codec
    tower, language = model.vision_tower, model.language_model.config
    config = tower.config
    seen = f"one square of {codec.square.size} pixels ({codec.square.mode}), {model.image_tokens} tokens"
    if codec.grids:
        most = max(rows * columns for rows, columns in codec.grids)
        seen = f"up to {most} tiles of {codec.square.size} pixels and a global view ({codec.square.mode})"
    layers = ", ".join(map(str, tower.layer)) if isinstance(tower.layer, tuple) else str(tower.layer)
    rows = [
        (
            "vision tower",
            f"`{config.model_type}`, {config.num_hidden_layers} layers of {config.hidden_size}, patches of "
            f"{config.patch_size} pixels, features of layer {layers}",
            _size(checkpoint, "vision_tower."),
        ),
        ("connector", f"`{model.multi_modal_projector.kind}`", _size(checkpoint, "multi_modal_projector.")),
        (
            "language model",
            f"`{language.model_type}`, {language.num_hidden_layers} layers of {language.hidden_size}, "
            f"{language.vocab_size:,} tokens, context {codec.max_length:,}",
            _size(checkpoint, "language_model."),
        ),
        ("a picture", seen, ""),
        ("weights", str(model.dtype).removeprefix("torch."), ""),
    ]
    return table(("part", "what", "parameters"), rows)


def _training(facts: dict[str, Any]) -> str:
    recipe = facts.get("recipe")
    if not recipe:
        origin = facts.get("original")
        return f"## Origin\n\nConverted by llavakit from {_origin(origin)}." if origin else ""
    rows = []
    for name, stage in recipe["stages"].items():
        trains = ", ".join(f"{part} {rate:g}" for part, rate in stage["train"].items())
        adapters = f" (LoRA of rank {stage['lora']['rank']})" if stage.get("lora") else ""
        data = ", ".join(_source(source, spec) for source, spec in stage["data"].items())
        image = stage["image"] if isinstance(stage["image"], str) else "tiles"
        rows.append(
            (name, trains + adapters, data, f"{stage['batch_size']}", f"{stage['epochs']:g}", stage["template"], image)
        )
    versions = ", ".join(f"{package} {number}" for package, number in facts.get("versions", {}).items())
    said = f"Recipe `{recipe['name']}` (hash `{facts.get('recipe_hash', 'unknown')}`), seed {recipe['seed']}"
    return (
        f"## Training\n\n{said}{f', with {versions}' if versions else ''}. The whole recipe is in `llavakit.json`.\n\n"
        + table(("stage", "trains, at rate", "data", "batch", "epochs", "template", "pictures"), rows)
    )


def _source(name: str, spec: dict[str, Any]) -> str:
    """A source of data by its file's name; where the file lay on somebody's disk is nobody's business."""
    more = [f"at most {spec['cap']:,}"] if spec.get("cap") else []
    more += [f"weight {spec['weight']:g}"] if spec.get("weight", 1) != 1 else []
    file = Path(spec["path"]).name
    return f"{name} (`{file}`{''.join(f', {part}' for part in more)})"


def _origin(origin: dict[str, Any]) -> str:
    kind = origin.get("config", {}).get("model_type", "llava")
    return f"a checkpoint of the original LLaVA (`{kind}`)"


def _scores(scores: list[dict[str, Any]]) -> str:
    if not scores:
        return "## Scores\n\nNone were recorded."
    rows = []
    for score in scores:
        doubts = [f"{score[key]} {key}" for key in ("missing", "duplicates", "unparsed") if score.get(key)]
        digits = 4 if score["unit"] == "fraction" else 2
        value = f"{score['score']:.{digits}f} {score['unit']}"
        rows.append((score["benchmark"], score["protocol"], value, f"{score['count']:,}", ", ".join(doubts) or "none"))
    return "## Scores\n\n" + table(("benchmark", "protocol", "score", "questions", "doubts"), rows)


def _agreement(path: Path) -> str:
    """What the certificates say, where there are any."""
    said = []
    if (path / "parity.json").is_file():
        found = read_json(path / "parity.json")
        said.append(f"Logits differ from the original's by {found['difference']:.1e} of the largest (`parity.json`).")
    if (path / "engines.json").is_file():
        found = read_json(path / "engines.json")
        rows = [(e["engine"], e.get("version", ""), e["said"]) for e in found["engines"]]
        said.append(
            f"Greedy answers to the same {found['questions']} questions, beside llavakit's (`engines.json`):\n\n"
            + table(("engine", "version", "agrees"), rows)
        )
    return "## Agreement\n\n" + "\n\n".join(said) if said else ""


def _license(facts: dict[str, Any], license: str | None) -> str:
    bases = " and ".join(f"`{base}`" for base in _bases(facts)) or "what it was built from"
    stated = f"`{license}`." if license else "None was stated."
    return f"## Licence\n\n{stated} The licences of {bases}, and of the data, apply to these weights too."


def _size(checkpoint: Checkpoint, part: str) -> str:
    """Parameters of what is saved under a prefix; a head that is the embeddings counts once."""
    tied = {HEAD} if checkpoint.tied else set()
    state = native_state(checkpoint.model)
    number = sum(tensor.numel() for name, tensor in state.items() if name.startswith(part) and name not in tied)
    return f"{number / 1e9:.2f}B" if number >= 1e9 else f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number:,}"


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
