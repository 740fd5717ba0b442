"""Addresses near one at which no API answers."""

from __future__ import annotations

import pytest

from pytest_vlmeval.models.addresses import is_public, nearby_bases, swap_scheme


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("http://h:8000/v1", ["http://h:8000/v1/v1"]),
        ("http://h:8000/api", ["http://h:8000/v1", "http://h:8000/api/v1"]),
        (
            "http://h/gateway/v1/models",
            ["http://h/gateway/v1", "http://h/v1", "http://h/gateway/v1/models/v1"],
        ),
        ("https://[::1]:80/v2", ["https://[::1]:80/v1", "https://[::1]:80/v2/v1"]),
    ],
)
def test_nearby_bases(given: str, near: list[str]) -> None:
    assert nearby_bases(given) == near


def test_the_other_scheme_of_an_address() -> None:
    assert swap_scheme("http://h:80/v1") == "https://h:80/v1"
    assert swap_scheme("https://h/http:/v1") == "http://h/http:/v1"


def test_which_addresses_are_on_the_internet() -> None:
    for host in ("api.openai.com", "1.1.1.1", "[2606:4700::1111]:8443"):
        assert is_public(f"https://{host}/v1"), host
    for host in (
        *("127.0.0.1:8000", "localhost:8000", "gpu7", "10.0.0.3", "[::1]", "[fd00::1]"),
        *("gpu7.local", "vllm.svc.internal", "api.localhost"),
    ):
        assert not is_public(f"http://{host}/v1"), host
