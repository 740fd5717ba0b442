"""What single classes bring when they are built, by other ways than the hubs' clients.

Each mend names the place in ms-vlmeval 0.0.20, below `vlmeval/`, that it answers. A
file or repository that is not on the job's shelf ends the call with `Needed`.
"""

from __future__ import annotations

import os
import random
import sys
import tarfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from subprocess import CalledProcessError
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.hubs import shelf_for, snapshot_download
from pytest_vlmeval.sandbox.inside.job import ContainedError, current_job
from pytest_vlmeval.sandbox.inside.tables import stand_in_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A class names a repository by its page (dataset/image_vqa.py:244).
PAGE = "https://huggingface.co/datasets/"
SCANNET = (
    "QSpatial_scannet asks about pictures of ScanNet, which its owners give only to "
    "those who apply, and ms-vlmeval takes from a folder written into its code "
    "(dataset/image_vqa.py:2523). It cannot be prepared; a table of your own, with "
    "the pictures and the questions of andrewliao11/Q-Spatial-Bench, can."
)


def link_file(url: str, target: Path, md5: str | None = None) -> None:
    """Put a link to the file of an address at `target`; raises Needed without it."""
    folder = current_job().folder
    below = target.is_relative_to(folder)
    name = target.relative_to(folder).as_posix() if below else target.name
    path = shelf_for(url).find_file(url, name, md5)
    target.unlink(missing_ok=True)
    target.symlink_to(path)


def _hf_hub_download(
    repo_id: str, filename: str, *, revision: str | None = None, **_transfer: object
) -> str:
    """Stand in for huggingface_hub's function of this name (dataset/da2k.py:78)."""
    folder = snapshot_download(repo_id, revision=revision, allow_patterns=[filename])
    return str(Path(folder, filename))


def mend_downloads(_module: ModuleType) -> None:
    """Answer dataset/image_vqa.py:294 and others: `datasets`, hf_hub_download, tools.

    The package `datasets` is imported when a class first uses it.
    """
    client: Any = import_module("huggingface_hub")
    client.hf_hub_download = _hf_hub_download
    if "datasets" not in sys.modules and find_spec("datasets") is not None:
        package: Any = ModuleType("datasets")
        package.load_dataset = load_dataset
        sys.modules["datasets"] = package
    # tools.py:371 writes the pictures of a large table to disk, one by one, and
    # imports half of ms-vlmeval; here no table holds its pictures.
    tools: Any = ModuleType("vlmeval.tools")
    tools.LOCALIZE = _keep_table
    sys.modules["vlmeval.tools"] = tools


def _keep_table(table: str, target: str) -> str:
    Path(target).unlink(missing_ok=True)
    Path(target).symlink_to(Path(table).resolve())
    return target


def load_dataset(path: str, name: str | None = None, **options: Any) -> Any:
    """Stand in for the function of `datasets`, over a snapshot of the repository."""
    options.pop("token", None)
    folder = snapshot_download(path.removeprefix(PAGE), repo_type="dataset")
    cache = str(current_job().folder / "datasets")
    return _library().load_dataset(folder, name, cache_dir=cache, **options)


def _library() -> Any:
    """Give the package `datasets` itself, which works in this process only."""
    stand_in = sys.modules.get("datasets")
    if stand_in is None or stand_in.__spec__ is None:
        os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"
        del sys.modules["datasets"]
        library: Any = import_module("datasets")
        library.Dataset.map = _in_one_process(library)
        # Modules of ms-vlmeval that are imported later take this one.
        library.read_folder, library.load_dataset = library.load_dataset, load_dataset
    package: Any = sys.modules["datasets"]
    return SimpleNamespace(load_dataset=package.read_folder)


def _in_one_process(library: Any) -> Callable[..., Any]:
    upstream = library.Dataset.map

    def map_rows(rows: Any, *given: Any, num_proc: int = 1, **named: Any) -> Any:
        count = min(num_proc or 1, len(rows))
        if count < 2 or named.get("with_indices"):
            return upstream(rows, *given, **named)
        # dataset/image_mcq.py:2634 draws: each of the processes from the start.
        state = random.getstate()
        parts = []
        for number in range(count):
            random.setstate(state)
            part = rows.shard(count, number, contiguous=True)
            parts.append(upstream(part, *given, load_from_cache_file=False, **named))
        return library.concatenate_datasets(parts)

    return map_rows


def mend_archives(module: Any) -> None:
    """Answer dataset/chartmimic.py:494 and :507: wget, and then tar."""

    def run(command: list[str], **_options: object) -> None:
        if command[0] == "wget":
            link_file(command[1], Path(command[3]))
        elif command[0] == "tar":
            with tarfile.open(command[2]) as archive:
                archive.extractall(command[-1], filter="data")
        else:
            raise ContainedError(f"the sandbox allows no {command[0]}")

    module.subprocess = SimpleNamespace(run=run, CalledProcessError=CalledProcessError)


def mend_image_vqa(module: Any) -> None:
    """Answer dataset/image_vqa.py:2538 (wget), :2591 (ScanNet) and :2805 (parts).

    The parts of MM_NIAH_TEST are all written to the file that they should make up.
    """
    download, load_data = module.download_file, module.QSpatial.load_data

    def download_file(url: str, filename: str) -> object:
        part = url.rpartition("/")[2]
        name = filename if not part.startswith("part-") else part
        return download(url, str(Path(filename).with_name(Path(name).name)))

    def post_build(self: Any, _dataset: str) -> None:
        texts = {
            name: shelf_for(self.url)
            .find_file(f"{self.url}{name}.txt", f"QSpatial/{name}.txt")
            .read_text(encoding="utf-8")
            for name in (
                "system_prompt",
                "spatial_prompt_single",
                "spatial_prompt_steps",
                "standard_prompt",
                "zero_shot_prompt",
            )
        }
        self.system_prompt = texts.pop("system_prompt")
        self._prompt_templates = texts

    def load_licensed(self: Any, dataset: str) -> object:
        if dataset == "QSpatial_scannet":
            raise VlmEvalError(SCANNET)
        return load_data(self, dataset)

    module.download_file = download_file
    module.QSpatial.post_build = post_build
    module.QSpatial.load_data = load_licensed


def mend_image_mcq(module: Any) -> None:
    """Answer dataset/image_mcq.py:2091 and :2292: pictures of parts go to disk."""

    def localize_df(data: pd.DataFrame, _name: str) -> pd.DataFrame:
        return stand_in_frame(data, current_job())

    module.localize_df = localize_df


def mend_annotations(module: Any) -> None:
    """Answer dataset/da2k.py:94: what is to be made a table is taken for one.

    It looks for a table under this name too, and comes to :127 only without one.
    """
    source = "annotations.json"

    def walk(top: str) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, folders, files in os.walk(top):
            yield folder, folders, [name for name in files if name != source]

    def exists(path: str) -> bool:
        return os.path.basename(path) != source and os.path.exists(path)  # noqa: PTH110, PTH119

    module.os = SimpleNamespace(**{**vars(os), "walk": walk})
    module.osp = SimpleNamespace(**{**vars(os.path), "exists": exists})


def mend_columns(module: Any) -> None:
    """Answer dataset/matbench.py:168: pandas 3 takes 2 for a name, not a place."""
    upstream = module.MATBench.build_prompt

    def build_prompt(self: Any, line: Any) -> object:
        line = line.copy()
        line[2] = line.iloc[2]
        return upstream(self, line)

    module.MATBench.build_prompt = build_prompt


def mend_current_folder(module: Any) -> None:
    """Answer dataset/worldvqa.py:274: pictures are looked for in the current folder."""
    upstream = module.WorldVQA.build_prompt

    def build_prompt(self: Any, line: Any) -> object:
        line = line.copy()
        if isinstance(line.get("image"), str):
            line["image_path"] = self.dump_image(line)[0]
        return upstream(self, line)

    module.WorldVQA.build_prompt = build_prompt


AFTER: dict[str, Callable[[Any], None]] = {
    "vlmeval.smp.misc": mend_downloads,
    "vlmeval.dataset.image_vqa": mend_image_vqa,
    "vlmeval.dataset.image_mcq": mend_image_mcq,
    "vlmeval.dataset.chartmimic": mend_archives,
    "vlmeval.dataset.da2k": mend_annotations,
    "vlmeval.dataset.matbench": mend_columns,
    "vlmeval.dataset.worldvqa": mend_current_folder,
}
