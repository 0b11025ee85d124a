from pathlib import Path

import pytest
from apiban.errors import ApibanError
from apiban.feed.server.keys import REPORT
from apiban.feed.server.service import Service
from apiban.feed.server.transfer import export_store
from apiban.settings import Secret


def test_key_is_recognised(service: Service) -> None:
    """By its text alone, with what was chosen for it."""
    made = service.keys.create("pot", may=REPORT, blocks=True)
    record = service.keys.recognise(made.reveal())
    assert record is not None
    assert (record.name, record.may, record.blocks, record.ipv6) == ("pot", "report", True, False)
    for wrong in ("", "pot", made.reveal() + "0", made.reveal()[:-1], made.reveal().upper() + "A"):
        assert service.keys.recognise(wrong) is None


def test_database_holds_no_key(service: Service) -> None:
    """Nor does an export of it."""
    made = service.keys.create("one").reveal()
    assert made not in "\n".join(export_store(service.database))


def test_rotated(service: Service) -> None:
    """The new text is right, and the old one is not; the record and its use go on."""
    old = service.keys.create("one")
    new = service.keys.rotate("one")
    assert service.keys.recognise(old.reveal()) is None
    record = service.keys.recognise(new.reveal())
    assert record is not None
    assert record.name == "one"
    assert len(service.keys.records()) == 1


def test_revoked(service: Service) -> None:
    """Refused, and still on record; rotating makes it good again."""
    made = service.keys.create("one")
    service.keys.revoke("one")
    assert service.keys.recognise(made.reveal()) is None
    assert service.keys.records()[0].revoked == service.now()
    assert service.keys.recognise(service.keys.rotate("one").reveal()) is not None


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-x", "x" * 65, "\n", "ä"])
def test_bad_name(service: Service, name: str) -> None:
    """It stands in tables and logs."""
    with pytest.raises(ApibanError, match="name"):
        service.keys.create(name)


@pytest.mark.parametrize("text", ["short", "x" * 19, "x" * 129, "x" * 30 + "/", "x" * 30 + "%"])
def test_bad_key_of_ones_own(service: Service, text: str) -> None:
    """It must be long, and stand in a path as it is; the error does not show it."""
    with pytest.raises(ApibanError) as caught:
        service.keys.create("one", given=Secret(text))
    assert text not in str(caught.value)


def test_taken(service: Service) -> None:
    """Neither a name nor a text stands for two."""
    made = service.keys.create("one")
    for name, given in (("one", None), ("two", made)):
        with pytest.raises(ApibanError, match="already"):
            service.keys.create(name, given=given)


def test_unknown(service: Service) -> None:
    """Named, with where to look."""
    for change in (service.keys.rotate, service.keys.revoke):
        with pytest.raises(ApibanError, match="no key 'nobody'; `apiban feed key list`"):
            change("nobody")


def test_two_processes_open_an_empty_database(
    database_url: str, tmp_path: Path, service: Service
) -> None:
    """The migrations run once."""
    from apiban.feed.server.database import Database

    with Database(Secret(database_url)) as other, other.read() as connection:
        assert connection is not None
