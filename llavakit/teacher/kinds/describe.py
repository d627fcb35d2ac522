"""A description by a teacher that sees the picture; people's captions, where there are some, help it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from llavakit.base.errors import BadRequest
from llavakit.teacher.context import Context
from llavakit.teacher.kinds.detail import Detail

SYSTEM = """\
Describe the picture in detail, in one or two flowing paragraphs. Begin with what matters most, then go through the \
rest: what things there are and how many, their colors, materials and state, where they are and how they stand to \
each other, what people or animals do, any writing (quote it exactly), the surroundings and the light.

- Say only what you can see for certain. Where something cannot be made out, leave it out.
- Captions may come with the picture. They help to name things, may be wrong, and must not be mentioned.
- Write the description alone, without a heading and without an introduction."""


class Describe(Detail):
    name: ClassVar[str] = "describe"

    def told(self, context: Context, images: Path | None) -> list[dict[str, Any]]:
        from llavakit.image.url import data_url

        if images is None:
            raise BadRequest("describe shows the teacher the pictures: name their folder")
        captions = [{"type": "text", "text": context.text(self.boxes)}] if context.captions else []
        return [{"type": "image_url", "image_url": {"url": data_url(images / context.image)}}, *captions]


KIND = Describe(SYSTEM, sees=True, typical=250)
