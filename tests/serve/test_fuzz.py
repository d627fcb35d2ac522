"""Everything that its own OpenAPI document allows, and much that it does not: never a 5xx."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

schemathesis = pytest.importorskip("schemathesis")


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_no_request_breaks_the_server(address: str, mode: Any) -> None:
    from schemathesis.specs.openapi import checks as conformance

    checks = [
        schemathesis.checks.not_a_server_error,
        conformance.status_code_conformance,
        conformance.content_type_conformance,
        conformance.response_schema_conformance,
    ]
    answered = 0
    document = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) == 7
    for operation in operations:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=20, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        def ask(case: Any) -> None:
            nonlocal answered
            if isinstance(case.body, dict):
                if "model" in case.body and isinstance(case.body["model"], str):
                    case.body["model"] = "toy"  # or nothing would come further than the model's name
                if isinstance(case.body.get("max_tokens"), int):
                    case.body["max_tokens"] = min(case.body["max_tokens"], 2)
            response = case.call()
            answered += response.status_code == 200
            case.validate_response(response, checks=checks)

        try:
            ask()
        except Unsatisfiable:  # nothing can be wrong with a request that takes nothing
            assert mode.is_negative and operation.method == "get"
    assert mode.is_negative or answered > 10


ODD: list[Any] = [
    b"\xff\xfe",
    b"{",
    b"[]",
    b"null",
    b'{"model": "toy", "messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"\\ud800": 1, "model": "toy", "messages": [{"role": "user", "content": "x"}]}',
    b'{"model": "toy", "messages": [{"role": "\\udfff", "content": "x"}]}',
    b'{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}',
    b'{"model": "toy", "temperature": NaN, "messages": [{"role": "user", "content": "x"}]}',
    b'{"model": "toy", "temperature": 1e999, "messages": [{"role": "user", "content": "x"}]}',
    b'{"model": "toy", "seed": ' + b"9" * 5000 + b', "messages": [{"role": "user", "content": "x"}]}',
    b'{"model": "toy", "max_tokens": ' + b"9" * 400 + b', "messages": [{"role": "user", "content": "x"}]}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("path", ["chat/completions", "completions", "look"])
def test_odd_bodies(address: str, path: str, body: bytes) -> None:
    import json
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    for kind in ("application/json", "text/plain"):
        try:
            status = urlopen(Request(f"{address}/v1/{path}", body, {"Content-Type": kind})).status
        except HTTPError as error:
            status = error.code
            assert "message" in json.load(error)["error"]
        assert status in (400, 404), body[:60]


def test_odd_texts(address: str) -> None:
    """Empty, special, unprintable and many: answered or refused."""
    import json
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    for text in ("", " ", "\0", "<pad>", "<unk>", "\u202e\u200b", "\U0001f642" * 30, "</s>", "<image>", "a\r\n" * 9):
        body = {"model": "toy", "prompt": text, "max_tokens": 2}
        chat = {"model": "toy", "messages": [{"role": "user", "content": text}], "max_tokens": 2}
        for path, value in (("completions", body), ("chat/completions", chat)):
            asked = Request(f"{address}/v1/{path}", json.dumps(value).encode(), {"Content-Type": "application/json"})
            try:
                assert urlopen(asked).status == 200
            except HTTPError as error:
                assert error.code == 400, (path, text)
