"""Context: what a text-only teacher is told of a picture: captions, and things with their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A thing and where it is: x1, y1, x2, y2 as fractions of the picture's width and height."""

    category: str
    place: tuple[float, float, float, float]


@dataclass(frozen=True)
class Context:
    """``image``: the picture's path as the written record is to name it."""

    id: str
    image: str
    captions: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()

    def text(self, boxes: bool) -> str:
        """A line for each caption; with ``boxes``, after an empty line, ``category: [x1, y1, x2, y2]`` for each."""
        lines = "\n".join(self.captions)
        if not boxes or not self.boxes:
            return lines
        return f"{lines}\n\n" + "\n".join(
            f"{box.category}: [{', '.join(f'{at:.3f}' for at in box.place)}]" for box in self.boxes
        )


def merged(contexts: Sequence[Context]) -> list[Context]:
    """One context for each picture, with all its captions and boxes, in the order in which pictures first come."""
    groups: dict[str, list[Context]] = {}
    for context in contexts:
        groups.setdefault(context.image, []).append(context)
    return [
        Context(
            group[0].id,
            image,
            tuple(dict.fromkeys(caption for context in group for caption in context.captions)),
            tuple(box for context in group for box in context.boxes),
        )
        for image, group in groups.items()
    ]
