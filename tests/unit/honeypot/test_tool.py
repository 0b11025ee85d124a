"""Tools are known by what they say, and by the shapes that they leave."""

from __future__ import annotations

import re

import pytest
from apiban.honeypot.tool import AGENTS, tool_of

from tests.unit.honeypot.parts import read


@pytest.mark.parametrize(
    ("agent", "tool"),
    [
        ("friendly-scanner", "sipvicious"),
        ("friendly-request", "sipvicious"),
        ("SIPVicious", "sipvicious"),
        ("sip-scan", "sipvicious"),
        ("sundayddr", "sundayddr"),
        ("sipsak 0.9.7", "sipsak"),
        ("sipcli/v1.8", "sipcli"),
        ("VaxSIPUserAgent/3.1", "vaxsip"),
        ("pplsip", "pplsip"),
        ("smap 0.6.0", "smap"),
        ("Custom SIP Phone", "custom-sip"),
        ("siparmyknife", "siparmyknife"),
        ("SIVuS Scanner", "sivus"),
        ("iWar", "iwar"),
        ("Gulp", "gulp"),
        ("sippts", "sippts"),
        ("Mr.SIP", "mr-sip"),
        ("Metasploit", "metasploit"),
        ("SIPp v3.7", "sipp"),
        ("Nmap NSE", "nmap"),
        ("zgrab/0.x", "mass-scanner"),
        ("eyeBeam release 3006o stamp 17551", "eyebeam-alike"),
        ("Cisco-SIPGateway/IOS-12.x", "cisco-alike"),
        ("Asterisk PBX 1.6.0", "asterisk-alike"),
        ("FPBX-2.11.0(11.13.0)", "asterisk-alike"),
    ],
)
def test_user_agents(agent: str, tool: str) -> None:
    """Whatever the case."""
    assert tool_of(read(User_Agent=agent)) == tool
    assert tool_of(read(User_Agent=agent.upper())) == tool


@pytest.mark.parametrize("agent", ["telephone", "Linphone/5.2", "Yealink SIP-T46S", "snom", ""])
def test_phones_are_no_tools(agent: str) -> None:
    """Nor is who says nothing."""
    assert tool_of(read(User_Agent=agent)) is None


@pytest.mark.parametrize(
    ("headers", "tool"),
    [
        ({"From": '"sipvicious"<sip:100@1.1.1.1>;tag=x'}, "sipvicious"),
        ({"From": "<sip:100@h>;tag=3130300133313338323332343131"}, "sipvicious"),
        ({"From": "<sip:nm@nm>;tag=root"}, "nmap"),
        ({"From": "<sip:a@h>;tag=123SIPpTag001"}, "sipp"),
        ({"Via": "SIP/2.0/UDP h;branch=z9hG4bK-815-7-0"}, "sipp"),
        ({"From": "<sip:a@h>;tag=abcdef0123456789"}, None),
        ({"Via": "SIP/2.0/UDP h;branch=z9hG4bK-524287-1---a0b1c2"}, None),
    ],
)
def test_shapes(headers: dict[str, str], tool: str | None) -> None:
    """A tool that hides its name is known by its From, its tag or its branch."""
    assert tool_of(read(User_Agent="Asterisk", **headers)) == tool


def test_names_are_what_the_feed_takes() -> None:
    """At most 32 of lower case, digits and the dash."""
    assert all(re.fullmatch(r"[a-z0-9-]{1,32}", name) for _, name in AGENTS)
