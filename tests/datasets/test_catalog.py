"""The catalog: what is known of each dataset, its addresses, its file's versions."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval import evaluate
from pytest_vlmeval.datasets.catalog import (
    CATALOG,
    Address,
    demo_datasets,
    load_catalog,
    locate_package,
    read_address,
    unknown_dataset,
    write_catalog,
)
from pytest_vlmeval.datasets.download import FileAccess, fetch_file, load_versions
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo, DataVersion
from pytest_vlmeval.reports.export import write_export
from pytest_vlmeval.reports.html import write_html
from pytest_vlmeval.reports.progress import DatasetResult
from pytest_vlmeval.reports.terminal import format_table
from pytest_vlmeval.sandbox.environment import SandboxEnvironment, ensure_environment
from tests.support.download_calls import (
    CONTENT,
    HURRY,
    MD5,
    OTHER_MD5,
    fail,
    fetch,
    table,
)
from tests.support.file_server import FileServer
from tests.support.run_fixtures import Project, properties
from tests.support.sandbox_tables import extended_environment, shared_file
from tests.support.server_fixtures import ServerProcess

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.catalog import VlmevalPackage

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
    unknown = catalog["SGI-DryExperiment"]
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
        f"for a table NAME.tsv, .csv, .jsonl, .json or .parquet in {tmp_path}."
    )


HUB = "https://huggingface.co/datasets/depth-anything/DA-2K"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Address()),
        ("None", Address()),
        ("HiPhO/IPhO_2024", Address()),
        (
            "https://opencompass.openxlab.space/utils/VLMEval/OST.tsv",
            Address(
                url="https://opencompass.openxlab.space/utils/VLMEval/OST.tsv",
                source="opencompass.openxlab.space",
            ),
        ),
        (HUB, Address(repository="depth-anything/DA-2K")),
        (f"{HUB}/", Address(repository="depth-anything/DA-2K")),
        (
            f"{HUB}/blob/main/data.tsv",
            Address(
                url=f"{HUB}/resolve/main/data.tsv",
                source="huggingface.co/depth-anything/DA-2K",
            ),
        ),
        (
            f"{HUB}/resolve/main/data.tsv",
            Address(
                url=f"{HUB}/resolve/main/data.tsv",
                source="huggingface.co/depth-anything/DA-2K",
            ),
        ),
        (
            "https://www.modelscope.cn/api/v1/datasets/a/b/repo?FilePath=data.tsv",
            Address(
                url="https://www.modelscope.cn/api/v1/datasets/a/b/repo?FilePath=data.tsv",
                source="www.modelscope.cn/a/b",
            ),
        ),
    ],
)
def test_what_an_address_leads_to(text: str, expected: Address) -> None:
    assert read_address(text) == expected


@pytest.fixture(scope="module")
def package(sandbox_environment: SandboxEnvironment) -> VlmevalPackage:
    """Give the place of ms-vlmeval in the sandbox's environment."""
    return locate_package(sandbox_environment.python)


@pytest.fixture(scope="module")
def other(
    package: VlmevalPackage,
    sandbox_environment: SandboxEnvironment,
    tmp_path_factory: pytest.TempPathFactory,
) -> SandboxEnvironment:
    """Give an environment of the user's own with another version of ms-vlmeval."""
    folder = tmp_path_factory.mktemp("other")
    extended_environment(sandbox_environment, folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    shutil.copytree(
        package.folder,
        packages / "vlmeval",
        ignore=lambda place, names: [
            name
            for name in names
            if not name.endswith(".py") and not Path(place, name).is_dir()
        ],
    )
    module = packages / "vlmeval" / "dataset" / "image_yorn.py"
    module.write_text(module.read_text().replace("'POPE':", "'POPE2':"))
    information = packages / "ms_vlmeval-0.0.21.dist-info" / "METADATA"
    information.parent.mkdir()
    information.write_text("Metadata-Version: 2.1\nName: ms-vlmeval\nVersion: 0.0.21\n")
    return ensure_environment(
        folder, python=folder / "bin" / "python", offline=True, announce=print
    )


def test_the_pinned_version_is_not_asked(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    start = time.process_time()
    catalog = load_catalog(sandbox_environment, tmp_path)
    assert time.process_time() - start < 0.5
    assert {"POPE", "MMStar", "Video-MME"} <= set(catalog)
    assert not list(tmp_path.iterdir())


def test_another_version_is_asked_once(
    other: SandboxEnvironment, sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    pinned = load_catalog(sandbox_environment, tmp_path)
    start = time.monotonic()
    first = load_catalog(other, tmp_path)
    reading_s = time.monotonic() - start
    assert set(first) - set(pinned) == {"POPE2"}
    assert set(pinned) - set(first) == {"POPE"}
    assert all(first[name] == pinned[name] for name in set(first) - {"POPE2"})
    start = time.monotonic()
    assert load_catalog(other, tmp_path) == first
    assert time.monotonic() - start < reading_s / 3
    (memory,) = (tmp_path / "catalog").iterdir()
    memory.write_text("{broken")
    assert load_catalog(other, tmp_path) == first
    assert json.loads(memory.read_text())
    # As an editable one is changed, whose version stays the same.
    listing = locate_package(other.python).folder / "dataset" / "__init__.py"
    os.utime(listing, ns=(1, 1))
    assert load_catalog(other, tmp_path) == first
    assert len(list((tmp_path / "catalog").iterdir())) == 2


def test_a_cache_that_cannot_be_written_does_no_harm(
    other: SandboxEnvironment, tmp_path: Path
) -> None:
    not_a_folder = tmp_path / "file"
    not_a_folder.touch()
    assert "MMStar" in load_catalog(other, not_a_folder)


def test_another_version_that_cannot_be_listed_is_an_error(
    other: SandboxEnvironment, tmp_path: Path
) -> None:
    listing = locate_package(other.python).folder / "dataset" / "__init__.py"
    text = listing.read_text()
    listing.write_text(f"raise ValueError('too new')\n{text}")
    try:
        with pytest.raises(VlmEvalError, match="ValueError: too new"):
            load_catalog(other, tmp_path)
    finally:
        listing.write_text(text)
    assert not (tmp_path / "catalog").exists()


def test_the_package_is_found_without_starting_python(
    package: VlmevalPackage, sandbox_environment: SandboxEnvironment
) -> None:
    assert (package.folder / "dataset" / "__init__.py").is_file()
    assert package.folder.is_relative_to(sandbox_environment.python.parent.parent)
    assert package.version[0].isdigit()


def test_a_python_elsewhere_is_asked_once(
    package: VlmevalPackage, sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    count = tmp_path / "starts"
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\necho >> {count}\nexec {sandbox_environment.python} "$@"\n'
    )
    python.chmod(0o755)
    assert locate_package(python, tmp_path) == package
    assert locate_package(python, tmp_path) == package
    assert len(count.read_text().splitlines()) == 1


def test_an_environment_without_ms_vlmeval(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    with pytest.raises(VlmEvalError) as caught:
        locate_package(Path(sys.executable), tmp_path)
    text = str(caught.value)
    assert text.startswith(
        f"ms-vlmeval is not in the environment of {sys.executable}: "
        "importlib.metadata.PackageNotFoundError"
    )
    assert text.endswith(
        "--vlm-setup builds an environment that has it, --vlm-sandbox-python takes "
        "another one."
    )
    # The one that --vlm-setup builds; and nothing of the failure is remembered.
    assert locate_package(sandbox_environment.python, tmp_path).version


NEW = b"index\tquestion\n1\twhich\n"
NEW_MD5 = hashlib.md5(NEW, usedforsecurity=False).hexdigest()
VERSIONS = (
    DataVersion(md5=MD5, date="2024-07-18", origin="VLMEvalKit 646e7bc8"),
    DataVersion(md5=NEW_MD5, date="2026-05-11", origin="VLMEvalKit fbd4d504"),
)


def test_each_known_version_is_published(
    file_server: FileServer, tmp_path: Path
) -> None:
    url = f"{file_server.url}/Table.tsv"
    info = replace(table(url), versions=VERSIONS)
    names = {
        CONTENT: "2024-07-18 (VLMEvalKit 646e7bc8)",
        NEW: "2026-05-11 (VLMEvalKit fbd4d504)",
    }
    for content, name in names.items():
        file_server.files["Table.tsv"] = content
        found = fetch(info, tmp_path)
        assert not found.modified
        assert info.name_version(found.checksum) == name
        found.path.unlink()
    file_server.files["Table.tsv"] = b"other"
    assert (
        f"what came has the MD5 {OTHER_MD5}, the published ones {MD5} of 2024-07-18 "
        f"and {NEW_MD5} of 2026-05-11. Where"
    ) in fail(info, tmp_path)
    file_server.files["Table.tsv"] = NEW + NEW
    found = fetch(info, tmp_path, modified=True)
    assert found.modified
    assert info.name_version(found.checksum) == ""
    # A further file of the dataset has no versions.
    access = FileAccess(tmp_path / "more", tmp_path / "cache", patience=HURRY)
    file_server.files["Table.tsv"] = NEW
    with pytest.raises(VlmEvalError, match=f"{NEW_MD5}, the published one {MD5}"):
        fetch_file(info, url, tmp_path / "more" / "further.tsv", MD5, access)


def test_the_versions_that_are_known() -> None:
    """As VLMEvalKit's history has them; one of each is that of ms-vlmeval."""
    known = load_versions()
    assert set(known) >= {
        "BLINK",
        "BLINK_circular",
        "MMBench_TEST_EN_V11",
        "MMBench_TEST_CN_V11",
    }
    for each_of in known.values():
        assert len({each.md5 for each in each_of}) == len(each_of) > 1
        assert [each.date for each in each_of] == sorted(each.date for each in each_of)
        for each in each_of:
            assert re.fullmatch("[0-9a-f]{32}", each.md5)
            assert re.match("VLMEvalKit [0-9a-f]{8}", each.origin)
        assert sum("ms-vlmeval" in each.origin for each in each_of) == 1
    newest = {name: each_of[-1].md5 for name, each_of in known.items()}
    assert newest["BLINK"] == "d5e8af148b10ac69f535ff7b23f3f989"
    assert newest["BLINK_circular"] == "f44c9f19afda14262cd1e0731bd01f9e"
    assert newest["MMBench_TEST_EN_V11"] == "8d1a704e791df6f5d9fb3ef782b65365"
    assert newest["MMBench_TEST_CN_V11"] == "156e6569f9547afb16603eca16e85373"


def test_the_catalog_has_the_versions(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    found = load_catalog(sandbox_environment, tmp_path)
    for name, known in load_versions().items():
        assert found[name].versions == known
        (ours,) = [e.md5 for e in known if "ms-vlmeval" in e.origin]
        assert found[name].md5 == ours
    assert found["MMStar"].versions == ()


def test_reports_name_the_version(
    project: Project,
    server: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if the table at hand were a version that is known."""
    project.write_math(4)
    file = project.data_root / "MathVision_MINI.tsv"
    md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    known = json.loads(CATALOG.read_text(encoding="utf-8"))
    (entry,) = [it for it in known["datasets"] if it["name"] == "MathVision_MINI"]
    entry["versions"] = [{"md5": md5, "date": "2030-01-02", "origin": "a commit"}]
    changed = tmp_path / "catalog.json"
    changed.write_text(json.dumps(known))
    monkeypatch.setattr("pytest_vlmeval.datasets.catalog.CATALOG", changed)
    monkeypatch.chdir(project.pytester.path)
    server.control(default="B")
    told: list[str] = []
    # Not modified: nothing has to allow it.
    results = evaluate(
        "tiny-vlm", ["MathVision_MINI"], api_base=server.url, progress=told.append
    )
    name = "2030-01-02 (a commit)"
    assert f"MathVision_MINI: data of {name}" in told
    (row,) = results.scores.to_dict("records")
    assert (row["data_version"], row["modified_data"]) == (name, False)
    assert results.score("MathVision_MINI").data_version == name
    write_export(results.report, tmp_path, "tsv")
    (dataset,) = json.loads((tmp_path / "results.json").read_text())["datasets"]
    assert (dataset["data_version"], dataset["md5"]) == (name, md5)
    assert not dataset["modified_data"]
    summary = (tmp_path / "summary.md").read_text()
    assert f"| MathVision_MINI (data of {name}) |" in summary
    write_html(results.report, tmp_path / "report.html", max_mb=1)
    assert f"data of {name}" in (tmp_path / "report.html").read_text()
    result = DatasetResult(
        dataset="D", samples=1, answered=1, modified=False, score=None, version=name
    )
    assert format_table([result])[-1].endswith(f"data of {name}")


@pytest.mark.slow
def test_an_unknown_file_is_downloaded_asked_and_marked(
    project: Project, server: ServerProcess, file_server: FileServer
) -> None:
    project.write_math(4)
    file = project.data_root / "MathVision_MINI.tsv"
    file_server.files["MathVision_MINI.tsv"] = file.read_bytes()
    file.unlink()
    server.control(default="B")
    arguments = (
        "--vlm-model=tiny-vlm",
        f"--vlm-api-base={server.url}",
        f"--vlm-data-mirror={file_server.url}",
    )
    refused = project.run(*arguments)
    refused.stdout.fnmatch_lines(["*what came has the MD5 *--vlm-allow-modified-data*"])
    assert not file.exists()
    assert not server.requests()
    accepted, cases = project.junit(*arguments, "--vlm-allow-modified-data")
    accepted.assert_outcomes(passed=3, xfailed=2)
    accepted.stdout.fnmatch_lines(
        [
            "*downloaded MathVision_MINI: its MD5 is *; it is evaluated as modified *",
            "MathVision_MINI * modified data",
        ]
    )
    assert properties(cases["test_score[MathVision_MINI]"])["modified_data"] == "true"
    assert file.is_file()


def test_the_versions_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    for name, known in load_versions().items():
        for each in known:
            change = f": {each.change}" if each.change else ""
            row = f"| {name} | `{each.md5}` | {each.date} | {each.origin}{change} |"
            assert row in text
