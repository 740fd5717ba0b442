"""All datasets by name, read from ms-vlmeval's sources, and the bundled ones.

A small interpreter of what tables in sources are made of: literals, names, f-strings,
comprehensions, loops that fill a dict, class attributes and their inheritance. What
it does not know is left out, silently: a table that is computed from files or the
network has no value in the sources.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import json
import re
import shlex
import subprocess
import tomllib
import urllib.parse
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pytest_vlmeval.datasets.download import VERSIONS, load_versions, write_whole
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo, DataVersion
from pytest_vlmeval.settings.option import (
    can_be_name,
    dataset_name,
    is_table,
    list_datasets,
)

if TYPE_CHECKING:
    from pytest_vlmeval.records import JudgeNeed, Kind

CARD = Path(__file__).with_name("card.toml")


class CardEntry(NamedTuple):
    """The facts of one dataset, as `DatasetInfo` has them."""

    family: str
    judge: JudgeNeed
    has_references: bool
    hub: str
    homepage: str | None
    licence: str | None
    size_bytes: int | None


class Card(NamedTuple):
    """The datasets of the card, and those whose ms-vlmeval class is theirs alone."""

    by_name: Mapping[str, CardEntry]
    by_class: Mapping[str, CardEntry]

    def find(self, name: str, class_name: str) -> CardEntry | None:
        """Give what is known of a dataset, if anything is."""
        return self.by_name.get(name) or self.by_class.get(class_name)


def load_card() -> Card:
    """Read the card."""
    families = tomllib.loads(CARD.read_text(encoding="utf-8"))["family"]
    return Card(
        by_name=dict(entry for family in families for entry in _entries(family)),
        by_class={
            family["class_name"]: entry
            for family in families
            if "class_name" in family
            for _, entry in _entries(family)
        },
    )


def _entries(family: Mapping[str, Any]) -> Iterator[tuple[str, CardEntry]]:
    sizes = family.get("sizes_mb", {})
    for name in family["names"]:
        yield (
            name,
            CardEntry(
                family=family["name"],
                judge=family["judge"],
                has_references=name not in family.get("unreferenced", ()),
                hub=family.get("hub", ""),
                homepage=family.get("homepage"),
                licence=family.get("licence"),
                size_bytes=sizes[name] * 10**6 if name in sizes else None,
            ),
        )


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
    return Address(url=url, source=_source(url))


def _source(url: str) -> str:
    address = urllib.parse.urlsplit(url)
    repository = re.match(r"/(?:api/v1/)?datasets/([^/]+/[^/]+)/", address.path)
    if repository is None:
        return address.netloc
    return f"{address.netloc}/{repository[1]}"


# Counts changes in what is written, so that older files are not read.
FORMAT = 6
PROBE_S = 60.0
MOST_FILES = 3
# One table of the repository is all it wants (dataset/image_mcq.py:961).
WITHOUT_REPOSITORY = {"MME-RealWorld-Lite"}
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


# Calls without effect beyond their object, on the values that tables are made of.
METHODS = {
    "append", "copy", "extend", "format", "get", "items", "join", "keys", "lower",
    "replace", "split", "startswith", "update", "upper", "values",
}  # fmt: skip
FUNCTIONS: dict[str, Any] = {
    "dict": dict, "enumerate": enumerate, "list": list, "range": range, "set": set,
    "sorted": sorted, "str": str, "tuple": tuple, "zip": zip, "OrderedDict": dict,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "__add__", ast.Mod: "__mod__", ast.Mult: "__mul__",
}  # fmt: skip

Names = MutableMapping[str, Any]


class UnknownValueError(Exception):
    """The sources do not say, or not in a way that is understood here."""


class SourceClass(NamedTuple):
    """A class as written: its own attributes, its bases, its methods."""

    name: str
    module: str
    bases: tuple[Any, ...]
    attributes: dict[str, Any]

    def get(self, name: str) -> Any:
        """Give an attribute of the class or its first base that has it, or None."""
        if name in self.attributes:
            return self.attributes[name]
        for base in self.bases:
            if isinstance(base, SourceClass):
                value = base.get(name)
                if value is not None:
                    return value
        return None


class Preset(NamedTuple):
    """A `functools.partial` of a class."""

    target: SourceClass
    settings: dict[str, Any]


class Import(NamedTuple):
    """A name of another module of the package."""

    module: str
    name: str


class Function(NamedTuple):
    """A function as written, and the names its body may use."""

    node: ast.FunctionDef
    names: Names

    def default(self, parameter: str) -> object:
        """Give the literal that a parameter has by default, or None."""
        arguments = self.node.args
        names = [argument.arg for argument in arguments.args]
        for name, value in zip(names[::-1], arguments.defaults[::-1], strict=False):
            if name == parameter and isinstance(value, ast.Constant):
                return value.value
        return None


class Reader:
    """Runs statements of one module, class body or function over its names."""

    def __init__(
        self, package: Package, module: str, names: Names, outer: Names
    ) -> None:
        self._package = package
        self._module = module
        self._names = names
        self._outer = outer

    def run(self, body: list[ast.stmt]) -> None:
        for statement in body:
            try:
                self._execute(statement)
            except (UnknownValueError, LookupError, TypeError, ValueError):
                continue
            except AttributeError:
                continue

    def run_function(self, node: ast.FunctionDef, values: list[Any]) -> Any:
        parameters = [argument.arg for argument in node.args.args]
        for name, default in zip(
            parameters[::-1], node.args.defaults[::-1], strict=False
        ):
            with suppress(UnknownValueError):
                self._names[name] = self.value(default)
        self._names.update(zip(parameters, values, strict=False))
        for statement in node.body:
            try:
                if isinstance(statement, ast.Return) and statement.value is not None:
                    return self.value(statement.value)
                self._execute(statement)
            except (UnknownValueError, LookupError, TypeError, ValueError):
                return None
        return None

    def _execute(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, self.value(value))
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, self.value(value))
            case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=value):
                self._names[name] = self._look_up(name) + self.value(value)
            case ast.Expr(value=ast.Call() as call):
                self.value(call)
            case ast.For(target=target, iter=iterable, body=body):
                for item in list(self.value(iterable)):
                    self._assign(target, item)
                    self.run(body)
            case ast.ClassDef():
                self._names[statement.name] = self._class(statement)
            case ast.FunctionDef(name=name):
                # A method sees its module's names, not those of its class.
                self._names[name] = Function(statement, self._outer or self._names)
            case ast.ImportFrom():
                self._import(statement)
            case ast.Try(body=body):
                self.run(body)

    def _class(self, node: ast.ClassDef) -> SourceClass:
        attributes: dict[str, Any] = {}
        bases = []
        for base in node.bases:
            try:
                bases.append(self.value(base))
            except (UnknownValueError, LookupError):
                continue
        Reader(self._package, self._module, attributes, self._names).run(node.body)
        return SourceClass(node.name, self._module, tuple(bases), attributes)

    def _import(self, node: ast.ImportFrom) -> None:
        own = "vlmeval.dataset"
        if node.level:
            parts = self._module.split(".") if self._module else []
            # A package's own file has no last part to leave out.
            parts = parts[: len(parts) - node.level] if self._module else []
            module = ".".join([*parts, *filter(None, [node.module])])
        elif f"{node.module}.".startswith(f"{own}."):
            module = str(node.module).removeprefix(own).removeprefix(".")
        else:
            return
        for alias in node.names:
            if alias.name == "*":
                self._names.update(self._package.names(module))
            else:
                self._names[alias.asname or alias.name] = Import(module, alias.name)

    def _assign(self, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name(id=name):
                self._names[name] = value
            case ast.Tuple(elts=targets):
                for inner, item in zip(targets, value, strict=True):
                    self._assign(inner, item)
            case ast.Subscript(value=container, slice=key):
                self.value(container)[self.value(key)] = value

    def _look_up(self, name: str) -> Any:
        for names in (self._names, self._outer):
            if name in names:
                value = self._package.resolve(names[name])
                if value is not None:
                    return value
        raise UnknownValueError(name)

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self._look_up(name)
            case ast.List(elts=items):
                return list(self._items(items))
            case ast.Tuple(elts=items):
                return tuple(self._items(items))
            case ast.Set(elts=items):
                return set(self._items(items))
            case ast.Dict():
                return self._dict(node)
            case ast.JoinedStr(values=parts):
                return "".join(str(self.value(part)) for part in parts)
            case ast.FormattedValue(value=value, format_spec=None):
                return self.value(value)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                method = getattr(self.value(left), OPERATORS[type(op)])
                return method(self.value(right))
            case ast.Subscript(value=container, slice=key):
                return self.value(container)[self.value(key)]
            case ast.Attribute(value=owner, attr=name):
                return self._attribute(owner, name)
            case ast.Compare(left=left, ops=[ast.In()], comparators=[right]):
                return self.value(left) in self.value(right)
            case ast.Call():
                return self._call(node)
            case ast.ListComp(elt=element, generators=[loop]):
                return [scope.value(element) for scope in self._loop(loop)]
            case ast.DictComp(key=key, value=value, generators=[loop]):
                return {
                    scope.value(key): scope.value(value) for scope in self._loop(loop)
                }
        raise UnknownValueError(type(node).__name__)

    def _items(self, nodes: list[ast.expr]) -> Iterator[Any]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                yield from self.value(node.value)
            else:
                try:
                    yield self.value(node)
                except UnknownValueError:
                    continue

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                table.update(self.value(value))
            else:
                table[self.value(key)] = self.value(value)
        return table

    def _attribute(self, owner: ast.expr, name: str) -> Any:
        value = self.value(owner)
        if isinstance(value, SourceClass):
            return value.get(name)
        raise UnknownValueError(name)

    def _loop(self, loop: ast.comprehension) -> Iterator[Reader]:
        for item in list(self.value(loop.iter)):
            scope = Reader(
                self._package, self._module, {}, {**self._outer, **self._names}
            )
            scope._assign(loop.target, item)
            if all(scope.value(condition) for condition in loop.ifs):
                yield scope

    def _call(self, node: ast.Call) -> Any:
        arguments = list(self._items(node.args))
        settings: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value)
            settings.update({keyword.arg: value} if keyword.arg else value)
        match node.func:
            case ast.Name(id="partial") if isinstance(arguments[0], SourceClass):
                return Preset(arguments[0], settings)
            case ast.Name(id=name) if name in FUNCTIONS:
                return FUNCTIONS[name](*arguments, **settings)
            case ast.Name(id=name) if isinstance(self._look_up(name), Function):
                return self._package.call(self._look_up(name), self._module, arguments)
            case ast.Attribute(value=owner, attr="supported_datasets"):
                return self._package.call_supported(self.value(owner))
            case ast.Attribute(value=owner, attr=name) if name in METHODS:
                value = self.value(owner)
                if isinstance(value, str | list | dict | set):
                    return getattr(value, name)(*arguments, **settings)
        raise UnknownValueError(ast.dump(node.func))


class Package:
    """The modules of one package folder, each read when first asked for."""

    def __init__(self, folder: Path) -> None:
        """Take the folder that holds the package's `__init__.py`."""
        self._folder = folder
        self._modules: dict[str, dict[str, Any]] = {}

    def value(self, module: str, name: str) -> Any:
        """Give a global of a module ("" is the package itself, dots below it)."""
        return self.resolve(self.names(module).get(name))

    def resolve(self, value: Any) -> Any:
        """Follow an import to its value; None where the package has none."""
        while isinstance(value, Import):
            value = self.names(value.module).get(value.name)
        return value

    def call_supported(self, cls: SourceClass) -> list[str]:
        """Give what `cls.supported_datasets()` returns, as far as the sources say."""
        function = cls.get("supported_datasets")
        found = (
            self.call(function, cls.module, [cls])
            if isinstance(function, Function)
            else cls.get("DATASET_URL")
        )
        if not isinstance(found, list | tuple | set | dict):
            return []
        return [name for name in found if isinstance(name, str)]

    def call(self, function: Function, module: str, values: list[Any]) -> Any:
        """Run a function of the package with positional arguments."""
        reader = Reader(self, module, {}, function.names)
        return reader.run_function(function.node, values)

    def names(self, module: str) -> dict[str, Any]:
        """Give all globals of a module, imports unresolved."""
        if module not in self._modules:
            # Set first: modules import each other in circles.
            names = self._modules[module] = {}
            path = self._folder.joinpath(*module.split("."))
            file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            if file.is_file():
                tree = _parse(file)
                Reader(self, module, names, {}).run(tree.body)
        return self._modules[module]


def _parse(file: Path) -> ast.Module:
    # What upstream's sources are warned of is not for our users to fix.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(file.read_text(encoding="utf-8"), file)
