"""How many requests an endpoint may have in flight, followed step by step."""

from __future__ import annotations

from itertools import pairwise

from pytest_vlmeval.models.pool import AUTO_CEILING, Concurrency, Limiter


class Endpoint:
    """An endpoint in a time of its own; beyond `capacity` requests wait in it."""

    def __init__(self, ceiling: int = AUTO_CEILING, *, adaptive: bool = True) -> None:
        self.now = 0.0
        self.capacity = 10_000
        self.latency_s = 0.1
        self.limiter = Limiter(Concurrency(ceiling, adaptive), lambda: self.now)

    def answer_round(self, wanted: int | None = None) -> int:
        """Fill the slots, at most `wanted`, and answer all; return how many."""
        count = 0
        while self.limiter.has_room() and count != wanted:
            self.limiter.begin()
            count += 1
        taken_s = self.latency_s * max(1.0, count / self.capacity)
        self.now += taken_s
        for _ in range(count):
            self.limiter.end()
            self.limiter.note_answer(taken_s)
        return count


def test_a_fixed_limit_never_changes() -> None:
    endpoint = Endpoint(16, adaptive=False)
    for _ in range(5):
        assert endpoint.answer_round() == 16
    endpoint.limiter.note_refusal(None)
    assert endpoint.limiter.limit == 16


def test_slow_start_doubles_up_to_the_ceiling() -> None:
    endpoint = Endpoint()
    limits = [endpoint.answer_round() for _ in range(8)]
    assert limits == [8, 16, 32, 64, 128, 256, 256, 256]


def test_grows_only_when_the_slots_were_used() -> None:
    endpoint = Endpoint()
    for _ in range(8):
        endpoint.answer_round(wanted=4)
    assert endpoint.limiter.limit == 8


def test_errors_of_the_server_only_pause_the_growth() -> None:
    endpoint = Endpoint()
    endpoint.limiter.note_error()
    endpoint.answer_round()
    assert endpoint.limiter.limit == 8
    endpoint.answer_round()
    assert endpoint.limiter.limit == 16


def test_429_cuts_once_then_small_steps() -> None:
    endpoint = Endpoint()
    for _ in range(3):
        endpoint.answer_round()
    assert endpoint.limiter.limit == 64
    endpoint.limiter.note_refusal(None)
    endpoint.limiter.note_refusal(None)
    assert endpoint.limiter.limit == 51
    endpoint.answer_round()
    assert endpoint.limiter.limit == 51
    endpoint.now += 15
    endpoint.answer_round()
    endpoint.answer_round()
    assert 52 <= endpoint.limiter.limit <= 56
    endpoint.limiter.note_refusal(None)
    assert endpoint.limiter.limit < 51


def test_retry_after_closes_the_whole_endpoint() -> None:
    endpoint = Endpoint(16, adaptive=False)
    endpoint.limiter.note_refusal(3.0)
    assert not endpoint.limiter.has_room()
    endpoint.now = 2.9
    assert not endpoint.limiter.has_room()
    endpoint.now = 3.1
    assert endpoint.limiter.has_room()


def test_latency_that_grows_without_throughput_cuts() -> None:
    endpoint = Endpoint()
    endpoint.capacity = 16
    limits = []
    for _ in range(200):
        endpoint.answer_round()
        limits.append(endpoint.limiter.limit)
    assert any(after < before for before, after in pairwise(limits))
    # 16 at once are as fast as more: it stays about there.
    later = limits[20:]
    assert max(later) < 32
    assert min(later) >= 16


def test_another_ceiling_is_kept_at_once() -> None:
    endpoint = Endpoint()
    for _ in range(3):
        endpoint.answer_round()
    endpoint.limiter.set_ceiling(20)
    assert endpoint.limiter.limit == 20
    assert endpoint.answer_round() == 20
    assert endpoint.limiter.limit == 20
    endpoint.limiter.set_ceiling(0)
    assert endpoint.answer_round() == 0
    endpoint.limiter.set_ceiling(64)
    assert endpoint.answer_round() == 8
    assert endpoint.limiter.limit == 16
