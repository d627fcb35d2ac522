"""Talks with a model in the terminal: answers stream, and the talk has a history. Ctrl-C ends an answer.

/image FILE   show a picture with the next question
/reset        forget everything said and shown
/save FILE    write the talk as a JSON record of LLaVA's format
/quit         leave (or Ctrl-D)
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llavakit.engine.load import Assistant
    from llavakit.engine.sample import Decoding

from llavakit.cli import _decoding

HELP = "talk with a model, about pictures or not"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a checkpoint directory, or a hub id")
    parser.add_argument("--image", help="a picture to begin with")
    parser.add_argument("--quantize", choices=("int8", "int4", "nf4"), help="hold the language model in 8 or 4 bits")
    _decoding.arguments(parser, max_new_tokens=512)


def run(args: argparse.Namespace) -> None:
    import sys

    from llavakit.base.errors import LlavakitError
    from llavakit.engine.load import load
    from llavakit.image.open import open_image

    how = _decoding.decoding(args, "llavakit chat")
    if args.image:
        open_image(args.image)  # a picture that cannot be read is said at once, not at the first question
    talk = Talk(load(args.model, quantize=args.quantize), how)
    if args.image:
        talk.image(args.image)
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return
        try:
            if command in Talk.COMMANDS:
                Talk.COMMANDS[command](talk, rest.strip())
            elif command.startswith("/"):
                known = "/image FILE, /reset, /save FILE, /quit"
                print(f"no command {command}; there are {known}", file=sys.stderr)
            elif line:
                talk.say(line)
        except LlavakitError as error:
            print(error, file=sys.stderr)


class Talk:
    """A talk in the terminal, and what its commands do."""

    def __init__(self, assistant: Assistant, how: Decoding) -> None:
        self.assistant, self.how = assistant, how
        self.chat = assistant.chat(None, how)

    def say(self, text: str) -> None:
        pieces = self.chat.say(text)
        try:
            for piece in pieces:
                print(piece, end="", flush=True)
            print()
        except KeyboardInterrupt:
            print(" (stopped; question and answer are forgotten)")

    def image(self, path: str) -> None:
        """Adds a picture to the next question, and shows it where the terminal can."""
        import os
        import shutil
        import sys

        from llavakit.image.open import open_image
        from llavakit.image.terminal import shown

        picture = open_image(path)
        self.chat.show(path)
        if sys.stdout.isatty():
            print(shown(picture, os.environ, shutil.get_terminal_size().columns), end="", flush=True)

    def reset(self, rest: str) -> None:
        self.chat = self.assistant.chat(None, self.how)

    def save(self, path: str) -> None:
        """Writes what was said as the one record of a file that `llavakit train` reads."""
        from pathlib import Path

        from llavakit.base.errors import BadRequest, WorkFailed
        from llavakit.base.files import write_json

        said = self.chat.conversation
        if not path or not said.turns:
            raise BadRequest("nothing has been said yet" if path else "say where to: /save FILE")
        names = [str(Path(str(ref)).resolve()) for ref in said.images]
        turns = [{"from": "human" if t.role == "user" else "gpt", "value": t.text} for t in said.turns]
        images = {"image": names[0] if len(names) == 1 else names} if names else {}
        try:
            write_json(path, [{"id": Path(path).stem, **images, "conversations": turns}])
        except OSError as error:  # the talk goes on
            raise WorkFailed(f"cannot write {path}: {error.strerror}") from None

    COMMANDS = {"/image": image, "/reset": reset, "/save": save}  # noqa: RUF012
