"""A digest of what functions of the user's own do, so that changed ones score anew."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import re
import sys
import sysconfig
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType

# Not the user's: the packages that are installed, and Python.
_INSTALLED = {
    Path(sysconfig.get_path(name)).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
}
DIGITS = 12
# Data that is nested deeper, or holds itself, does not count.
DEEPEST = 10


def find_code(function: object) -> CodeType | None:
    """Return the code of a function, method or callable object; None without any."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, MethodType):
        function = function.__func__
    if not isinstance(function, FunctionType) and not isinstance(function, type):
        function = vars(type(function)).get("__call__")
    return getattr(function, "__code__", None)


def digest_code(functions: Iterable[object], revision: str) -> str:
    """Return a digest of functions and of all of the user's own that they reach.

    That is their source without comments and layout, or their bytecode where there is
    none; what they call of the user's own modules and classes by name; and the texts,
    numbers and patterns that these hold. What is read from files, and packages that
    are installed, are not part of it: for such changes there is `revision`.
    """
    reached = _Reached()
    digest = hashlib.sha256(repr(revision).encode())
    for function in functions:
        for part in reached.read("", function):
            digest.update(part.encode(errors="backslashreplace"))
    return digest.hexdigest()[:DIGITS]


class _Reached:
    """Walks over functions, each once, and writes down what they are made of."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        # The packages of the functions that it begins with, wherever they are.
        self._home: set[str] = set()

    def read(
        self, name: str, value: object, owner: type | None = None
    ) -> Iterator[str]:
        """Yield texts that stand for a value which code knows as `name`."""
        if isinstance(value, functools.partial):
            yield str(_plain((value.args, sorted(value.keywords.items()))))
            yield from self.read(name, value.func)
        elif isinstance(value, MethodType):
            yield from self.read(name, value.__func__, type(value.__self__))
        elif isinstance(value, staticmethod | classmethod):
            yield from self.read(name, value.__func__, owner)
        elif isinstance(value, property):
            yield from self.read(name, value.fget, owner)
        elif isinstance(value, FunctionType):
            yield from self._function(value, owner)
        elif isinstance(value, type):
            if self._is_own(value.__module__) and id(value) not in self._seen:
                self._seen.add(id(value))
                for each, part in vars(value).items():
                    if not each.startswith("__") or callable(part):
                        yield from self.read(each, part, value)
        elif isinstance(value, ModuleType):
            yield f"{name} {value.__name__}"
        elif (text := _plain(value)) is not None:
            yield f"{name} {text}"
        elif not self._home and find_code(value) is not None:
            # An object that is called, given as the scoring.
            yield from self.read("__call__", type(value).__call__, type(value))
            yield from self._state(value)
        elif self._is_own(type(value).__module__):
            yield from self.read(name, type(value))
            yield from self._state(value)

    def _state(self, value: object) -> Iterator[str]:
        """Yield the plain data that an object of the user's own holds."""
        for name, each in getattr(value, "__dict__", {}).items():
            if (text := _plain(each)) is not None:
                yield f"{name} {text}"

    def _function(self, function: FunctionType, owner: type | None) -> Iterator[str]:
        if not self._home:
            self._home.add((function.__module__ or "").partition(".")[0])
        if id(function) in self._seen or not self._is_own(function.__module__):
            return
        self._seen.add(id(function))
        codes = [*_codes(function.__code__)]
        yield from _source(function) or map(_bytecode, codes)
        # Sorted, as versions of Python have them in different orders.
        names = sorted({name for code in codes for name in code.co_names})
        yield from self.read("", function.__defaults__)
        yield from self.read("", function.__kwdefaults__)
        for cell in function.__closure__ or ():
            yield from self.read("closure", cell.cell_contents)
        for each in names:
            if each in function.__globals__:
                value = function.__globals__[each]
                yield from self.read(each, value)
                if isinstance(value, ModuleType) and self._is_own(value.__name__):
                    for part in names:
                        yield from self.read(part, vars(value).get(part))
            if owner is not None:
                yield from self.read(each, _attribute(owner, each), owner)

    def _is_own(self, module: str | None) -> bool:
        module = module or ""
        top = module.partition(".")[0]
        if top in self._home:
            return True
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None or top == __name__.partition(".")[0]:
            return False
        return not _INSTALLED & {*Path(file).resolve().parents}


def _attribute(owner: type, name: str) -> object:
    """Return what a class or its bases have by a name, as it stands there."""
    found = (vars(base)[name] for base in owner.__mro__ if name in vars(base))
    return next(found, None)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _source(function: FunctionType) -> list[str]:
    """Return a function's source in one layout, the same for versions of Python."""
    # What was made of a text: Python 3.13 takes the program of `python -c` for it.
    if function.__code__.co_filename == "<string>":
        return []
    with suppress(OSError, TypeError, SyntaxError):
        text = textwrap.dedent(inspect.getsource(function))
        return [ast.unparse(ast.parse(text))]
    return []


def _bytecode(code: CodeType) -> str:
    constants = [
        _plain(each) for each in code.co_consts if not isinstance(each, CodeType)
    ]
    return repr((code.co_code, constants, code.co_names, code.co_varnames))


def _plain(value: object, depth: int = 0) -> str | None:
    """Return a text for plain data, the same in every process; None for others."""
    if depth > DEEPEST:
        return None
    if value is None or isinstance(value, str | bytes | int | float | complex):
        return repr(value)
    if isinstance(value, re.Pattern):
        return repr((value.pattern, value.flags))
    if isinstance(value, tuple | list):
        return f"[{', '.join(str(_plain(each, depth + 1)) for each in value)}]"
    if isinstance(value, set | frozenset):
        texts = sorted(str(_plain(each, depth + 1)) for each in value)
        return f"{{{', '.join(texts)}}}"
    if isinstance(value, dict):
        pairs = (
            f"{_plain(key, depth + 1)}: {_plain(each, depth + 1)}"
            for key, each in value.items()
        )
        return f"{{{', '.join(pairs)}}}"
    return None
