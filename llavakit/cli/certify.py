"""Asks other engines what llavakit is asked, and says where their greedy answers differ, in float32.

    llavakit certify runs/demo/model --images photos --vllm-python ~/vllm/bin/python

Engines that are not installed are listed with the one command that installs them. The table goes to standard output,
everything that differs into engines.json beside the checkpoint (or --out FILE); the model card shows it. The exit code
is 1 when an engine that is there fails, or differs in more than ties.
"""

from __future__ import annotations

import argparse

HELP = "the same greedy answers in transformers, OpenVINO, vLLM and llama.cpp?"
ENGINES = ("transformers", "openvino", "vllm", "llama.cpp")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a native checkpoint: a directory, or a hub id")
    parser.add_argument("--images", required=True, help="a folder of pictures")
    parser.add_argument("--questions", type=int, default=50, help="how many (default: %(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="of an answer (default: %(default)s)")
    parser.add_argument("--engines", default=",".join(ENGINES), help="which (default: %(default)s)")
    parser.add_argument("--vllm-python", help="the interpreter of the environment that vLLM is installed in")
    parser.add_argument("--out", help="where the certificate goes (default: MODEL/engines.json)")
    parser.add_argument("--json", action="store_true", help="print the certificate instead of the table")


def run(args: argparse.Namespace) -> int:
    import json
    from pathlib import Path

    from llavakit.base.errors import BadRequest, nearest
    from llavakit.base.files import write_json
    from llavakit.base.log import table
    from llavakit.model.checkpoint import resolve
    from llavakit.serve.agree import certificate
    from llavakit.serve.certify import certify

    names = [name for name in args.engines.split(",") if name]
    for name in names:
        if name not in ENGINES:
            raise BadRequest(f"no engine {name!r}{nearest(name, ENGINES)}; known: {', '.join(ENGINES)}")
    path = resolve(args.model)
    rows, asked, how = certify(path, args.images, args.questions, args.max_new_tokens, names, args.vllm_python)
    found = certificate(rows, asked, how)
    write_json(Path(args.out) if args.out else path / "engines.json", found)
    lines = [(row.engine, row.version, row.said) for row in rows]
    print(json.dumps(found, indent=2) if args.json else table(lines, ("engine", "version", "answers")))
    return int(any(row.different or row.broke for row in rows))
