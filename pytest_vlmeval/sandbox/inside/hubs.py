"""What ms-vlmeval asks of hubs and addresses, answered with what is on disk.

The sandbox has no network. A class that wants a repository or a file which is not on
the job's shelf ends with `Needed`; the parent brings it and calls again.

Each fix names the place in ms-vlmeval 0.0.20, below `vlmeval/`, that it answers.

A small file may hold zeros for a whole disk. What datasets pack are images, videos
and text, which hardly shrink.
"""

from __future__ import annotations

import os
import pickle
import random
import sys
import tarfile
import zipfile
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from subprocess import CalledProcessError
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.job import ContainedError, current_job
from pytest_vlmeval.sandbox.inside.tables import stand_in_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    from pytest_vlmeval.sandbox.shelf import Shelf

    Patterns = list[str] | str | None
    Request = dict[str, Any]


def own_folders(
    info: dict[str, Any], table: str | None, shelf: Shelf | None, *more: Path
) -> list[Path] | None:
    """Return the folders in which a dataset may open files; None for any.

    They are those of its table, of what was downloaded for it, where it is prepared,
    and this process's own.
    """
    if not info["confined"]:
        return None
    folders = [Path.cwd(), *more]
    if table is not None:
        folders += [Path(table).parent, Path(table).resolve()]
        folders += map(Path, filter(None, [*info["shards"], info["folder"]]))
    if shelf is not None:
        data_root = Path(shelf.data_root)
        # Some classes keep a table there, which may be a link: the user's, or one to an
        # earlier mirror.
        folders += [data_root, *filter(Path.is_symlink, data_root.glob("*.tsv"))]
        folders += [Path(path).resolve() for path in shelf.files.values()]
        for snapshot in shelf.snapshots:
            folder = Path(snapshot["folder"]).absolute()
            # huggingface_hub links the files of a snapshot to those beside it.
            linked = folder.parent.name == "snapshots"
            folders.append(folder.parents[1] if linked else folder)
            if "source" in snapshot:
                folders += _mirrored_files(Path(snapshot["source"]))
    return [folder.resolve() for folder in folders]


def _mirrored_files(source: Path) -> list[Path]:
    """Return a mirror's folder, and what its own files link to elsewhere."""
    real = source.resolve()
    files = (path.resolve() for path in source.rglob("*") if path.is_symlink())
    return [real, *(file for file in files if not file.is_relative_to(real))]


def shelf_for(wanted: str) -> Shelf:
    """Return the job's shelf; raises ContainedError where nothing may be brought."""
    shelf = current_job().shelf
    if shelf is None:
        raise ContainedError(f"the sandbox allows no download of {wanted}")
    return shelf


def _request(
    hub: str, repository: str, revision: str | None, allow: Patterns, ignore: Patterns
) -> Request:
    return {
        "hub": hub,
        "repository": repository,
        "revision": revision,
        "allow": [allow] if isinstance(allow, str) else allow,
        "ignore": [ignore] if isinstance(ignore, str) else ignore,
    }


def snapshot_download(
    repo_id: str,
    *,
    repo_type: str | None = None,
    revision: str | None = None,
    local_dir: str | None = None,
    allow_patterns: Patterns = None,
    ignore_patterns: Patterns = None,
    **_transfer: object,
) -> str:
    """Stand in for huggingface_hub's function; `local_dir` gets links."""
    request = _request(
        "huggingface", repo_id, revision, allow_patterns, ignore_patterns
    )
    folder = shelf_for(repo_id).find(request)
    if local_dir is None:
        return folder
    _link_files(Path(folder), Path(local_dir), request)
    return local_dir


def _link_files(folder: Path, target: Path, request: Request) -> None:
    filter_files = import_module("huggingface_hub.utils").filter_repo_objects
    files = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    ]
    for name in filter_files(
        files, allow_patterns=request["allow"], ignore_patterns=request["ignore"]
    ):
        link = target / name
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            link.symlink_to((folder / name).resolve())


def _dataset_snapshot_download(
    dataset_id: str,
    revision: str | None = None,
    allow_patterns: Patterns = None,
    ignore_patterns: Patterns = None,
) -> str:
    return shelf_for(dataset_id).find(
        _request("modelscope", dataset_id, revision, allow_patterns, ignore_patterns)
    )


def fix_video_base(module: Any) -> None:
    """Answer dataset/video_base.py:45: where frames lie, and :174: tables."""

    def prepare_tsv(self: Any, url: str, file_md5: str | None = None) -> pd.DataFrame:
        shelf = current_job().shelf
        assert shelf is not None
        assert shelf.table is not None
        self.data_path = str(shelf.table)
        return pd.read_csv(shelf.table, sep="\t")

    module.LMUDataRoot = lambda: str(current_job().folder)
    module.VideoBaseDataset.prepare_tsv = prepare_tsv


def fix_collections(module: Any) -> None:
    """Answer dataset/video_concat_dataset.py:10: a method it needs not is abstract.

    None of MLVU, TempCompass and QBench_Video can be built without this.
    """
    module.ConcatVideoDataset.__abstractmethods__ = frozenset()


def fix_dsr(module: Any) -> None:
    """Answer dataset/dsrbench.py:62: without a snapshot it joins None to a path."""
    upstream = module.get_cache_path
    module.get_cache_path = lambda repo_id: upstream(repo_id) or ""


def fix_vdc(module: Any) -> None:
    """Answer dataset/vdc.py:173, which calls what it does not import."""
    misc: Any = import_module("vlmeval.smp.misc")
    module.modelscope_flag_set = misc.modelscope_flag_set


class _PlainUnpickler(pickle.Unpickler):
    """Reads texts, bytes, numbers and their containers; nothing that is called."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        # How the second protocol writes bytes.
        if (module_name, global_name) == ("_codecs", "encode"):
            return super().find_class(module_name, global_name)
        raise pickle.UnpicklingError(f"it wants {module_name}.{global_name}")


def _load_videos(file: IO[bytes]) -> dict[str, bytes]:
    """Read a pickle of videos by name; raises VlmEvalError for anything else."""
    try:
        videos = _PlainUnpickler(file).load()
    except Exception as error:
        raise VlmEvalError(f"{file.name} is not a file of videos: {error}.") from error
    if not isinstance(videos, dict) or not all(
        isinstance(name, str) and name == Path(name).name and isinstance(data, bytes)
        for name, data in videos.items()
    ):
        raise VlmEvalError(
            f"{file.name} is not a file of videos: it should hold bytes by plain "
            "names, and nothing else."
        )
    return videos


def fix_pickled_videos(module: Any) -> None:
    """Answer dataset/mmbench_video.py:31: what a hub sent is unpickled."""
    module.pickle = SimpleNamespace(load=_load_videos)


# A class names a repository by its page (dataset/image_vqa.py:244).
PAGE = "https://huggingface.co/datasets/"
SCANNET = (
    "QSpatial_scannet asks about images of ScanNet, which its owners give only to "
    "those who apply, and ms-vlmeval takes from a folder written into its code "
    "(dataset/image_vqa.py:2523). It cannot be prepared; a table of your own, with "
    "the images and the questions of andrewliao11/Q-Spatial-Bench, can."
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


def fix_clients(module: Any) -> None:
    """Answer smp/misc.py:70 get_cache_path and the clients of both hubs.

    modelscope lacks what get_cache_path imports from it (:73), so that every build
    goes to the network; MVBench asks for a login (dataset/mvbench.py:186). And :203,
    where load_env copies a .env file into the environment. The package `datasets`
    (dataset/image_vqa.py:294 and others) is imported when a class first uses it.
    """

    def get_cache_path(
        repo_id: str, branch: str | None = "main", repo_type: str = "datasets"
    ) -> str | None:
        return shelf_for(repo_id).cached(repo_id, branch)

    module.get_cache_path = get_cache_path
    module.load_env = lambda: None
    client: Any = import_module("huggingface_hub")
    client.snapshot_download = snapshot_download
    client.hf_hub_download = _hf_hub_download
    client.login = lambda *_given, **_settings: None
    modelscope: Any = ModuleType("modelscope")
    modelscope.dataset_snapshot_download = _dataset_snapshot_download
    sys.modules["modelscope"] = modelscope
    if "datasets" not in sys.modules and find_spec("datasets") is not None:
        package: Any = ModuleType("datasets")
        package.load_dataset = load_dataset
        sys.modules["datasets"] = package
    # tools.py:371 writes the images of a large table to disk, one by one, and
    # imports half of ms-vlmeval; here no table holds its images.
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
    """Return the package `datasets` itself, which works in this process only."""
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


def fix_archives(module: Any) -> None:
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


def fix_image_vqa(module: Any) -> None:
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


def fix_image_mcq(module: Any) -> None:
    """Answer dataset/image_mcq.py:2091 and :2292: images of parts go to disk."""

    def localize_df(data: pd.DataFrame, _name: str) -> pd.DataFrame:
        return stand_in_frame(data, current_job())

    module.localize_df = localize_df


def fix_annotations(module: Any) -> None:
    """Answer dataset/da2k.py:94: what it calls a table is not made yet.

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


def fix_columns(module: Any) -> None:
    """Answer dataset/matbench.py:168: pandas 3 takes 2 for a name, not a place."""
    upstream = module.MATBench.build_prompt

    def build_prompt(self: Any, line: Any) -> object:
        line = line.copy()
        line[2] = line.iloc[2]
        return upstream(self, line)

    module.MATBench.build_prompt = build_prompt


def fix_current_folder(module: Any) -> None:
    """Answer dataset/worldvqa.py:274: images are looked for in the current folder."""
    upstream = module.WorldVQA.build_prompt

    def build_prompt(self: Any, line: Any) -> object:
        line = line.copy()
        if isinstance(line.get("image"), str):
            line["image_path"] = self.dump_image(line)[0]
        return upstream(self, line)

    module.WorldVQA.build_prompt = build_prompt


AFTER: dict[str, Callable[[Any], None]] = {
    "vlmeval.smp.misc": fix_clients,
    "vlmeval.dataset.video_base": fix_video_base,
    "vlmeval.dataset.video_concat_dataset": fix_collections,
    "vlmeval.dataset.dsrbench": fix_dsr,
    "vlmeval.dataset.vdc": fix_vdc,
    "vlmeval.dataset.mmbench_video": fix_pickled_videos,
    "vlmeval.dataset.videomme": fix_pickled_videos,
    "vlmeval.dataset.videott": fix_pickled_videos,
    "vlmeval.dataset.video_holmes": fix_pickled_videos,
    "vlmeval.dataset.image_vqa": fix_image_vqa,
    "vlmeval.dataset.image_mcq": fix_image_mcq,
    "vlmeval.dataset.chartmimic": fix_archives,
    "vlmeval.dataset.da2k": fix_annotations,
    "vlmeval.dataset.matbench": fix_columns,
    "vlmeval.dataset.worldvqa": fix_current_folder,
}


# An archive may hold so many times its own size, and always so many bytes.
MOST_TIMES = 200
ALWAYS_BYTES = 2**30


def bound_archives() -> None:
    """Refuse archives that hold far more than they are, as they are read."""
    # A class that unpacks a tar takes what Python 3.14 does not: members that lie
    # outside of the folder, links to there, devices.
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    _bound_zips()
    _bound_tars()


def _check(name: object, held: int, packed: int) -> None:
    if held > max(ALWAYS_BYTES, MOST_TIMES * packed):
        raise ContainedError(
            f"the sandbox does not unpack {name}: of {packed:,} bytes it would make "
            f"{held:,} or more, over {MOST_TIMES} times as many"
        )


def _size(file: Any) -> int:
    place = file.tell()
    size: int = file.seek(0, os.SEEK_END)
    file.seek(place)
    return size


def _bound_zips() -> None:
    """Check the sizes in the list of members; no more than these is unpacked."""
    upstream = zipfile.ZipFile.__init__

    def __init__(self: zipfile.ZipFile, *given: Any, **named: Any) -> None:
        upstream(self, *given, **named)
        if self.mode == "r" and self.fp is not None:
            held = sum(each.file_size for each in self.infolist())
            _check(self.filename, held, _size(self.fp))

    zipfile.ZipFile.__init__ = __init__  # type: ignore[method-assign]


def _bound_tars() -> None:
    """Add up the sizes of members as they are found, before their content is read."""
    upstream = tarfile.TarFile.next

    def following(self: tarfile.TarFile) -> tarfile.TarInfo | None:
        member = upstream(self)
        if member is None or not isinstance(self.name, str):
            return member
        # The first member is given twice.
        known = vars(self).setdefault("sizes", {})
        if member.offset not in known:
            known[member.offset] = member.size
            vars(self)["held"] = held = vars(self).get("held", 0) + member.size
            _check(self.name, held, Path(self.name).stat().st_size)
        return member

    tarfile.TarFile.next = following  # type: ignore[method-assign]
