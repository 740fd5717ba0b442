"""Answers to secret questions, in the file their official server takes."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.leftovers import HeldFolder
from pytest_vlmeval.sandbox.calls import Submission, submit_in_sandbox

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.options import Settings


def write_submission(
    settings: Settings, library: Library, dataset: str, answers: Mapping[str, str]
) -> Submission:
    """Write usable answers by index to `submissions/MODEL/` of the work dir.

    The file is made anew from the stored answers each time. Raises VlmEvalError.
    """
    model = urllib.parse.quote(settings.model or "", safe=" ")
    folder = settings.work_dir / "submissions" / model
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with HeldFolder(".writing-", folder) as scratch:
            written = submit_in_sandbox(
                library.sandbox_for(dataset),
                library.prepared(dataset),
                list(answers.items()),
                scratch,
            )
            file = written.file.replace(folder / written.file.name)
    except OSError as error:
        raise VlmEvalError(
            f"The submission of {dataset} cannot be written to {folder}: "
            f"{error.strerror}. Make that a folder that can be written, then run the "
            "same command again: it uses the answers in the store."
        ) from error
    return Submission(file, written.format)
