import ast
import importlib
from types import ModuleType

import pytest
from kamailio_kemi_stubs import lists, render
from kamailio_kemi_stubs.lists import Function

TYPES = {
    "bool": "bool",
    "int": "int",
    "long": "int",
    "none": "None",
    "str": "str",
    "xval": "int | str | None",
}
VERSIONS = pytest.mark.parametrize("version", lists.versions())


def functions_in(body: list[ast.stmt], module: str = "") -> dict[str, Function]:
    """Return the functions that statements of a stub define, with Python's types."""
    found = {}
    for statement in body:
        if isinstance(statement, ast.FunctionDef) and not statement.decorator_list:
            assert statement.returns is not None
            arguments = [arg for arg in statement.args.posonlyargs if arg.arg != "self"]
            assert all(arg.annotation for arg in arguments)
            name = f"{module}.{statement.name}" if module else statement.name
            found[name] = Function(
                name,
                ast.unparse(statement.returns),
                tuple(ast.unparse(arg.annotation) for arg in arguments if arg.annotation),
            )
    return found


def as_python(functions: dict[str, Function]) -> dict[str, Function]:
    """Return a list's functions with Python's types in the place of KEMI's."""
    return {
        name: Function(name, TYPES[one.ret], tuple(TYPES[kind] for kind in one.params))
        for name, one in functions.items()
    }


def in_stub(text: str) -> dict[str, Function]:
    """Return the functions of a version's stub: those of Ksr, and of what its properties give."""
    classes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
    found = functions_in(classes["Ksr"].body)
    for statement in classes["Ksr"].body:
        if isinstance(statement, ast.FunctionDef) and statement.decorator_list:
            assert statement.returns is not None
            body = classes[ast.unparse(statement.returns)].body
            found |= functions_in(body, statement.name)
    return found


@VERSIONS
def test_stub_has_each_function_of_its_list(version: str, generate: ModuleType) -> None:
    """A version's .pyi parses, and has its list's functions with their types: no more, no less."""
    path = generate.PACKAGE / f"{render.versions_module(version)}.pyi"
    assert in_stub(path.read_text(encoding="utf-8")) == as_python(lists.load(version))


def test_ksr_stub_has_each_function_of_the_oldest_list(generate: ModuleType) -> None:
    """The stub of ``import KSR`` has the core functions, and an attribute for each module."""
    text = (generate.SOURCES / "KSR-stubs" / "__init__.pyi").read_text(encoding="utf-8")
    body = ast.parse(text).body
    oldest = lists.load(lists.versions()[0])
    core = {name: one for name, one in oldest.items() if not one.module}
    assert functions_in(body) == as_python(core)
    attributes = {ast.unparse(node.target) for node in body if isinstance(node, ast.AnnAssign)}
    assert attributes == {one.module for one in oldest.values() if one.module}


@VERSIONS
def test_written_stubs_are_up_to_date(version: str, generate: ModuleType) -> None:
    """The files in the package are those that their list gives now."""
    for path, text in generate.stub_texts(version).items():
        assert path.read_text(encoding="utf-8") == text


@VERSIONS
def test_stub_names_can_be_imported(version: str, generate: ModuleType) -> None:
    """At run time each class of the stub is there, and no other name is."""
    name = render.versions_module(version)
    module = importlib.import_module(f"kamailio_kemi_stubs.{name}")
    tree = ast.parse((generate.PACKAGE / f"{name}.pyi").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            assert getattr(module, node.name).__name__ == node.name
    with pytest.raises(AttributeError, match="Nothing"):
        _ = module.Nothing


def test_names_that_python_keeps_are_left_out() -> None:
    """A function or module named as a keyword would break the stub, and is not in it."""
    names = ("pv.get", "pv.import", "with.get", "pass", "info")
    text = render.stub_module("5.6", {name: Function(name, "int", ()) for name in names})
    assert set(in_stub(text)) == {"pv.get", "info"}


def test_modules_with_one_class_name_are_refused() -> None:
    """Two modules that would share a class are an error, not a silent loss."""
    names = ("a_b.get", "aB.get")
    with pytest.raises(ValueError, match="same class name"):
        render.stub_module("5.6", {name: Function(name, "int", ()) for name in names})


def test_class_names() -> None:
    """A module's class is its name in capitals."""
    assert render.class_name("http_client") == "HttpClient"
    assert render.class_name("pv") == "Pv"
