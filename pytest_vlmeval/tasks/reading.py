"""Takes the fields of a mapping by their table, each to an option or a remark."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.option_values import ApiKey
from pytest_vlmeval.request_settings import find_secret
from pytest_vlmeval.tasks.fates import Becomes, Fate, Idle, Refused
from pytest_vlmeval.tasks.record import TaskValue
from pytest_vlmeval.tasks.tree import SECRET, kind_of

SHOWN_TEXT = 80


def fates_of(fields: type[BaseModel]) -> dict[str, Fate]:
    """Return what becomes of each field, in the order of the table."""
    return {
        name: next(each for each in info.metadata if isinstance(each, Fate))
        for name, info in fields.model_fields.items()
    }


def shown(value: object) -> str:
    """Say of a value what a message may: a number as it is, of others the kind.

    A key may stand in any place, if in a wrong one.
    """
    if isinstance(value, bool | int | float):
        return f" = {json.dumps(value)}"[:SHOWN_TEXT]
    return f" ({kind_of(value)})"


class Reading:
    """Gathers the options, keys and remarks of a file whose name is `path`.

    What names a dict in its place is a text.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.values: dict[str, TaskValue] = {}
        self.keys: dict[str, str] = {}
        self.remarks: list[str] = []

    def error(self, field: str, text: str) -> VlmEvalError:
        """Make the error of a field."""
        return VlmEvalError(f"{self.path}: {field}{text}")

    def take(
        self, fields: type[BaseModel], given: Mapping[str, Any], place: str
    ) -> dict[str, Any]:
        """Read a mapping that lies at `place`; return what is to be read further.

        Those are its fields that stand for options only together, and those that no
        table has, where that is allowed.
        """
        self._check(fields, given, place)
        fates = fates_of(fields)
        left: dict[str, Any] = {}
        seen: set[str] = set()
        # In the order of the table: the first field of an option counts.
        for name in [*(name for name in fates if name in given), *given]:
            value, fate = given[name], fates.get(name)
            if value is None or name in seen:
                continue
            seen.add(name)
            field = f"{place}{name}"
            if isinstance(fate, Becomes):
                self.set(fate.option, fate.read(value), field, value)
            elif isinstance(fate, Refused):
                if value not in fate.unless:
                    raise self.error(
                        field,
                        f"{shown(value)} is not supported: {fate.reason}. "
                        "Leave it out.",
                    )
            elif isinstance(fate, Idle):
                self.idle(field, fate, value)
            else:
                left[name] = value
        return left

    def idle(self, field: str, fate: Idle, value: object) -> None:
        """Say that a field changes nothing, unless its value asks for nothing."""
        if not any(value is each or value == each for each in fate.unless):
            self.remark(field, fate.reason)

    def remark(self, field: str, reason: str) -> None:
        """Say of a field what a reader of the file would not expect."""
        self.remarks.append(f"{self.path}: {field} has no effect here: {reason}")

    def set(
        self,
        option: str,
        text: str | None,
        field: str,
        value: object,
        *,
        assumed: bool = False,
    ) -> None:
        """Give an option its text, once; None is nothing."""
        if text is None:
            return
        known = self.values.get(option)
        if known is not None and not known.assumed:
            if known.text != text and not assumed:
                self.remark(field, f"{known.field} says it already")
            return
        says = f"{field}{shown(value)} in {self.path}"
        self.values[option] = TaskValue(
            text=text,
            field=field,
            shown=says,
            assumed=assumed,
        )

    def key(self, option: str, value: Any, field: str) -> None:
        """Keep a key; EMPTY stands for none."""
        if value and value.strip() not in ("", "EMPTY"):
            if option in self.keys and self.keys[option] != value.strip():
                raise self.error(field, " and another field give different keys.")
            self.keys[option] = ApiKey(value.strip())

    def _check(
        self, fields: type[BaseModel], given: Mapping[str, Any], place: str
    ) -> None:
        try:
            fields.model_validate(dict(given))
        except ValidationError as error:
            found = error.errors(
                include_url=False, include_context=True, include_input=False
            )[0]
        else:
            if fields.model_config.get("extra") == "allow":
                self._check_further(fields, given, place)
            return
        name = str(found["loc"][0])
        if found["type"] == "extra_forbidden":
            raise self._unknown(fields, name, place)
        raise self.error(f"{place}{name}", f" {found['msg']}.")

    def _check_further(
        self, fields: type[BaseModel], given: Mapping[str, Any], place: str
    ) -> None:
        """Refuse what is a known name misspelled, or a key that would be shown."""
        for name in given:
            if name in fields.model_fields:
                continue
            near = _nearest(name, fields.model_fields, 0.85)
            if near or not name.isidentifier():
                raise self._unknown(fields, name, place)
            if SECRET.search(name):
                raise self.error(
                    f"{place}{name}",
                    " is not accepted, as it looks like a key: the model's stands in "
                    "key, or in VLM_API_KEY.",
                )
            if (found := find_secret(given[name])) is not None:
                raise self.error(
                    f"{place}{name}",
                    f" is not accepted, as its {found[:SHOWN_TEXT]} looks like a key, "
                    "and what goes into requests stands in reports: give headers by "
                    "--vlm-api-header-file.",
                )

    def _unknown(self, fields: type[BaseModel], name: str, place: str) -> VlmEvalError:
        near = _nearest(name, fields.model_fields, 0.6)
        question = f" Did you mean {near}?" if near else ""
        known = ", ".join(fields.model_fields)
        return self.error(
            f"{place}{name[:SHOWN_TEXT]!r}"
            if not name.isidentifier()
            else place + name,
            f" is no field that is known here.{question} Known are: {known}.",
        )


def _nearest(name: str, names: Iterable[str], cutoff: float) -> str:
    near = difflib.get_close_matches(name[:SHOWN_TEXT], list(names), n=1, cutoff=cutoff)
    return near[0] if near else ""
