"""Native configurations with kamailio/apiban-detect.cfg: a registrar, and a proxy with dialogs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from apiban.trial.kamailio import SCRIPT

from tests.integration.test_detector import all_is_taken, is_banned
from tests.integration.test_outcome import ban
from tests.support.calls import Phone, Registrar, nonce_of, status
from tests.support.node import NodeUnderTest, wait_for

pytestmark = pytest.mark.kamailio

BAD, GOOD, VICTIM = "127.0.2.5", "127.0.2.6", "127.0.2.7"
FOLDER = SCRIPT.parents[1] / "kamailio"

_HEAD = f"""#!KAMAILIO
debug=2
log_stderror=yes
children=2
{{defines}}
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "ctl.so"
loadmodule "siputils.so"
loadmodule "textops.so"
{{modules}}
include_file "{FOLDER}/apiban-include.cfg"
include_file "{FOLDER}/apiban-detect.cfg"
"""

_REGISTRAR = """
request_route {
    route(APIBAN_DETECT);
    if (is_method("REGISTER")) {
        if (!pv_www_authenticate("r", "right", "0")) {
            route(APIBAN_FAILED);
            www_challenge("r", "0");
            exit;
        }
        route(APIBAN_REGISTERED);
    }
    sl_send_reply("200", "OK");
}
"""

_PROXY = """
request_route {
    if (has_totag()) { loose_route(); t_relay(); exit; }
    record_route();
    if (is_method("INVITE")) { dlg_manage(); route(APIBAN_CALL); }
    $du = "UPSTREAM";
    route(APIBAN_DETECT);
    t_on_reply("ANSWERED");
    t_relay();
}
onreply_route[ANSWERED] { route(APIBAN_REPLY); }
"""

_AUTH = 'loadmodule "auth.so"\nmodparam("auth", "secret", "0123456789abcdef")\n'
_BOUND = _AUTH + 'modparam("auth", "auth_checks_register", 8)\n'
_DIALOG = 'loadmodule "dialog.so"\nmodparam("rr", "enable_full_lr", 1)\n'


def _written(folder: Path, routing: str, *, modules: str, defines: str = "") -> Path:
    path = folder / "own.cfg"
    path.write_text(_HEAD.format(defines=defines, modules=modules) + routing, encoding="utf-8")
    return path


def _digest(user: str, password: str, nonce: str) -> str:
    def hashed(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    return hashed(f"{hashed(f'{user}:r:{password}')}:{nonce}:{hashed('REGISTER:sip:x')}")


def _guess(phone: Phone, word: str = "wrong", *, nonce: str = "") -> int:
    nonce = nonce or nonce_of(phone.ask(phone.asks("REGISTER")))
    told = _digest("100", word, nonce)
    return status(phone.ask(phone.asks("REGISTER", nonce=nonce, response=told)))


@pytest.fixture
def make(make_node: Callable[..., NodeUnderTest]) -> Callable[..., NodeUnderTest]:
    """Make a started node of a configuration, with the detector on."""

    def made(path: Path, **settings: object) -> NodeUnderTest:
        node = make_node(("127.0.1.5",), configuration=path)
        node.upstream.stop()
        node.upstream = Registrar("127.0.4.1")
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("UPSTREAM", node.upstream.uri), encoding="utf-8")
        node.write_settings(detect__enabled=True, detect__failures=5, detect__users=4, **settings)
        return node.start()

    return made


def test_registrar_with_bound_nonces(make: Callable[..., NodeUnderTest], tmp_path: Path) -> None:
    """Wrong passwords over UDP count when the nonce was made for their very address."""
    node = make(
        _written(tmp_path, _REGISTRAR, modules=_BOUND, defines="#!define APIBAN_NONCE_BOUND")
    )
    with Phone(BAD, node.target) as tool, Phone(VICTIM, node.target) as victim:
        for _ in range(7):
            nonce = nonce_of(tool.ask(tool.asks("REGISTER")))
            assert _guess(victim, nonce=nonce) == 401  # forged, with the forger's own nonce
        assert [_guess(tool) for _ in range(5)] == [401] * 5
        wait_for(lambda: is_banned(node, BAD), "the ban")
        all_is_taken(node)
        assert not is_banned(node, VICTIM)


def test_registrar_whose_nonces_are_anybodys(
    make: Callable[..., NodeUnderTest], tmp_path: Path
) -> None:
    """Over UDP a wrong password is nobody's then; over TCP it counts, unless phones register."""
    node = make(_written(tmp_path, _REGISTRAR, modules=_AUTH))
    with Phone(VICTIM, node.target) as udp:
        assert [_guess(udp) for _ in range(8)] == [401] * 8
    with Phone(GOOD, node.target, "tcp") as office:
        assert _guess(office, "right") == 200
        assert [_guess(office) for _ in range(8)] == [401] * 8
    with Phone(BAD, node.target, "tcp") as tool:
        assert [_guess(tool) for _ in range(5)] == [401] * 5
    wait_for(lambda: is_banned(node, BAD), "the ban")
    assert not is_banned(node, VICTIM)
    assert not is_banned(node, GOOD)


def test_proxy_with_dialogs(make: Callable[..., NodeUnderTest], tmp_path: Path) -> None:
    """A relayed brute force is banned, and a listed caller's call goes on in its grace."""
    path = _written(tmp_path, _PROXY, modules=_DIALOG, defines="#!define APIBAN_WITH_DIALOG")
    node = make(path, calls__grace=60)
    with Phone(GOOD, node.target) as phone:
        call = phone.call()
        ban(node, GOOD)
        assert phone.ask(phone.asks("INVITE"), timeout=0.5) == b""
        assert status(phone.ask(call.request("BYE"))) == 200
    with Phone(BAD, node.target) as tool:
        assert [tool.guess() for _ in range(5)] == [401] * 5
        wait_for(lambda: is_banned(node, BAD), "the ban")
    assert not [line for line in node.kamailio.log_lines() if re.search(r"ERROR|CRITICAL", line)]
