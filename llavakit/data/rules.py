"""The rules that several sources share, each with its name. Source of the facts: arXiv:2310.03744, appendix."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath

from llavakit.data.boxes import Region, as_text, padded_square
from llavakit.data.dice import Dice
from llavakit.data.reader import Rule, Talk, Talks
from llavakit.eval.choice import OPTIONS, lettered

DESCRIBE = "Please provide a short description for this region: {box}."
LOCATE = "Please provide the bounding box coordinate of the region this sentence describes: {phrase}."


def _each(act: Callable[[Talk], Talk]) -> Callable[[Talks, Dice], Talks]:
    return lambda talks, dice: [act(talk) for talk in talks]


def capitalised_answers() -> Rule:
    """As the published model answers: "Yes", "Black"."""
    return Rule(
        "capitalised-answers",
        "the first letter of every answer becomes a capital",
        _each(lambda talk: _answers(talk, lambda text: text[:1].upper() + text[1:])),
    )


def merged_by_image() -> Rule:
    """Conversations about the same picture (and part) become one, named like the picture."""

    def act(talks: Talks, dice: Dice) -> Talks:
        groups: dict[tuple[tuple[str, ...], int], list[Talk]] = {}
        for talk in talks:
            groups.setdefault((talk.images, talk.part), []).append(talk)
        return [
            Talk(_stem(images) + (f"_{part}" if part else ""), tuple(t for talk in group for t in talk.turns), images)
            for (images, part), group in groups.items()
        ]

    return Rule("merged-by-image", "all questions about one image become one conversation, in the file's order", act)


def format_prompt(prompt: str, each: bool) -> Rule:
    """The response-format prompt on a line of its own after the first question, or after each."""

    def act(talk: Talk) -> Talk:
        turns, done = [], False
        for who, text in talk.turns:
            add = who == "human" and (each or not done)
            turns.append((who, f"{text}\n{prompt}" if add else text))
            done = done or add
        return replace(talk, turns=tuple(turns))

    where = "every question" if each else "the first question of a conversation"
    return Rule("format-prompt", f"{prompt!r} stands after {where}", _each(act))


def rotated_choices() -> Rule:
    """Each multiple-choice question once per choice, the choices rotated by one each time, so that every letter is
    right once. Needs ``extra`` "question", "choices" (list) and "correct" (number of the right one)."""

    def act(talks: Talks, dice: Dice) -> Talks:
        made = []
        for talk in talks:
            choices, correct = list(talk.extra["choices"]), talk.extra["correct"]
            for turn in range(len(choices)):
                shown = choices[turn:] + choices[:turn]
                right = OPTIONS[(correct - turn) % len(choices)]
                asked = f"{talk.extra['question']}\n{lettered(shown)}"
                made.append(replace(talk.exchange(asked, right), part=turn))
        return made

    return Rule("rotated-choices", "each question is asked once per choice, the choices rotated", act)


def sampled(count: int) -> Rule:
    return Rule(
        "sampled",
        f"at most {count:,} conversations, chosen by the seed",
        lambda talks, dice: dice.sample(talks, count, lambda talk: (talk.id, talk.images)),
    )


def padded_square_boxes() -> Rule:
    """``extra`` "regions" (pixels) and "size" (width, height) become box texts and phrases in "regions"."""

    def act(talk: Talk) -> Talk:
        width, height = talk.extra["size"]
        regions = [(as_text(padded_square(r, width, height)), r.phrase) for r in talk.extra["regions"]]
        return replace(talk, extra={"regions": regions})

    says = "boxes are [x1, y1, x2, y2] as shares of the image padded to a square, two decimals"
    return Rule("padded-square-boxes", says, _each(act))


def limited_regions(count: int) -> Rule:
    """At most so many regions an image, chosen by the seed."""

    def act(talks: Talks, dice: Dice) -> Talks:
        def chosen(talk: Talk) -> list[tuple[int, Region]]:
            return dice.sample(list(enumerate(talk.extra["regions"])), count, lambda n: (talk.images, n[0]))

        return [replace(t, extra=t.extra | {"regions": [region for _, region in chosen(t)]}) for t in talks]

    return Rule("limited-regions", f"at most {count} annotations an image, chosen by the seed", act)


def region_questions() -> Rule:
    """For each region, at random, what is in the box, or where the phrase is."""

    def act(talks: Talks, dice: Dice) -> Talks:
        made = []
        for talk in talks:
            turns: list[tuple[str, str]] = []
            for number, (box, phrase) in enumerate(talk.extra["regions"]):
                if dice.pick((True, False), (talk.images, number)):
                    turns += [("human", DESCRIBE.format(box=box)), ("gpt", phrase)]
                else:
                    turns += [("human", LOCATE.format(phrase=phrase.rstrip("."))), ("gpt", box)]
            made.append(replace(talk, turns=tuple(turns), extra={}))
        return made

    return Rule("region-questions", "describe a box, or locate a phrase: one of the two a region, by the seed", act)


def short_pieces(below: int) -> Rule:
    """Long conversations in pieces of fewer than ``below`` questions."""

    def act(talks: Talks, dice: Dice) -> Talks:
        size = 2 * (below - 1)
        made = []
        for talk in talks:
            pieces = [talk.turns[i : i + size] for i in range(0, len(talk.turns), size)]
            named = [f"{talk.id}_{n}" if n else talk.id for n in range(len(pieces))]
            made += [replace(talk, id=id, turns=turns) for id, turns in zip(named, pieces, strict=True)]
        return made

    return Rule("short-pieces", f"conversations are cut into pieces of fewer than {below} questions", act)


def one_caption(question: str) -> Rule:
    """One of ``extra`` "captions", chosen by the seed, answers the question; "ocr" words are its reference."""

    def act(talks: Talks, dice: Dice) -> Talks:
        made = []
        for talk in talks:
            words = talk.extra.get("ocr")
            asked = question if words is None else f"{question}\nReference OCR token: {', '.join(words)}"
            made.append(talk.exchange(asked, dice.pick(talk.extra["captions"], talk.id)))
        return made

    return Rule("one-caption", "one of an image's captions, chosen by the seed, is the answer", act)


def image_folder(folder: str) -> Rule:
    """Image names as they lie under the root."""
    return Rule(
        "image-folder",
        f"image names begin with {folder}/",
        _each(lambda talk: replace(talk, images=tuple(f"{folder}/{name}" for name in talk.images))),
    )


def coco_name(image_id: int | str) -> str:
    """COCO 2017's file name of an image number: 42 -> "000000000042.jpg"."""
    return f"{int(image_id):012d}.jpg"


def coco_number(name: str) -> str:
    """The 2017 name of a 2014 one: "COCO_train2014_000000581857_16.jpg" (RefCOCO adds the annotation) too."""
    match = re.search(r"(\d{12})", name)
    return f"{match.group(1)}.jpg" if match else name


def _answers(talk: Talk, change: Callable[[str], str]) -> Talk:
    return replace(talk, turns=tuple((who, change(text) if who == "gpt" else text) for who, text in talk.turns))


def _stem(images: tuple[str, ...]) -> str:
    return PurePosixPath(images[0]).stem if images else ""
