"""ScienceQA by two models: one that sees, and one that only reads and has the last word where they differ.

    llavakit eval MODEL --bench scienceqa --protocol qcm_lea --data DIR --out SEEING
    llavakit eval READER --bench scienceqa --protocol text_only --data DIR --out READING
    llavakit ensemble --annotations DIR --answers SEEING/scienceqa/answers.jsonl \\
        --reader READING/scienceqa/answers.jsonl --ask differing.jsonl
    llavakit eval READER --bench records --data differing.jsonl --out SECOND
    llavakit ensemble --annotations DIR --answers SEEING/scienceqa/answers.jsonl \\
        --reader READING/scienceqa/answers.jsonl --second SECOND/records/answers.jsonl

Each file is JSONL in LLaVA's answers format, or LLaVA's result JSON with `outputs`.
"""

from __future__ import annotations

import argparse

HELP = "ScienceQA by a model that sees and one that reads"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--annotations", required=True, help="folder of ScienceQA's official files")
    parser.add_argument("--answers", required=True, help="answers of the model that sees")
    parser.add_argument("--reader", required=True, help="answers of the model that reads")
    parser.add_argument("--second", help="the reader's answers to what --ask wrote")
    parser.add_argument("--ask", metavar="FILE", help="write what the reader is to be asked again; score nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> None:
    import json

    from llavakit.base.files import write_text
    from llavakit.base.log import log
    from llavakit.eval.ensemble import ensemble, read_texts, second_look
    from llavakit.eval.report import text_table
    from llavakit.eval.tasks.scienceqa import ScienceQA

    questions = ScienceQA("qcm_lea").load(args.annotations)
    seeing, reading = read_texts(args.answers), read_texts(args.reader)
    if args.ask:
        lines = second_look(questions, seeing, reading)
        write_text(args.ask, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        log.info("%s: %d of %d questions to ask again", args.ask, len(lines), len(questions))
        return
    result = ensemble(questions, seeing, reading, read_texts(args.second) if args.second else {})
    print(json.dumps(result.plain(), indent=2) if args.json else text_table([result]))
