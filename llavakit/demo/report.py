"""The demo's report: one HTML page that needs nothing beside it, from what the run left in its directory."""

from __future__ import annotations

import math
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from llavakit.base.files import write_text
from llavakit.demo.report_cards import Card, cards, mark_of, token_runs
from llavakit.demo.report_plot import curve
from llavakit.demo.report_read import Demo, Sample, read_demo
from llavakit.world.ask.table import CAPTION, INGREDIENTS
from llavakit.world.words import HELD_OUT

_PARTS = {"vision_tower": "CLIP vision tower", "connector": "connector", "language_model": "Language model"}
_CONNECTORS = {"mlp2x_gelu": "MLP connector", "linear": "Linear connector"}
_TRAININGS = {
    "language": ("Language model", "from scratch, on words and told pictures", "loss per token"),
    "clip": ("CLIP", "from scratch, on captions and regions", "contrastive loss"),
}


def write_report(run: Path) -> Path:
    """Writes ``run/report.html`` and returns its path. Raises :class:`BadRequest` naming a file that is missing."""
    out = run / "report.html"
    write_text(out, render(read_demo(run)))
    return out


def render(demo: Demo) -> str:
    """The page. Everything from the run is escaped by the template engine."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "width": _width,
        "size": _size,
        "duration": _duration,
        "clock": _clock,
        "rate": _rate,
        "mark": mark_of,
    }
    shown = cards(demo)
    return environment.get_template("page.html").render(
        style=_source("page.css"),
        results=demo.results,
        recipe=demo.recipe,
        stages=_stages(demo),
        curves=_curves(demo),
        mixture=_mixture(demo),
        cards=shown,
        unseen=[f"{colour} {shape}" for colour, shape in HELD_OUT],
        samples=[_sample(demo, sample) for sample in demo.samples],
        timeline=_timeline(demo),
        questions=sum(scores.count for scores in demo.results.ingredients.values()),
        command=_command(shown),
    )


def _source(name: str) -> str:
    return resources.files("llavakit.demo").joinpath(name).read_text(encoding="utf-8")


def _stages(demo: Demo) -> list[dict[str, Any]]:
    """One diagram a stage of the recipe."""
    titles = _PARTS | {"connector": _CONNECTORS[demo.recipe.model.connector]}
    made = []
    for number, (name, stage) in enumerate(demo.recipe.stages.items(), 1):
        sizes = demo.results.parts.get(name, {})
        rates: dict[str, float] = {part: rate for part, rate in stage.train.items()}
        of_stage = [s for s in demo.samples if s.stage == name and s.image]
        made.append(
            {
                "number": number,
                "name": name,
                "parts": [
                    {"title": titles.get(part, part), "parameters": size, "rate": rates[part] if trains else None}
                    for part, (size, trains) in sizes.items()
                ],
                "trained": sum(size for size, trains in sizes.values() if trains),
                "total": sum(size for size, _ in sizes.values()),
                "template": stage.template,
                "samples": round(_epoch(demo, name) * stage.epochs),
                "epochs": stage.epochs,
                "batch": stage.batch_size,
                "image": stage.image,
                "steps": len(demo.losses[name][0]) if name in demo.losses else None,
                "example": _sample(demo, of_stage[0]) if of_stage else None,
            }
        )
    return made


def _epoch(demo: Demo, stage: str) -> int:
    sources = demo.recipe.stages[stage].data
    return sum(round(demo.records[stage][name] * spec.weight) for name, spec in sources.items())


def _curves(demo: Demo) -> list[dict[str, Any]]:
    made = []
    for stage, (steps, losses) in demo.losses.items():
        title, note, unit = _TRAININGS.get(stage, (stage, "", "loss per supervised token"))
        if stage in demo.recipe.stages:
            learners = [_PARTS[part] for part in demo.recipe.stages[stage].train]
            note = "trains: " + ", ".join(learners).lower().replace("clip", "CLIP")
        made.append({"title": title, "note": note, "unit": unit, "curve": curve(stage, steps, losses)})
    return made


def _mixture(demo: Demo) -> list[dict[str, Any]]:
    """The sources of each stage; ``share`` is of the stage's own samples."""
    made = []
    for stage, found in demo.recipe.stages.items():
        epoch = max(1, _epoch(demo, stage))
        rows = []
        for name, spec in found.data.items():
            records = demo.records[stage][name]
            taken = round(records * spec.weight)
            rows.append(
                {
                    "name": name,
                    "stands_for": _stands_for(demo, name, Path(spec.path).stem),
                    "records": records,
                    "weight": spec.weight,
                    "taken": taken,
                    "share": taken / epoch,
                }
            )
        made.append({"stage": stage, "rows": rows, "taken": _epoch(demo, stage)})
    return made


def _stands_for(demo: Demo, *names: str) -> str:
    known = {CAPTION.name: CAPTION.stands_for, "align": CAPTION.stands_for}
    known |= {name: ingredient.stands_for for name, ingredient in INGREDIENTS.items()}
    known |= {name: scores.stands_for for name, scores in demo.results.ingredients.items()}
    return next((known[name] for name in names if name in known), "")


def _sample(demo: Demo, sample: Sample) -> dict[str, Any]:
    """A training sample as the token view shows it; ``answer`` is what of it the model learns to write."""
    runs = list(token_runs(sample))
    answers = ["".join(run.tokens).replace("</s>", "").strip() for run in runs if run.kind == "learned"]
    return {
        "source": sample.source,
        "stage": sample.stage,
        "picture": demo.picture(sample.image) if sample.image else None,
        "runs": runs,
        "learned": sum(supervised for _, supervised, _ in sample.tokens),
        "total": len(sample.tokens),
        "answer": " / ".join(answers),
    }


def _timeline(demo: Demo) -> list[dict[str, Any]]:
    """The phases one after the other, each with where it begins; then what no phase accounts for."""
    phases = [(name, seconds) for name, seconds in demo.results.timeline]
    rest = demo.results.seconds - sum(seconds for _, seconds in phases)
    if rest >= 0.5:
        phases.append(("everything else", rest))
    whole = max(sum(seconds for _, seconds in phases), 1e-9)
    made, begin = [], 0.0
    for name, seconds in phases:
        made.append({"name": name, "seconds": seconds, "begin": begin / whole, "share": seconds / whole})
        begin += seconds
    return made


def _command(shown: list[Card]) -> str:
    """What to type in the run's own folder: the shortest question on the page, of one line where there is one."""
    card = min(shown, key=lambda card: ("\n" in card.text, len(card.text), card.number))
    return f"llavakit ask model --image {shlex.quote('world/' + card.image)} {shlex.quote(card.text)}"


def _percent(share: float | None, digits: int = 1) -> str:
    """ "87.3 %", with a thin space that does not break; a dash for what was not measured."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f}\u202f%"


def _width(share: float | None) -> str:
    return f"{100 * max(0.0, min(1.0, share or 0.0)):.2f}%"


def _size(number: int) -> str:
    for unit, scale in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g}\u202f{unit}"
    return str(number)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}\u202fmin {rest:02d}\u202fs" if minutes else f"{rest}\u202fs"


def _clock(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


def _rate(rate: float) -> str:
    """ "1e-3" as the recipes write it."""
    mantissa, exponent = f"{rate:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
