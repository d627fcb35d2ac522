"""Instruction data from a teacher behind an OpenAI-compatible endpoint: KIND is conversation, detail, reasoning
(the teacher reads captions and boxes), describe (it sees the pictures), or several of them, comma-separated.

    llavakit teach conversation,detail,reasoning --captions captions_train2017.json --boxes instances_train2017.json \\
        --endpoint https://api.openai.com/v1 --model gpt-4.1-mini --price 0.4,1.6 --budget 20 --out instruct.json

CAPTIONS: COCO's annotations, LLaVA's caps-and-boxes JSONL or training JSON, JSON, JSONL or CSV of image and caption,
or a folder of pictures. OUT gets LLaVA's JSON; beside it lie OUT.journal.jsonl (every answer, so that a killed run
goes on where it stopped), OUT.rejected.jsonl (what was unfit, with reasons) and OUT.teach.json (counts and cost).
The key is read from $OPENAI_API_KEY, or the variable that --key-env names.

Without a key: --endpoint rules answers by rule, for the captions of the miniature world (WORLD/captions.jsonl).
By batch: --batch-write DIR writes the provider's batch files instead of asking; --batch-read takes their results.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from llavakit.cli import _asking

if TYPE_CHECKING:
    from llavakit.endpoint.client import Endpoint
    from llavakit.endpoint.journal import Journal
    from llavakit.endpoint.meter import Meter
    from llavakit.teacher.job import Job
    from llavakit.teacher.run import Outcome

HELP = "write instruction data with a teacher model"
RULES = "rules"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", help="conversation, detail, reasoning, describe; several with commas")
    parser.add_argument("--captions", required=True, help="what is told of the pictures")
    parser.add_argument("--boxes", help="COCO's instances file, for COCO's captions")
    parser.add_argument("--images", help="folder of the pictures, for describe")
    parser.add_argument("--endpoint", help=f"address of the API, as http://127.0.0.1:8000/v1; or {RULES}")
    parser.add_argument("--model", help="the teacher's name at the endpoint")
    parser.add_argument("--out", required=True, help="the JSON file to write")
    parser.add_argument("--limit", type=int, help="take the first N pictures")
    _asking.arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="estimate tokens and cost; ask nothing")
    parser.add_argument("--batch-write", metavar="DIR", help="write batch files instead of asking")
    parser.add_argument("--batch-read", metavar="FILE", nargs="+", help="take answers from batch output files")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> None:
    import json
    from pathlib import Path

    from llavakit.base.errors import BadRequest, WorkFailed
    from llavakit.endpoint.journal import Journal
    from llavakit.teacher.run import estimate, finish, journal_of, tables

    ways = [way for way in ("endpoint", "dry_run", "batch_write", "batch_read") if getattr(args, way)]
    if not ways or (len(ways) > 1 and not args.dry_run):
        raise BadRequest("name one of --endpoint, --dry-run, --batch-write and --batch-read")
    endpoint = _asking.endpoint(args, args.endpoint or "")
    job, out = _job(args), Path(args.out)
    with Journal(journal_of(out)) as journal:
        meter = _asking.meter(args, journal)
        if args.dry_run:
            shown = estimate(job, journal, meter.prices)
            print(json.dumps(shown, indent=2) if args.json else _estimated(shown))
            return
        journal.settle(job.about)
        if args.batch_write:
            _write(args.batch_write, job, journal, meter, args.json)
            return
        outcome = _read(args.batch_read, journal, meter) if args.batch_read else _ask(endpoint, job, journal, meter)
        summary = finish(job, journal, meter, out, outcome)
    print(json.dumps(summary, indent=2) if args.json else tables(summary))
    left = sum(count["open"] for count in summary["kinds"].values())
    if outcome.stopped:
        raise WorkFailed(f"{outcome.stopped}; {out} holds what there is, {left} questions are open: raise the budget")
    if left:
        why = "; ".join(f"{number} times {reason}" for reason, number in summary["failures"].items())
        raise WorkFailed(f"{left} questions are open{f' ({why})' if why else ''}; the same command asks them again")


def _job(args: argparse.Namespace) -> Job:
    from pathlib import Path

    from llavakit.base.errors import BadRequest
    from llavakit.teacher.job import Job
    from llavakit.teacher.kind import of_name
    from llavakit.teacher.read import read_contexts

    kinds = [of_name(name) for name in args.kind.split(",") if name]
    if len({kind.name for kind in kinds}) != len(kinds) or not kinds:
        raise BadRequest(f"name each kind once, not {args.kind!r}")
    model = args.model or (RULES if args.endpoint == RULES else None)
    if model is None:
        raise BadRequest("name the teacher: --model NAME")
    if args.limit is not None and args.limit < 1:
        raise BadRequest(f"--limit must be at least 1, not {args.limit}")
    contexts = read_contexts(args.captions, args.boxes)[: args.limit]
    images = Path(args.images) if args.images else Path(args.captions) if Path(args.captions).is_dir() else None
    return Job(kinds, contexts, _asking.body(args, model), images)


def _ask(endpoint: Endpoint, job: Job, journal: Journal, meter: Meter) -> Outcome:
    from llavakit.endpoint.client import Client
    from llavakit.teacher.run import ask

    if endpoint.url != RULES:
        return ask(job, Client(endpoint, journal, meter))
    from llavakit.demo.teacher import rules

    with rules() as server:
        return ask(job, Client(endpoint.evolve(url=server.url), journal, meter))


def _write(folder: str, job: Job, journal: Journal, meter: Meter, as_json: bool) -> None:
    import json

    from llavakit.endpoint.batch import write_batches

    counts = write_batches(folder, job.requests(journal), journal, meter)
    print(json.dumps(counts, indent=2) if as_json else "\n".join(f"{folder}/{n}: {c}" for n, c in counts.items()))


def _read(paths: list[str], journal: Journal, meter: Meter) -> Outcome:
    from llavakit.base.log import log
    from llavakit.endpoint.batch import read_batch
    from llavakit.teacher.run import Outcome

    outcome = Outcome()
    for path in paths:
        new, failed = read_batch(path, journal, meter)
        log.info("%s: %d new answers, %d failures", path, new, len(failed))
        outcome.failures |= {failure.key: failure for failure in failed}
    return outcome


def _estimated(shown: dict[str, object]) -> str:
    from llavakit.base.log import table

    answers, costs = shown["answer_tokens"], shown["cost"]
    assert isinstance(answers, dict)
    rows = [
        [name, f"{shown['prompt_tokens']:,}", f"{number:,}", f"{costs[name]:.2f}" if isinstance(costs, dict) else "-"]
        for name, number in answers.items()
    ]
    counts = f"{shown['questions']} to ask, {shown['answered']} answered, {shown['unusable']} unusable"
    return f"{counts}; by estimate:\n\n{table(rows, ['answers', 'prompt tokens', 'answer tokens', 'cost'])}"
