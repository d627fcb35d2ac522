"""Texts: every answer is derived again, from the scene and the question's own words, by code that shares nothing."""

import itertools
import re
from collections import Counter

import pytest

from llavakit.world.ask.facts import KINDS, draw_facts
from llavakit.world.ask.table import ALL_PAIRS, CAPTION, INGREDIENTS, questions
from llavakit.world.corpus import chat, lookup, regions
from llavakit.world.sample import rng_of, sample_scene
from llavakit.world.words import COLOURS, HELD_OUT, LETTER, PATTERNS, SHAPES, SHORT, SIZES

ATTRIBUTES = {"colour": COLOURS, "shape": SHAPES, "pattern": PATTERNS, "size": SIZES}
EVERY = {CAPTION.name: CAPTION, **INGREDIENTS}


def singular(word):
    return {"circles": "circle", "crosses": "cross", "rings": "ring"}.get(word, word.removesuffix("s"))


def meant(scene, words):
    """All things that fit a description such as "small red circles" or "thing at the top left"."""
    words = words.removeprefix("the ").removeprefix("a ").removeprefix("an ")
    if place := re.fullmatch(r"things? (?:at|on|in) the (.+)", words):
        return [t for t in scene.things if t.place == place.group(1)]
    found = list(scene.things)
    for word in words.split():
        for key, values in ATTRIBUTES.items():
            if word in values or (word not in PATTERNS and singular(word) in values):
                found = [t for t in found if getattr(t, key) in (word, singular(word))]
    return found


def truth(scene, question):
    """The short answer to a question of facts.py."""
    if m := re.fullmatch(r"(?:Is there|Does the image show) (an? .+?)(?: in the image)?\?", question):
        return "yes" if meant(scene, m.group(1)) else "no"
    if m := re.fullmatch(r"How many (.+?) are (?:there|in the image)\?", question):
        return str(len(meant(scene, m.group(1))))
    if m := re.fullmatch(r"Is (the .+?) (to the left of|to the right of|above|below) (the .+)\?", question):
        (one,), (two,) = meant(scene, m.group(1)), meant(scene, m.group(3))
        dx, dy = two.x - one.x, two.y - one.y
        how = {"to the left of": dx, "to the right of": -dx, "above": dy, "below": -dy}[m.group(2)]
        assert abs(how) > 0.1
        return "yes" if how > 0 else "no"
    if m := re.fullmatch(r"(?:Where|In which part of the image) is (the .+)\?", question):
        (thing,) = meant(scene, m.group(1))
        return thing.place
    if m := re.fullmatch(r"Is (the .+) small or large\?", question):
        (thing,) = meant(scene, m.group(1))
        return thing.size
    m = re.fullmatch(r"What (?:is the )?(color|shape|size|pattern)(?: is| of) (the .+)\?", question)
    (thing,) = meant(scene, m.group(2))
    return getattr(thing, m.group(1).replace("color", "colour"))


@pytest.mark.parametrize("kind", KINDS)
def test_facts_are_true_and_say_so_in_words(kind):
    answers = Counter()
    for index in range(150):
        scene = sample_scene(9, index, "test")
        for fact in draw_facts(scene, rng_of(9, index, kind), ALL_PAIRS, 2, (kind,)):
            assert fact.answer == truth(scene, fact.question), (fact, scene)
            spoken = fact.spoken()
            assert re.search(rf"(?<!\w){fact.answer}(?!\w)", fact.full, re.IGNORECASE)
            assert not any(re.search(rf"(?<!\w){o}(?!\w)", fact.full, re.IGNORECASE) for o in spoken.others)
            answers[fact.answer] += 1
    if set(answers) == {"yes", "no"}:
        assert 0.38 < answers["yes"] / answers.total() < 0.62


def test_reasoning_ends_in_the_truth():
    kinds = Counter()
    for index in range(200):
        scene = sample_scene(4, index, "test")
        for (exchange,) in INGREDIENTS["reasoning"].dialogues(4, index, "test", scene):
            kinds[exchange.kind] += 1
            answer = re.search(r"The answer is (.+)\.$", exchange.reply).group(1)
            question = exchange.text
            if m := re.fullmatch(r"How many things remain if all (.+) are removed\?", question):
                expected = str(len(scene.things) - len(meant(scene, m.group(1))))
            elif m := re.fullmatch(r"How many (.+) and (.+) are there in total\?", question):
                expected = str(len(meant(scene, m.group(1))) + len(meant(scene, m.group(2))))
            elif m := re.fullmatch(r"Are there more (.+) than (.+)\?", question):
                expected = "yes" if len(meant(scene, m.group(1))) > len(meant(scene, m.group(2))) else "no"
            elif m := re.fullmatch(r"Which is (higher|lower|further left|further right), (.+) or (.+)\?", question):
                (one,), (two,) = meant(scene, m.group(2)), meant(scene, m.group(3))
                key = "y" if m.group(1) in ("higher", "lower") else "x"
                first = getattr(one, key) < getattr(two, key)
                expected = m.group(2) if first == (m.group(1) in ("higher", "further left")) else m.group(3)
            else:
                m = re.fullmatch(r"Do (.+) and (.+) have the same (color|pattern|size)\?", question)
                (one,), (two,) = meant(scene, m.group(1)), meant(scene, m.group(2))
                key = m.group(3).replace("color", "colour")
                expected = "yes" if getattr(one, key) == getattr(two, key) else "no"
            assert answer == expected, (exchange, scene)
    assert len(kinds) == 5 and min(kinds.values()) > 15


def test_descriptions_name_everything_once():
    for index in range(60):
        scene = sample_scene(2, index, "test")
        expected = [f"{t.size} {t.pattern} {t.colour} {t.shape}" for t in scene.things]
        expected += [f"{i.kind} {i.text}" for i in scene.inscriptions]
        for ingredient in (CAPTION, INGREDIENTS["detail"]):
            ((exchange,),) = ingredient.dialogues(2, index, "test", scene)
            assert sorted(re.findall(exchange.pattern, exchange.reply)) == sorted(expected)
            assert sorted(exchange.answers) == sorted(expected)
            assert scene.background.texture in exchange.reply or ingredient is CAPTION
        for dialogue in INGREDIENTS["textcaps"].dialogues(2, index, "test", scene):
            (exchange,) = dialogue
            assert Counter(re.findall(exchange.pattern, exchange.reply)) == Counter(exchange.answers)
            assert all(item.text in exchange.text.splitlines()[1] for item in scene.inscriptions)


def test_boxes_and_phrases_belong_together():
    for index in range(60):
        scene = sample_scene(3, index, "test")
        boxes = {f"{t.size} {t.pattern} {t.colour} {t.shape}".capitalize(): scene.square_box(t) for t in scene.things}
        boxes |= {f"{i.kind.capitalize()} {i.text}": scene.square_box(i) for i in scene.inscriptions}
        (dialogue,) = INGREDIENTS["region"].dialogues(3, index, "test", scene)
        for exchange in dialogue:
            box, phrase = exchange.reply, exchange.text.split(". ", 1)[1]
            if exchange.metric == "exact":
                box, phrase = phrase, box
            assert re.fullmatch(r"\[(0\.\d\d|1\.00)(, (0\.\d\d|1\.00)){3}\]", box)
            assert [float(v) for v in box[1:-1].split(", ")] == pytest.approx(boxes[phrase], abs=0.0051)


def test_choices_meet_every_rotation_and_have_one_true_option():
    letters = Counter()
    for index in range(40):
        scene = sample_scene(6, index, "test")
        dialogues = INGREDIENTS["choice"].dialogues(6, index, "test", scene)
        assert len(dialogues) == 4
        for turns in zip(*dialogues, strict=True):
            assert sorted(turn.reply for turn in turns) == list("ABCD")
            right = set()
            for turn in turns:
                question, *options, prompt = turn.text.split("\n")
                assert prompt == LETTER and [option[:3] for option in options] == ["A. ", "B. ", "C. ", "D. "]
                assert len(set(option[3:] for option in options)) == 4
                right.add(options["ABCD".index(turn.reply)][3:])
            (answer,) = right
            word = scene.inscription("word")
            assert answer.lower() == (word.text.lower() if "printed" in question else truth(scene, question))
        letters.update(exchange.reply for exchange in dialogues[0])
    assert min(letters[letter] for letter in "ABCD") > 0.15 * letters.total()


def test_printed_text_is_read_as_it_stands():
    for index in range(80):
        scene = sample_scene(7, index, "test")
        for dialogue in INGREDIENTS["ocr"].dialogues(7, index, "test", scene):
            assert len(dialogue) == 3 * len(scene.inscriptions)
            for exchange in dialogue:
                question, prompt = exchange.text.split("\n")
                assert prompt == SHORT
                item = scene.inscription(exchange.kind.split()[0])
                if m := re.fullmatch(r"Is the (?:word|number) (\w+) printed in the image\?", question):
                    assert exchange.reply == ("Yes" if m.group(1) == item.text else "No")
                elif question.startswith("Where"):
                    assert exchange.reply.lower() == item.place
                else:
                    assert exchange.reply == item.text


@pytest.mark.parametrize("name", EVERY)
def test_records_are_llava_s_format(name):
    ingredient = EVERY[name]
    for index in range(25):
        for record in ingredient.records(0, index, "train", "images/train/x.jpg"):
            turns = record["conversations"]
            assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
            marks = [turn["value"].count("<image>") for turn in turns]
            assert marks == ([1] + [0] * (len(turns) - 1) if ingredient.pictured else [0] * len(turns))
            assert ("image" in record) == ingredient.pictured
            assert all(turn["value"].strip() == turn["value"] and turn["value"] for turn in turns)
            first = turns[0]["value"]
            assert not ingredient.pictured or first.startswith("<image>\n") or first.endswith("\n<image>")
            text = " ".join(turn["value"] for turn in turns)
            # The held-out combinations are not even asked about: their "no" would be learned.
            assert not any(f"{colour} {shape}" in text for colour, shape in HELD_OUT)


@pytest.mark.parametrize("name", EVERY)
def test_questions_are_as_many_as_asked_for(name):
    asked = questions(EVERY[name], 0, 20, 50, "images/test/{:05d}.jpg".format)
    assert len(asked) == 50 and len({q["question_id"] for q in asked}) == 50
    for question in asked:
        assert question["metric"] in ("exact", "contains", "phrases", "box", "choice")
        assert question["answers"] and "<image>" not in question["text"]
        assert ("pattern" in question) == (question["metric"] == "phrases")
        assert (question["image"] is None) == (name == "text_only")
    if name not in ("text_only", "ocr"):
        assert any(question["novel"] for question in asked)


def test_told_scenes_answer_their_own_questions():
    """What is asked for a box, or in the lookups for anything, stands in what the picture would show."""
    assert [chat(0, index) for index in range(20)] == [chat(0, index) for index in range(20)]
    boxes = 0
    for index in range(300):
        talk, shown = chat(0, index), regions(0, index)
        assert talk.get("image", shown["image"]) == shown["image"]
        texts, told = ([turn["value"] for turn in record["conversations"]] for record in (talk, shown))
        assert all(texts) and len(texts) % 2 == 0 and texts[0].startswith("<image>\n") == ("image" in talk)
        for asked, answer in itertools.pairwise(texts):
            if asked_for := re.search(r"sentence describes\. (.+)", asked):
                assert any(
                    phrase.startswith(asked_for[1]) and answer in box for box, phrase in itertools.pairwise(told)
                )
                boxes += 1
    assert boxes > 30
    for index in range(50):
        talk, shown = lookup(0, index), regions(0, index)
        assert talk["image"] == shown["image"]
        told = " ".join(turn["value"].lower() for turn in shown["conversations"] if turn["from"] == "gpt")
        values = [turn["value"] for turn in talk["conversations"]]
        assert values[0].startswith("<image>") and all(asked.endswith(SHORT) for asked in values[:10:2])
        for said in values[1::2]:
            assert said.lower() in told or said in ("Yes", "No")
