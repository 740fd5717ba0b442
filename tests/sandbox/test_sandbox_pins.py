"""What is installed into the sandbox's environments, with any add-ons."""

from __future__ import annotations

import pytest

from pytest_vlmeval.sandbox.environment import ADDONS, LIGHT, VIDEO, read_requirements

ENVIRONMENTS: set[frozenset[str]] = {LIGHT, VIDEO, *ADDONS.values()}


# Sorted, as every process of xdist has to collect the same names.
@pytest.mark.parametrize(
    "names", sorted("-".join(sorted(names)) for names in ENVIRONMENTS)
)
def test_every_pin_is_one_exact_version(names: str) -> None:
    addons = frozenset(filter(None, names.split("-")))
    pins = [
        line.partition(";")[0]
        for line in read_requirements(addons).splitlines()
        if not line.startswith("#")
    ]

    assert "ms-vlmeval==0.0.20" in pins
    assert all(pin.count("==") == 1 and " " not in pin for pin in pins)
    packages = [pin.partition("==")[0].lower() for pin in pins]
    assert len(set(packages)) == len(packages)
    assert not {"torch", "pip"} & set(packages)
    # What the sandbox hands over is Parquet, as are tables of hubs.
    assert "pyarrow" in packages
