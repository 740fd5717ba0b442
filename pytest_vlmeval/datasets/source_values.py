"""What literals, names and small functions in a source file amount to.

A small interpreter of what tables in sources are made of: literals, names, f-strings,
comprehensions, loops that fill a dict, class attributes and their inheritance. What
it does not know is left out, silently: a table that is computed from files or the
network has no value in the sources.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.source_reading import Package

# Calls without effect beyond their object, on the values that tables are made of.
METHODS = {
    "append", "copy", "extend", "format", "get", "items", "join", "keys", "lower",
    "replace", "split", "startswith", "update", "upper", "values",
}  # fmt: skip
FUNCTIONS: dict[str, Any] = {
    "dict": dict, "enumerate": enumerate, "list": list, "range": range, "set": set,
    "sorted": sorted, "str": str, "tuple": tuple, "zip": zip, "OrderedDict": dict,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "__add__", ast.Mod: "__mod__", ast.Mult: "__mul__",
}  # fmt: skip

Names = MutableMapping[str, Any]


class UnknownValueError(Exception):
    """The sources do not say, or not in a way that is understood here."""


class SourceClass(NamedTuple):
    """A class as written: its own attributes, its bases, its methods."""

    name: str
    module: str
    bases: tuple[Any, ...]
    attributes: dict[str, Any]

    def get(self, name: str) -> Any:
        """Give an attribute of the class or its first base that has it, or None."""
        if name in self.attributes:
            return self.attributes[name]
        for base in self.bases:
            if isinstance(base, SourceClass):
                value = base.get(name)
                if value is not None:
                    return value
        return None


class Preset(NamedTuple):
    """A `functools.partial` of a class."""

    target: SourceClass
    settings: dict[str, Any]


class Import(NamedTuple):
    """A name of another module of the package."""

    module: str
    name: str


class Function(NamedTuple):
    """A function as written, and the names its body may use."""

    node: ast.FunctionDef
    names: Names

    def default(self, parameter: str) -> object:
        """Give the literal that a parameter has by default, or None."""
        arguments = self.node.args
        names = [argument.arg for argument in arguments.args]
        for name, value in zip(names[::-1], arguments.defaults[::-1], strict=False):
            if name == parameter and isinstance(value, ast.Constant):
                return value.value
        return None


class Reader:
    """Runs statements of one module, class body or function over its names."""

    def __init__(
        self, package: Package, module: str, names: Names, outer: Names
    ) -> None:
        self._package = package
        self._module = module
        self._names = names
        self._outer = outer

    def run(self, body: list[ast.stmt]) -> None:
        for statement in body:
            try:
                self._execute(statement)
            except (UnknownValueError, LookupError, TypeError, ValueError):
                continue
            except AttributeError:
                continue

    def run_function(self, node: ast.FunctionDef, values: list[Any]) -> Any:
        parameters = [argument.arg for argument in node.args.args]
        for name, default in zip(
            parameters[::-1], node.args.defaults[::-1], strict=False
        ):
            with suppress(UnknownValueError):
                self._names[name] = self.value(default)
        self._names.update(zip(parameters, values, strict=False))
        for statement in node.body:
            try:
                if isinstance(statement, ast.Return) and statement.value is not None:
                    return self.value(statement.value)
                self._execute(statement)
            except (UnknownValueError, LookupError, TypeError, ValueError):
                return None
        return None

    def _execute(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, self.value(value))
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, self.value(value))
            case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=value):
                self._names[name] = self._look_up(name) + self.value(value)
            case ast.Expr(value=ast.Call() as call):
                self.value(call)
            case ast.For(target=target, iter=iterable, body=body):
                for item in list(self.value(iterable)):
                    self._assign(target, item)
                    self.run(body)
            case ast.ClassDef():
                self._names[statement.name] = self._class(statement)
            case ast.FunctionDef(name=name):
                # A method sees its module's names, not those of its class.
                self._names[name] = Function(statement, self._outer or self._names)
            case ast.ImportFrom():
                self._import(statement)
            case ast.Try(body=body):
                self.run(body)

    def _class(self, node: ast.ClassDef) -> SourceClass:
        attributes: dict[str, Any] = {}
        bases = []
        for base in node.bases:
            try:
                bases.append(self.value(base))
            except (UnknownValueError, LookupError):
                continue
        Reader(self._package, self._module, attributes, self._names).run(node.body)
        return SourceClass(node.name, self._module, tuple(bases), attributes)

    def _import(self, node: ast.ImportFrom) -> None:
        own = "vlmeval.dataset"
        if node.level:
            parts = self._module.split(".") if self._module else []
            # A package's own file has no last part to leave out.
            parts = parts[: len(parts) - node.level] if self._module else []
            module = ".".join([*parts, *filter(None, [node.module])])
        elif f"{node.module}.".startswith(f"{own}."):
            module = str(node.module).removeprefix(own).removeprefix(".")
        else:
            return
        for alias in node.names:
            if alias.name == "*":
                self._names.update(self._package.names(module))
            else:
                self._names[alias.asname or alias.name] = Import(module, alias.name)

    def _assign(self, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name(id=name):
                self._names[name] = value
            case ast.Tuple(elts=targets):
                for inner, item in zip(targets, value, strict=True):
                    self._assign(inner, item)
            case ast.Subscript(value=container, slice=key):
                self.value(container)[self.value(key)] = value

    def _look_up(self, name: str) -> Any:
        for names in (self._names, self._outer):
            if name in names:
                value = self._package.resolve(names[name])
                if value is not None:
                    return value
        raise UnknownValueError(name)

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self._look_up(name)
            case ast.List(elts=items):
                return list(self._items(items))
            case ast.Tuple(elts=items):
                return tuple(self._items(items))
            case ast.Set(elts=items):
                return set(self._items(items))
            case ast.Dict():
                return self._dict(node)
            case ast.JoinedStr(values=parts):
                return "".join(str(self.value(part)) for part in parts)
            case ast.FormattedValue(value=value, format_spec=None):
                return self.value(value)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                method = getattr(self.value(left), OPERATORS[type(op)])
                return method(self.value(right))
            case ast.Subscript(value=container, slice=key):
                return self.value(container)[self.value(key)]
            case ast.Attribute(value=owner, attr=name):
                return self._attribute(owner, name)
            case ast.Compare(left=left, ops=[ast.In()], comparators=[right]):
                return self.value(left) in self.value(right)
            case ast.Call():
                return self._call(node)
            case ast.ListComp(elt=element, generators=[loop]):
                return [scope.value(element) for scope in self._loop(loop)]
            case ast.DictComp(key=key, value=value, generators=[loop]):
                return {
                    scope.value(key): scope.value(value) for scope in self._loop(loop)
                }
        raise UnknownValueError(type(node).__name__)

    def _items(self, nodes: list[ast.expr]) -> Iterator[Any]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                yield from self.value(node.value)
            else:
                try:
                    yield self.value(node)
                except UnknownValueError:
                    continue

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                table.update(self.value(value))
            else:
                table[self.value(key)] = self.value(value)
        return table

    def _attribute(self, owner: ast.expr, name: str) -> Any:
        value = self.value(owner)
        if isinstance(value, SourceClass):
            return value.get(name)
        raise UnknownValueError(name)

    def _loop(self, loop: ast.comprehension) -> Iterator[Reader]:
        for item in list(self.value(loop.iter)):
            scope = Reader(
                self._package, self._module, {}, {**self._outer, **self._names}
            )
            scope._assign(loop.target, item)
            if all(scope.value(condition) for condition in loop.ifs):
                yield scope

    def _call(self, node: ast.Call) -> Any:
        arguments = list(self._items(node.args))
        settings: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value)
            settings.update({keyword.arg: value} if keyword.arg else value)
        match node.func:
            case ast.Name(id="partial") if isinstance(arguments[0], SourceClass):
                return Preset(arguments[0], settings)
            case ast.Name(id=name) if name in FUNCTIONS:
                return FUNCTIONS[name](*arguments, **settings)
            case ast.Name(id=name) if isinstance(self._look_up(name), Function):
                return self._package.call(self._look_up(name), self._module, arguments)
            case ast.Attribute(value=owner, attr="supported_datasets"):
                return self._package.call_supported(self.value(owner))
            case ast.Attribute(value=owner, attr=name) if name in METHODS:
                value = self.value(owner)
                if isinstance(value, str | list | dict | set):
                    return getattr(value, name)(*arguments, **settings)
        raise UnknownValueError(ast.dump(node.func))
