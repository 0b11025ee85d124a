"""Settings files to order, in an environment that says nothing."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from apiban.errors import SettingsError
from apiban.settings import Settings, load_settings

Load = Callable[..., Settings]
Problems = Callable[..., tuple[str, ...]]


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take our variables out of the tests' own environment."""
    for name in list(os.environ):
        if name.startswith("APIBAN"):
            monkeypatch.delenv(name)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Give a function that loads a text as the settings file, with an environment."""

    def load(
        text: str | bytes = "", environ: Mapping[str, str] | None = None, *, mode: int = 0o640
    ) -> Settings:
        path = tmp_path / "apiban.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return load_settings(path, environ or {})

    return load


@pytest.fixture
def problems(load: Load) -> Problems:
    """Give a function that loads bad settings and gives the problems."""

    def problems(*args: object, **options: object) -> tuple[str, ...]:
        with pytest.raises(SettingsError) as caught:
            load(*args, **options)
        assert str(caught.value) == "; ".join(caught.value.problems)
        return caught.value.problems

    return problems
