"""Every change to ms-vlmeval, made while its modules are imported.

Here is what keeps it from the outside; what scoring needs is in `fixes.py`. Each fix
names the place in ms-vlmeval 0.0.20, below `vlmeval/`, that it answers.
What `vlmeval/__init__.py` does (TLS verification off at :8, logging set up at :15, a
`.env` file read into the environment at :31) and the imports of
`dataset/__init__.py` never happen: `bootstrap.py` enters past both files.
"""

from __future__ import annotations

import base64
import os
import socket
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import pandas as pd
from PIL import Image

from pytest_vlmeval.sandbox.inside import (
    expressions,
    fixes,
    hubs,
    judging,
    media,
    tables,
)
from pytest_vlmeval.sandbox.inside.job import (
    ContainedError,
    NoTableError,
    current_job,
    files_within,
    note_refusal,
)
from pytest_vlmeval.sandbox.inside.media import STAND_IN
from pytest_vlmeval.sandbox.inside.tables import load_slim
from pytest_vlmeval.sandbox.own_files import OUTSIDE, lies_within, open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

REFUSED_EVENTS = {
    "socket.connect",
    "socket.bind",
    "socket.sendto",
    "socket.sendmsg",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
}
# What ms-vlmeval writes into a pickle and reads again is plain data and numbers.
UNPICKLED = {
    "_codecs.encode",
    "collections.OrderedDict",
    "collections.defaultdict",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
}


# What opens or changes a file, by the places of the paths among what the event has.
TOUCHING = {
    "open": (0,),
    "os.remove": (0,),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.rename": (0, 1),
    "os.symlink": (1,),
    "os.link": (0, 1),
    "os.truncate": (0,),
}
# Where Python, its packages and the system keep their own files.
SYSTEM = [
    Path(place).resolve()
    for place in (
        *("/usr", "/lib", "/lib64", "/etc", "/proc", "/sys"),
        *("/dev/urandom", sys.prefix, sys.base_prefix),
        *(folder for folder in sys.path if folder),
        str(Path(__file__).parents[2]),
    )
]
# What is written there is nowhere: packages open it as they are imported.
NOWHERE = Path(os.devnull)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def install() -> None:
    """Close the process and fix ms-vlmeval's modules as they are imported."""
    sys.addaudithook(_refuse)
    # Where pyarrow is installed, pandas would keep texts in it, with functions of its
    # own for them; here a score is the same in every environment.
    pd.set_option("mode.string_storage", "python")
    sys.meta_path.insert(0, _Finder())
    # dataset/utils/mathv.py:26 starts a process for each comparison.
    sys.modules["timeout_decorator"] = fixes.timeout_decorator()
    hubs.bound_archives()
    base64.b64decode = _see_stand_ins(base64.b64decode)


def _see_stand_ins(upstream: Callable[..., bytes]) -> Callable[..., bytes]:
    """Return a decoder that knows the texts that stand for images in a table.

    dataset/mmlongbench.py:493, smp/vlm.py:150 and others decode cells themselves.
    """

    def b64decode(s: Any, *options: Any, **named: Any) -> bytes:
        if isinstance(s, str) and s.startswith(STAND_IN):
            images = current_job().images
            assert images is not None
            return images.content(s)
        return upstream(s, *options, **named)

    return b64decode


def _refuse(event: str, args: tuple[object, ...]) -> None:
    if event in TOUCHING:
        if within := files_within():
            paths = [args[place] for place in TOUCHING[event]]
            flags = args[2] if event == "open" else WRITING
            reading = isinstance(flags, int) and not flags & WRITING
            # What Python keeps of modules that it imports.
            bytecode = all(
                isinstance(path, str) and "/__pycache__/" in f"{path}/"
                for path in paths
            )
            _keep_within(within, paths, reading=reading or bytecode)
        return
    if event == "pickle.find_class":
        if ".".join(map(str, args)) in UNPICKLED:
            return
    elif event not in REFUSED_EVENTS or _is_own_socket(*args[:2]):
        return
    _refused(f"the sandbox allows no {event}{args[-1:]!r:.200}")


def _refused(what: str) -> NoReturn:
    """Raise ContainedError, and remember it, as a class may go on without a word."""
    note_refusal(what)
    raise ContainedError(what)


def _keep_within(
    within: Sequence[Path], paths: Sequence[object], *, reading: bool
) -> None:
    """Keep a dataset that is confined in its own folders, whoever opens the file."""
    for path in paths:
        if not isinstance(path, str | bytes | os.PathLike):
            continue  # a file that is open
        place = Path(os.path.realpath(os.fsdecode(path)))
        if lies_within(place, [*within, NOWHERE]):
            continue
        if not reading or not lies_within(place, SYSTEM):
            shown = os.fsdecode(path)
            leads = (
                ""
                if os.path.normpath(Path.cwd() / shown) == str(place)
                else f", that is {place}"
            )
            _refused(f"{shown}{leads}: {OUTSIDE}")


def _is_own_socket(end: object = None, address: object = None) -> bool:
    """Return whether it is a socket in the process's own folder, for its children."""
    if not isinstance(end, socket.socket) or end.family != socket.AF_UNIX:
        return False
    return isinstance(address, str) and Path(address).resolve().is_relative_to(
        Path.cwd()
    )


class _Finder(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if not fullname.startswith("vlmeval."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        # smp/misc.py:58 and :255, dataset/utils/mathv.py:36, dataset/utils/
        # vqa_eval.py:254 and many more evaluate cells, answers and judge replies. A
        # module's own global comes before the builtin of the same name.
        vars(module).update(
            eval=expressions.confined_eval,
            exec=expressions.refuse_code,
            compile=expressions.refuse_code,
        )
        if prepare := BEFORE.get(module.__name__):
            prepare(module)
        super().exec_module(module)
        for fix in FIXES.get(module.__name__, ()):
            fix(module)


def _fix_files(module: Any) -> None:
    """Answer smp/file.py:149 dump, :248 load, :287 download_file, :372 md5 and more.

    The dataset's own table is there, and was checked by whoever brought it.
    Written tables come back changed: text that looks empty ('NA', 'None') as NaN,
    '007' as 7, '=B' as 0, more than 32,767 characters cut, and one fixed name below
    /tmp per second (dataset/utils/multiple_choice.py:573).
    """
    upstream_dump, upstream_load = module.dump, module.load

    def dump(data: object, f: str, **options: object) -> None:
        job = current_job()
        # What a class that nobody looked at makes of a file is in its scores.
        as_file = job.is_general and str(f) not in job.given
        if isinstance(data, pd.DataFrame) and not as_file:
            job.dump_table(data, str(f))
        else:
            job.results.pop(str(f), None)
            upstream_dump(data, str(f), **options)

    def load(f: str, fmt: str | None = None) -> object:
        job = current_job()
        table = job.tables.get(str(f))
        if table is not None:
            return table.copy()
        if str(f) in job.results:
            return dict(job.results[str(f)])
        if str(f).endswith(".tsv") and job.images is not None:
            return load_slim(Path(f), job)
        return upstream_load(str(f), fmt)

    def download_file(url: str, filename: str | None = None) -> str:
        job, wanted = current_job(), Path(filename or url)
        if url == job.url and wanted.parent == job.folder:
            job.add_table(wanted.name)
            return str(wanted)
        hubs.link_file(url, wanted)
        return str(wanted)

    module.dump, module.load, module.download_file = dump, load, download_file
    # No table is so large that its images have to leave it first (tools.py:371).
    module.file_size = lambda _path, _unit="GB": 0
    tables.fix_checksums(module)


def _fix_images(module: Any) -> None:
    """Answer smp/vlm.py:159: images are encoded anew; :9: no limit on their size.

    And :179, which opens whatever a path names.
    """
    Image.MAX_IMAGE_PIXELS = None  # images.check_image has a limit of its own

    def write(base64_string: str, image_path: str, target_size: int = -1) -> None:
        images = current_job().images
        if images is None and _is_shown():
            Path(image_path).touch()
            return
        assert images is not None
        images.write_base64(base64_string, image_path)

    def read_ok(img_path: str) -> bool:
        """Check whether there is an image, without waiting for a FIFO."""
        images = current_job().images
        if images is not None and images.knows(img_path):
            return True
        if images is None and _is_shown():
            return Path(img_path).exists()
        try:
            with (
                open_regular(Path(img_path), current_job().within) as file,
                Image.open(file) as image,
            ):
                return min(image.size) > 0
        except Exception:
            return False

    # :190, whether there is a judge: it is ours, and needs no key of OpenAI's.
    module.gpt_key_set = lambda: current_job().ask is not None
    module.decode_base64_to_image_file = write
    module.read_ok = read_ok


def _is_shown() -> bool:
    """Return whether images are only named to a judge, who gets them elsewhere."""
    family = current_job().family
    return family is not None and family.shown


def _fix_progress(module: Any) -> None:
    """Answer utils/mp_util.py:31: threads, and the save file anew after each task.

    The result and the save file at the end are the same, in the order of the tasks.
    """

    def track_progress_rich(
        func: Callable[..., object],
        tasks: Iterable[object] = (),
        nproc: int | None = 1,
        save: str | None = None,
        keys: Sequence[object] | None = None,
        **_options: object,
    ) -> list[object]:
        job = current_job()
        named = job.asked if keys is None else keys
        results = judging.judge_units(job, func, list(tasks), named)
        if save is not None:
            # Kept as they are: tables among them cannot come back from a file.
            saved = module.load(save) if module.osp.exists(save) else {}
            if keys is not None:
                saved.update(zip(keys, results, strict=True))
            job.results[str(save)] = saved
            Path(save).touch()
        return results

    module.track_progress_rich = track_progress_rich


def _fix_judge(module: Any) -> None:
    """Answer dataset/utils/judge_util.py:8: judges are clients of web services."""
    module.build_judge = judging.Judge


def _fix_table_source(module: Any) -> None:
    """Answer dataset/image_base.py:218: a file of another checksum is overwritten."""

    def prepare_tsv(self: Any, url: str, file_md5: str | None = None) -> pd.DataFrame:
        job = current_job()
        self.data_path = str(job.folder / f"{self.dataset_name}.tsv")
        if self.data_path in job.tables:
            return job.tables[self.data_path].copy()
        if job.images is None or not str(url).startswith("https://"):
            raise NoTableError
        hubs.link_file(url, Path(self.data_path), file_md5)
        return load_slim(Path(self.data_path), job)

    module.ImageBaseDataset.prepare_tsv = prepare_tsv


def _fix_pool(module: Any) -> None:
    """Answer dataset/image_vqa.py:87: 16 processes that are never ended."""
    pool = SimpleNamespace(map=lambda function, items: list(map(function, items)))
    module.mp = SimpleNamespace(Pool=lambda _processes=None: pool)


BEFORE = {**media.BEFORE, **fixes.BEFORE}
_OWN: dict[str, Callable[[Any], None]] = {
    "vlmeval.smp.file": _fix_files,
    "vlmeval.smp.vlm": _fix_images,
    "vlmeval.utils.mp_util": _fix_progress,
    "vlmeval.dataset.utils.judge_util": _fix_judge,
    "vlmeval.dataset.image_base": _fix_table_source,
    "vlmeval.dataset.image_vqa": _fix_pool,
}
FIXES: dict[str, list[Callable[[Any], None]]] = {}
for _fixes in (_OWN, hubs.AFTER, fixes.AFTER):
    for _name, _fix in _fixes.items():
        FIXES.setdefault(_name, []).append(_fix)
