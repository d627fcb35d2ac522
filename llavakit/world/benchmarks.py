"""The held-out scenes once more, in the file formats of the published benchmarks, so that their loaders are used."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llavakit.base.errors import BadRequest
from llavakit.base.files import write_json, write_text
from llavakit.world.ask.choice import Choice, choices
from llavakit.world.ask.describe import caption_text
from llavakit.world.ask.facts import Fact, absent, draw_facts
from llavakit.world.ask.phrase import a, pick
from llavakit.world.ask.printed import reading
from llavakit.world.ask.table import ALL_PAIRS
from llavakit.world.sample import rng_of, sample_scene
from llavakit.world.scene import Scene


def write_benchmarks(folder: Path, seed: int, scenes: int, number: int) -> dict[str, int]:
    """Writes every benchmark with ``number`` questions (POPE: of each category) under ``folder/benchmarks``.

    Pictures are hard links to ``folder/images/test``. Returns the number of questions of each.
    """
    counts = {}
    for name, write in _WRITERS.items():
        home = folder / "benchmarks" / name
        home.mkdir(parents=True)
        counts[name] = write(_Shelf(folder, home, seed, scenes, name), number)
    return counts


class _Shelf:
    """Where one benchmark goes, and the test scenes it is made of."""

    def __init__(self, folder: Path, home: Path, seed: int, scenes: int, name: str) -> None:
        self.folder, self.home, self.seed, self.scenes, self.name = folder, home, seed, scenes, name

    def rounds(self) -> Iterator[tuple[int, Scene, np.random.Generator]]:
        """(scene index, scene, generator), over the test scenes and round again without end."""
        for turn in itertools.count():
            index = turn % self.scenes
            yield index, sample_scene(self.seed, index, "test"), rng_of(self.seed, turn, f"test/{self.name}")

    def picture(self, index: int, path: str) -> None:
        """Puts the picture of scene ``index`` at ``path``."""
        target = self.home / path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source = self.folder / f"images/test/{index:05d}.jpg"
            if target.suffix == ".png":
                with Image.open(source) as picture:
                    picture.save(target)
                return
            try:
                os.link(source, target)
            except OSError:  # a file system without hard links
                shutil.copyfile(source, target)


def _facts(shelf: _Shelf, number: int, each: int, *kinds: str) -> Iterator[tuple[int, Fact]]:
    left = number
    for index, scene, rng in shelf.rounds():
        if left <= 0:
            return
        for fact in draw_facts(scene, rng, ALL_PAIRS, min(each, left), *([kinds] if kinds else [])):
            left -= 1
            yield index, fact


def _vqav2(shelf: _Shelf, number: int) -> int:
    questions: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, fact in _facts(shelf, number, 3):
        image_id, question_id = index + 1, (index + 1) * 1000 + len(questions)
        shelf.picture(index, f"val2014/COCO_val2014_{image_id:012d}.jpg")
        questions.append({"image_id": image_id, "question": fact.question, "question_id": question_id})
        answers = [{"answer": fact.answer, "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)]
        sort = "yes/no" if fact.answer in ("yes", "no") else "number" if fact.answer.isdigit() else "other"
        annotations.append(
            {
                "question_type": " ".join(fact.question.lower().split()[:2]),
                "multiple_choice_answer": fact.answer,
                "answers": answers,
                "image_id": image_id,
                "answer_type": sort,
                "question_id": question_id,
            }
        )
    head = {"info": {}, "license": {}, "data_type": "mscoco", "data_subtype": "val2014"}
    asked = {**head, "task_type": "Open-Ended", "questions": questions}
    write_json(shelf.home / "v2_OpenEnded_mscoco_val2014_questions.json", asked)
    write_json(shelf.home / "v2_mscoco_val2014_annotations.json", {**head, "annotations": annotations})
    return len(questions)


# GQA's structural types and the kinds of fact that have them.
_STRUCTURE = {"presence": "verify", "relation": "verify", "size": "choose"}


def _gqa(shelf: _Shelf, number: int) -> int:
    questions: dict[str, Any] = {}
    for index, fact in _facts(shelf, number, 4, "presence", "color", "shape", "size", "pattern", "place", "relation"):
        name = f"n{index:06d}"
        shelf.picture(index, f"images/{name}.jpg")
        structure = _STRUCTURE.get(fact.kind, "query")
        questions[f"20{len(questions):07d}"] = {
            "question": fact.question,
            "imageId": name,
            "answer": fact.answer,
            "fullAnswer": fact.full,
            "types": {"structural": structure, "semantic": "rel" if fact.kind == "relation" else "attr"},
            "isBalanced": True,
        }
    write_json(shelf.home / "testdev_balanced_questions.json", questions)
    return len(questions)


def _pope(shelf: _Shelf, number: int) -> int:
    """Yes and no by turns on each picture. Popular no's are the combinations that most test scenes have; adversarial
    ones share colour or shape with a thing that is there."""
    seen: Counter[tuple[str, str]] = Counter()
    for index in range(shelf.scenes):
        seen.update((t.colour, t.shape) for t in sample_scene(shelf.seed, index, "test").things)
    popular = sorted(ALL_PAIRS, key=lambda pair: -seen[pair])[:12]
    sorts: dict[str, Callable[[Scene, np.random.Generator], Any]] = {
        "random": lambda scene, rng: absent(scene, rng, ALL_PAIRS, hard=False),
        "popular": lambda scene, rng: absent(scene, rng, popular, hard=False),
        "adversarial": lambda scene, rng: absent(scene, rng, ALL_PAIRS, hard=True),
    }
    for category, missing in sorts.items():
        lines: list[dict[str, Any]] = []
        for index, scene, rng in shelf.rounds():
            image = f"COCO_val2014_{index + 1:012d}.jpg"
            thing = pick(rng, scene.things)
            for (colour, shape), label in (
                ((thing.colour, thing.shape), "yes"),
                (pick(rng, missing(scene, rng)), "no"),
            ):
                if len(lines) < number:
                    shelf.picture(index, f"val2014/{image}")
                    text = f"Is there {a(f'{colour} {shape}')} in the image?"
                    lines.append({"question_id": len(lines) + 1, "image": image, "text": text, "label": label})
            if len(lines) >= number:
                break
        write_text(shelf.home / f"coco/coco_pope_{category}.json", "".join(f"{json.dumps(line)}\n" for line in lines))
    return number * len(sorts)


def _textvqa(shelf: _Shelf, number: int) -> int:
    data: list[dict[str, Any]] = []
    tokens: dict[str, list[str]] = {}
    for index, scene, rng in shelf.rounds():
        if len(data) >= number:
            break
        if not scene.inscriptions:
            if index == shelf.scenes - 1 and not data:
                raise BadRequest("no test scene has printed text to ask about; build with more test pictures")
            continue
        image_id = f"{index:016x}"
        shelf.picture(index, f"train_images/{image_id}.jpg")
        tokens[image_id] = [item.text for item in scene.inscriptions]
        asked = reading(scene, rng, pick(rng, scene.inscriptions))
        answers = [asked.reply.lower()] * 10
        data.append(
            {"question_id": 34602 + len(data), "question": asked.text, "image_id": image_id, "answers": answers}
            | {"image_classes": [], "set_name": "val"}
        )
    head = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1"}
    write_json(shelf.home / "TextVQA_0.5.1_val.json", {**head, "data": data})
    read = [{"image_id": image_id, "ocr_tokens": found, "ocr_info": []} for image_id, found in tokens.items()]
    write_json(shelf.home / "TextVQA_Rosetta_OCR_v0.2_val.json", {**head, "data": read})
    return len(data)


def _scienceqa(shelf: _Shelf, number: int) -> int:
    """Every third problem has no picture: its context tells the scene."""
    problems: dict[str, Any] = {}
    for index, scene, rng in shelf.rounds():
        if len(problems) >= number:
            break
        made: list[Choice] = choices(scene, rng, ALL_PAIRS, 1)
        id, told = str(len(problems) + 1), len(problems) % 3 == 2
        if told and made[0].kind == "word":
            continue
        if not told:
            shelf.picture(index, f"images/test/{id}/image.png")
        text = caption_text(scene)
        problems[id] = {
            "question": made[0].question,
            "choices": list(made[0].options),
            "answer": made[0].right,
            "hint": f"An image shows {text[0].lower()}{text[1:]}" if told else "",
            "image": None if told else "image.png",
            "task": "closed choice",
            "grade": "grade2",
            "subject": "natural science",
            "topic": "shapes",
            "category": made[0].kind,
            "skill": f"Tell the {made[0].kind}",
            "lecture": "",
            "solution": "",
            "split": "test",
        }
    write_json(shelf.home / "problems.json", problems)
    splits = {"train": [], "val": [], "test": list(problems), "trainval": [], "minitrain": [], "minival": []}
    write_json(shelf.home / "pid_splits.json", {**splits, "minitest": list(problems)[:10]})
    return len(problems)


_WRITERS = {"vqav2": _vqav2, "gqa": _gqa, "pope": _pope, "textvqa": _textvqa, "scienceqa": _scienceqa}
