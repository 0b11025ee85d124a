import os
from pathlib import Path
from types import ModuleType

import pytest
from kamailio_kemi_stubs import lists, live
from kamailio_kemi_stubs.lists import Function


def answer(*functions: tuple[str, str, str, str], size: int | None = None) -> str:
    """Return what kamcmd prints for functions: (ret, module, name, params) each."""
    blocks = "".join(
        f"\t\tfunc: {{\n\t\t\tret: {ret}\n\t\t\tmodule: {module}\n"
        f"\t\t\tname: {name}\n\t\t\tparams: {params}\n\t\t}}\n"
        for ret, module, name, params in functions
    )
    count = len(functions) if size is None else size
    return f"{{\n\tmsize: {count}\n\tmethods: {{\n{blocks}\t}}\n}}\n"


GET = ("xval", "pv", "get", "str")


def test_answer_is_read() -> None:
    """Core functions, functions without parameters and those with some come out as they are."""
    text = answer(
        ("none", "", "info", "str"), GET, ("int", "sl", "x", "none"), ("bool", "a", "b", "int, str")
    )
    assert live.parse_api_list(text) == {
        "info": Function("info", "none", ("str",)),
        "pv.get": Function("pv.get", "xval", ("str",)),
        "sl.x": Function("sl.x", "int", ()),
        "a.b": Function("a.b", "bool", ("int", "str")),
    }


def test_type_without_a_name_is_known() -> None:
    """6.0 prints no parameters for pv.setl, which has a long."""
    text = answer(("bool", "pv", "setl", "<null string>"))
    assert live.parse_api_list(text)["pv.setl"].params == ("str", "long")


def test_of_two_functions_of_one_name_the_later_counts() -> None:
    """6.0 lists cfgutils.lock twice, and Python gets the later one."""
    text = answer(("int", "cfgutils", "lock", "str"), ("int", "cfgutils", "lock", "str, str"))
    assert live.parse_api_list(text)["cfgutils.lock"].params == ("str", "str")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "error: 500 - command app_python.api_list not found",
        answer(),
        answer(GET, size=2),
        answer(("xval", "pv", "get", "<null string>")),
        answer(("int", "pv", "get", "str, str, ...")),
        answer(("float", "pv", "get", "str")),
        answer(GET).replace("ret:", "rat:"),
    ],
)
def test_answer_that_is_no_whole_list_is_refused(text: str) -> None:
    """A fault, a list cut short and an unknown type raise LiveError."""
    with pytest.raises(live.LiveError):
        live.parse_api_list(text)


def test_missing_kamailio_is_named() -> None:
    """A program that is not there is named."""
    with pytest.raises(live.LiveError, match="no-such-kamailio: not found"):
        live.read(kamailio="no-such-kamailio")


def test_cli_says_what_is_wrong(generate: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """The program fails with a message and status 1, without a traceback."""
    assert generate.main(["--print", "--kamailio", "no-such-kamailio"]) == 1
    assert "no-such-kamailio: not found" in capsys.readouterr().err


def test_check_says_what_is_missing(
    generate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--check`` fails when a recorded function is gone, and passes for the list itself."""
    recorded = lists.load_list("5.6")
    assert generate.check(recorded) == 0
    assert capsys.readouterr().out == ""
    fewer = {name: one for name, one in recorded.functions.items() if name != "pv.get"}
    assert generate.check(lists.KemiList("5.6.9", (), {}, fewer)) == 1
    assert capsys.readouterr().out == "missing: pv.get(str) -> xval\n"


def test_check_of_a_version_without_a_list_fails(
    generate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """A release that nobody recorded is not taken for equal."""
    assert generate.check(lists.KemiList("9.9.1", (), {}, {})) == 1
    assert "9.9" in capsys.readouterr().err


def script(path: Path, text: str) -> str:
    """Write a shell script, and return its path."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def installation(folder: Path, behaviour: str) -> str:
    """Return a program that passes for Kamailio up to the moment when it is to serve."""
    for name in ("app_python3", "ctl"):
        (folder / f"{name}.so").touch()
    about = f"echo 'Version: kamailio 5.6.3 (x'; echo 'Default paths to modules: {folder}'"
    return script(folder / "kamailio", f'[ "$1" = -I ] && {{ {about}; exit 0; }}\n{behaviour}')


def test_kamailio_that_ends_is_reported_with_its_log(tmp_path: Path) -> None:
    """When the server does not start, its errors are in the message."""
    kamailio = installation(tmp_path, "echo '0 ERROR: module x is broken'; exit 3")
    with pytest.raises(live.LiveError, match=r"5\.6\.3 ended with status 3(.|\n)*x is broken"):
        live.read(kamailio=kamailio, kamcmd=script(tmp_path / "kamcmd", "exit 1"))


def test_kamailio_that_stays_silent_is_ended_in_time(tmp_path: Path) -> None:
    """A server without a control socket costs the given time, and does not stay behind."""
    kamailio = installation(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    with pytest.raises(live.LiveError, match="did not answer in time"):
        live.read(kamailio=kamailio, kamcmd=script(tmp_path / "kamcmd", "exit 1"), seconds=1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text(encoding="utf-8")), 0)


def test_kamailio_without_its_needs_is_refused(tmp_path: Path) -> None:
    """Without app_python3 there is nothing to ask."""
    kamailio = installation(tmp_path, "exit 0")
    (tmp_path / "app_python3.so").unlink()
    with pytest.raises(live.LiveError, match=r"app_python3\.so"):
        live.read(kamailio=kamailio, kamcmd=script(tmp_path / "kamcmd", "exit 1"))


@pytest.mark.kamailio
def test_installed_kamailio_exports_what_is_recorded() -> None:
    """The Kamailio here exports each function that its release's list has."""
    now = live.read()
    difference = lists.compare(lists.load(now.version), now.functions)
    assert difference.compatible, difference.describe()
    assert set(difference.absent_modules) <= set(now.skipped)
    assert "pv.get" in now.functions
