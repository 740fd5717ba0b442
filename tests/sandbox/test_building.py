"""ms-vlmeval's classes over tables that are here, and what is said of what lacks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo, parts_of
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.sandbox.process import Sandbox
from tests.support.sandbox_tables import (
    cell,
    draw,
    extended_environment,
    media_of,
    prepare,
    write_table,
)


@pytest.fixture(scope="module")
def apart(sandbox_environment: SandboxEnvironment) -> Iterator[Sandbox]:
    """Give a sandbox for classes that are not scored."""
    sandbox = Sandbox(sandbox_environment.python)
    yield sandbox
    sandbox.close()


def info_of(
    folder: Path, class_name: str, module: str, row: Mapping[str, str], name: str
) -> DatasetInfo:
    """Write a table of one row for a class, and describe it."""
    common = {"index": "1", "question": "Which?", "answer": "A"}
    table = write_table(folder / f"{name}.tsv", [{**common, **row}])
    return DatasetInfo(
        name=name, class_name=class_name, module=module, kind="other", path=table
    )


IMAGE = {"image": cell(draw(1))}


@pytest.mark.parametrize(
    ("class_name", "module", "name", "message"),
    [
        (
            "SPBench",
            "spbench",
            "SPBench-MV",
            "SPBench-MV: --vlm-offline is set, and the repository hongxingli/SPBench "
            "is not complete in the cache of Hugging Face, ",
        ),
        (
            "SparBench",
            "sparbench",
            "SparBench",
            "SparBench: ms-vlmeval's SparBench cannot be built (dataset/utils/"
            "spatial_bench/matching_func.py:226: word = num2words(i, lang=lang)). The "
            "package num2words is not in the sandbox's environment. "
            "--vlm-sandbox-python takes an environment that has it: with ms-vlmeval, "
            "what it declares, and num2words.",
        ),
        (
            "OSWorld_G",
            "GUI.osworld_g",
            "OSWorld_G",
            "OSWorld_G: ms-vlmeval's OSWorld_G cannot be built over its table: "
            "KeyError: 'bbox' (dataset/GUI/osworld_g.py:",
        ),
        (
            "MOAT",
            "moat",
            "MOAT",
            "MOAT: its file is missing and cannot be downloaded from https://"
            "huggingface.co/datasets/waltsun/MOAT/resolve/main/MOAT_images.zip: "
            "--vlm-offline is set. Put the file at ",
        ),
        (
            "QSpatial",
            "image_vqa",
            "QSpatial_scannet",
            "QSpatial_scannet asks about images of ScanNet, which its owners give "
            "only to those who apply, and ms-vlmeval takes from a folder written into "
            "its code (dataset/image_vqa.py:2523). It cannot be prepared; a table of "
            "your own, with the images and the questions of "
            "andrewliao11/Q-Spatial-Bench, can.",
        ),
    ],
)
def test_what_cannot_be_built_says_why(
    apart: Sandbox,
    tmp_path: Path,
    class_name: str,
    module: str,
    name: str,
    message: str,
) -> None:
    info = info_of(tmp_path, class_name, module, IMAGE, name)
    with pytest.raises(VlmEvalError) as caught:
        prepare(info, apart, tmp_path)
    assert str(caught.value).startswith(message)


def test_an_environment_that_has_what_lacked_is_taken(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    """As the message says, one of the user's: ms-vlmeval's, and num2words."""
    environment = extended_environment(
        sandbox_environment,
        tmp_path / "own",
        num2words="num2words = lambda i, lang: f'{i} {lang}'\n",
    )
    sandbox = Sandbox(environment.python)
    try:
        row = {**IMAGE, "task": "depth_prediction_oc", "img_type": "single_view"}
        info = info_of(tmp_path, "SparBench", "sparbench", row, "SparBench")
        (sample,) = read_samples(prepare(info, sandbox, tmp_path))
    finally:
        sandbox.close()
    assert sample.error is None


def test_a_class_that_ends_the_process_fails_its_row(
    apart: Sandbox, tmp_path: Path
) -> None:
    row = {"source": "OE_TO_maths_en_COMP", "answer_type": "odd", "unit": ""}
    row["is_multiple_answer"] = "False"
    info = info_of(
        tmp_path, "OlympiadBench", "image_vqa", {**row, **IMAGE}, "OlympiadBench"
    )
    (sample,) = read_samples(prepare(info, apart, tmp_path))
    assert sample.error is not None
    assert (
        "ms-vlmeval cannot make its prompt: SystemExit: Error parsing" in sample.error
    )


@pytest.mark.parametrize(
    ("class_name", "module", "name"),
    [
        ("Design2Code", "design2code", "Design2Code"),  # gives a data URL
        ("ReasonMap_Plus", "reasonmap_plus", "ReasonMap-Plus"),  # gives the cell itself
        ("MMGenBench", "mmgenbench", "MMGenBench-Test"),  # has no method that scores
        ("OmniDocBench", "OmniDocBench.omnidocbench", "OmniDocBench"),  # imports torch
        ("ChartX", "chartx", "ChartX"),  # imports Levenshtein
        ("MMNIAH", "image_vqa", "MM_NIAH_VAL"),  # reads its file itself
    ],
)
def test_images_are_found_whatever_a_class_does(
    apart: Sandbox, tmp_path: Path, class_name: str, module: str, name: str
) -> None:
    row = dict(IMAGE)
    if class_name == "MMNIAH":
        row |= {"question": "['Read.', '<image>?']", "multi-choice options": "[[],[]]"}
    prepared = prepare(
        info_of(tmp_path, class_name, module, row, name), apart, tmp_path
    )
    (sample,) = read_samples(prepared)
    assert sample.error is None
    assert "image" in {part.kind for part in parts_of(sample.prompt)}
    assert media_of(prepared) == {hashlib.sha256(draw(1)).hexdigest() + ".png"}


def test_texts_alone_are_asked_too(apart: Sandbox, tmp_path: Path) -> None:
    info = DatasetInfo(
        name="XSTest",
        class_name="XSTestDataset",
        module="xstest",
        kind="other",
        modality="text",
        url="https://opencompass.openxlab.space/utils/VLMEval/XSTest.tsv",
        path=write_table(tmp_path / "X.tsv", [{"index": "1", "question": "Which?"}]),
    )
    (sample,) = read_samples(prepare(info, apart, tmp_path))
    assert [part.kind for part in parts_of(sample.prompt)] == ["text"]
    assert "Which?" in sample.prompt[0][0].text
