"""Evaluates a model on benchmarks, prints a table and writes a report.

    llavakit eval runs/demo/model --bench all --data runs/demo/world/benchmarks --out runs/demo/scores
    llavakit eval my-llava --bench pope,textvqa,textvqa:no_ocr --data DIR --out RUN
    torchrun --nproc-per-node 8 -m llavakit eval my-llava --bench all --data DIR --out RUN

DATA holds a folder for each benchmark, named like it, or is the benchmark's own folder or file; `all` is every one that
has such a folder. NAME:PROTOCOL asks or counts in another way. A benchmark of one's own is `records`: a JSONL of
questions, or conversations in LLaVA's format (then --images is their image folder).
With --out a killed run goes on where it stopped, also with another number of processes; several need one that all of
them see. OUT gets run.json, NAME/answers.jsonl (question, prompt, answer, what was understood, verdict),
NAME/result.json, and report.html, report.md, report.json.
With --endpoint, MODEL is the name of a model behind an OpenAI-compatible API (vLLM, SGLang, llama.cpp, a hosted one).
With --answers nothing is asked: MODEL is only a name, its answers are there.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

from llavakit.cli import _asking, _decoding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llavakit.eval.benchmark import Answer, Result
    from llavakit.eval.chosen import Chosen

HELP = "score a model on benchmarks"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a checkpoint directory, or a hub id")
    parser.add_argument("--bench", required=True, help="names, comma-separated, or all")
    parser.add_argument("--data", required=True, help="the benchmarks' official files")
    parser.add_argument("--images", help="folder of the images, where it is not with the data")
    parser.add_argument("--protocol", default="", help="a named way of asking; the benchmark's first is the default")
    parser.add_argument("--out", help="folder for answers, results and the report")
    parser.add_argument("--batch-size", type=int, default=32, help="answers written at once (default: %(default)s)")
    parser.add_argument("--answers", metavar="PATH", help="recorded answers: a file, or a folder with NAME.jsonl")
    parser.add_argument("--endpoint", help="address of an API, as http://127.0.0.1:8000/v1")
    _asking.arguments(parser)
    _decoding.arguments(parser, max_new_tokens=128)
    parser.add_argument("--json", action="store_true", help="print results as JSON")


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    from llavakit.base import dist
    from llavakit.base.errors import BadRequest
    from llavakit.eval.chosen import choose, claim
    from llavakit.eval.order import Share

    share = Share(dist.rank(), dist.world_size())
    if share.world > 1 and (args.endpoint or args.answers or not args.out):
        raise BadRequest("several processes need --out on a disk that all see, and a checkpoint to ask")
    chosen = choose(args.bench, Path(args.data), Path(args.images) if args.images else None, args.protocol)
    out = Path(args.out) if args.out else None
    if out:
        claim(out, *_who(args), chosen, write=share.rank == 0)
    results = _recorded(chosen, Path(args.answers), out) if args.answers else _asked(args, chosen, out, share)
    if share.rank == 0:
        _report(args, results, out)


def _asked(args: argparse.Namespace, chosen: list[Chosen], out: Path | None, share: Any) -> list[Result]:
    """The results of the benchmarks; none where another process has them."""
    from llavakit.eval.run import ask, collect, finish

    questions = {one.folder: one.load() for one in chosen}
    results, later = [], []
    with _model(args) as answer:
        for one in chosen:
            folder, asked = out / one.folder if out else None, questions[one.folder]
            answers = ask(one.benchmark, asked, answer, folder, share)
            if share.world == 1:
                results.append(finish(one.benchmark, asked, answers, folder))
            elif share.rank == 0 and folder:
                later.append((one.benchmark, asked, folder))
    return results + [collect(*rest) for rest in later]


def _recorded(chosen: list[Chosen], path: Path, out: Path | None) -> list[Result]:
    from llavakit.base.errors import BadRequest
    from llavakit.base.files import read_jsonl
    from llavakit.eval.run import take

    if path.is_file() and len(chosen) > 1:
        raise BadRequest(f"{path} is one benchmark's; for {len(chosen)} of them name a folder with NAME.jsonl")
    results = []
    for one in chosen:
        places = [path / f"{one.folder}.jsonl", path / one.folder / "answers.jsonl"] if path.is_dir() else [path]
        there = next((place for place in places if place.is_file()), None)
        if there is None:
            raise BadRequest(f"no answers to {one.benchmark.name} at {' or '.join(map(str, places))}")
        results.append(take(one.benchmark, one.load(), read_jsonl(there), out / one.folder if out else None))
    return results


def _who(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Whose answers they are, and what else decides them."""
    import os.path
    from pathlib import Path

    from llavakit.base.files import sampled_hash

    if args.answers:
        return args.model, {"answers": os.path.abspath(args.answers)}
    how: dict[str, Any] = {name: getattr(args, name) for name in (*_decoding.FLAGS, "stop")}
    if args.endpoint:
        return args.model, how | {"endpoint": args.endpoint, "body": sorted(args.body)}
    if not os.path.isdir(args.model):
        return args.model, how
    # Trained again into the same folder it is another model.
    return os.path.abspath(args.model), how | {"weights": sampled_hash(sorted(Path(args.model).glob("*.safetensors")))}


def _report(args: argparse.Namespace, results: list[Result], out: Path | None) -> None:
    import json

    from llavakit.eval.report import text_table

    if out:
        from llavakit.eval.held import read_run
        from llavakit.eval.page import write_report

        write_report(out / "report.html", [read_run(out)])
    print(json.dumps([result.plain() for result in results], indent=2) if args.json else text_table(results))


@contextlib.contextmanager
def _model(args: argparse.Namespace) -> Iterator[Answer]:
    """What is asked: a checkpoint here, loaded when the first question comes, or a model behind an endpoint."""
    if not args.endpoint:
        import functools

        from llavakit.base import dist
        from llavakit.engine.load import load

        how = _decoding.decoding(args, "llavakit eval")
        assistant = functools.cache(lambda: load(args.model, str(dist.device()), args.batch_size))
        yield lambda conversations: assistant().answer(conversations, how)
        return
    import tempfile
    from pathlib import Path

    from llavakit.endpoint.client import Client
    from llavakit.endpoint.journal import Journal
    from llavakit.eval.remote import remote

    settings = {"temperature": args.temperature, "max_tokens": args.max_new_tokens, **_asking.body(args, args.model)}
    body = {key: value for key, value in settings.items() if value is not None}
    with tempfile.TemporaryDirectory() as nowhere, Journal(Path(args.out or nowhere) / "journal.jsonl") as journal:
        journal.settle(body)
        meter = _asking.meter(args, journal)
        yield remote(Client(_asking.endpoint(args, args.endpoint), journal, meter, blank=True), body)
