"""Talks with a model in the terminal: answers stream, and the talk has a history.

/image FILE   show a picture with the next question
/reset        forget everything said and shown
/quit         leave (or Ctrl-D)
"""

from __future__ import annotations

import argparse

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
    assistant = load(args.model, quantize=args.quantize)
    talk = assistant.chat(args.image, how)
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        command, _, rest = line.partition(" ")
        try:
            if command == "/quit":
                return
            if command == "/reset":
                talk = assistant.chat(None, how)
            elif command == "/image":
                open_image(rest.strip())
                talk.show(rest.strip())
            elif command.startswith("/"):
                print(f"no command {command}; there are /image FILE, /reset, /quit", file=sys.stderr)
            elif line:
                for piece in talk.say(line):
                    print(piece, end="", flush=True)
                print()
        except LlavakitError as error:
            print(error, file=sys.stderr)
