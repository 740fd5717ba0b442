"""All datasets by name, read from ms-vlmeval's sources, and the bundled ones."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pytest_vlmeval.datasets.addresses import read_address
from pytest_vlmeval.datasets.card import CARD, load_card
from pytest_vlmeval.datasets.files import write_whole
from pytest_vlmeval.datasets.versions import VERSIONS, load_versions
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.option_values import (
    can_be_name,
    dataset_name,
    is_table,
    list_datasets,
)
from pytest_vlmeval.records import DatasetInfo, DataVersion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_vlmeval.datasets.card import CardEntry
    from pytest_vlmeval.datasets.source_reading import Package
    from pytest_vlmeval.datasets.source_values import SourceClass
    from pytest_vlmeval.records import JudgeNeed, Kind

# Counts changes in what is written, so that older files are not read.
FORMAT = 6
PROBE_S = 60.0
MOST_FILES = 3
# One table of the repository is all it wants (dataset/image_mcq.py:961).
WITHOUT_REPOSITORY = {"MME-RealWorld-Lite"}
DEMO_FOLDER = Path(__file__).parent.parent / "demo"
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


def demo_datasets() -> dict[str, DatasetInfo]:
    """Give the datasets that come with this package."""
    entries: list[tuple[str, str, str, Kind, JudgeNeed]] = [
        ("DemoChoice", "ImageMCQDataset", "image_mcq", "multiple_choice", "optional"),
        ("DemoYesNo", "ImageYORNDataset", "image_yorn", "yes_no", "optional"),
        ("DemoOpen", "ImageVQADataset", "image_vqa", "vqa", "unused"),
    ]
    return {
        name: DatasetInfo(
            name=name,
            class_name=class_name,
            module=module,
            kind=kind,
            path=DEMO_FOLDER / f"{name}.tsv",
            family="Demo",
            source="bundled",
            has_references=True,
            judge=judge,
        )
        for name, class_name, module, kind, judge in entries
    }


def find_table(name: str, data_root: Path) -> Path | None:
    """Return the table of this name among the datasets' files; None without one."""
    if not can_be_name(name):
        return None
    for suffix in (".tsv", ".tsv.gz"):
        path = data_root / f"{name}{suffix}"
        if path.exists():
            return path
    return None


def unknown_dataset(
    name: str,
    catalog: Mapping[str, DatasetInfo],
    extra: Mapping[str, DatasetInfo],
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
        by_small = {known.lower(): known for known in [*extra, *catalog]}
        near = difflib.get_close_matches(name.lower(), by_small, n=3, cutoff=0.6)
        names = " or ".join(by_small[small] for small in near)
        hint = f" Did you mean {names}?" if near else ""
    return VlmEvalError(
        f"Unknown dataset: {name!r}.{hint} Accepted are the {len(catalog)} names of "
        f"the installed ms-vlmeval and {', '.join(extra)}, with their upper and lower "
        f"case, and NAME for a table NAME.tsv in {data_root}."
    )


def _files_like(name: str, data_root: Path, folder: Path) -> list[str]:
    """Say which files may be meant: of another spelling, suffix, or folder."""
    found = []
    for place in dict.fromkeys((data_root, folder)):
        with suppress(OSError):
            for path in sorted(place.iterdir()):
                known = dataset_name(path.name)
                if not is_table(path.name) or not _is_like(known, name):
                    continue
                if not path.name.lower().endswith((".tsv", ".tsv.gz")):
                    how = "which is no TSV: write it as one"
                elif place == data_root:
                    how = f"which is the dataset {known!r}"
                    given = list_datasets([known])
                    if given != known:
                        how += f" (--vlm-data={shlex.quote(given)})"
                else:
                    how = f"which --vlm-data={shlex.quote(path.name)} takes"
                found.append(f"There is {path}, {how}.")
    return found[:MOST_FILES]


def _is_like(known: str, name: str) -> bool:
    """Whether a name is a file's but for its spelling, or a part of it.

    A name with blanks or commas that is given without quotes comes in its parts.
    """
    parts = re.split(r"[,\s]+", known)
    return _spelling(known) == _spelling(name) or (len(parts) > 1 and name in parts)


def _spelling(name: str) -> str:
    """Give what names have in common that differ in case, blanks, '-' and '_'."""
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
    memory = cache_dir / "catalog" / f"where-{_digest(str(python.absolute()))}.json"
    with suppress(OSError, ValueError, TypeError):
        state, version, folder = json.loads(memory.read_text(encoding="utf-8"))
        if state == _state(Path(folder)):
            return VlmevalPackage(Path(folder), version)
    found = _ask(python)
    _remember(memory, [_state(found.folder), found.version, str(found.folder)])
    return found


def load_catalog(package_folder: Path, cache_dir: Path) -> dict[str, DatasetInfo]:
    """Give every dataset that the sources in `package_folder` name.

    Reading them takes seconds, so the result is kept in `cache_dir` until the
    package's list of classes changes.
    """
    texts = [each.read_text(encoding="utf-8") for each in (CARD, VERSIONS)]
    state = [FORMAT, *texts, str(package_folder), _state(package_folder)]
    key = _digest(json.dumps(state))
    memory = cache_dir / "catalog" / f"{key}.json"
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        entries = json.loads(memory.read_text(encoding="utf-8"))
        return {entry["name"]: _as_info(entry) for entry in entries}
    catalog = _read_catalog(package_folder)
    _remember(memory, [_as_entry(info) for info in catalog.values()])
    return catalog


def _read_catalog(package_folder: Path) -> dict[str, DatasetInfo]:
    from pytest_vlmeval.datasets.source_reading import Package

    package = Package(package_folder / "dataset")
    card = load_card()
    catalog: dict[str, DatasetInfo] = {}
    for name, source, settings in _named_classes(package):
        # The first class that supports a name builds it (dataset/__init__.py:381).
        if name not in catalog:
            known = card.find(name, source.name)
            catalog[name] = _describe(name, source, settings, known)
    return catalog


def _named_classes(
    package: Package,
) -> Iterator[tuple[str, SourceClass, dict[str, Any]]]:
    from pytest_vlmeval.datasets.source_values import Preset, SourceClass

    presets = package.value("video_dataset_config", "supported_video_datasets") or {}
    for name, preset in presets.items():
        if isinstance(preset, Preset):
            yield name, preset.target, preset.settings
    for source in package.value("", "DATASET_CLASSES") or ():
        if isinstance(source, SourceClass):
            for name in package.call_supported(source):
                yield name, source, {}


def _describe(
    name: str, source: SourceClass, settings: dict[str, Any], known: CardEntry | None
) -> DatasetInfo:
    # A preset's data is that of the dataset it presets.
    entry = str(settings.get("dataset", name))
    url = _entry(source.get("DATASET_URL"), entry)
    checksum = _entry(source.get("DATASET_MD5"), entry) or _checksum(source, entry)
    collections = source.get("DATASET_SETS")
    members = collections.get(name, ()) if isinstance(collections, dict) else ()
    address = read_address(url)
    repository = known.hub if known and known.hub else _repository(source, name)
    repository = repository or address.repository
    info = DatasetInfo(
        name=name,
        class_name=source.name,
        module=source.module,
        kind=_kind(str(source.get("TYPE"))),
        modality=_modality(str(source.get("MODALITY"))),
        url=address.url,
        md5=checksum if re.fullmatch("[0-9a-f]{32}", checksum) else None,
        versions=load_versions().get(entry, ()),
        family=source.name,
        source=address.source or repository,
        repository=repository,
        settings=settings,
        members=tuple(members),
    )
    if known is None:
        return info
    return dataclasses.replace(
        info,
        family=known.family,
        size_bytes=known.size_bytes,
        has_references=known.has_references,
        judge=known.judge,
        homepage=known.homepage,
        licence=known.licence,
    )


def _checksum(source: SourceClass, name: str) -> str:
    """Give the checksum of a video class, which has one file or one for each name."""
    checksum = source.get("MD5")
    return _entry(checksum, name) if isinstance(checksum, dict) else str(checksum)


def _repository(source: SourceClass, name: str) -> str:
    """Give the hub's repository that the methods of a class take by default."""
    from pytest_vlmeval.datasets.source_values import Function

    # Single files of theirs are enough.
    if name in WITHOUT_REPOSITORY or source.get("DATASET_PART_URL"):
        return ""
    methods = [source.get("prepare_dataset"), *source.attributes.values()]
    for method in methods:
        found = method.default("repo_id") if isinstance(method, Function) else None
        if isinstance(found, str):
            return found
    return ""


def _entry(table: object, name: str) -> str:
    # Some tables say '' or 'None' for what has no address or checksum.
    value = table.get(name) if isinstance(table, dict) else None
    return value if isinstance(value, str) else ""


def _modality(upstream: str) -> Literal["image", "video", "text"]:
    if upstream == "VIDEO":
        return "video"
    return "text" if upstream == "TEXT" else "image"


def _kind(upstream_type: str) -> Kind:
    words: dict[str, Kind] = {
        "MCQ": "multiple_choice",
        "Y/N": "yes_no",
        "VQA": "vqa",
        "Caption": "caption",
        "MT": "conversation",
    }
    return next(
        (kind for word, kind in words.items() if word in upstream_type), "other"
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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _remember(memory: Path, data: Any) -> None:
    # A cache that cannot be written costs time only.
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_whole(memory, json.dumps(data))


def _as_info(entry: dict[str, Any]) -> DatasetInfo:
    versions = tuple(DataVersion(**each) for each in entry["versions"])
    members = tuple(entry["members"])
    return DatasetInfo(**{**entry, "members": members, "versions": versions})


def _as_entry(info: DatasetInfo) -> dict[str, Any]:
    entry = dataclasses.asdict(info)
    del entry["path"]
    return entry
