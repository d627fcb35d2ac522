"""The mechanism of the command line, on verbs made for it: exit codes, one-line errors, where options may stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import llavakit
from llavakit import cli

TOY = '''
"""Does what it is told."""
from llavakit.base.errors import BadRequest, WorkFailed
HELP = "do as told"

def arguments(parser):
    parser.add_argument("what")
    parser.add_argument("more", nargs="*")
    parser.add_argument("--out")

def run(args):
    if args.what == "bad":
        raise BadRequest("no such thing")
    if args.what == "fail":
        raise WorkFailed("the disk is full")
    if args.what == "bug":
        raise ValueError("two\\nlines")
    if args.what == "stop":
        raise KeyboardInterrupt
    if args.what == "pipe":
        raise BrokenPipeError("of a helper")
    if args.what == "flood":
        while True:
            print("x" * 1000)
    if args.what == "code":
        return 7
    print(args.what, args.more, args.out)
'''
NESTED = """
HELP = "has subcommands"

def arguments(parser):
    parser.add_subparsers(dest="action", required=True).add_parser("build").add_argument("path")

def run(args):
    print(args.action, args.path)
    1 / (args.path != "zero")
"""


@pytest.fixture(autouse=True)
def verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "nest_ed.py").write_text(NESTED)
    (tmp_path / "_helper.py").write_text("raise RuntimeError")
    monkeypatch.setattr(cli, "__path__", [str(tmp_path)])
    for name in ("toy", "nest_ed"):
        monkeypatch.delitem(sys.modules, f"llavakit.cli.{name}", raising=False)


@pytest.mark.parametrize(
    ("argv", "code", "out", "err"),
    [
        (["toy", "a"], 0, "a [] None\n", ""),
        (["toy", "a", "--out", "d", "k=v"], 0, "a ['k=v'] d\n", ""),
        (["toy", "--out", "d", "a", "k=v", "l=w"], 0, "a ['k=v', 'l=w'] d\n", ""),
        (["nest-ed", "build", "p"], 0, "build p\n", ""),
        (["toy", "code"], 7, "", ""),
        (["toy", "bad"], 2, "", "llavakit toy: error: no such thing\n"),
        (["toy", "fail"], 1, "", "llavakit toy: error: the disk is full\n"),
        (["toy", "bug"], 1, "", "llavakit toy: error: ValueError: two lines (--debug shows where)\n"),
        (["toy", "stop"], 130, "", "\nllavakit toy: interrupted\n"),
        (["tyo"], 2, "", "llavakit: error: no verb 'tyo' (did you mean 'toy'?); see llavakit --help\n"),
        (["_helper"], 2, "", "llavakit: error: no verb '_helper'; see llavakit --help\n"),
        (["--version"], 0, f"llavakit {llavakit.__version__}\n", ""),
    ],
)
def test_codes_and_lines(argv: list[str], code: int, out: str, err: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == code
    assert capsys.readouterr() == (out, err)


@pytest.mark.parametrize("argv", [["--debug", "toy", "fail"], ["toy", "--debug", "fail"], ["toy", "fail", "--debug"]])
def test_debug_shows_the_traceback(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.endswith("\nllavakit toy: error: the disk is full\n")


def test_debug_behind_a_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nest-ed", "build", "zero", "--debug"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.endswith(
        "\nllavakit nest-ed: error: ZeroDivisionError: division by zero\n"
    )


@pytest.mark.parametrize("argv", [["toy"], ["toy", "a", "--ou", "d"], ["--nonsense"], ["nest-ed", "demolish"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert ": error: " in captured.err and "Traceback" not in captured.err and captured.out == ""


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "  nest-ed    has subcommands\n  toy        do as told\n" in out
    assert cli.main([]) == 2
    assert "do as told" in capsys.readouterr().err
    assert cli.main(["toy", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: llavakit toy") and "Does what it is told." in out and "--debug" in out


def test_a_reader_that_leaves_is_no_error_and_another_broken_pipe_is(tmp_path: Path) -> None:
    code = f"import sys; from llavakit import cli; cli.__path__ = [{str(tmp_path)!r}]; sys.exit(cli.main(sys.argv[1:]))"
    flood = [sys.executable, "-c", code, "toy", "flood"]
    with subprocess.Popen(flood, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert (process.wait(timeout=30), process.stderr.read()) == (141, b"")
    done = subprocess.run([sys.executable, "-c", code, "toy", "pipe"], capture_output=True, text=True)
    assert done.returncode == 1 and "BrokenPipeError: of a helper" in done.stderr
