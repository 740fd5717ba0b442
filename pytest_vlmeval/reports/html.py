"""One HTML file of a run, with all it needs: it opens from a folder, without a network.

jinja2 writes what is the same for every reader, charts included; one hand-written
script shows the samples. So there is nothing to build, nothing to keep up to date but
jinja2, and the page is read as it is written. The script and the styles are allowed by
their hashes, and nothing else is: neither what a model wrote nor any address.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.defects import describe_defects
from pytest_vlmeval.leftovers import write_held
from pytest_vlmeval.reports import charts
from pytest_vlmeval.reports.accounts import describe_account, describe_check
from pytest_vlmeval.reports.page_data import pack_report
from pytest_vlmeval.reports.pictures import embed_pictures
from pytest_vlmeval.reports.summary import (
    describe_unknown_endings,
    describe_unread,
    score_before,
    summarize,
    total,
)

if TYPE_CHECKING:
    from pytest_vlmeval.reports.record import RunReport

# In the order in which they run.
SCRIPTS = ("data.js", "samples.js", "sheet.js", "main.js")
# What no HTML may hold: controls, halves of pairs of UTF-16, non-characters.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]"
)
_PAGE = files("pytest_vlmeval.reports") / "page"


def write_html(report: RunReport, path: Path, *, max_mb: float) -> None:
    """Write the report, whole or not at all; raises `VlmEvalError`.

    `max_mb` bounds the pictures, in 10^6 bytes.
    """
    write_whole(path, render_html(report, max_mb=max_mb).encode("utf-8"))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file at once, so that an interruption leaves the one before."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_held(path, content, mode=0o644)
    except OSError as error:
        raise VlmEvalError(
            f"The report {path} cannot be written: {error.strerror}. Name another "
            "file; --vlm-mode=report writes it from the store at any time."
        ) from None


def render_html(report: RunReport, *, max_mb: float) -> str:
    """Return the page."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"time": _time, "number": _number, "duration": _duration}
    environment.globals["charts"] = charts
    environment.globals["describe_defects"] = describe_defects
    environment.globals["describe_unread"] = describe_unread
    environment.globals["unknown_endings"] = describe_unknown_endings
    environment.globals["describe_check"] = describe_check
    environment.globals["describe_account"] = describe_account
    pictures = embed_pictures(report, max_mb)
    style, script = _read("report.css"), "\n".join(map(_read, SCRIPTS))
    datasets = [(each, summarize(each)) for each in report.datasets]
    gates = [gate for each in report.datasets for gate in each.gates]
    return environment.get_template("report.html.j2").render(
        report=report,
        datasets=datasets,
        gates=[gate for gate in gates if not gate.is_note],
        notes=[gate.message for gate in gates if gate.is_note],
        judges=sorted({each.score.judge for each in report.datasets if each.score}),
        score_before=score_before,
        shows_before=any(score_before(each) is not None for each in report.datasets),
        total=total([summary for _, summary in datasets]),
        data=pack_report(report, pictures),
        pictures=pictures,
        max_mb=max_mb,
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
    )


def _read(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a content security policy allows an inline element by."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _clean(value: object) -> object:
    """Replace what no HTML may hold; markup of our own passes."""
    if type(value) is str:
        return _FORBIDDEN.sub("�", value)
    return value


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %Y, %H:%M UTC")


def _number(value: float) -> str:
    """Write a count so that one can read it: 1,234 or 12.3 M."""
    if value >= 10_000_000:
        return f"{value / 1e6:.1f} M"
    return f"{value:,.0f}"


def _duration(milliseconds: float) -> str:
    if milliseconds >= 10_000:
        return f"{milliseconds / 1000:.0f} s"
    return (
        f"{milliseconds / 1000:.1f} s"
        if milliseconds >= 1000
        else f"{milliseconds:.0f} ms"
    )
