"""Many gates at once: p-values that count the others of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# Names the gate that a p-value is of: its dataset, its kind, its metric or folder.
Key = tuple[str, str, str]


class Adjusted(NamedTuple):
    """A p-value among those of all gates; an alarm up to the `accepted` share."""

    p_value: float
    accepted: float

    @property
    def is_alarm(self) -> bool:
        """Whether the gate fails."""
        return self.p_value <= self.accepted

    @property
    def text(self) -> str:
        """Say it as the end of a line about the gate's own p-value."""
        return f"{self.p_value:.3g} among all gates, alarm up to {self.accepted:g}"


def adjust(p_values: Mapping[Key, float], accepted: float) -> Mapping[Key, Adjusted]:
    """Adjust p-values for the false discovery rate.

    Y. Benjamini and Y. Hochberg, Controlling the False Discovery Rate, 1995, doi
    10.1111/j.2517-6161.1995.tb02031.x: reject what is then at most the rate.
    """
    if not p_values:
        return {}
    from scipy.stats import false_discovery_control

    adjusted = false_discovery_control(list(p_values.values()), method="bh")
    return {
        key: Adjusted(float(each), accepted)
        for key, each in zip(p_values, adjusted, strict=True)
    }
