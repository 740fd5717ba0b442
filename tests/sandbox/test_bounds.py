"""Bounds on one comparison: time and memory, also where the code swallows errors."""

from __future__ import annotations

import sys
import time

import pytest

from pytest_vlmeval.sandbox.inside.fixes import (
    MAX_LENGTH,
    SLOW_SECONDS,
    Allowance,
    bounded,
    timeout_decorator,
)


def test_too_much_time_is_a_timeout() -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"^took longer than 0\.1 s$"), bounded(0.1):
        time.sleep(60)
    assert time.monotonic() - start < 30


def test_a_large_power_is_interrupted() -> None:
    start = time.process_time()
    nine = 9
    with pytest.raises(TimeoutError), bounded(0.3):
        _ = nine**nine**nine
    assert time.process_time() - start < 5


def test_code_that_swallows_the_alarm_gets_it_again() -> None:
    def stubborn() -> None:
        for _ in range(2):
            try:
                time.sleep(60)
            except BaseException:
                continue
        time.sleep(60)

    start = time.monotonic()
    with pytest.raises(TimeoutError), bounded(0.1):
        stubborn()
    assert time.monotonic() - start < 50


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_too_much_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError), bounded(10, size=2**26):
        bytearray(2**28)
    assert len(bytearray(2**28)) == 2**28


def test_it_stands_in_for_the_package() -> None:
    module = timeout_decorator()

    @module.timeout(0.1, use_signals=False)  # type: ignore[untyped-decorator]
    def wait(seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    assert wait(0) == "done"
    assert wait.__name__ == "wait"
    with pytest.raises(module.TimeoutError):
        wait(5)


def test_a_text_that_is_too_long_is_not_compared() -> None:
    @timeout_decorator().timeout(5)  # type: ignore[untyped-decorator]
    def compare(_text: str) -> bool:
        return True

    assert compare("x" * MAX_LENGTH)
    with pytest.raises(TimeoutError, match=r"^a text of more than 100,000 characters$"):
        compare("x" * (MAX_LENGTH + 1))


def test_slow_comparisons_share_an_allowance() -> None:
    allowance = Allowance()
    with allowance.bounded(SLOW_SECONDS):
        assert allowance.left_s == SLOW_SECONDS
    allowance.left_s = 0.3
    start = time.monotonic()
    with pytest.raises(TimeoutError), allowance.bounded(60):
        time.sleep(60)
    assert allowance.left_s < 0.3
    allowance.left_s = -100
    reason = r"^took longer than 0\.25 s$"
    with pytest.raises(TimeoutError, match=reason), allowance.bounded(60):
        time.sleep(60)
    assert time.monotonic() - start < 50
    allowance.renew()
    assert allowance.left_s == SLOW_SECONDS
