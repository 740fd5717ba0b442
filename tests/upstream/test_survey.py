"""Every dataset of ms-vlmeval, prepared from an invented table or repository.

What classes bring by themselves comes from a hub and a server of files. What cannot
be prepared is listed with its reason, and this fails when that changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.catalog import load_catalog
from pytest_vlmeval.datasets.download import FileAccess
from pytest_vlmeval.datasets.prepare import prepare_dataset, read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo, Hub, parts_of
from pytest_vlmeval.sandbox.environment import (
    ADDONS,
    HUB,
    LIGHT,
    VIDEO,
    SandboxEnvironment,
    addons_for,
)
from pytest_vlmeval.sandbox.inside import families
from pytest_vlmeval.sandbox.inside.families import FAMILIES
from pytest_vlmeval.sandbox.process import Sandbox, SandboxFault
from tests.support.constant_answers import ends_of_classes
from tests.support.file_server import FileServer
from tests.support.hub_server import HubServer
from tests.support.hub_sets import FILES, REPOSITORIES
from tests.support.invented_tables import invented_table
from tests.support.run_fixtures import environment_with
from tests.support.sandbox_tables import draw
from tests.support.video_layouts import repositories, tables
from tests.support.video_sets import VideoUser, write_files

# How the messages begin or go on that say why a dataset cannot be prepared.
EXCEPTIONS = {
    "QSpatial_scannet": "images of ScanNet, which its owners give only to those who",
    "MedqbenchCaption": "Choose MedqbenchCaption_dev or MedqbenchCaption_test.",
    "MedqbenchMCQ": "Choose MedqbenchMCQ_dev or MedqbenchMCQ_test.",
}
# The add-ons of image and text datasets, of most none.
SETS = [(), *sorted({tuple(sorted(a)) for a in ADDONS.values() if not a & VIDEO})]
# Without an address; their file is put there by hand.
BY_HAND = {"CreationMMBenchDataset", "ImageShortQADataset", "MaCBench"}


def image_and_text(
    environment: SandboxEnvironment, cache: Path, addons: frozenset[str]
) -> list[DatasetInfo]:
    """Give all that need these add-ons, but for the names of collections."""
    return [
        info
        for info in load_catalog(environment, cache).values()
        if info.modality != "video" and not info.members and addons_for(info) == addons
    ]


def prepare_invented(info: DatasetInfo, sandbox: Sandbox, access: FileAccess) -> str:
    """Prepare a dataset; give why it, or one of its samples, cannot be."""
    if info.url or info.class_name in BY_HAND:
        table = invented_table(info, access.cache_dir)
        info = replace(info, path=table, md5=None)
    try:
        prepared = prepare_dataset(
            info, access, sandbox=sandbox, sandbox_fingerprint="tests"
        )
    except VlmEvalError as error:
        return str(error)
    except SandboxFault as fault:
        return f"fault: {fault}"
    samples = read_samples(prepared)
    if not all(parts_of(sample.prompt) or sample.error for sample in samples):
        return "an empty prompt"
    return next((each.error for each in samples if each.error), "")


@pytest.fixture
def access(
    hub_environment: HubServer, file_server: FileServer, tmp_path: Path
) -> FileAccess:
    """Give the way to a hub and a server that have what classes bring."""
    hub_environment.repositories.update(REPOSITORIES)
    file_server.files.update(FILES)
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(draw(number))
    return FileAccess(
        data_root=tmp_path / "LMUData",
        cache_dir=tmp_path,
        allow_modified=True,
        mirror=file_server.url,
        hubs=[
            Hub(
                kind="huggingface", endpoint=hub_environment.url, cache=tmp_path / "hf"
            ),
            Hub(kind="modelscope", endpoint=hub_environment.url, cache=tmp_path / "ms"),
        ],
    )


def survey(
    infos: Iterable[DatasetInfo], environment: SandboxEnvironment, access: FileAccess
) -> dict[str, str]:
    """Prepare datasets, apart from other tests; give why they cannot be, by name."""
    sandbox = Sandbox(environment.python)
    reasons = {info.name: prepare_invented(info, sandbox, access) for info in infos}
    sandbox.close()
    return {name: reason for name, reason in reasons.items() if reason}


def check(infos: Sequence[DatasetInfo], unprepared: Mapping[str, str]) -> None:
    """Compare reasons with those that are known."""
    known = {info.name: EXCEPTIONS.get(info.name, "") for info in infos}
    surprises = {
        name: reason
        for name, reason in unprepared.items()
        if not known[name] or known[name] not in reason
    }
    assert surprises == {}
    assert unprepared.keys() == {name for name, reason in known.items() if reason}


@pytest.mark.slow
def test_every_class_prepares_or_says_why_not(
    sandbox_environment: SandboxEnvironment, run_cache: Path, access: FileAccess
) -> None:
    infos = ends_of_classes(
        image_and_text(sandbox_environment, run_cache, LIGHT), EXCEPTIONS
    )
    assert len(infos) > 190
    check(infos, survey(infos, sandbox_environment, access))


def test_tables_that_cannot_be_used(
    sandbox_environment: SandboxEnvironment,
    run_cache: Path,
    access: FileAccess,
    file_server: FileServer,
) -> None:
    part = "GMAI_mm_bench_TEST_part_{}.tsv"
    for number in range(2, 12):
        file_server.files[part.format(number)] = file_server.files[part.format(1)]
    infos = [
        info
        for info in image_and_text(sandbox_environment, run_cache, LIGHT)
        if info.name in {"GMAI-MMBench_TEST", "MedqbenchCaption"}
    ]
    told = survey(infos, sandbox_environment, access)
    assert told["GMAI-MMBench_TEST"] == (
        "GMAI-MMBench_TEST: rows 1 and 3 have the same index 2; each row needs one of "
        "its own."
    )
    begin, _, end = told["MedqbenchCaption"].partition(" (dataset/")
    assert begin == (
        "MedqbenchCaption: ms-vlmeval's MedqbenchCaptionDataset lists this name and "
        "has no data for it"
    )
    assert end.endswith("). Choose MedqbenchCaption_dev or MedqbenchCaption_test.")


@pytest.mark.addons
@pytest.mark.parametrize("addons", SETS, ids="-".join)
def test_every_dataset_prepares_or_says_why_not(
    addons: tuple[str, ...], run_cache: Path, access: FileAccess
) -> None:
    environment = environment_with(frozenset(addons))
    infos = image_and_text(environment, run_cache, frozenset(addons))
    assert infos
    check(infos, survey(infos, environment, access))


@pytest.mark.addons
def test_there_are_all_datasets(
    sandbox_environment: SandboxEnvironment, run_cache: Path
) -> None:
    counts = {
        addons: len(image_and_text(sandbox_environment, run_cache, frozenset(addons)))
        for addons in SETS
    }
    assert sum(counts.values()) == 457


def test_what_is_scored_has_an_adapter() -> None:
    for family in FAMILIES.values():
        for name in filter(None, (family.adapter, family.main, family.group)):
            module, _, function = name.partition(".")
            found = import_module(f"{families.__name__}.{module}")
            assert callable(getattr(found, function))
        one = bool(family.main) is not bool(family.metric)
        assert one or family.is_general


# How the messages begin or go on that say why a dataset cannot be prepared.
SOUND = "its prompt has a part of the type audio"
VIDEO_EXCEPTIONS = {
    **dict.fromkeys(
        (
            f"AV-SpeakerBench_audio_only_{each}"
            for each in ("8frame", "16frame", "1fps")
        ),
        SOUND,
    ),
    **dict.fromkeys(
        (
            f"WorldSense_{each}_audio"
            for each in ("8frame", "32frame", "1fps", "0.5fps")
        ),
        SOUND,
    ),
}


def prepare_invented_video(
    user: VideoUser, name: str, sandbox: Sandbox, first: str = "huggingface"
) -> str:
    """Prepare a dataset; give why it, or one of its samples, cannot be."""
    mirror = user.folder / "mirror"
    try:
        prepared = user.prepare(
            name,
            mirror=mirror,
            offline=True,
            modified=True,
            sandbox=sandbox,
            first=first,
        )
    except VlmEvalError as error:
        return str(error)
    except SandboxFault as fault:
        return f"fault: {fault}"
    samples = read_samples(prepared)
    kinds = {part.kind for sample in samples for part in parts_of(sample.prompt)}
    errors = [sample.error for sample in samples if sample.error]
    return errors[0] if errors else "" if kinds == {"image", "text"} else str(kinds)


@pytest.mark.addons
@pytest.mark.parametrize(
    ("addons", "count"),
    [(VIDEO, 170), (VIDEO | HUB | {"cv2"}, 5), (VIDEO | HUB | {"words"}, 87)],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, frozenset) else "",
)
def test_every_video_dataset_prepares_or_says_why_not(
    user: VideoUser, addons: frozenset[str], count: int
) -> None:
    infos = [
        info
        for info in user.catalog.values()
        if info.modality == "video" and addons_for(info) == addons
    ]
    layouts = {**repositories(), "": tables(info.url for info in infos if info.url)}
    for repository, files in layouts.items():
        write_files(user.folder / "mirror" / repository, files)
    sandbox = Sandbox(environment_with(addons).python)
    assert len(infos) == count
    reasons = {
        info.name: prepare_invented_video(user, info.name, sandbox) for info in infos
    }
    for info in ends_of_classes(infos):
        reason = prepare_invented_video(user, info.name, sandbox, "modelscope")
        reasons[f"{info.name} of ModelScope"] = reason
    sandbox.close()
    surprises = [
        f"{name}: {reason or 'prepared'}"
        for name, reason in reasons.items()
        if (known := VIDEO_EXCEPTIONS.get(name.split()[0], "")) not in reason
        or bool(reason) != bool(known)
    ]
    assert not surprises, "\n".join(surprises)
