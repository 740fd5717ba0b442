"""Damaged files: what is done to their bytes, and what their reader says."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pytest_vlmeval.errors import VlmEvalError

# Each example opens databases or files, on a machine that may be busy.
few = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


Damage = Callable[[bytes], bytes]


def refusal(read: Callable[[], object]) -> str:
    """Give what a reader says of a file, "" if it could be read."""
    try:
        read()
    except VlmEvalError as error:
        return str(error)
    return ""


def cut(data: bytes, share: float) -> bytes:
    """Keep the start of a file, at least a byte."""
    return data[: max(1, int(len(data) * share))]


def overwrite(data: bytes, share: float, garbage: bytes) -> bytes:
    """Put garbage somewhere into a file."""
    at = int(len(data) * share)
    return data[:at] + garbage + data[at + len(garbage) :]


damages: st.SearchStrategy[Damage] = st.one_of(
    st.floats(0, 0.999).map(lambda share: lambda data: cut(data, share)),
    st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4_000)).map(
        lambda it: lambda data: overwrite(data, *it)
    ),
    st.binary(min_size=1, max_size=400).map(lambda garbage: lambda data: garbage),
)
