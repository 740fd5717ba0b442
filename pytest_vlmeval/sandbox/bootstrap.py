"""Entry of the sandbox process: enters ms-vlmeval without running its package files.

Run as `SANDBOX_PYTHON -I -X utf8 bootstrap.py PARENT_PID`. The packages
`pytest_vlmeval` and `vlmeval` are given to the interpreter as bare modules that have
a path and nothing else, so that their modules can be imported while neither
project's `__init__` runs: the one would need packages that the sandbox does not
have, the other takes 10 s, loads torch and turns TLS verification off.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


def _enter_package(name: str, folder: Path) -> None:
    module = ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module


def enter_packages() -> None:
    """Make the modules of both packages importable."""
    project = Path(__file__).resolve().parent.parent
    _enter_package("pytest_vlmeval", project)
    _enter_package("pytest_vlmeval.sandbox", project / "sandbox")
    upstream = find_spec("vlmeval")
    for folder in (upstream.submodule_search_locations or ()) if upstream else ():
        _enter_package("vlmeval", Path(folder))
        _enter_package("vlmeval.dataset", Path(folder) / "dataset")


if __name__ == "__main__":
    enter_packages()

    from pytest_vlmeval.sandbox.inside import server

    server.main(parent_pid=int(sys.argv[1]))
