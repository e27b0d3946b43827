"""How a bug is planted: a text is replaced in the source of a shipped function or script.

A text that is not there any more is an error, so that no bug silently stops being planted when the
code changes.
"""

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

from sales import gate

Planted = Callable[[Any], Any]


def python(owner: Any, name: str, old: str, new: str) -> Planted:
    """Replaces `old` by `new` in a function of a module or in a method of a class."""

    @contextmanager
    def planted(world: Any) -> Iterator[None]:
        function = owner.__dict__[name]
        source = textwrap.dedent(inspect.getsource(function))
        if old not in source:
            raise LookupError(f"{name} has no {old!r} any more")
        module = sys.modules[owner.__name__ if isinstance(owner, ModuleType) else owner.__module__]
        made: dict[str, Any] = {}
        # Its globals are the module's own, so that it sees the twins that stand there.
        exec(compile(source.replace(old, new), f"<bug in {name}>", "exec"), module.__dict__, made)
        with ExitStack() as stack:
            for target in _holders(function) if isinstance(owner, ModuleType) else [owner]:
                stack.enter_context(patch.object(target, name, made[name]))
            yield

    return planted


def lua(name: str, *replacements: tuple[str, str]) -> Planted:
    """Replaces texts in a script."""

    @contextmanager
    def planted(world: Any) -> Iterator[None]:
        original = gate.script

        def script(wanted: str) -> str:
            text = original(wanted)
            if wanted == name:
                for old, new in replacements:
                    if old not in text:
                        raise LookupError(f"{name}.lua has no {old!r} any more")
                    text = text.replace(old, new)
            return text

        with ExitStack() as stack:
            for module in _holders(original):
                stack.enter_context(patch.object(module, "script", script))
            yield

    return planted


def attribute(owner: Any, name: str, make: Callable[[Any, Any], Any]) -> Planted:
    """Puts `make(world, original)` in the place of an attribute."""

    @contextmanager
    def planted(world: Any) -> Iterator[None]:
        original = getattr(owner, name)
        wrong = make(world, original)
        with ExitStack() as stack:
            module_level = isinstance(owner, ModuleType) and callable(original)
            for target in {owner, *_holders(original)} if module_level else [owner]:
                stack.enter_context(patch.object(target, name, wrong))
            yield

    return planted


def together(*plants: Planted) -> Planted:
    """One bug that needs several places."""

    @contextmanager
    def planted(world: Any) -> Iterator[None]:
        with ExitStack() as stack:
            for plant in plants:
                stack.enter_context(plant(world))
            yield

    return planted


def _holders(function: Any) -> list[ModuleType]:
    """Every module that has the function under its own name."""
    packages = ("orders", "sales", "management", "waitingroom")
    return [
        module
        for name, module in list(sys.modules.items())
        if name.split(".")[0] in packages and getattr(module, function.__name__, None) is function
    ]
