"""All datasets by name, those that ms-vlmeval names and the bundled ones.

`catalog.json` holds those of the pinned ms-vlmeval: what its classes say, and what the
card and the versions of the data add. It is written by `python -m
pytest_vlmeval.datasets.catalog PYTHON`, PYTHON being the interpreter of the sandbox's
environment, which --vlm-setup names.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
import tomllib
import urllib.parse
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.datasets.download import (
    VERSIONS,
    digest,
    load_versions,
    remember,
)
from pytest_vlmeval.errors import VlmEvalError, did_you_mean
from pytest_vlmeval.records import DatasetInfo, DataVersion
from pytest_vlmeval.sandbox.inside.families import judge_need
from pytest_vlmeval.sandbox.own_formats import FORMATS
from pytest_vlmeval.settings.option import (
    can_be_name,
    dataset_name,
    is_table,
    list_datasets,
)

if TYPE_CHECKING:
    from pytest_vlmeval.records import JudgeNeed, Kind
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

CARD = Path(__file__).with_name("card.toml")
CATALOG = Path(__file__).with_name("catalog.json")

# Those that the benchmarks mark as core: the usual eight.
CORE = frozenset(
    {
        "MMBench_DEV_EN_V11",
        "MMStar",
        "MMMU_DEV_VAL",
        "MathVista_MINI",
        "OCRBench",
        "AI2D_TEST",
        "HallusionBench",
        "MMVet",
    }
)


class Card(NamedTuple):
    """The fields of `DatasetInfo` that the card has, by name of the dataset.

    `by_class` has those of datasets whose ms-vlmeval class is theirs alone.
    """

    by_name: Mapping[str, Mapping[str, Any]]
    by_class: Mapping[str, Mapping[str, Any]]


def load_card() -> Card:
    """Read the card."""
    by_name: dict[str, Mapping[str, Any]] = {}
    by_class: dict[str, Mapping[str, Any]] = {}
    for family in tomllib.loads(CARD.read_text(encoding="utf-8"))["family"]:
        sizes = family.get("sizes_mb", {})
        for name in family["names"]:
            by_name[name] = {
                "family": family["name"],
                "judge": family["judge"],
                "has_references": name not in family.get("unreferenced", ()),
                "repository": family.get("hub", ""),
                "homepage": family.get("homepage"),
                "licence": family.get("licence"),
                "size_bytes": sizes[name] * 10**6 if name in sizes else None,
            }
            if "class_name" in family:
                by_class[family["class_name"]] = by_name[name]
    return Card(by_name, by_class)


class Address(NamedTuple):
    """The address of a file, None where there is none, and where it leads.

    `repository` is what an address without a file is the page of, `source` the host
    of a file, with the repository on a hub.
    """

    url: str | None = None
    repository: str = ""
    source: str = ""


def read_address(text: str) -> Address:
    """Read an address: of a file, or of the page about it or about its repository.

    Those of pages are dataset/worldvqa.py:239 and dataset/da2k.py:43.
    """
    if not text.startswith(("https://", "http://")):
        return Address()
    page = re.fullmatch(r"https://huggingface\.co/datasets/([^/]+/[^/]+)/?", text)
    if page is not None:
        return Address(repository=page[1])
    url = text.replace("/blob/", "/resolve/")
    address = urllib.parse.urlsplit(url)
    repository = re.match(r"/(?:api/v1/)?datasets/([^/]+/[^/]+)/", address.path)
    source = f"{address.netloc}/{repository[1]}" if repository else address.netloc
    return Address(url=url, source=source)


# Counts changes in what is written, so that older files are not read.
FORMAT = 7
PROBE_S = 60.0
MOST_FILES = 3
# Of the names of tables; the first is ms-vlmeval's.
SUFFIXES = tuple(f"{suffix}{packed}" for suffix in FORMATS for packed in ("", ".gz"))
# By what ms-vlmeval's types of a dataset have in them.
KINDS: dict[str, Kind] = {
    "MCQ": "multiple_choice",
    "Y/N": "yes_no",
    "VQA": "vqa",
    "Caption": "caption",
    "MT": "conversation",
}
MODALITIES = {"VIDEO": "video", "TEXT": "text"}
DEMO_FOLDER = Path(__file__).parent / "demo"
# Prints the version of ms-vlmeval and its folder, without importing it.
PROBE = (
    "from importlib import metadata, util\n"
    "spec = util.find_spec('vlmeval')\n"
    "print(metadata.version('ms-vlmeval'))\n"
    "print(spec.submodule_search_locations[0])\n"
)


class VlmevalPackage(NamedTuple):
    """Where an environment has ms-vlmeval."""

    folder: Path
    version: str


class OwnClass(NamedTuple):
    """The class of ms-vlmeval that asks and scores a kind of table."""

    class_name: str
    module: str
    judge: JudgeNeed


# As build_dataset decides (dataset/__init__.py:397), where the classes for one's own
# files only differ in where they read them; `CustomVQADataset`, which scores nothing,
# is replaced by the class of the published open questions, and by the one of yes/no
# questions where all answers are that.
OWN_CLASSES: dict[Kind, OwnClass] = {
    "multiple_choice": OwnClass("ImageMCQDataset", "image_mcq", "optional"),
    "yes_no": OwnClass("ImageYORNDataset", "image_yorn", "optional"),
    "vqa": OwnClass("ImageVQADataset", "image_vqa", "unused"),
}


# Asks a table's question as it stands, after its images, and scores nothing.
BARE_CLASS = OwnClass("ImageBaseDataset", "image_base", "unused")


def demo_datasets() -> dict[str, DatasetInfo]:
    """Return the datasets that come with this package."""
    kinds: dict[str, Kind] = {
        "DemoChoice": "multiple_choice",
        "DemoYesNo": "yes_no",
        "DemoOpen": "vqa",
    }
    return {
        name: DatasetInfo(
            name=name,
            kind=kind,
            path=DEMO_FOLDER / f"{name}.tsv",
            family="Demo",
            source="bundled",
            has_references=True,
            **OWN_CLASSES[kind]._asdict(),
        )
        for name, kind in kinds.items()
    }


def find_table(name: str, data_root: Path) -> Path | None:
    """Return the table of this name among the datasets' files; None without one.

    Raises VlmEvalError if there are several.
    """
    if not can_be_name(name):
        return None
    named = (data_root / f"{name}{suffix}" for suffix in SUFFIXES)
    found = [path for path in named if path.exists()]
    if len(found) > 1:
        files = ", ".join(path.name for path in found)
        raise VlmEvalError(
            f"{data_root} has several tables of the name {name}: {files}. Remove the "
            "others, or name one by its path."
        )
    return found[0] if found else None


def unknown_dataset(
    name: str,
    catalog: Mapping[str, DatasetInfo],
    extra: Collection[str],
    data_root: Path,
) -> VlmEvalError:
    """Return the error for a name that no dataset has, with what may be meant."""
    parts = re.split(r"[,\s]+", name)
    files = _files_like(name, data_root, Path.cwd())
    if len(parts) > 1 and all(part in extra or part in catalog for part in parts):
        hint = " These are several: give one name each."
    elif files:
        hint = " " + " ".join(files)
    else:
        hint = did_you_mean(name, [*extra, *catalog])
    return VlmEvalError(
        f"Unknown dataset: {name!r}.{hint} Accepted are the {len(catalog)} names of "
        f"the installed ms-vlmeval and {', '.join(extra)}, with their upper and lower "
        f"case, and NAME for a table NAME.tsv, .csv, .jsonl, .json or .parquet in "
        f"{data_root}."
    )


def _files_like(name: str, data_root: Path, folder: Path) -> list[str]:
    """Describe which files may be meant: of another spelling, suffix, or folder."""
    found = []
    for place in dict.fromkeys((data_root, folder)):
        with suppress(OSError):
            for path in sorted(place.iterdir()):
                known = dataset_name(path.name)
                # A name with blanks or commas without quotes comes in its parts.
                parts = re.split(r"[,\s]+", known)
                in_parts = len(parts) > 1 and name in parts
                alike = in_parts or _spelling(known) == _spelling(name)
                is_folder = path.is_dir() and place != data_root
                if not alike or not (is_table(path.name) or is_folder):
                    continue
                if is_folder:
                    how = f"which --vlm-data={shlex.quote(f'{path.name}/')} takes"
                elif not path.name.lower().endswith(SUFFIXES):
                    how = "which is no table that is read: write it as a CSV"
                elif place == data_root:
                    how = f"which is the dataset {known!r}"
                    given = list_datasets([known])
                    if given != known:
                        how += f" (--vlm-data={shlex.quote(given)})"
                else:
                    how = f"which --vlm-data={shlex.quote(path.name)} takes"
                found.append(f"There is {path}, {how}.")
    return found[:MOST_FILES]


def _spelling(name: str) -> str:
    """Return what names have in common that differ in case, blanks, '-' and '_'."""
    return re.sub(r"[\s_.-]+", "", name.casefold())


def locate_package(python: Path, cache_dir: Path | None = None) -> VlmevalPackage:
    """Find ms-vlmeval in the environment of `python` without importing it.

    In a virtual environment its folder is found on disk; otherwise the interpreter is
    asked, with a `cache_dir` once for each state of that folder. Raises VlmEvalError.
    """
    for packages in sorted(python.parent.parent.glob("lib/python3*/site-packages")):
        for known in packages.glob("ms_vlmeval-*.dist-info"):
            if (packages / "vlmeval" / "dataset" / "__init__.py").is_file():
                version = known.name.removeprefix("ms_vlmeval-").removesuffix(
                    ".dist-info"
                )
                return VlmevalPackage(packages / "vlmeval", version)
    if cache_dir is None:
        return _ask(python)
    memory = cache_dir / "catalog" / f"where-{digest(str(python.absolute()))}.json"
    with suppress(OSError, ValueError, TypeError):
        state, version, folder = json.loads(memory.read_text(encoding="utf-8"))
        if state == _state(Path(folder)):
            return VlmevalPackage(Path(folder), version)
    found = _ask(python)
    remember(memory, [_state(found.folder), found.version, str(found.folder)])
    return found


def load_catalog(
    environment: SandboxEnvironment, cache_dir: Path
) -> dict[str, DatasetInfo]:
    """Return every dataset that the ms-vlmeval of an environment names.

    Those of the version that this package pins are in a file of it. Another version
    is imported in its sandbox, which takes seconds, so the result is kept in
    `cache_dir` for as long as the environment holds that. Raises VlmEvalError.
    """
    package = locate_package(environment.python, cache_dir)
    pinned = json.loads(CATALOG.read_text(encoding="utf-8"))
    if package.version == pinned["ms_vlmeval"]:
        return _as_infos(pinned["datasets"])
    texts = [each.read_text(encoding="utf-8") for each in (CARD, VERSIONS)]
    state = [FORMAT, *texts, environment.fingerprint, _state(package.folder)]
    memory = cache_dir / "catalog" / f"{digest(state)}.json"
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        return _as_infos(json.loads(memory.read_text(encoding="utf-8")))
    entries = [_as_entry(info) for info in _make_catalog(environment.python)]
    remember(memory, entries)
    return _as_infos(entries)


def write_catalog(python: Path, path: Path = CATALOG) -> None:
    """Write what the ms-vlmeval of an interpreter names, a dataset on each line."""
    entries = [json.dumps(_as_entry(info)) for info in _make_catalog(python)]
    version = json.dumps(locate_package(python).version)
    path.write_text(
        f'{{"ms_vlmeval": {version}, "datasets": [\n' + ",\n".join(entries) + "\n]}\n",
        encoding="utf-8",
    )


def _make_catalog(python: Path) -> list[DatasetInfo]:
    from pytest_vlmeval.sandbox.calls import list_in_sandbox
    from pytest_vlmeval.sandbox.process import opened_sandbox

    # Of its own: all is imported there, whatever packages are absent.
    with opened_sandbox(python) as sandbox:
        listed = list_in_sandbox(sandbox)
    card = load_card()
    return [
        _describe(
            each,
            card.by_name.get(each["name"]) or card.by_class.get(each["class_name"]),
        )
        for each in listed
    ]


def _describe(
    listed: Mapping[str, Any], known: Mapping[str, Any] | None
) -> DatasetInfo:
    address = read_address(listed["address"])
    facts = {"family": listed["class_name"], **(known or {})}
    repository = facts.get("repository") or listed["repository"] or address.repository
    md5, kind = listed["md5"], listed["kind"]
    return DatasetInfo(
        **facts
        | {
            "name": listed["name"],
            "class_name": listed["class_name"],
            "module": listed["module"],
            "kind": next((KINDS[word] for word in KINDS if word in kind), "other"),
            "modality": MODALITIES.get(listed["modality"], "image"),
            "url": address.url,
            "md5": md5 if re.fullmatch("[0-9a-f]{32}", md5) else None,
            "versions": load_versions().get(listed["data"], ()),
            "source": address.source or repository,
            "repository": repository,
            "settings": listed["settings"],
            "members": tuple(listed["members"]),
        }
    )


def _ask(python: Path) -> VlmevalPackage:
    try:
        answer = subprocess.run(
            [python, "-I", "-X", "utf8", "-c", PROBE],
            capture_output=True,
            check=True,
            encoding="utf-8",
            timeout=PROBE_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise VlmEvalError(
            f"ms-vlmeval is not in the environment of {python}: {said[-1]}. "
            "--vlm-setup builds an environment that has it, --vlm-sandbox-python takes "
            "another one."
        ) from error
    version, folder = answer.stdout.splitlines()
    return VlmevalPackage(Path(folder), version)


def _state(package_folder: Path) -> list[int]:
    stat = (package_folder / "dataset" / "__init__.py").stat()
    return [stat.st_size, stat.st_mtime_ns]


def _as_infos(entries: Iterable[Mapping[str, Any]]) -> dict[str, DatasetInfo]:
    return {
        entry["name"]: DatasetInfo(
            **{
                "judge": judge_need(entry["class_name"]),
                **entry,
                "members": tuple(entry.get("members", ())),
                "versions": tuple(
                    DataVersion(**each) for each in entry.get("versions", ())
                ),
            }
        )
        for entry in entries
    }


def _as_entry(info: DatasetInfo) -> dict[str, Any]:
    """Return what is known of a dataset, without what is the same for most."""
    plain = DatasetInfo(
        name=info.name, class_name=info.class_name, module=info.module, kind=info.kind
    )
    usual = dataclasses.asdict(plain)
    own = ("name", "class_name", "module", "kind")
    return {
        name: value
        for name, value in dataclasses.asdict(info).items()
        if name in own or value != usual[name]
    }


if __name__ == "__main__":
    write_catalog(Path(sys.argv[1]))
