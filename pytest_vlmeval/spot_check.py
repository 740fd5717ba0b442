"""Whether the model at hand gives the answers that are stored: a sequential test.

A sample counts as changed when the model gives another answer than the stored one twice
in a row, both times the same. A server whose answers flip in up to a tenth of the
samples is told from a model that answers four tenths of them in another way by Wald's
sequential probability ratio test, looked at after each block of samples. A. Wald,
Sequential Tests of Statistical Hypotheses, 1945, doi 10.1214/aoms/1177731118.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from pytest_vlmeval.records import Answer

T = TypeVar("T")
Decision = Literal["same", "changed", "few", "more"]

# A likelihood ratio of 1,000 is reached by chance with a probability of at most 0.001,
# whenever one looks (Ville's inequality). The last look, where no more can be asked,
# adds LAST_LOOK; `tests/test_spot_check.py` computes both together. Where a command
# makes several tests each gets an equal part of both: they hold for all (Bonferroni).
FALSE_STOP = 1 / 1_000
MISSED = 1 / 100
LAST_LOOK = 1 / 2_000
# As many blocks are asked at most.
MOST_BLOCKS = 6

# A letter alone, or one that a text of its option follows: "(A) red", "A. red".
_LETTER = re.compile(r"\W*([A-Za-z])(?:\W*$|[.):])")


class Rates(NamedTuple):
    """The parts of the samples that change: by `noise` at most, by `another` model."""

    noise: float
    another: float


GREEDY = Rates(noise=0.10, another=0.40)
# Of three answers of one model at whatever temperature the last two are the same and
# differ from the first with a probability of sum p^2 (1 - p) <= 1/4.
SAMPLED = Rates(noise=0.25, another=0.55)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many samples were answered as before, changed, and differently each time."""

    same: int = 0
    changed: int = 0
    unsteady: int = 0

    @property
    def asked(self) -> int:
        """All of them."""
        return self.same + self.changed + self.unsteady


def decide(
    tally: Tally, rates: Rates, *, block: int, is_all: bool, tests: int = 1
) -> Decision:
    """Return what the answers so far show.

    `is_all`: there are no more stored answers. "few" says that they are too few to
    tell. `tests` is how many such tests the command makes.
    """
    unchanged = tally.asked - tally.changed
    ratio = tally.changed * math.log(rates.another / rates.noise)
    ratio += unchanged * math.log((1 - rates.another) / (1 - rates.noise))
    if ratio >= -math.log(FALSE_STOP / tests):
        return "changed"
    if ratio <= math.log(MISSED) or not tally.changed:
        return "same"
    is_last = tally.asked >= MOST_BLOCKS * block
    if not (is_last or is_all):
        return "more"
    if tail(tally.asked, tally.changed, rates.noise) < LAST_LOOK / tests:
        return "changed"
    return "few" if is_all else "same"


def tail(count: int, least: int, rate: float) -> float:
    """Return the probability of at least so many of `count`, each of that `rate`."""
    return math.fsum(
        math.comb(count, k) * rate**k * (1 - rate) ** (count - k)
        for k in range(least, count + 1)
    )


def is_same(one: Answer, other: Answer, *, sampled: bool) -> bool:
    """Whether two answers say the same, of all turns.

    But for white space they are equal; where they are `sampled`, a text that begins
    with the letter of an option counts as that letter. One that was cut off and one
    that was not are different.
    """
    if one.state != other.state or len(one.replies) != len(other.replies):
        return False
    pairs = zip(one.replies, other.replies, strict=True)
    return all(_plain(a, sampled) == _plain(b, sampled) for a, b in pairs)


def _plain(text: str, sampled: bool) -> str:
    words = " ".join(text.split())
    if not sampled:
        return words
    letter = _LETTER.match(words)
    return letter[1].upper() if letter else words.casefold()


def take_turns(parts: Iterable[Iterator[T]]) -> Iterator[T]:
    """Give one of each part in turn, until all are at their end."""
    left = list(parts)
    while left:
        still = []
        for part in left:
            for each in part:
                yield each
                still.append(part)
                break
        left = still


def shuffled(values: Mapping[str, T] | Sequence[str], seed: int) -> list[str]:
    """Return names in an order that only they and the seed determine."""
    return sorted(
        values, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()
    )
