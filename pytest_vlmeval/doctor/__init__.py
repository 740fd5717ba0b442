"""`pytest --vlm-doctor`: looks at everything that a run needs, and asks no sample."""

from __future__ import annotations

from pytest_vlmeval.doctor.examination import examine
from pytest_vlmeval.doctor.finding import from_error
from pytest_vlmeval.doctor.writing import write_findings

__all__ = ["examine", "from_error", "write_findings"]
