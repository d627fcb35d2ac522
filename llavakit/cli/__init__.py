"""The command line. A verb is a module of this folder: ``HELP`` (one line), ``arguments(parser)`` and ``run(args)``.

``run`` returns an exit code, or None for 0. A verb module imports nothing heavy at its top: its ``HELP`` is read for
every ``llavakit --help``. What the verb's help says beside the options is the module's docstring.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import select
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from llavakit import __version__
from llavakit.base.errors import LlavakitError, nearest

INTERRUPTED = 130  # 128 + SIGINT, and below 128 + SIGPIPE: what a shell reports for a process that these signals end
READER_GONE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``llavakit ARGV`` and returns its exit code: 0, 1 (the work failed) or 2 (the request was wrong)."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]  # it may stand anywhere, also behind a verb's subcommand
    start = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
    try:
        _parser().parse_args(words[:start])
        if start == len(words):
            _parser().print_help(sys.stderr)
            return 2
        verb = words[start].replace("-", "_")
        if verb not in verbs():
            hint = nearest(verb, verbs())
            print(f"llavakit: error: no verb {words[start]!r}{hint}; see llavakit --help", file=sys.stderr)
            return 2
        module = _module(verb)
        parser = _verb_parser(verb, module)
        args = _parse(parser, words[start + 1 :])
    except SystemExit as end:  # argparse has printed its help (0) or its complaint (2)
        return int(end.code or 0)
    return _guarded(parser.prog, module, args, debug)


def verbs() -> list[str]:
    """Names of all verbs; none is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def _module(verb: str) -> Any:
    return importlib.import_module(f"{__name__}.{verb}")


def _parser() -> argparse.ArgumentParser:
    parser = _TopParser(
        prog="llavakit",
        usage="llavakit [--help] [--version] [--debug] VERB ...",
        description="Build, train, evaluate and use LLaVA models.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"llavakit {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


class _TopParser(argparse.ArgumentParser):
    """Lists the verbs when help is really printed, so that no other call imports them all."""

    def format_help(self) -> str:
        rows = "".join(f"  {verb.replace('_', '-'):<10} {_module(verb).HELP}\n" for verb in verbs())
        return f"{super().format_help()}\nverbs (llavakit VERB --help says more):\n{rows}"


def _verb_parser(verb: str, module: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"llavakit {verb.replace('_', '-')}",
        description=module.__doc__ or module.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    try:
        # Intermixed, or `train RECIPE --out DIR k=v` would not find its k=v: plain parsing gives `[k=v ...]` its empty
        # list as soon as RECIPE is read.
        return parser.parse_intermixed_args(words)
    except TypeError:  # a parser with subcommands of its own cannot be intermixed
        return parser.parse_args(words)


def _guarded(prog: str, module: Any, args: argparse.Namespace, debug: bool) -> int:
    """Runs the verb; every failure becomes one line and an exit code."""
    try:
        code = module.run(args)
        sys.stdout.flush()
        return code or 0
    except KeyboardInterrupt:
        print(f"\n{prog}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_gone():
            # The interpreter flushes standard output once more at its end; that must not complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return READER_GONE
        if debug:
            traceback.print_exc()
        print(f"{prog}: error: {_message(error, debug)}", file=sys.stderr)
        return error.exit_code if isinstance(error, LlavakitError) else 1


def _message(error: Exception, debug: bool) -> str:
    if isinstance(error, LlavakitError):
        return str(error)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if debug else f"{text} (--debug shows where)"


def _reader_gone() -> bool:
    """Whether nobody reads standard output any more (``llavakit ... | head``), and not some other pipe broke."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
