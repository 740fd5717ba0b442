"""What `card.toml` knows of datasets and ms-vlmeval's sources do not say."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pytest_vlmeval.records import JudgeNeed

CARD = Path(__file__).with_name("card.toml")


class CardEntry(NamedTuple):
    """The facts of one dataset, as `DatasetInfo` has them."""

    family: str
    judge: JudgeNeed
    has_references: bool
    hub: str
    homepage: str | None
    licence: str | None
    size_bytes: int | None


class Card(NamedTuple):
    """The datasets of the card, and those whose ms-vlmeval class is theirs alone."""

    by_name: Mapping[str, CardEntry]
    by_class: Mapping[str, CardEntry]

    def find(self, name: str, class_name: str) -> CardEntry | None:
        """Give what is known of a dataset, if anything is."""
        return self.by_name.get(name) or self.by_class.get(class_name)


def load_card() -> Card:
    """Read the card."""
    families = tomllib.loads(CARD.read_text(encoding="utf-8"))["family"]
    return Card(
        by_name=dict(entry for family in families for entry in _entries(family)),
        by_class={
            family["class_name"]: entry
            for family in families
            if "class_name" in family
            for _, entry in _entries(family)
        },
    )


def _entries(family: Mapping[str, Any]) -> Iterator[tuple[str, CardEntry]]:
    sizes = family.get("sizes_mb", {})
    for name in family["names"]:
        yield (
            name,
            CardEntry(
                family=family["name"],
                judge=family["judge"],
                has_references=name not in family.get("unreferenced", ()),
                hub=family.get("hub", ""),
                homepage=family.get("homepage"),
                licence=family.get("licence"),
                size_bytes=sizes[name] * 10**6 if name in sizes else None,
            ),
        )
