"""Kamailio's RPC, asked from inside."""

from __future__ import annotations

import json

import pytest
from apiban.kemi.rpc import RpcError, can_ask, fields_of, rpc
from kamailio_kemi_stubs.fake import FakeKsr


def answering(body: str | bytes | None, code: int = 1) -> FakeKsr:
    """Give a Kamailio that answers every method so."""
    ksr = FakeKsr("5.6", variables={"$jsonrpl(body)": body})
    ksr.on("jsonrpcs.exec", lambda _: code)
    return ksr


def test_question() -> None:
    """A method without parameters is asked as JSON-RPC 2.0."""
    ksr = answering('{"jsonrpc": "2.0", "result": [], "id": 1}')
    assert rpc(ksr, "dispatcher.list") == []
    ((text,),) = ksr.calls_of("jsonrpcs.exec")
    assert json.loads(str(text)) == {"jsonrpc": "2.0", "method": "dispatcher.list", "id": 1}


def test_fields_of_one_name_are_all_there() -> None:
    """Kamailio's objects have several fields of one name."""
    ksr = answering(
        '{"result": {"table": 1, "item": {"ip": "a"}, "table": 2, "item": {"ip": "b"}}}'
    )
    found = [value for name, value in fields_of(rpc(ksr, "x")) if name == "ip"]
    assert found == ["a", "b"]


def test_empty_tables_are_empty() -> None:
    """What modules say that have nothing to list is no error."""
    for words in ("No Destination Sets", "No address table", "No trusted table"):
        body = json.dumps({"error": {"code": 500, "message": words}})
        assert rpc(answering(body), "x") == []


@pytest.mark.parametrize(
    "body",
    [
        '{"error": {"code": 500, "message": "Method Not Found"}}',
        '{"error": {}}',
        '{"id": 1}',
        "[1]",
        "not JSON",
        "",
        None,
        b'{"result": "\xff"}',
        "[" * 100_000,
    ],
)
def test_what_is_no_answer_is_an_error(body: str | bytes | None) -> None:
    """Nothing of it is taken for an empty list."""
    with pytest.raises(RpcError, match=r"^dispatcher\.list: "):
        rpc(answering(body), "dispatcher.list")


def test_refused_question_is_an_error() -> None:
    """Then the last answer is still there, and is another question's."""
    with pytest.raises(RpcError, match="not answered"):
        rpc(answering('{"result": []}', code=-1), "x")


def test_kamailio_without_the_module() -> None:
    """It can be told before."""
    assert can_ask(FakeKsr("5.6"))
    assert not can_ask(object())  # type: ignore[arg-type]
