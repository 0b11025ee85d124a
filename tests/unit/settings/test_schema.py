import pytest
from apiban.settings.schema import SCHEMA

from tests.unit.settings.conftest import Load, Problems
from tests.unit.settings.samples import KEY, SAMPLES, toml_of, value_of

NAMES = [setting.name for setting in SCHEMA]
SECRETS = {"feed.key", "report.key"}
# A key file must be there to be named, which the tests of the key see to; and nobody reports
# without a key, which the tests of the report see to.
PLAIN = [name for name in NAMES if name not in {"feed.key_file", "report.key_file", "report.url"}]
VARIABLES = {setting.name: setting.variable for setting in SCHEMA}


def test_every_setting_has_a_sample() -> None:
    """A new setting is tested by all that follows, or this fails."""
    assert sorted(SAMPLES) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_default(load: Load, name: str) -> None:
    """An empty file gives each setting's default."""
    assert value_of(load(), name) == SAMPLES[name].default


@pytest.mark.parametrize("name", PLAIN)
def test_file_sets_it(load: Load, name: str) -> None:
    """A value in the file is taken, with its type, and changes nothing else."""
    sample = SAMPLES[name]
    settings = load(toml_of({name: sample.toml}))
    assert value_of(settings, name) == sample.value
    assert type(value_of(settings, name)) is type(sample.value)
    for other in NAMES:
        if other != name:
            assert value_of(settings, other) == SAMPLES[other].default


@pytest.mark.parametrize("name", PLAIN)
def test_environment_sets_it(load: Load, name: str) -> None:
    """The variable alone is enough, and gives the same value as the file's spelling."""
    sample = SAMPLES[name]
    settings = load("", {VARIABLES[name]: sample.variable})
    assert value_of(settings, name) == sample.value
    assert type(value_of(settings, name)) is type(sample.value)


@pytest.mark.parametrize("name", [name for name in PLAIN if name not in SECRETS])
def test_environment_beats_the_file(load: Load, name: str) -> None:
    """A variable brings back even the default that the file had changed."""
    sample = SAMPLES[name]
    default = "" if sample.default in (None, ()) else str(sample.default).lower()
    if isinstance(sample.default, tuple):
        default = ",".join(str(one) for one in sample.default)
    settings = load(toml_of({name: sample.toml}), {VARIABLES[name]: default})
    assert value_of(settings, name) == sample.default


@pytest.mark.parametrize("name", NAMES)
def test_variable_is_named_after_the_setting(name: str) -> None:
    """feed.key_file is APIBAN_FEED_KEY_FILE."""
    assert VARIABLES[name] == "APIBAN_" + "_".join(name.upper().split("."))


@pytest.mark.parametrize("name", NAMES)
def test_mistake_names_setting_value_and_allowed(problems: Problems, name: str) -> None:
    """One bad value is one problem, which holds the three things an operator needs."""
    sample = SAMPLES[name]
    (problem,) = problems(toml_of({name: sample.bad}))
    shown, _, allowed = problem.partition(": must be ")
    assert shown.startswith(f"{name} = ")
    assert sample.allowed in allowed
    if name not in SECRETS:
        bare = sample.bad.strip('"[]')
        assert bare in {"", "true"} or bare in shown


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SECRETS])
def test_mistake_in_the_environment_names_the_variable(problems: Problems, name: str) -> None:
    """The operator learns which variable to mend."""
    (problem,) = problems("", {VARIABLES[name]: "b a d/"})
    shown = '"(not shown)"' if name.endswith(("url", "key_file")) else '"b a d/"'
    assert problem.startswith(f"{VARIABLES[name]} = {shown}: must be ")
    assert SAMPLES[name].allowed in problem


def test_every_mistake_is_reported_at_once(problems: Problems) -> None:
    """A file in which all is wrong gives one problem for each setting, in the file's order."""
    found = problems(toml_of({name: SAMPLES[name].bad for name in NAMES}))
    assert [problem.partition(" ")[0] for problem in found] == NAMES


def test_mistakes_of_file_and_environment_come_together(problems: Problems) -> None:
    """Neither hides the other, nor the unknown setting beside them."""
    found = problems("mode = 1\nfed.url = 2\n", {"APIBAN_FEED_INTERVAL": "0", "APIBAN_KEY": "a b"})
    assert [problem.split()[0] for problem in found] == [
        "mode",
        "fed:",
        "APIBAN_FEED_INTERVAL",
        "APIBAN_KEY:",
    ]


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("feed.interval", "1", "86400"),
        ("feed.timeout", "0.5", "300"),
        ("feed.requests", "1", "10_000"),
        ("feed.widest_ipv4", "1", "32"),
        ("feed.widest_ipv6", "1", "128"),
        ("log.first_drops", "0", "1000"),
    ],
)
def test_bounds_are_inside(load: Load, problems: Problems, name: str, low: str, high: str) -> None:
    """The lowest and the highest value are good, and one beyond is not."""
    for bound in (low, high):
        assert value_of(load(toml_of({name: bound})), name) == float(bound)
    for beyond in (f"{float(low) - 1:g}", f"{int(float(high)) + 1}"):
        assert len(problems(toml_of({name: beyond}))) == 1


@pytest.mark.parametrize("text", ["true", "TRUE", "yes", "1"])
def test_words_for_true(load: Load, text: str) -> None:
    """The environment has only texts."""
    assert load("", {"APIBAN_FEED_ALLOW_HTTP": text}).feed.allow_http is True


@pytest.mark.parametrize("text", ["false", "No", "0"])
def test_words_for_false(load: Load, text: str) -> None:
    """A variable can switch off what the file switches on."""
    settings = load("feed.allow_http = true", {"APIBAN_FEED_ALLOW_HTTP": text})
    assert settings.feed.allow_http is False


@pytest.mark.parametrize("name", ["feed.accept_private", "feed.allow_http"])
@pytest.mark.parametrize("bad", ["1", "0", '""', "[true]", "1.0"])
def test_a_number_is_no_switch(problems: Problems, name: str, bad: str) -> None:
    """TOML has true and false; a 1 there is a slip."""
    assert len(problems(toml_of({name: bad}))) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "apiban.org/api/",
        "https://",
        "https:///api/",
        "file:///etc/passwd",
        "https://user@feed.example/",
        "https://user:word@feed.example/",
        "https://feed.example/?key=1",
        "https://feed.example/#key",
        "https://feed.example:0/",
        "https://feed.example:65536/",
        "https://feed.example:port/",
        "https://[::1/",
        "https://fééd.example/",
    ],
)
def test_url_that_cannot_be_meant_is_refused(problems: Problems, url: str) -> None:
    """No user, no query, no fragment, a real port, and http or https."""
    (problem,) = problems(f'feed.url = "{url}"')
    assert problem.startswith("feed.url = ")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/api/", "http://127.9.9.9/", "http://localhost/", "http://[::1]/"]
)
def test_http_to_this_host_is_allowed(load: Load, url: str) -> None:
    """A feed on the loopback needs no TLS."""
    assert load(f'feed.url = "{url}"').feed.url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://apiban.org/api/",
        "http://192.0.2.1/",
        "http://127.0.0.1.example.org/",
        "http://localhost.example.org/",
        "http://0.0.0.0/",
        "http://[2001:db8::1]/",
    ],
)
def test_http_over_a_network_is_refused(load: Load, problems: Problems, url: str) -> None:
    """The key would travel in clear text, unless the operator says that it may."""
    (problem,) = problems(f'feed.url = "{url}"')
    # A key may have been pasted into the path: only the host is shown.
    host = url.removeprefix("http://").partition("/")[0]
    assert problem.startswith(f"feed.url = http://{host}/...: must be https")
    assert load(f'feed.url = "{url}"\nfeed.allow_http = true').feed.url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://feed.example/api/{}/",
        "https://user:{}@feed.example/",
        "https://feed.example/?key={}",
        "https://feed.example/#{}",
        "https://feed.example:port/{}/",
        "{}",
        "feed.example/{}",
    ],
)
def test_key_in_a_bad_url_is_not_shown(problems: Problems, url: str) -> None:
    """Other clients' recipes have the key in their URL, and operators paste them."""
    for found in (
        problems(f'feed.url = "{url.format(KEY)}"'),
        problems(f'feed.url = ["{url.format(KEY)}"]'),
        problems("", {"APIBAN_FEED_URL": url.format(KEY)}),
    ):
        assert len(found) == 1
        assert KEY not in found[0]


def test_http_from_the_environment_is_refused_too(problems: Problems) -> None:
    """The check is of the value that counts in the end."""
    (problem,) = problems("", {"APIBAN_FEED_URL": "http://192.0.2.1/"})
    assert "must be https" in problem


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("192.0.2.9", "sip:192.0.2.9:5060;transport=udp"),
        ("sip:192.0.2.9:1", "sip:192.0.2.9:1;transport=udp"),
        ("192.0.2.9:65535;transport=TLS", "sip:192.0.2.9:65535;transport=tls"),
        ("sip:[2001:DB8::9];transport=tcp", "sip:[2001:db8::9]:5060;transport=tcp"),
    ],
)
def test_upstream_as_uri(load: Load, text: str, uri: str) -> None:
    """However short it is written, the URI to send to is whole."""
    (upstream,) = load(f'edge.upstreams = ["{text}"]').edge.upstreams
    assert upstream.uri == uri


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip.example.org",
        "192.0.2.9:0",
        "192.0.2.9:65536",
        "192.0.2.9:",
        "192.0.2.9;transport=sctp",
        "192.0.2.999",
        "2001:db8::9",
        "sips:192.0.2.9",
        "user@192.0.2.9",
        "192.0.2.9 ",
    ],
)
def test_upstream_that_cannot_be_meant_is_refused(problems: Problems, text: str) -> None:
    """A name cannot be exempted from the gate, and half an address leads nowhere."""
    (problem,) = problems(f'edge.upstreams = ["192.0.2.9", "{text}"]')
    assert problem.startswith("edge.upstreams = ")


@pytest.mark.parametrize("name", ["allow.networks", "node.peers", "edge.upstreams"])
@pytest.mark.parametrize("bad", ["5", "true", "[5]", '["192.0.2.1", []]', "{}"])
def test_lists_hold_texts(problems: Problems, name: str, bad: str) -> None:
    """A list of something else is refused as a whole."""
    (problem,) = problems(toml_of({name: bad}))
    assert "must be a list of" in problem


def test_exempt_sources_are_allowed_upstreams_and_peers(load: Load) -> None:
    """What the settings save from every ban comes from three places."""
    settings = load(
        toml_of({name: SAMPLES[name].toml for name in ("allow.networks", "node.peers")})
        + 'edge.upstreams = ["192.0.2.9"]\n'
    )
    shown = [str(network) for network in settings.exempt]
    assert shown == ["192.0.2.0/24", "2001:db8::1", "192.0.2.9", "192.0.2.7", "2001:db8::7"]


def test_identity_changes_with_what_the_list_is(load: Load) -> None:
    """A cursor of another service, version or set is worth nothing, so each has its name."""
    base = load("", {"APIBAN_KEY": "a"}).feed.identity
    assert base == load("feed.interval = 5", {"APIBAN_KEY": "b"}).feed.identity
    changes = ('feed.url = "https://x.example/"', "feed.version = 2", 'feed.set = "all"')
    assert len({base, *(load(change).feed.identity for change in changes)}) == 4


def test_report_needs_url_and_key(load: Load, problems: Problems) -> None:
    """With both it is whole; a URL alone would only collect refusals."""
    report = load('report.url = "https://feed.example"\nreport.key = "word"').report
    assert (report.url, report.key.reveal()) == ("https://feed.example/", "word")
    (problem,) = problems('report.url = "https://feed.example"')
    assert problem.startswith("report.url: is set, and report.key is not")


def test_groups_of_permissions_are_numbers(load: Load, problems: Problems) -> None:
    """TOML's numbers and texts of digits are the same; anything else is refused by its place."""
    assert load('allow.permissions_groups = ["1", "20"]').allow.permissions_groups == (1, 20)
    for bad in ("[-1]", "[true]", '["1a"]', "[1.0]", "5", '["9999999999"]'):
        (problem,) = problems(f"allow.permissions_groups = {bad}")
        assert problem.startswith("allow.permissions_groups = ")


@pytest.mark.parametrize("bad", ["apiban_front", "api ban", "x" * 32])
def test_mirror_is_a_table_of_the_operators(problems: Problems, bad: str) -> None:
    """Our own table is not for others' checks, and another name is no htable's."""
    (problem,) = problems(f'htable.mirror = "{bad}"')
    assert problem.startswith("htable.mirror = ")
