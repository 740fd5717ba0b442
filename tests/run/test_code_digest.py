"""The digest of a user's own scoring: what changes it, and what does not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from pytest_vlmeval.run.code_digest import digest_code, find_code

CODE = """
import math
import re

import helping

NUMBER = re.compile("[0-9]+")
UNITS = {"m", "cm", "km", "mm", "dm"}


def clean(text):
    return text.strip()


class Limit:
    most = 2

    def __init__(self, least):
        self.least = least

    def holds(self, count):
        return self.least <= count < self.most


LIMIT = Limit(0)
LOOP = []
LOOP.append(LOOP)


class Base:
    allowed = 0.1

    def near(self, one, other):
        return abs(one - other) <= self.allowed


class Scored(Base):
    def score(self, sample, answer):
        found = NUMBER.search(clean(helping.lower(answer)))
        names = [each for each in UNITS if each in answer]
        return self.near(float(found[0]), math.pi) and LIMIT.holds(len(names + LOOP))

    def test_more(self):
        pass
"""
HELPING = "def lower(text):\n    return text.lower()\n\n\ndef other():\n    return 1\n"

Digest = Callable[..., str]


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digest:
    """Give what writes two modules, changed in one place, and digests their score."""
    monkeypatch.syspath_prepend(tmp_path)
    count = 0

    def load(name: str, code: str) -> ModuleType:
        nonlocal count
        count += 1
        # A new file each time: Python keeps the lines and the bytecode of files.
        path = tmp_path / f"{name}{count}.py"
        path.write_text(code)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    def find(before: str = "", after: str = "", revision: str = "") -> str:
        assert before in CODE or before in HELPING
        load("helping", HELPING.replace(before, after) if before else HELPING)
        scored = load("scoring", CODE.replace(before, after) if before else CODE)
        return digest_code([scored.Scored().score, None], revision)

    return find


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("count < self.most", "count <= self.most"),
        ("most = 2", "most = 3"),
        ("Limit(0)", "Limit(1)"),
        ("[0-9]+", "[0-9]"),
        ('"dm"', '"hm"'),
        (".strip()", ".rstrip()"),
        ("0.1", "0.2"),
        ("<=", "<"),
        ("text.lower()", "text.upper()"),
    ],
)
def test_what_a_score_reaches_changes_it(
    digest: Digest, before: str, after: str
) -> None:
    assert digest() != digest(before, after)
    assert digest() == digest()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("    def test_more(self):\n        pass", ""),
        ("return self.near", "# Near enough.\n        return  self.near"),
        ("return 1\n", "return 2\n"),
        ("class Base:", "MORE = 1\n\n\nclass Base:"),
    ],
)
def test_what_it_does_not_reach_changes_nothing(
    digest: Digest, before: str, after: str
) -> None:
    assert digest() == digest(before, after)


def test_a_revision_changes_it(digest: Digest) -> None:
    assert digest() != digest(revision="2")


def test_it_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Whatever seed Python hashes texts with, by which sets have their order."""
    (tmp_path / "scoring.py").write_text(CODE)
    (tmp_path / "helping.py").write_text(HELPING)
    program = (
        "import scoring\n"
        "from pytest_vlmeval.run.code_digest import digest_code\n"
        "print(digest_code([scoring.Scored().score], ''))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": ":".join([str(tmp_path), *sys.path]),
            },
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def made(limit: float) -> Callable[[object, object], bool]:
    """Return a score with a limit of its own."""

    def score(sample: object, answer: object) -> bool:
        return float(str(answer)) < limit

    return score


class Called:
    """A score that is an object."""

    def __call__(self, sample: object, answer: object) -> bool:
        """Compare."""
        return sample == answer


def compare(sample: object, answer: object, strict: bool) -> bool:
    """Compare, for a partial."""
    return strict and sample == answer


def test_closures_partials_objects_and_functions_without_source() -> None:
    assert digest_code([made(1)], "") != digest_code([made(2)], "")
    assert digest_code([made(1)], "") == digest_code([made(1)], "")
    strict = partial(compare, strict=True)
    lenient = partial(compare, strict=False)
    assert digest_code([strict], "") != digest_code([lenient], "")
    assert digest_code([Called()], "") == digest_code([Called()], "")
    spaces: list[dict[str, Callable[..., object]]] = [{}, {}]
    for number, space in enumerate(spaces):
        exec(f"def score(sample, answer):\n    return answer == {number}", space)
    one, other = (space["score"] for space in spaces)
    assert digest_code([one], "") != digest_code([other], "")


def test_where_functions_are() -> None:
    code = find_code(partial(compare, strict=True))
    assert code is compare.__code__
    assert find_code(Called()) is Called.__call__.__code__
    assert find_code(len) is None
    assert find_code(1) is None
