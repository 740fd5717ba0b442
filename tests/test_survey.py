"""Every image and text class of ms-vlmeval, prepared over an invented table.

The table has the columns that most classes read, and those that single classes want.
What cannot be prepared is listed with its reason, and this fails when that changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pytest_vlmeval.datasets.catalog import load_catalog, locate_package
from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.sandbox.inside.families import FAMILIES
from pytest_vlmeval.sandbox.process import Sandbox
from pytest_vlmeval.sandbox.scored import SCORED
from tests.sandbox_tables import cell, draw, prepare, write_table

PICTURES = [cell(draw(seed)) for seed in range(2)]
COLUMNS = {
    "A": "red",
    "B": "blue",
    "C": "green",
    "D": "grey",
    "E": "white",
    "F": "",
    "additional": "",
    "answer_type": "free_form",
    "bbox": "[1, 2, 3, 4]",
    "category": "colour",
    "context": "",
    "format": "a number",
    "hint": "Look.",
    "is_multiple_answer": "False",
    "l2-category": "shade",
    "language": "English",
    "multi-choice options": "['(A) red','(B) blue','(C) green','(D) grey','(E) white']",
    "option1": "red",
    "option2": "blue",
    "option3": "green",
    "option4": "grey",
    "options": "['red', 'blue', 'green', 'grey']",
    "paragraph": "",
    "prompt": "Which?",
    "query": "Which?",
    "query_cot": "Which?",
    "question_type": "multi_choice",
    "requirement": "Answer.",
    "response": "['red', 'blue']",
    "source": "OE_TO_maths_en_COMP",
    "split": "test",
    "type": "multiple_choice",
    "unit": "",
}
OF_CLASS: Mapping[str, Mapping[str, str]] = {
    "ChartQAPro": {
        "question": "['Which?']",
        "answer": "['red']",
        "question_type": "Factoid",
    },
    "M4Bench": {
        "image1": PICTURES[0],
        "image2": PICTURES[1],
        "image1_path": "1.png",
        "image2_path": "2.png",
    },
    "MMNIAH": {
        "question": "['Read.', '<image>Which?']",
        "multi-choice options": "[['red', 'blue'], []]",
    },
    "OlympiadBench": {"answer_type": "Numerical"},
    "MathCanvas": {"question": "<image>Which?"},
    "SFE": {"question": "<image>Which?", "question_type": "mcq"},
    "WildDocBenchmark": {"index": "DocVQA-1"},
}
# How the messages begin or go on that say why a dataset cannot be prepared.
BY_ITSELF = "brings more than its table by itself when it is built"
WANTS_MORE = "ms-vlmeval wants to download https://"
WANTS_REPOSITORY = "ms-vlmeval wants to download the repository "
EXCEPTIONS = {
    **dict.fromkeys(
        """
        APhO_2025 ChartMimic_v1_customized ChartMimic_v2_direct_600 DA-2K MM-HELIX
        MM-HELIX_lang PanPhO_2025 QSpatial_plus QSpatial_scannet SCAM SGI-DeepResearch
        SGI-DryExperiment SGI-Experimental-Reasoning SGI-IdeaGeneration
        SGI-WetExperiment VTCBench
        """.split(),
        BY_ITSELF,
    ),
    **dict.fromkeys(
        """
        ERIQ MME-RealWorld MedQDEGBench_good_dev MedQDEGBench_simulate_test
        MedqbenchCaption MedqbenchCaption_test MedqbenchMCQ MedqbenchMCQ_test
        MedqbenchPairedDescription_dev MedqbenchPairedDescription_test
        MindCubeBench_raw_qa MindCubeBench_tiny_raw_qa OmniSpatialBench
        OmniSpatialBench_zeroshot_cot RefSpatial_wo_unseen SPBench-MV SPBench-SI_CoT
        SiteBenchImage StareBench StareBench_CoT VLADBench ViewSpatialBench
        """.split(),
        WANTS_REPOSITORY,
    ),
    **dict.fromkeys(
        """
        GMAI-MMBench_TEST MOAT MicroBench OmniEarth-Bench OmniMedVQA XLRS-Bench-lite
        """.split(),
        WANTS_MORE,
    ),
    "RefSpatial": "FileNotFoundError: RefSpatial Location dataset not found",
    # What their prompts need comes with an add-on.
    **dict.fromkeys(("DUDE", "DUDE_MINI"), "variable 'fitz'"),
    "MMLongBench_DOC": "needs the package pymupdf",
    **dict.fromkeys(("SparBench", "SparBench_tiny"), "The package num2words is not in"),
    "MMDU": "MMDU asks in several turns",
    # It reads a column by its number, which pandas 3 no longer does.
    "MATBench": "cannot make its prompt: KeyError: 2",
    # It opens pictures in the current folder.
    "WorldVQA": "No such file or directory: '0.png'",
}


def image_and_text(catalog: Mapping[str, DatasetInfo]) -> Iterator[DatasetInfo]:
    """Give the first and the last name of each class."""
    classes: dict[str, list[DatasetInfo]] = {}
    for info in catalog.values():
        if info.modality != "video" and not info.members:
            classes.setdefault(info.class_name, []).append(info)
    for found in classes.values():
        found.sort(key=lambda info: info.name)
        yield from {info.name: info for info in (found[0], found[-1])}.values()


def prepare_invented(info: DatasetInfo, sandbox: Sandbox, folder: Path) -> str:
    """Prepare a dataset of two rows; give why it, or one of them, cannot be."""
    rows = [
        {
            "index": str(number),
            "question": "Which?",
            "answer": "AB"[number],
            **COLUMNS,
            **OF_CLASS.get(info.class_name, {}),
            "image_path": f"{number}.png",
            "image": PICTURES[number],
        }
        for number in range(2)
    ][: 1 if info.class_name == "WildDocBenchmark" else 2]
    table = write_table(folder / f"{info.name}.tsv", rows)
    try:
        prepared = prepare(replace(info, path=table, md5=None), sandbox, folder)
    except VlmEvalError as error:
        return str(error)
    return next((each.error for each in read_samples(prepared) if each.error), "")


def test_every_class_prepares_or_says_why_not(
    sandbox_environment: SandboxEnvironment, run_cache: Path, tmp_path: Path
) -> None:
    package = locate_package(sandbox_environment.python, run_cache)
    catalog = load_catalog(package.folder, run_cache)
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(draw(number))
    # Apart from other tests, as what is not scored is apart from what is.
    sandbox = Sandbox(sandbox_environment.python)
    reasons = {
        info.name: prepare_invented(info, sandbox, tmp_path)
        for info in image_and_text(catalog)
    }
    sandbox.close()
    unprepared = {name: reason for name, reason in reasons.items() if reason}
    assert unprepared.keys() == EXCEPTIONS.keys()
    for name, reason in unprepared.items():
        assert EXCEPTIONS[name] in reason, name
    assert len(reasons) - len(unprepared) >= 189


def test_what_is_scored_has_an_adapter() -> None:
    assert set(FAMILIES) == SCORED
