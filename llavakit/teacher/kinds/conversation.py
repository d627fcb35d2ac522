"""Several questions with definite answers about one picture, held as a conversation."""

from __future__ import annotations

import re
from typing import ClassVar

from llavakit.teacher.check import Dialogue, Rejected, definite, lengths, no_repeats
from llavakit.teacher.context import Context
from llavakit.teacher.kind import Kind
from llavakit.teacher.kinds._scenes import KAYAK, STALL

SYSTEM = """\
You play both sides of a conversation about a photograph: a curious person, and an assistant who is looking at it. \
What you get is a handful of sentences that different people wrote about that one photograph. You have no other \
access to it, but both sides talk as if it lay before them.

Ask three to eight questions, each followed by its answer. Cover different things: what is there, what it looks like, \
how many there are, what people or animals do, where things are, how they stand to each other. Near the end one or two \
questions may ask for knowledge about what is shown, as long as the photograph settles the answer.

- Ask only what can be answered with certainty: something that is surely there, or surely is not. Leave out whatever \
the sentences do not settle.
- Answer in full sentences, and explain where that helps. The longer, more demanding questions get longer answers.
- No two questions may ask for the same thing.
- Neither side may mention the sentences, or that anything was described to it.

Write every question on a line that begins with "Question:" and its answer on the next, beginning with "Answer:"."""

EXAMPLES = (
    (
        STALL,
        """\
Question: What is the woman in the apron doing?
Answer: She is weighing apples on a hanging scale.
Question: What color is her apron?
Answer: Her apron is green.
Question: How many people are waiting in front of the stall?
Answer: Two people are waiting, a man and a girl.
Question: What is the man carrying?
Answer: The man is carrying a closed umbrella.
Question: Which kinds of fruit are on sale here?
Answer: There are crates of apples, pears and plums.
Question: Has it rained recently, and how does one see it?
Answer: Yes, it has. The street is wet, and the man has brought an umbrella. It is closed now, so the rain is over.""",
    ),
    (
        KAYAK,
        """\
Question: What kind of boat is on the lake?
Answer: It is a kayak, and it is yellow.
Question: Who is in it?
Answer: A man is paddling it, and a dog sits in front of him.
Question: What is the dog wearing?
Answer: The dog is wearing an orange life vest.
Question: What time of day is it?
Answer: It is sunrise. Fog still lies over the water.
Question: Are there other boats on the lake?
Answer: No, the kayak is the only one.
Question: What is a vest like the dog's good for?
Answer: It keeps the dog afloat if it falls or jumps into the water. Its bright color also makes the dog easy to \
spot, and such vests usually have a handle by which the animal can be lifted back into the boat.""",
    ),
)

_MARK = re.compile(r"^[\W\d]*(question|answer)\W*:\W*(?=\S)", re.IGNORECASE | re.MULTILINE)


class Conversation(Kind):
    name: ClassVar[str] = "conversation"

    def read(self, text: str, context: Context) -> Dialogue:
        head, *parts = _MARK.split(text)
        if head.strip():
            raise Rejected("format", f"something stands before the first question: {head.strip()[:60]!r}")
        marks, said = [mark.lower() for mark in parts[::2]], [_clean(part) for part in parts[1::2]]
        if not marks or marks != ["question", "answer"] * (len(marks) // 2):
            raise Rejected("format", "questions and answers must take turns, on lines of Question: and Answer:")
        if not all(said):
            raise Rejected("format", "a question or an answer is empty")
        return list(zip(said[::2], said[1::2], strict=True))

    def check(self, dialogue: Dialogue, context: Context) -> None:
        if not 2 <= len(dialogue) <= 12:
            raise Rejected("length", f"{len(dialogue)} questions, not 2 to 12")
        lengths((question for question, _ in dialogue), 2, 40, "question")
        lengths((answer for _, answer in dialogue), 1, 150, "answer")
        if odd := [question for question, _ in dialogue if not question.endswith("?")]:
            raise Rejected("format", f"not a question: {odd[0]!r}")
        definite(dialogue)
        no_repeats(dialogue)


def _clean(text: str) -> str:
    """Without the rules and marks that teachers like to put between turns."""
    return re.sub(r"[\s=*#-]+\Z", "", text).strip()


KIND = Conversation(SYSTEM, EXAMPLES, typical=260)
