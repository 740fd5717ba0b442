"""What a task file says, in the terms of the options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskValue:
    """The text of an option, the field that gives it, and how it stands there.

    `assumed` is what ms-vlmeval takes where the file says nothing.
    """

    text: str
    field: str
    shown: str
    assumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task file, for one of its models; `path` names it, or a dict in its place.

    `values` are by the names of options, `keys` (of the model, of the judge) by the
    names of theirs; they are never printed. `classes` are those that the file names
    for datasets. `remarks` say what has no effect here, and why. `chosen` is true
    where the command line named the model as the file does, and not as it is served.
    """

    path: Path | str
    values: Mapping[str, TaskValue]
    keys: Mapping[str, str] = field(repr=False)
    classes: Mapping[str, str]
    remarks: tuple[str, ...]
    chosen: bool
