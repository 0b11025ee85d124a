"""What a name of a stub file is at run time: a class with nothing in it.

The classes of ``v5_6.pyi`` and ``v6_0.pyi`` exist for type checkers. Importing one at run time
must work all the same, without 60 empty classes written out beside each stub.
"""

from kamailio_kemi_stubs import lists
from kamailio_kemi_stubs.render import class_name

__all__ = ["stand_in"]


def stand_in(version: str, module: str, name: str) -> type:
    """Return an empty class for a class name that the version's stub file has.

    Raises ``AttributeError``, as a module does, for any other name.
    """
    # Python asks modules for names of its own (__path__): no list is read for those.
    if not name.startswith("_"):
        functions = lists.load(version).values()
        if name in {class_name(function.module) for function in functions if function.module}:
            return type(name, (), {"__module__": module, "__doc__": f"KSR's {name}: types only."})
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
