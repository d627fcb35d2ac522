"""Serves a model: a chat page at /, and OpenAI's API under /v1.

    llavakit serve runs/demo/model
    llavakit serve runs/demo/model --host 0.0.0.0 --api-key SECRET      (or LLAVAKIT_API_KEY in the environment)
    llavakit serve runs/demo/model --engine vllm                        on the same checkpoint; see --engine-python
    llavakit serve runs/demo/model --precision fast                     in bfloat16, which is the default on a GPU only
    llavakit serve runs/demo/model --engine openvino --precision fast   on a processor, through OpenVINO

Without --host only this machine is answered. Ctrl-C, or SIGTERM, takes no more and finishes what runs.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llavakit.engine.engine import Engine

HELP = "a chat page and an OpenAI-compatible server"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a checkpoint directory, or a hub id")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any that is free (default: %(default)s)")
    parser.add_argument("--name", help="what the API calls the model (default: the last part of MODEL)")
    parser.add_argument("--api-key", help="asked of every request to the API")
    parser.add_argument("--engine", choices=("builtin", "openvino", "vllm"), default="builtin", help="(%(default)s)")
    parser.add_argument("--engine-python", help="the interpreter of the environment that vLLM is installed in")
    parser.add_argument(
        "--precision",
        choices=("float32", "fast"),
        help="fast: bfloat16, and may change answers (default: float32 on a CPU)",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="answers written together (default: %(default)s)")
    parser.add_argument("--queue", type=int, default=64, help="answers that may wait, then 429 (default: %(default)s)")
    parser.add_argument("--remote-images", action="store_true", help="fetch https URLs of pictures, public hosts only")
    parser.add_argument(
        "--max-image-pixels", type=int, default=50_000_000, help="larger pictures are refused (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int | None:
    from pathlib import Path

    from llavakit.base.errors import BadRequest

    # An empty key would let in everybody who sends an empty one.
    key = args.api_key if args.api_key is not None else os.environ.get("LLAVAKIT_API_KEY")
    if key is not None and not key.strip():
        raise BadRequest("the API key is empty")
    if args.engine_python is not None and args.engine != "vllm":
        raise BadRequest(f"--engine-python is for --engine vllm, not {args.engine}")
    name = args.name or Path(args.model).name
    if args.engine == "vllm":
        from llavakit.serve.vllm import Launch, serve_with_vllm

        dtype = {"float32": "float32", "fast": "bfloat16", None: None}[args.precision]
        launch = Launch(args.model, args.host, args.port, name, key, args.batch_size, dtype=dtype)
        return serve_with_vllm(launch, args.engine_python)
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise BadRequest('serving needs two more packages: pip install "llavakit[serve]"') from None
    from llavakit.serve.api import ServeConfig
    from llavakit.serve.run import serve

    config = ServeConfig.parse(
        {
            "name": name,
            "host": args.host,
            "port": args.port,
            "api_key": key,
            "queue": args.queue,
            "pictures": {"pixels": args.max_image_pixels, "remote": args.remote_images},
        },
        "llavakit serve",
    )
    serve(lambda: _engine(args), config)
    return None


def _engine(args: argparse.Namespace) -> Engine:
    if args.engine == "openvino":
        from llavakit.serve import openvino

        return openvino.load(args.model, args.batch_size, args.precision or "float32")
    from llavakit.engine.load import load

    return load(args.model, batch_size=args.batch_size, precision=args.precision).engine
