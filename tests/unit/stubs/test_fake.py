import copy

import pytest
from kamailio_kemi_stubs import lists
from kamailio_kemi_stubs.fake import Call, FakeKsr


@pytest.fixture
def ksr() -> FakeKsr:
    """Return a fake of 5.6."""
    return FakeKsr("5.6")


@pytest.mark.parametrize("version", lists.versions())
def test_every_function_can_be_called(version: str) -> None:
    """Each function of the list answers with its type to arguments of its types."""
    fake = FakeKsr(version)
    values = {"int": 1, "long": 2**40, "str": "a"}
    kinds = {"int": int, "bool": bool, "none": type(None), "xval": (str, int, type(None))}
    for name, function in lists.load(version).items():
        owner = getattr(fake, function.module) if function.module else fake
        result = getattr(owner, function.short)(*(values[kind] for kind in function.params))
        assert isinstance(result, kinds[function.ret]), name
    assert fake.functions() == sorted(lists.load(version))
    assert len(fake.calls) == len(fake.functions())


def test_version_without_a_list_is_refused() -> None:
    """A fake of an unknown release is no fake."""
    with pytest.raises(LookupError):
        FakeKsr("1.2")


def test_unknown_module_is_refused(ksr: FakeKsr) -> None:
    """A module that Kamailio has not raises, and says so."""
    with pytest.raises(AttributeError, match=r"Kamailio 5\.6 has no KSR\.slx"):
        _ = ksr.slx


def test_unknown_function_is_refused(ksr: FakeKsr) -> None:
    """A function that its module has not raises, with the names that are near."""
    with pytest.raises(AttributeError, match=r"no KSR\.sl\.send_repli.*sl\.send_reply"):
        _ = ksr.sl.send_repli


@pytest.mark.parametrize("name", ["x", "exit", "drop"])
def test_names_of_other_languages_are_refused(ksr: FakeKsr, name: str) -> None:
    """What KEMI has elsewhere (KSR.x.exit of Lua) is not in Python's list."""
    assert not hasattr(ksr, name)


def test_functions_differ_between_versions(ksr: FakeKsr) -> None:
    """A function that came with 6.0 is not in the fake of 5.6."""
    assert not hasattr(ksr.pv, "getl")
    assert FakeKsr("6.0").pv.getl("$var(x)") == 0


@pytest.mark.parametrize("args", [(), (200,), (200, "OK", "more")])
def test_wrong_number_of_arguments_is_refused(ksr: FakeKsr, args: tuple[object, ...]) -> None:
    """Too few and too many arguments raise, and are not recorded as a call."""
    with pytest.raises(TypeError, match="takes 2 arguments"):
        ksr.sl.send_reply(*args)
    assert ksr.calls == []


@pytest.mark.parametrize(
    "args", [("200", "OK"), (200, 200), (True, "OK"), (None, "OK"), (200, None), (200, b"OK")]
)
def test_wrong_type_is_refused(ksr: FakeKsr, args: tuple[object, ...]) -> None:
    """A str for an int, an int for a str, a bool, None and bytes raise."""
    with pytest.raises(TypeError, match=r"argument [12] must be (int|str)"):
        ksr.sl.send_reply(*args)
    assert ksr.calls == []


def test_keywords_are_refused(ksr: FakeKsr) -> None:
    """KEMI functions take no keywords."""
    with pytest.raises(TypeError):
        ksr.sl.send_reply(200, reason="OK")


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_int_of_more_than_32_bits_is_refused(ksr: FakeKsr, value: int) -> None:
    """5.6 fails on such an int, and 6.0 cuts it."""
    ksr.pv.seti("$var(x)", 2**31 - 1)
    ksr.pv.seti("$var(x)", -(2**31))
    with pytest.raises(ValueError, match="too large"):
        ksr.pv.seti("$var(x)", value)


@pytest.mark.parametrize("text", ["a\0b", "a\udc80b"])
def test_str_that_c_cannot_hold_is_refused(ksr: FakeKsr, text: str) -> None:
    """A NUL and what UTF-8 has not cannot be passed."""
    with pytest.raises(ValueError, match="cannot be passed"):
        ksr.info(text)
    assert ksr.log == []


def test_calls_are_recorded_in_order(ksr: FakeKsr) -> None:
    """Each call is kept with its name and arguments."""
    ksr.force_rport()
    ksr.sl.send_reply(200, "OK")
    ksr.sl.send_reply(404, "Not here")
    assert ksr.calls == [
        Call("force_rport", ()),
        Call("sl.send_reply", (200, "OK")),
        Call("sl.send_reply", (404, "Not here")),
    ]
    assert ksr.calls_of("sl.send_reply") == [(200, "OK"), (404, "Not here")]
    assert ksr.calls_of("sl.sl_forward_reply") == []


def test_asking_for_calls_of_no_function_is_refused(ksr: FakeKsr) -> None:
    """A slip in the name does not look like "never called"."""
    with pytest.raises(AttributeError):
        ksr.calls_of("sl.sendreply")


def test_behaviour_can_be_set(ksr: FakeKsr) -> None:
    """A function answers as it was told, and the call is still recorded."""
    ksr.on("sl.send_reply", lambda code, _reason: -code)
    assert ksr.sl.send_reply(503, "No") == -503
    assert ksr.calls == [Call("sl.send_reply", (503, "No"))]


def test_behaviour_may_raise(ksr: FakeKsr) -> None:
    """What a behaviour raises reaches the script."""

    def broken() -> int:
        raise RuntimeError("broken")

    ksr.on("maxfwd.process_maxfwd", lambda _limit: broken())
    with pytest.raises(RuntimeError, match="broken"):
        ksr.maxfwd.process_maxfwd(10)


def test_behaviour_of_no_function_is_refused(ksr: FakeKsr) -> None:
    """A behaviour that nothing would ever call is an error."""
    with pytest.raises(AttributeError):
        ksr.on("pv.gett", lambda name: name)


@pytest.mark.parametrize(
    ("name", "result"),
    [("force_rport", 1), ("add_tcp_alias_via", True), ("add_tcp_alias_via", None), ("set_drop", 0)],
)
def test_answer_that_kamailio_never_gives_is_refused(
    ksr: FakeKsr, name: str, result: object
) -> None:
    """A behaviour's result is of the list's type, or the test rests on sand."""
    ksr.on(name, lambda: result)
    with pytest.raises(TypeError, match="behaviour set for it returned"):
        getattr(ksr, name)()


@pytest.mark.parametrize(
    ("value", "got", "empty", "word"),
    [
        ("a", "a", "a", "a"),
        (7, 7, 7, 7),
        (b"caf\xc3\xa9", "caf\u00e9", "caf\u00e9", "caf\u00e9"),
        (None, None, "", "<null>"),
    ],
)
def test_variables_are_served(
    ksr: FakeKsr, value: int | str | bytes | None, got: object, empty: object, word: object
) -> None:
    """The getters of pv give a variable as the real ones do, null included."""
    ksr.variables["$var(x)"] = value
    assert ksr.pv.get("$var(x)") == got
    assert ksr.pv.gete("$var(x)") == empty
    assert ksr.pv.getw("$var(x)") == word
    assert ksr.pv.getvs("$var(x)", "other") == ("other" if got is None else got)
    assert ksr.pv.getvn("$var(x)", 3) == (3 if got is None else got)
    assert ksr.pv.is_null("$var(x)") is (value is None)


@pytest.mark.parametrize(
    ("value", "number"), [(7, 7), ("-12", -12), ("a", 0), (b"\xff", 0), (None, 0)]
)
def test_numbers_are_served(ksr: FakeKsr, value: int | str | bytes | None, number: int) -> None:
    """``pv.geti`` gives an int whatever the variable is."""
    ksr.variables["$var(x)"] = value
    assert ksr.pv.geti("$var(x)") == number


def test_variable_that_is_not_there_is_null(ksr: FakeKsr) -> None:
    """A name without a value is null."""
    assert ksr.pv.get("$rU") is None
    assert ksr.pv.is_null("$rU") is True


def test_variables_can_be_written(ksr: FakeKsr) -> None:
    """The setters of pv change what the getters give."""
    assert ksr.pv.sets("$var(x)", "a") is True
    assert ksr.pv.get("$var(x)") == "a"
    ksr.pv.seti("$var(x)", 5)
    assert ksr.variables == {"$var(x)": 5}
    ksr.pv.unset("$var(x)")
    assert ksr.pv.is_null("$var(x)")


def test_variables_are_given_at_the_start() -> None:
    """A fake takes a copy of the variables that it is made with."""
    given = {"$rcv(srcip)": "192.0.2.1"}
    fake = FakeKsr(variables=given)
    fake.pv.sets("$rcv(srcip)", "192.0.2.2")
    assert given == {"$rcv(srcip)": "192.0.2.1"}


@pytest.mark.parametrize("getter", ["get", "gete", "getw"])
def test_bytes_that_are_not_utf8_raise(ksr: FakeKsr, getter: str) -> None:
    """As in the real one, a packet's bytes that are not UTF-8 raise UnicodeDecodeError."""
    ksr.variables["$rcv(buf)"] = b"OPTIONS \xff\xfe"
    with pytest.raises(UnicodeDecodeError):
        getattr(ksr.pv, getter)("$rcv(buf)")
    assert ksr.pv.is_null("$rcv(buf)") is False


def test_drop_is_counted(ksr: FakeKsr) -> None:
    """``dropped`` says whether, and how often, set_drop was called."""
    assert not ksr.dropped
    ksr.set_drop()
    ksr.set_drop()
    assert ksr.dropped == 2


def test_log_lines_are_kept(ksr: FakeKsr) -> None:
    """Each log function adds its level and text, KSR.log included."""
    for level in ("dbg", "info", "notice", "warn", "err", "crit"):
        getattr(ksr, level)(f"text of {level}")
    ksr.log("info", "by name")
    assert ksr.log == [
        ("dbg", "text of dbg"),
        ("info", "text of info"),
        ("notice", "text of notice"),
        ("warn", "text of warn"),
        ("err", "text of err"),
        ("crit", "text of crit"),
        ("info", "by name"),
    ]
    assert ksr.calls[-1] == Call("log", ("info", "by name"))


def test_log_checks_its_arguments_too(ksr: FakeKsr) -> None:
    """KSR.log is a function of the list as any other."""
    with pytest.raises(TypeError):
        ksr.log("info", 3)


def test_fakes_do_not_share_anything() -> None:
    """What one fake saw is not in another."""
    one, other = FakeKsr(), FakeKsr()
    one.pv.sets("$var(x)", "a")
    one.on("sl.send_reply", lambda *_args: -1)
    assert other.calls == []
    assert other.variables == {}
    assert other.sl.send_reply(200, "OK") == 1


def test_fake_survives_being_copied(ksr: FakeKsr) -> None:
    """Python's own look-ups do not run in circles."""
    assert copy.copy(ksr).calls == []
