"""The catalog: what is known of each dataset, against ms-vlmeval itself."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.catalog import (
    CATALOG,
    demo_datasets,
    load_catalog,
    unknown_dataset,
    write_catalog,
)
from pytest_vlmeval.records import DatasetInfo
from tests.support.sandbox_tables import shared_file

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

# What the classes say when they are imported, the light way.
ASK_CLASSES = """
import importlib, json, sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

(folder,) = find_spec("vlmeval").submodule_search_locations
for name, path in (("vlmeval", folder), ("vlmeval.dataset", folder + "/dataset")):
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [path]
found = {}
for module, class_name in json.loads(Path(sys.argv[1]).read_text()):
    cls = getattr(importlib.import_module("vlmeval.dataset." + module), class_name)
    found[class_name] = {
        name: [cls.DATASET_URL.get(name), cls.DATASET_MD5.get(name), cls.TYPE]
        for name in cls.supported_datasets()
    }
Path(sys.argv[2]).write_text(json.dumps(found))
"""
# ms-vlmeval refuses them without a judge; here what matches exactly counts.
EXACT_HERE = {"MathVista_MINI", "MathVision", "MathVision_MINI"}
# The references of MMMU_TEST are all "?".
UNREFERENCED = {"MLLMGuard_DS", "DocVQA_TEST", "InfoVQA_TEST", "MMMU_TEST"}
KINDS = {
    "MCQ": "multiple_choice",
    "Y/N": "yes_no",
    "VQA": "vqa",
    "Caption": "caption",
    "MT": "conversation",
}
IMPORTABLE = [
    ("image_mcq", "ImageMCQDataset"),
    ("image_mcq", "MMMUDataset"),
    ("image_mcq", "CVBench"),
    ("image_yorn", "ImageYORNDataset"),
    ("image_vqa", "ImageVQADataset"),
    ("image_vqa", "MathVision"),
    ("image_vqa", "TDBenchGrounding"),
    ("image_caption", "ImageCaptionDataset"),
    ("image_ccocr", "CCOCRDataset"),
    ("vcr", "VCRDataset"),
    ("mmsibench", "MMSIBench"),
    ("starebench", "StareBench"),
]


@pytest.fixture(scope="module")
def catalog(
    sandbox_environment: SandboxEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, DatasetInfo]:
    """Give the catalog of the pinned ms-vlmeval."""
    return load_catalog(sandbox_environment, tmp_path_factory.mktemp("catalog"))


def test_the_file_is_what_ms_vlmeval_says(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    made = tmp_path / "catalog.json"
    write_catalog(sandbox_environment.python, made)
    assert made.read_bytes() == CATALOG.read_bytes(), (
        "make it again: python -m pytest_vlmeval.datasets.catalog "
        f"{sandbox_environment.python}"
    )


def test_every_dataset_of_the_card_is_there(
    catalog: Mapping[str, DatasetInfo],
) -> None:
    expected = json.loads(shared_file("seed_fixtures", "datasets.json").read_text())
    assert len(expected) == 65
    for entry in expected:
        info = catalog[entry["name"]]
        module = entry["defined"].split(".py:")[0].removeprefix("dataset/")
        assert info.class_name == entry["cls"]
        assert info.module == module.replace("/", ".")
        assert info.modality == entry["MODALITY"].lower()
        assert info.kind == KINDS[entry["TYPE"].removeprefix("Video-")]
        if info.modality == "image":
            assert info.url == entry["data"]["url"]
        assert info.md5 == entry["data"]["md5"]
        # A dataset without references cannot be judged.
        if info.has_references:
            expected_need = judge_need(entry["judge"]["behaviour"])
            if info.name in EXACT_HERE:
                assert expected_need == "required"
                expected_need = "optional"
            assert info.judge == expected_need
        assert info.has_references is (info.name not in UNREFERENCED)
        assert info.family
        assert info.homepage
        assert info.homepage.startswith("https://")
        assert info.path is None


def judge_need(behaviour: str) -> str:
    """Read how upstream uses a judge."""
    return "unused" if behaviour.startswith("never") else re.split("[: ]", behaviour)[0]


def test_what_the_card_adds(catalog: Mapping[str, DatasetInfo]) -> None:
    hub = catalog["Video-MME_8frame"]
    assert (hub.family, hub.source) == ("Video-MME", "lmms-lab/Video-MME")
    on_hub = catalog["SEEDBench2"]
    assert on_hub.source == "huggingface.co/VLMEval/SEEDBench2"
    assert catalog["MMT-Bench_ALL"].licence == "CC-BY-4.0"
    assert catalog["MMT-Bench_ALL"].size_bytes == 6_210_000_000
    unknown = catalog["MMStar_KO"]
    assert (unknown.judge, unknown.has_references) == (None, None)
    assert unknown.family == unknown.class_name


def test_it_agrees_with_the_imported_classes(
    catalog: Mapping[str, DatasetInfo],
    sandbox_environment: SandboxEnvironment,
    tmp_path: Path,
) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(IMPORTABLE))
    subprocess.run(
        [sandbox_environment.python, "-c", ASK_CLASSES, "classes.json", "found.json"],
        check=True,
        cwd=tmp_path,
        capture_output=True,
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert sum(len(names) for names in found.values()) > 150
    for class_name, names in found.items():
        for name, (url, md5, upstream_type) in names.items():
            info = catalog[name]
            assert info.class_name == class_name
            assert info.url == (url if url and url.startswith("http") else None)
            assert info.md5 == (md5 or None)
            assert info.kind == KINDS.get(upstream_type, "other")


def test_presets_of_video_datasets_are_there(
    catalog: Mapping[str, DatasetInfo],
) -> None:
    names = {info.name for info in catalog.values() if info.modality == "video"}
    # Written out, and made by a function over the names of a class.
    assert {"Video-MME_8frame", "MMBench_Video_8frame_nopack"} <= names
    assert {"STI-Bench_64frame", "VSI-Bench_32frame"} <= names
    assert catalog["Video-MME_8frame"].module == "videomme"


def test_what_the_name_of_a_preset_stands_for(
    catalog: Mapping[str, DatasetInfo],
) -> None:
    presets = [info for info in catalog.values() if info.settings]
    assert len(presets) == 207
    assert {info.modality for info in presets} == {"video"}
    assert catalog["Video-MME_0.5fps_subs"].settings == {
        "dataset": "Video-MME",
        "fps": 0.5,
        "use_subtitle": True,
    }
    # A product, in the sources.
    resized = catalog["Video-MME-v2_1fps_resize"].settings
    assert resized["resize_target_area"] == 448 * 448
    assert catalog["Video-MME"].settings == {}


def test_where_the_files_of_a_preset_are(catalog: Mapping[str, DatasetInfo]) -> None:
    # The table at an address, the videos in a repository.
    vsi = catalog["VSI-Bench_32frame"]
    assert (vsi.url, vsi.md5) == (catalog["VSI-Bench"].url, catalog["VSI-Bench"].md5)
    assert vsi.repository == "nyu-visionx/VSI-Bench"
    # One checksum for each name, in one table.
    tampered = catalog["MVTamperBenchStart_8frame"]
    assert tampered.md5 != catalog["MVTamperBench"].md5
    assert catalog["Video-MME"].repository == "lmms-lab/Video-MME"
    assert catalog["MMStar"].repository == ""


def test_the_bundled_datasets_have_a_file() -> None:
    for info in demo_datasets().values():
        assert info.path is not None
        assert info.path.is_file()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mmstar", " Did you mean MMStar or MMStar_TR or MMStar_KO?"),
        ("MathVision-MINI", " Did you mean MathVision_MINI or MathVision or "),
        ("nothing at all like it", " Accepted are the "),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(
    catalog: Mapping[str, DatasetInfo], tmp_path: Path, name: str, hint: str
) -> None:
    text = str(unknown_dataset(name, catalog, demo_datasets(), tmp_path))
    assert text.startswith(f"Unknown dataset: {name!r}.{hint}")
    assert text.endswith(
        f"Accepted are the {len(catalog)} names of the installed ms-vlmeval and "
        "DemoChoice, DemoYesNo, DemoOpen, with their upper and lower case, and NAME "
        f"for a table NAME.tsv in {tmp_path}."
    )
