"""Each prompt of a run, as the options send it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_vlmeval.prompt_settings import AS_IT_IS
from pytest_vlmeval.sandbox.rows import FILE

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.models.client import Request
    from pytest_vlmeval.options import Settings


def write_request(
    library: Library, settings: Settings, dataset: str, index: str
) -> Request:
    """Return the prompt of a sample; `VlmEvalError` for a row that has none."""
    request = library.request(dataset, index)
    if settings.backend == "local":
        request = replace(request, origin=_origin(library, dataset, index))
    prompting = settings.prompting
    if prompting == AS_IT_IS:
        return request
    return replace(request, system=prompting.system_prompt, prompting=prompting)


def _origin(library: Library, dataset: str, index: str) -> dict[str, str]:
    """Say where a prompt comes from, to classes that write prompts of their own."""
    prepared = library.prepared(dataset)
    return {
        "dataset": dataset,
        "index": index,
        "kind": prepared.info.kind,
        "modality": prepared.info.modality,
        "rows": str(prepared.folder / FILE),
    }
