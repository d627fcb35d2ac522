"""What each kind takes and what it turns down, and for which reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from llavakit.base.errors import BadRequest
from llavakit.teacher import check
from llavakit.teacher.check import Rejected
from llavakit.teacher.context import Context
from llavakit.teacher.kind import KINDS, of_name
from llavakit.teacher.read import read_contexts

CONTEXT = Context("1", "1.jpg", ("A brown dog jumps over a wooden fence to catch a red frisbee.", "A dog in a garden."))
GOOD = "Question: What is the dog doing?\nAnswer: It is jumping over a fence.\n"
LONG = "The dog is in the air above the fence, its front legs stretched out, and looks at the frisbee. " * 3


def test_the_kinds() -> None:
    assert KINDS.names() == ["conversation", "describe", "detail", "reasoning"]
    assert len({of_name(name).prompt_hash for name in KINDS.names()}) == 4
    assert all(of_name(name).name == name for name in KINDS.names())
    with pytest.raises(BadRequest, match="did you mean 'detail'"):
        of_name("detial")


@pytest.mark.parametrize("name", KINDS.names())
def test_the_examples_pass_their_own_checks(name: str) -> None:
    kind = of_name(name)
    assert kind.sees or len(kind.examples) >= 2
    for context, answer in kind.examples:
        kind.accept(answer, context)


def test_the_messages() -> None:
    said = of_name("conversation").messages(CONTEXT)
    assert [message["role"] for message in said] == ["system", *["user", "assistant"] * 2, "user"]
    assert said[-1]["content"] == CONTEXT.text(boxes=False)
    assert "[0.412" not in said[1]["content"]
    assert "person: [0.412, 0.208, 0.561, 0.770]" in of_name("detail").messages(CONTEXT)[1]["content"]
    with pytest.raises(BadRequest, match="needs captions"):
        of_name("detail").messages(Context("2", "2.jpg"))


@pytest.mark.parametrize(
    "text",
    [
        GOOD + "Question: Which color is the frisbee?\nAnswer: Red.",
        "**Question:** What is it?\n**Answer:** A dog.\n===\n**Question:** Where is it?\n===\n**Answer:** Here.\n===\n",
        "1. Question: What is it?\nAnswer: A dog.\n\n2. Question: Where is it?\n\nAnswer: In a\ngarden, at home.",
    ],
)
def test_conversations_in_several_dresses(text: str) -> None:
    dialogue = of_name("conversation").accept(text, CONTEXT)
    assert len(dialogue) == 2
    assert all(question.endswith("?") and "=" not in answer and "*" not in answer for question, answer in dialogue)


@pytest.mark.parametrize(
    ("kind", "text", "rule"),
    [
        ("conversation", "Here you go!\n" + GOOD * 2, "format"),
        ("conversation", "I cannot do that.", "format"),
        ("conversation", GOOD + "Question: Why?\n", "format"),
        ("conversation", GOOD + "Question: What is it?\nQuestion: Who?\nAnswer: A dog.", "format"),
        ("conversation", GOOD + "Question: Name the animal.\nAnswer: A dog.", "format"),
        ("conversation", GOOD + "Question: What is <image>?\nAnswer: A dog.", "format"),
        ("conversation", GOOD, "length"),
        ("conversation", GOOD + "Question: What is it?\nAnswer: " + "dog " * 200, "length"),
        ("conversation", GOOD + GOOD, "near-duplicate questions"),
        ("conversation", GOOD + "Question: What does the dog do in this picture?\nAnswer: It jumps.", ""),
        ("conversation", GOOD + "Question: What breed might it be?\nAnswer: A terrier.", "indefinite question"),
        ("conversation", GOOD + "Question: How old is it?\nAnswer: That cannot be determined.", "indefinite answer"),
        ("conversation", GOOD + "Question: Whose is it?\nAnswer: It is not clear.", "indefinite answer"),
        ("conversation", GOOD + "Question: What is it?\nAnswer: As the caption says, a dog.", "names its source"),
        ("conversation", GOOD + "Question: What is it?\nAnswer: I'm sorry, a dog.", "excuse"),
        ("detail", LONG, ""),
        ("detail", "# Dog\n" + LONG, "format"),
        ("detail", "A dog jumps.", "length"),
        ("detail", LONG + "Its bounding box is on the left.", "names its source"),
        ("detail", LONG + "According to the provided sentences, it is brown.", "names its source"),
        ("detail", LONG + "It is at [0.12, 0.30, 0.55, 0.61].", "names its source"),
        ("detail", LONG + "As an AI, I like dogs.", "excuse"),
        ("reasoning", "Question: Why is this animal fit?\nAnswer: " + LONG, ""),
        ("reasoning", LONG, "format"),
        ("reasoning", "Question: Why does it jump?\nAnswer: For fun.", "length"),
        ("reasoning", f"Question: Why?\nAnswer: {LONG}\nQuestion: And why?\nAnswer: {LONG}", "format"),
        ("reasoning", "Question: What if the dog jumps over a wooden fence to win?\nAnswer: " + LONG, "leak"),
        (
            "reasoning",
            "Question: With a fence, a frisbee that is red, a garden and a brown dog here, what follows?\nAnswer: "
            + LONG,
            "leak",
        ),
        (
            "reasoning",
            "Question: Does being hungry make an eager animal run quickly after rabbits near the old mill?\n"
            "Answer: Being hungry makes an eager animal run quickly after rabbits near the old mill, yes it does.",
            "leak",
        ),
    ],
)
def test_what_is_unfit_and_why(kind: str, text: str, rule: str) -> None:
    if not rule:
        of_name(kind).accept(text, CONTEXT)
        return
    with pytest.raises(Rejected) as error:
        of_name(kind).accept(text, CONTEXT)
    assert error.value.rule == rule


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("How many circles are there?", "How many circles are in the image?", True),
        ("What color is the dog?", "Which colour does the dog have?", True),
        ("What color is the cat?", "What color is the car?", False),
        ("Is the red circle above the blue star?", "Is the blue star above the red circle?", False),
        ("Is the dog on the left?", "Is the dog on the right?", False),
    ],
)
def test_near_duplicates(one: str, other: str, same: bool) -> None:
    dialogue = [(one, "Yes."), (other, "Yes.")]
    if same:
        with pytest.raises(Rejected, match="near-duplicate"):
            check.no_repeats(dialogue)
    else:
        check.no_repeats(dialogue)


@pytest.mark.parametrize(
    "text",
    [
        "A man reads the text on a sign that says STOP.",
        "The boxes on the left contain donuts, and the box in front is empty.",
        "He is giving a description of the thief to an officer.",
        "The clock shows 10:15, and the price is 0.99 for a pound.",
    ],
)
def test_what_only_sounds_like_a_source(text: str) -> None:
    check.no_source([text])


def test_gpt4s_own_answers_pass(shared: Path) -> None:
    """LLaVA's 30 questions of each kind with GPT-4's answers from captions and boxes: few are turned down."""
    import json

    folder = shared / "coco_captions_boxes"
    contexts = {c.id[-12:]: c for c in read_contexts(folder / "caps_boxes_coco2014_val_80.jsonl")}
    lines = zip((folder / "qa90_questions.jsonl").open(), (folder / "qa90_gpt4_answer.jsonl").open(), strict=True)
    turned_down = {"conv": 0, "detail": 0, "complex": 0}
    for question, answer in lines:
        asked, said = json.loads(question), json.loads(answer)
        context = contexts[Path(asked["image"]).stem[-12:]]
        pair = [(asked["text"], said["text"])]
        try:
            if said["category"] == "conv":
                check.definite(pair)
                check.no_source(pair[0])
            elif said["category"] == "detail":
                of_name("detail").accept(said["text"], context)
            else:
                of_name("reasoning").accept(f"Question: {asked['text']}\nAnswer: {said['text']}", context)
        except Rejected:
            turned_down[said["category"]] += 1
    assert turned_down["conv"] <= 3 and turned_down["detail"] == 0 and turned_down["complex"] <= 3
