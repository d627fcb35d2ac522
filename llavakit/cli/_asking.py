"""What the verbs that ask an endpoint have in common: where, how patiently, and for how much."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llavakit.endpoint.client import Endpoint
    from llavakit.endpoint.journal import Journal
    from llavakit.endpoint.meter import Meter


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--concurrency", type=int, default=8, help="questions in flight (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds to wait (default: %(default)s)")
    parser.add_argument("--key-env", default="OPENAI_API_KEY", help="variable that holds the key (%(default)s)")
    parser.add_argument("--price", metavar="IN,OUT", help="of a million prompt and a million answer tokens")
    parser.add_argument("--budget", type=float, help="the most money to spend, earlier runs for OUT included")
    parser.add_argument("--budget-tokens", type=int, help="the same in tokens")
    parser.add_argument(
        "--body", action="append", default=[], metavar="KEY=VALUE", help="more of the request: temperature=0.2, a=null"
    )


def endpoint(args: argparse.Namespace, url: str) -> Endpoint:
    from llavakit.endpoint.client import Endpoint

    how = {"key_env": args.key_env, "concurrency": args.concurrency, "timeout": args.timeout}
    return Endpoint.parse({"url": url, **how}, "the endpoint")


def meter(args: argparse.Namespace, journal: Journal) -> Meter:
    """Counts on from what the journal says was spent."""
    from llavakit.base.errors import BadRequest
    from llavakit.endpoint.meter import Budget, Meter, Prices

    prices = None
    if args.price:
        try:
            prompt, answer = map(float, args.price.split(","))
        except ValueError:
            raise BadRequest(f"--price takes two numbers, IN,OUT, not {args.price!r}") from None
        prices = Prices.parse({"prompt": prompt, "answer": answer}, "--price")
    budget = Budget.parse({"money": args.budget, "tokens": args.budget_tokens}, "--budget")
    return Meter(budget, prices, journal.usages())


def body(args: argparse.Namespace, model: str) -> dict[str, object]:
    from llavakit.base.config import parse_override

    return {"model": model, **dict(parse_override(text) for text in args.body)}
