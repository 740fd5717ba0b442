"""Reads names, lists and tables out of a package's sources without importing it."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path
from typing import Any

from pytest_vlmeval.datasets.source_values import Function, Import, Reader, SourceClass


class Package:
    """The modules of one package folder, each read when first asked for."""

    def __init__(self, folder: Path) -> None:
        """Take the folder that holds the package's `__init__.py`."""
        self._folder = folder
        self._modules: dict[str, dict[str, Any]] = {}

    def value(self, module: str, name: str) -> Any:
        """Give a global of a module ("" is the package itself, dots below it)."""
        return self.resolve(self.names(module).get(name))

    def resolve(self, value: Any) -> Any:
        """Follow an import to its value; None where the package has none."""
        while isinstance(value, Import):
            value = self.names(value.module).get(value.name)
        return value

    def call_supported(self, cls: SourceClass) -> list[str]:
        """Give what `cls.supported_datasets()` returns, as far as the sources say."""
        function = cls.get("supported_datasets")
        found = (
            self.call(function, cls.module, [cls])
            if isinstance(function, Function)
            else cls.get("DATASET_URL")
        )
        if not isinstance(found, list | tuple | set | dict):
            return []
        return [name for name in found if isinstance(name, str)]

    def call(self, function: Function, module: str, values: list[Any]) -> Any:
        """Run a function of the package with positional arguments."""
        reader = Reader(self, module, {}, function.names)
        return reader.run_function(function.node, values)

    def names(self, module: str) -> dict[str, Any]:
        """Give all globals of a module, imports unresolved."""
        if module not in self._modules:
            # Set first: modules import each other in circles.
            names = self._modules[module] = {}
            path = self._folder.joinpath(*module.split("."))
            file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            if file.is_file():
                tree = _parse(file)
                Reader(self, module, names, {}).run(tree.body)
        return self._modules[module]


def _parse(file: Path) -> ast.Module:
    # What upstream's sources are warned of is not for our users to mend.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(file.read_text(encoding="utf-8"), file)
