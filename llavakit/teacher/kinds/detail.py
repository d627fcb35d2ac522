"""One detailed description of the whole picture, in answer to one of many ways to ask for it."""

from __future__ import annotations

import zlib
from typing import ClassVar

from llavakit.teacher.check import Dialogue, Rejected, lengths
from llavakit.teacher.context import Context
from llavakit.teacher.kind import Kind
from llavakit.teacher.kinds._scenes import KAYAK, STALL

SYSTEM = """\
You describe a photograph that you are looking at. What you get instead of it are sentences that different people \
wrote about it, and a list of things in it, each with four numbers: its left, top, right and bottom edge, as fractions \
of the width and height. You have no other access to it.

Write one flowing, detailed description, of one or two paragraphs. Begin with what matters most, then go through the \
rest: what things there are and how many, what they look like, where they are in the picture and relative to each \
other, what goes on, and the surroundings. Work out positions, numbers and rough sizes from the edges, and put them \
into plain words such as "on the left", "in front of", "three of them".

- Say only what is certain. Do not guess at what is not told.
- Never mention the sentences, the list, the numbers, or that anything was given to you.
- Write the description alone, without a heading."""

EXAMPLES = (
    (
        STALL,
        """\
At an outdoor market, an older woman in a green apron stands behind her fruit stall and weighs apples on a hanging \
scale. A striped awning covers the stall, and in front of her are crates filled with apples, pears and plums. One \
apple is on the scale, close to the middle of the picture, and two more lie side by side in a crate on the right.

Two customers wait on the left. A man, the tallest figure in the scene, stands nearest to the edge, with a closed \
umbrella at his side. Between him and the seller is a girl, who is about half his height. The street under their feet \
is wet.""",
    ),
    (
        KAYAK,
        """\
A man paddles a yellow kayak across a calm lake at sunrise. He sits right in the center of the picture and holds the \
paddle across his body. In front of him, a little to the left, sits a dog in an orange life vest. The kayak is long \
and narrow and stretches over almost half of the picture's width.

Fog hangs over the still water, and pine trees line the far shore behind them. There is no other boat on the lake, so \
the man and his dog have the quiet morning to themselves.""",
    ),
)

WAYS = (
    "Describe this image in detail.",
    "Give a detailed account of what this image shows.",
    "What can be seen in this picture? Go through it carefully.",
    "Write a thorough description of the photo.",
    "Walk me through everything in this image.",
    "I cannot see this picture. Tell me in detail what is in it.",
    "Please provide a full description of the scene.",
    "Explain what is shown here, with all the details.",
    "Describe the scene, its objects and where they are.",
    "What does this photo look like? Be as detailed as you can.",
    "Offer a careful and complete description of the image.",
    "Paint a picture in words of what you see here.",
)


class Detail(Kind):
    name: ClassVar[str] = "detail"

    def read(self, text: str, context: Context) -> Dialogue:
        if text.lstrip().startswith(("#", "Question:", "Description:", "{", "[")):
            raise Rejected("format", f"a description alone, without a heading: {text[:60]!r}")
        return [(way_of(context), text.strip())]

    def check(self, dialogue: Dialogue, context: Context) -> None:
        lengths((answer for _, answer in dialogue), 30, 500, "description")


def way_of(context: Context) -> str:
    """One of :data:`WAYS`, always the same for a picture."""
    return WAYS[zlib.crc32(context.id.encode()) % len(WAYS)]


KIND = Detail(SYSTEM, EXAMPLES, boxes=True, typical=180)
