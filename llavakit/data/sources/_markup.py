"""HTML of a chat page -> Markdown: what of it answers use (paragraphs, lists, code, tables as lines), no more."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_MARKUP = re.compile(r"</?(div|p|pre|code|ol|ul|li|br|h[1-6]|table|strong|em|span)\b[^>]*>", re.IGNORECASE)
_COPY = re.compile(r"^([\w+#.-]*?)Copy code")  # a code block's head: its language and the label of a button
_BLOCKS = {"p", "div", "table", "ol", "ul", *(f"h{n}" for n in range(1, 7))}
_STYLE = {"strong": "**", "b": "**", "em": "*", "i": "*"}


def plain_text(text: str) -> str:
    """Markdown of a page's HTML; a text that is no page's HTML (it does not begin with a tag of one) is left alone."""
    if not _MARKUP.match(text.lstrip()):
        return text
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return re.sub(r"\n{3,}", "\n\n", "".join(reader.out)).strip()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self.code: list[str] | None = None
        self.lists: list[int | None] = []
        """For each open list the number of its last item, None where items have no number."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.code is not None:
            return
        if tag == "pre":
            self.code = []
        elif tag == "code":
            self.out.append("`")
        elif tag in _STYLE:
            self.out.append(_STYLE[tag])
        elif tag in ("br", "tr"):
            self.out.append("\n")
        elif tag == "li":
            self.out.append(self.item())
        elif tag in _BLOCKS:
            if tag in ("ol", "ul"):
                self.lists.append(0 if tag == "ol" else None)
            # A paragraph inside an item goes on behind its number.
            if not (self.out and re.search(r"(^|\n) *(-|\d+\.) $", self.out[-1])):
                # An item begins its own line.
                self.out.append("\n\n" if len(self.lists) < 2 else "")
            if re.fullmatch(r"h\d", tag):
                self.out.append("#" * int(tag[1]) + " ")

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre" and self.code is not None:
            body, self.code = "".join(self.code), None
            head = _COPY.match(body.lstrip())
            language = head.group(1) if head else ""
            body = body.lstrip()[head.end() :] if head else body
            self.out.append(f"\n\n```{language}\n{body.strip(chr(10))}\n```\n\n")
        elif self.code is None:
            if tag == "code":
                self.out.append("`")
            elif tag in _STYLE:
                self.out.append(_STYLE[tag])
            elif tag in ("td", "th"):
                self.out.append(" | ")
            elif tag in _BLOCKS:
                if tag in ("ol", "ul") and self.lists:
                    self.lists.pop()
                self.out.append("\n\n" if not self.lists else "\n")

    def handle_data(self, data: str) -> None:
        if self.code is not None:
            self.code.append(data)
        elif data.strip() or not self.lists:
            self.out.append(data)

    def item(self) -> str:
        indent = "   " * (len(self.lists) - 1)
        if self.lists and (last := self.lists[-1]) is not None:
            self.lists[-1] = last + 1
            return f"\n{indent}{last + 1}. "
        return f"\n{indent}- "
