"""Let the tests see the stubs of this checkout, installed or not."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

STUBS = Path(__file__).resolve().parents[3] / "kemi" / "stubs"
sys.path.insert(0, str(STUBS / "src"))


@pytest.fixture(scope="session")
def generate() -> ModuleType:
    """Return the program generate.py as a module."""
    spec = spec_from_file_location("generate", STUBS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
