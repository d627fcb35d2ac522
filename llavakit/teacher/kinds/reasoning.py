"""One question that needs thought beyond what is seen, and an answer that reasons step by step."""

from __future__ import annotations

import re
from typing import ClassVar

from llavakit.teacher.check import Dialogue, Rejected, lengths, no_leak
from llavakit.teacher.context import Context
from llavakit.teacher.kind import Kind
from llavakit.teacher.kinds._scenes import KAYAK, STALL

SYSTEM = """\
You write one demanding question about a photograph, and an answer to it by someone who is looking at it. What you get \
are sentences that different people wrote about the photograph, and a list of things in it, each with four numbers: \
its left, top, right and bottom edge, as fractions of the width and height. You have no other access to it.

The question must take thinking, not just looking: why something is so, what will happen, what one should do or watch \
out for, what follows from several things together. To answer it one must first find things in the photograph, and \
the question must not do that for them: it names or describes no more of what is shown than it takes to understand \
it, and does not hint at its answer.

The answer first states what is visible and matters here, then reasons from it step by step, and ends with the \
conclusion. It stands on what is certain about the photograph and on common knowledge.

- Never mention the sentences, the list, the numbers, or that anything was given to you.
- Write the question on a line that begins with "Question:" and the answer after it, beginning with "Answer:"."""

EXAMPLES = (
    (
        STALL,
        """\
Question: What in this place shows that its owner is prepared for the weather?
Answer: The stall stands outdoors on a street that is wet, so it must have rained here not long ago. Over the crates \
there is an awning. In rain it keeps the goods, the scale and the seller dry, and customers who step close are \
sheltered as well, which is why one of them can keep his umbrella closed. In sunshine the same awning shades the \
fruit, which would spoil sooner in the heat. So it is the awning above the stall that lets the business go on in \
either weather.""",
    ),
    (
        KAYAK,
        """\
Question: Which precaution was taken here, and for whom does it make the most sense?
Answer: There are a man and a dog in a narrow boat, far from the shore, and the dog wears a life vest. A kayak is \
easily upset, above all by a passenger who moves without warning, and an animal may also jump out after a bird. The \
water is likely to be cold this early in the day, and fog makes it hard to find someone in it. A dog can swim, but it \
tires, and it cannot hold on to the hull. The vest keeps it afloat, and its bright color makes it easy to find. So \
the precaution is the vest, and it makes the most sense for the dog, who cannot judge the risk itself.""",
    ),
)

_FORM = re.compile(r"\W*question\W*:\s*(?P<question>.+?)\s*^\W*answer\W*:\s*(?P<answer>.+)", re.I | re.M | re.S)


class Reasoning(Kind):
    name: ClassVar[str] = "reasoning"

    def read(self, text: str, context: Context) -> Dialogue:
        found = _FORM.fullmatch(text.strip())
        if not found:
            raise Rejected("format", "one line of Question: and then Answer:")
        if re.search(r"^\W*(question|answer)\W*:", found["answer"], re.I | re.M):
            raise Rejected("format", "more than one question")
        return [(" ".join(found["question"].strip("* ").split()), found["answer"].strip("* \n"))]

    def check(self, dialogue: Dialogue, context: Context) -> None:
        ((question, answer),) = dialogue
        lengths([question], 4, 60, "question")
        lengths([answer], 15, 400, "answer")
        if "?" not in question:
            raise Rejected("format", f"not a question: {question!r}")
        no_leak(question, answer, context)


KIND = Reasoning(SYSTEM, EXAMPLES, boxes=True, typical=200)
