"""Everything that its own OpenAPI document allows, and much that it does not: never a 5xx."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

schemathesis = pytest.importorskip("schemathesis")


@pytest.fixture(scope="session")
def document(address: str) -> Any:
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_server(case: Any) -> None:
    if isinstance(case.body, dict) and "max_tokens" in case.body:
        case.body["max_tokens"] = 2
    response = case.call()
    case.validate_response(
        response,
        checks=[
            schemathesis.checks.not_a_server_error,
            schemathesis.specs.openapi.checks.status_code_conformance,
            schemathesis.specs.openapi.checks.response_schema_conformance,
        ],
    )


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
