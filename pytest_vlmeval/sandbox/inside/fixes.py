"""Fixes of ms-vlmeval's scoring and video classes, and the limits they get.

Stands in for the package `timeout_decorator`, with which ms-vlmeval starts a process
for each comparison of two formulas.

Each names the place in ms-vlmeval 0.0.20, below `vlmeval/`, that it answers. None
changes a number where ms-vlmeval has one, but for what is `_when_corrected`, and
`fix_distances` for padded answers.
"""

from __future__ import annotations

import csv
import os
import re
import signal
import sys
import time
import zipfile
from collections import defaultdict
from contextlib import contextmanager, suppress
from functools import partial, wraps
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from string import ascii_uppercase
from types import GeneratorType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import pandas as pd

from pytest_vlmeval.sandbox.inside import vlmevalkit
from pytest_vlmeval.sandbox.inside.expressions import calculate, evaluate
from pytest_vlmeval.sandbox.inside.job import ContainedError, current_job
from pytest_vlmeval.sandbox.inside.judging import judge_units
from pytest_vlmeval.sandbox.inside.reading import (
    comparable,
    has_words,
    nearest_option,
    read_option,
    read_yes_no,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

# Real answers take hundredths of a second; ms-vlmeval itself allows 30.
MAX_SECONDS = 5.0
AGAIN_S = 1.0
MAX_BYTES = 2**30
# No formula is as long, and an alarm cannot interrupt a search in a text.
MAX_LENGTH = 100_000
# What the comparisons of one scoring may take beyond QUICK_S each, all together; none
# gets more than that afterwards. So hostile answers cannot use up its deadline.
SLOW_SECONDS = 30.0
QUICK_S = 0.25


class _AlarmError(BaseException):
    """Passes by `except Exception`."""


@contextmanager
def bounded(seconds: float, size: int = MAX_BYTES) -> Iterator[None]:
    """Raise TimeoutError after `seconds`, MemoryError beyond `size` more bytes.

    For the main thread. Code that swallows the alarm gets it again every second.
    """

    def alarm(_number: int, _frame: object) -> NoReturn:
        raise _AlarmError

    previous = signal.signal(signal.SIGALRM, alarm)
    try:
        with _bounded_memory(size):
            signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    except _AlarmError:
        raise TimeoutError(f"took longer than {seconds:g} s") from None
    finally:
        signal.signal(signal.SIGALRM, previous)


class Allowance:
    """The time that slow comparisons have left, all together."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin anew, with the next scoring."""
        self.left_s = SLOW_SECONDS

    @contextmanager
    def bounded(self, limit_s: float) -> Iterator[None]:
        """Bound one comparison, by its own limit or what is left."""
        start = time.monotonic()
        try:
            with bounded(max(min(limit_s, self.left_s), QUICK_S)):
                yield
        finally:
            self.left_s -= max(time.monotonic() - start - QUICK_S, 0)


ALLOWANCE = Allowance()


def timeout_decorator() -> ModuleType:
    """Return a module with `timeout(seconds)` as in the package of this name."""

    def timeout(seconds: float | None = None, **_options: object) -> Callable[..., Any]:
        limit_s = min(seconds or MAX_SECONDS, MAX_SECONDS)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                if any(isinstance(it, str) and len(it) > MAX_LENGTH for it in args):
                    raise TimeoutError(f"a text of more than {MAX_LENGTH:,} characters")
                with ALLOWANCE.bounded(limit_s):
                    return function(*args, **kwargs)

            return call

        return decorate

    module = ModuleType("timeout_decorator")
    vars(module).update(
        timeout=timeout, TimeoutError=TimeoutError, timeout_decorator=module
    )
    return module


@contextmanager
def _bounded_memory(size: int) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * resource.getpagesize() + size
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# The column that says which questions of MMMU have no options.
OPEN = "is_open"
UNNAMED = "unnamed"
# Numbers that differ by less are the same (dataset/utils/mathv.py:38).
NEAR = 1e-6


def _when_corrected(
    upstream: Callable[..., Any],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator of what takes the place of `upstream` in corrected scoring.

    It changes published numbers, so it acts only when the job asks for that.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(upstream)
        def choose(*given: Any, **named: Any) -> Any:
            is_corrected = current_job().scoring == "corrected"
            return (function if is_corrected else upstream)(*given, **named)

        return choose

    return decorate


def alias_log(_module: ModuleType) -> None:
    """Answer dataset/utils/llavabench.py:6, an import from one package too low."""
    for name in ("smp", "smp.log"):
        sys.modules[f"vlmeval.dataset.{name}"] = import_module(f"vlmeval.{name}")


def fill_package(_module: ModuleType) -> None:
    """Answer dataset/utils/bmmr.py:8: it imports from the package, which is empty."""
    package: Any = sys.modules["vlmeval"]
    files: Any = import_module("vlmeval.smp.file")
    package.dump, package.load = files.dump, files.load


def leave_settings(_module: ModuleType) -> None:
    """Answer dataset/utils/physics_eval_utils.py:5, which reads the user's settings."""
    _stand_in("dotenv", "load_dotenv")


def leave_json(_module: ModuleType) -> None:
    """Answer dataset/utils/vgrpbench/score.py:15, an import that is not used."""
    _stand_in("json_repair", "repair_json")


def _stand_in(name: str, function: str) -> None:
    """Let a package that is not there be imported, with a function for nothing."""
    if name not in sys.modules and find_spec(name) is None:
        module = ModuleType(name)
        setattr(module, function, _nothing)
        sys.modules[name] = module


def fix_choices(module: Any) -> None:
    """Answer dataset/utils/multiple_choice.py:77 report_acc and :103 report_acc_MMT.

    A category that some rows lack cannot be sorted (:95), an empty `split` is a line
    per row, and MMT-Bench needs all of its 32 categories (:108).
    """
    read_options(module)
    _fix_option_choice(module)
    _fix_open_questions(module)
    report, report_mmt = module.report_acc, module.report_acc_MMT

    def report_acc(df: pd.DataFrame) -> object:
        return report(_with_names(df))

    def report_acc_mmt(df: pd.DataFrame) -> object:
        df = _with_names(df)
        if "category" not in df:
            df = df.drop(columns="l2-category", errors="ignore")
        present = set(df["l2-category"]) if "l2-category" in df else set()
        names = module.MMT_abbrs
        module.MMT_abbrs = {key: names[key] for key in names if key in present}
        try:
            return report_mmt(df)
        finally:
            module.MMT_abbrs = names

    module.report_acc, module.report_acc_MMT = report_acc, report_acc_mmt


def read_options(module: Any) -> None:
    """Answer utils/matching_util.py:113 can_infer: "rendered" has the option "red".

    Answers and judges' replies go through the reader of `reading.py`. Changes published
    numbers, so it acts only in corrected scoring.
    """
    upstream = module.can_infer

    def can_infer(answer: object, choices: dict[str, Any]) -> object:
        if current_job().scoring == "published":
            return upstream(answer, choices)
        if current_job().scoring == "vlmevalkit":
            return vlmevalkit.can_infer(answer, choices)
        # By "Z" a judge says that an answer is none of the options.
        return current_job().read(str(answer), {"Z": "", **choices}) or False

    module.can_infer = can_infer


def _fix_option_choice(module: Any) -> None:
    """Answer dataset/utils/multiple_choice.py:405: no usable reply, a random option.

    The unit is unclear instead. Where no options are known (Video-MME), none of the
    replies could be read, and the only choice is "none of them": nothing is asked.
    """
    upstream = module.extract_answer_from_item

    def extract_answer_from_item(
        model: object, item: Any, dataset_name: str | None = None
    ) -> object:
        known = str(item["index"]) not in current_job().not_judged
        if not known or not module.build_choices(item):
            model = None
        return upstream(model, item, dataset_name=dataset_name)

    def choose(_options: object) -> str:
        unit = current_job().unit
        if unit is not None:
            unit.unusable = True
        return "Z"

    module.rd = SimpleNamespace(choice=choose)
    module.extract_answer_from_item = extract_answer_from_item


def _fix_open_questions(module: Any) -> None:
    """Answer dataset/utils/multiple_choice.py:62: open questions get options.

    A is the reference and B "Other Answers", so the answer "A" is right whatever was
    asked. Instead the reference has to be said, or a judge to find it in an answer that
    is more than a letter.
    """
    prepare, upstream = module.MMMU_preproc, module.eval_vanilla

    def mmmu_preproc(data: pd.DataFrame) -> object:
        is_open = data["A"].isna()
        data = prepare(data)
        data[OPEN] = is_open
        return data

    @_when_corrected(upstream)
    def eval_vanilla(
        model: object, item: Any, dataset_name: str | None = None
    ) -> object:
        if not item.get(OPEN, False):
            return upstream(model, item, dataset_name=dataset_name)
        said = str(item["prediction"]).strip()
        if any(map(partial(has_words, said), references(item["answer"]))):
            return {"hit": 1, "log": "The reference is in the answer. "}
        is_letter = len(re.sub(r"[\W_]", "", said)) < 2
        if model is None or is_letter or str(item["index"]) in current_job().not_judged:
            return {"hit": 0, "log": "The reference is not in the answer. "}
        return _judge_open(module, model, item, said)

    module.MMMU_preproc = mmmu_preproc
    module.eval_vanilla = eval_vanilla


def references(cell: object) -> list[str]:
    """Return the references of an open question, one or a list of them."""
    text = str(cell)
    with suppress(Exception):
        if text.startswith("[") and isinstance(found := evaluate(text), list):
            return [str(each) for each in found]
    return [text]


def _judge_open(module: Any, model: Any, item: Any, said: str) -> dict[str, object]:
    """Let a judge tell the reference from other answers, as published."""
    options = {"A": str(item["answer"]), "B": "Other Answers"}
    prompt = module.build_prompt(
        item["question"], module.build_option_str(options), said
    )
    for _ in range(3):
        reply = model.generate(prompt)
        if found := module.can_infer(reply, dict(options)):
            return {"hit": int(found == "A"), "log": f"Match Log: {reply}. "}
    module.rd.choice(options)
    return {"hit": 0, "log": "The judge's replies cannot be read. "}


def _with_names(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    for name in ("split", "category", "l2-category"):
        if name in table and table[name].isna().all():
            table = table.drop(columns=name)
        elif name in table and table[name].isna().any():
            table[name] = [
                UNNAMED if pd.isna(cell) else str(cell) for cell in table[name]
            ]
    return table


def fix_yes_no(module: Any) -> None:
    """Answer dataset/utils/yorn.py:70: MME multiplies the scores of two questions.

    Where only one of an image's two was asked, it counts for both. In corrected
    scoring the reader takes the place of :260 YOrN_Extraction, which needs the word
    "yes" or "no" and stumbles over "Yes, there is no cat".
    """
    upstream, extract = module.MME_rating, module.YOrN_Extraction

    @_when_corrected(extract)
    def extract_word(output: str) -> str:
        return read_yes_no(output) or "Unknown"

    module.YOrN_Extraction = extract_word
    module.published_extraction = extract

    def rate(data_file: str) -> object:
        table = module.load(data_file)
        asked = table.groupby(["category", "image_path"])["index"].transform("size")
        pairs = f"{data_file}_pairs"
        current_job().dump_table(pd.concat([table, table[asked == 1]]), pairs)
        return upstream(pairs)

    module.MME_rating = rate


class _NoRows(int):
    """A count of nothing; a mean over it is not a number instead of an error."""

    def __add__(self, other: Any) -> Any:
        return other or self

    __radd__ = __add__

    def __truediv__(self, other: Any) -> float:
        return 0.0 if other else float("nan")

    def __rtruediv__(self, _other: object) -> float:
        return float("nan")


def fix_counts(module: Any) -> None:
    """Answer dataset/utils/mmvet.py:103: it divides by the rows of each capability.

    And dataset/image_mt.py:90, by the turns with points in each dimension.
    """

    def counting(factory: Callable[[], Any]) -> dict[str, Any]:
        return defaultdict(lambda: _NoRows() if factory() == 0 else factory())

    module.defaultdict = counting


def fix_conversations(module: Any) -> None:
    """Answer dataset/utils/mmdu.py:113: a reply that is a set breaks the whole table.

    The line of the log for a turn without points is one (:124), whatever went wrong.
    """

    def read(source: str) -> object:
        try:
            value = evaluate(source)
        except Exception as error:
            raise ValueError(" ".join(str(error).split())) from error
        if source.startswith("{") and not isinstance(value, dict):
            raise ValueError(f"a dictionary is needed, not {source!r:.100}")
        return value

    module.eval = read


def fix_mathvista(module: Any) -> None:
    """Answer dataset/utils/mathvista.py:96: texts and lists are compared with 'None'.

    And :111, where the number 0 in an answer counts as no number; :85, where a reply
    that names no option is wrong; :90 and :93, where "12.0" is not 12, nor 0.214 0.21
    to two places. The paper takes the option that is nearest to what its judge read,
    and rounds.
    """
    read_options(module)

    @_when_corrected(module.post_check)
    def post_check(line: Any, prefetch: bool = False) -> object:
        said = str(line["prediction" if prefetch else "res"]).strip()
        if line["question_type"] == "multi_choice":
            options = lettered(evaluate(line["choices"]))
            option = read_vista_option(said, options, guess=not prefetch)
            if prefetch or option is None:
                return option or False
            # Two options may have the same text.
            return options[option] == options.get(line["answer_option"])
        if not _is_vista_answer(said, line):
            return False
        # 0 is an answer, and not that nothing was found.
        return said if prefetch else True

    module.post_check = post_check


def lettered(options: Sequence[object]) -> dict[str, str]:
    """Return the texts of options by their letters."""
    return dict(zip(ascii_uppercase, map(str, options), strict=False))


def read_vista_option(
    said: str, options: Mapping[str, str], *, guess: bool
) -> str | None:
    """Read an option in an answer to MathVista, or guess it in a judge's reply.

    A reply that names none, or more than one, stands for the first in brackets, or for
    the one that is nearest by edit distance, as in the paper (evaluation/
    calculate_score.py of lupantech/MathVista). Nothing is guessed of an empty one.
    """
    # Of options with the same text the first has it.
    first = {text: letter for letter, text in reversed([*options.items()])}
    known = {
        letter: text if first[text] == letter else ""
        for letter, text in options.items()
    }
    found = read_option(said, known)
    if found or not guess or not said or not options:
        return found
    bracket = re.search(r"\(([a-zA-Z])\)", said)
    if bracket and bracket[1].upper() in known:
        return bracket[1].upper()
    return nearest_option(said, options)


def _is_vista_answer(said: str, line: Any) -> bool:
    """Return whether a text is the reference, as a number to its own precision."""
    reference = str(line["answer"])
    if line["answer_type"] not in ("integer", "float"):
        return said == reference
    try:
        number, known = (float(text.replace(",", "")) for text in (said, reference))
        if line["answer_type"] == "integer":
            return int(number) == int(known)
        # The places of the reference where the table does not tell.
        places = line.get("precision", "")
        if pd.isna(places) or places == "":
            places = len(reference.partition(".")[2])
        return bool(round(number, int(places)) == round(known, int(places)))
    except (OverflowError, ValueError):
        return False


def fix_formulas(module: Any) -> None:
    """Answer dataset/utils/mathv.py:36: an answer is evaluated among the variables.

    There the answer "a" is the reference, as are "+a", "a or b" and "1 if a else 2";
    "3 or 4" is 3, and "2^3" is 1. The value of a root is never compared (:45).
    """
    read_options(module)

    def compare(said: str, known: str) -> bool:
        with suppress(ArithmeticError, SyntaxError, ValueError):
            return bool(abs(calculate(known) - calculate(said)) < NEAR)
        try:
            difference = module.latex2sympy(known) - module.latex2sympy(said)
            # Symbols may cancel out; what is left of them equals nothing.
            return bool(not difference.free_symbols and abs(difference.n()) < NEAR)
        except TimeoutError:
            raise
        except Exception:
            return False

    compare_in_time = timeout_decorator().timeout()(compare)

    @_when_corrected(module.is_equal)
    def is_equal(asw: object, gt_asw: object) -> bool:
        said, known = (str(text).lower().strip() for text in (asw, gt_asw))
        return said == known or bool(compare_in_time(said, known))

    module.is_equal = is_equal


def fix_video_options(module: Any) -> None:
    """Answer dataset/utils/videomme.py:120: the judge never sees the options.

    They are looked for in the question, and stand in `candidates`. And :152 takes the
    first capital from A to D for the answer, that of "Because" too; here the reader
    does with the options.
    """
    upstream = module.extract_option

    @_when_corrected(upstream)
    def extract_option(model: object, input_item: Any, dataset_name: str) -> object:
        input_item.update(video_options(input_item["candidates"]))
        return upstream(model, input_item, dataset_name)

    module.extract_option = extract_option


def video_options(candidates: str) -> dict[str, str]:
    """Return the options of a question of Video-MME by their letters."""
    options = {}
    for option in evaluate(candidates):
        letter, _, text = str(option).partition(".")
        options[letter.strip()] = text.strip(". \n")
    return options


def fix_distances(module: Any) -> None:
    """Answer dataset/utils/vqa_eval.py:233: how far an answer is from a reference.

    It compares each character of both, minutes for a text of megabytes. Where already
    their lengths differ by more than half, the points are 0 whatever the distance.
    And it divides by a length that counts all white space, which the distance does
    not: a wrong answer in enough of it is right. An answer that is mostly white space
    is measured without; any other has ms-vlmeval's number.
    """
    _fix_comparison(module)
    upstream = module.anls_compute

    def anls_compute(groundtruth: str, prediction: str) -> float:
        words = " ".join(prediction.split())
        if len(prediction) > 2 * len(words):
            prediction = words
        known = len(" ".join(groundtruth.split()))
        length = max(len(groundtruth), len(prediction))
        at_least = abs(len(words) - known)
        if at_least * 2 > length:
            return at_least / length
        return float(upstream(groundtruth, prediction))

    module.anls_compute = anls_compute


def _fix_comparison(module: Any) -> None:
    """Answer dataset/utils/vqa_eval.py:242: signs are left out, so "-5" is "5".

    "A" without its article is "", as "The" is, and an empty answer is a reference that
    is an article or a sign.
    """
    process_line = module.process_line

    @_when_corrected(process_line)
    def process(line: Any, method: str = "vqa_score") -> dict[str, Any]:
        found: dict[str, Any] = process_line(line, method=method)
        if not str(line["prediction"]).strip():
            # How far it is, or whether it is right.
            found["match"] = [float(method == "anls") for _ in found["match"]]
        return found

    module.process_answer = _when_corrected(module.process_answer)(comparable)
    module.process_line = process


def fix_documents(module: Any) -> None:
    """Answer dataset/mmlongbench.py:379: F1 with nothing right, asked or answered.

    And dataset/mmlongbench.py:573, where the judge gets one row after the other. And
    :323, where nothing equals a reference in brackets.
    """
    upstream, read = module.get_f1, module.MMLongBench_auxeval
    eval_score = module.eval_score

    @_when_corrected(eval_score)
    def score_one(gt: object, pred: object, answer_type: str) -> float:
        return float(eval_score(gt, pred, answer_type)) if str(pred).strip() else 0.0

    module.eval_score = score_one

    def judge_all(units: list[tuple[object, Any]]) -> Iterable[tuple[object, Any]]:
        keys = [line["index"] for _, line in units]
        found = judge_units(current_job(), read, units, keys)
        return zip(found, (line for _, line in units), strict=True)

    module.tqdm = judge_all
    module.MMLongBench_auxeval = lambda result, _line: result

    def get_f1(data: pd.DataFrame) -> float:
        try:
            return float(upstream(data))
        except ZeroDivisionError:
            answerable = data[data["answer"] != "Not answerable"]
            return 0.0 if len(answerable) else float("nan")

    module.get_f1 = get_f1


def fix_covered_texts(module: Any) -> None:
    """Answer dataset/vcr.py:22: models are downloaded when a dataset is built.

    And dataset/vcr.py:99, which takes hours for an answer of megabytes; spacy refuses
    one of a million characters. No text is found in what cannot be searched in time.
    """
    module.initialize = lambda: None
    search = timeout_decorator().timeout()(module.find_best_match)

    def find_best_match(needle: str, *others: object) -> object:
        try:
            return search(needle, *others)
        except (TimeoutError, MemoryError):
            return module.zero_template(needle)

    module.find_best_match = find_best_match


def fix_reasoning(module: Any) -> None:
    """Answer dataset/utils/mme_reasoning.py:1190, which lacks two imports.

    And :1135, where nothing is extracted: an empty text, which is none once it was in a
    file, and else ends dataset/image_vqa.py:3750 in an error.
    """
    module.defaultdict, module.np = defaultdict, import_module("numpy")
    upstream = module.MMEReasoning_extract

    @wraps(upstream)
    def extract(model: object, line: Any) -> dict[str, object]:
        found: dict[str, object] = upstream(model, line)
        return found if found["res"] else {**found, "res": None}

    module.MMEReasoning_extract = extract


def fix_empty(module: Any) -> None:
    """Answer dataset/utils/crpe.py:5: an empty answer has no first letter."""
    upstream = module.is_correct
    module.is_correct = lambda known, said: bool(said) and upstream(known, said)


def fix_blank(module: Any) -> None:
    """Answer dataset/utils/bmmr.py:183: a blank answer gets no points, nor none."""
    upstream = module.get_acc_for_reference_based_metrics

    @wraps(upstream)
    def compute(
        references: object, candidates: object, indexes: Sequence[Any], *others: object
    ) -> dict[Any, Any]:
        found: dict[Any, Any] = upstream(references, candidates, indexes, *others)
        nothing = {"acc_score": {"acc": 0.0}}
        return {index: found.get(index, nothing) for index in indexes}

    module.get_acc_for_reference_based_metrics = compute


def fix_reasons(module: Any) -> None:
    """Answer dataset/utils/ocr_reasoning.py:112: replies without points end it all.

    They are none for the reasoning, and nothing is extracted.
    """
    upstream = module.OcrR_auxeval

    @wraps(upstream)
    def judge(model: object, line: Any) -> dict[str, object]:
        try:
            found: dict[str, object] = upstream(model, line)
        except AttributeError:
            return {"log": "the judge gave no points", "res": "", "reason_score": 0.0}
        return found

    module.OcrR_auxeval = judge


def fix_tables(module: Any) -> None:
    """Answer dataset/utils/wemath.py:196: pandas 3 has no `_append`."""

    class Table(pd.DataFrame):
        def _append(self, row: dict[str, object], ignore_index: bool) -> pd.DataFrame:
            return Table(
                pd.concat([self, pd.DataFrame([row])], ignore_index=ignore_index)
            )

    module.pd = SimpleNamespace(**{**vars(pd), "DataFrame": Table})


def fix_lists(module: Any) -> None:
    """Answer dataset/image_mcq.py:2818: an answer that is no list ends it in an error.

    That one is wrong.
    """
    leave_links(module)
    upstream = module.AffordanceDataset.is_match

    @wraps(upstream)
    def is_match(self: Any, row: Any) -> bool:
        with suppress(MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
            return bool(upstream(self, row))
        return False

    module.AffordanceDataset.is_match = is_match


def leave_links(module: Any) -> None:
    """Answer dataset/image_mcq.py:1952: it links a table from the folder above.

    That is not the dataset's own, and the table is there.
    """
    module.os = SimpleNamespace(**{**vars(os), "symlink": _nothing})


def fix_sources(module: Any) -> None:
    """Answer dataset/image_vqa.py:1546: it divides by the rows of each source.

    OlympiadBench_EN and OlympiadBench_CN have rows of one language alone.
    """
    leave_links(module)
    module.len = lambda counted: len(counted) or _NoRows()


UNZIP = re.compile(r"unzip -o (.+) -d (.+)")


def fix_unpacking(module: Any) -> None:
    """Answer dataset/videommmu.py:499: it makes a folder, and unpacks if there is none.

    So its videos stay in their archives. Here they are unpacked to where it looks.
    """
    upstream = module.get_cache_path

    def get_cache_path(repository: str) -> str | None:
        folder: str | None = upstream(repository)
        if folder is not None and not Path(folder, "videos").exists():
            for packed in sorted(Path(folder).glob("*.zip")):
                _unzip(packed, Path(folder, "videos"))
        return folder

    module.get_cache_path = get_cache_path


def fix_sound(_module: ModuleType) -> None:
    """Answer dataset/worldsense.py:88: the sound of all videos is written to files.

    Sound is not sent to models, and moviepy, which does it, is not here.
    """
    if "moviepy" in sys.modules or find_spec("moviepy") is not None:
        return
    sound = SimpleNamespace(write_audiofile=_nothing, close=_nothing)
    editor: Any = ModuleType("moviepy.editor")
    editor.VideoFileClip = lambda _path: SimpleNamespace(audio=sound, close=_nothing)
    sys.modules["moviepy"] = ModuleType("moviepy")
    sys.modules["moviepy.editor"] = editor


def _nothing(*_given: object, **_settings: object) -> None:
    pass


def fix_shell(module: Any) -> None:
    """Answer dataset/vcrbench.py:25, which unpacks with a shell's unzip."""

    def system(command: str) -> int:
        found = UNZIP.fullmatch(command)
        if found is None:
            raise ContainedError(f"the sandbox allows no {command}")
        _unzip(Path(found[1]), Path(found[2]))
        return 0

    module.os = SimpleNamespace(**{**vars(os), "system": system})


def fix_several_videos(module: Any) -> None:
    """Answer dataset/mvu_eval.py:136: its table lacks a column that all have.

    dataset/video_base.py:57 asserts that there is `video`; here it names them all.
    """
    upstream = module.MVUEval.prepare_dataset

    @wraps(upstream)
    def prepare_dataset(self: Any, dataset: str) -> dict[str, str]:
        found: dict[str, str] = upstream(self, dataset)
        table = pd.read_csv(found["data_file"], sep="\t")
        if "video" not in table:
            table["video"] = table["video_paths"]
            # In quotes a cell may hold a lone carriage return.
            table.to_csv(
                found["data_file"], sep="\t", index=False, quoting=csv.QUOTE_ALL
            )
        return found

    module.MVUEval.prepare_dataset = prepare_dataset


def fix_folder(module: Any) -> None:
    """Answer dataset/v2pbench.py:118: frames are cut from videos in `videos/`.

    And :114: what comes from ModelScope is not unpacked.
    """
    upstream = module.V2PBench.prepare_dataset

    @wraps(upstream)
    def prepare_dataset(self: Any, *given: Any) -> dict[str, str]:
        found: dict[str, str] = upstream(self, *given)
        if module.modelscope_flag_set():
            module.unzip_video(found["root"])
        return {**found, "root": str(Path(found["root"], "videos"))}

    module.V2PBench.prepare_dataset = prepare_dataset


def fix_chart_questions(module: Any) -> None:
    """Answer dataset/chartbench.py:104: what is judged comes as two arguments."""
    upstream = module.ChartBench_auxeval

    @wraps(upstream)
    def judge(model: object, line: Any) -> object:
        return upstream((model, line))

    module.ChartBench_auxeval = judge


def fix_sums(module: Any) -> None:
    """Answer dataset/reasonmap_plus.py:218: numpy 2.4 adds no generators."""

    def add(values: Any) -> Any:
        return sum(values) if isinstance(values, GeneratorType) else sum_of(values)

    sum_of = module.np.sum
    module.np = SimpleNamespace(**{**vars(module.np), "sum": add})


def fix_progress(module: Any) -> None:
    """Answer dataset/spatial457.py:56: a module is called, not its function."""
    module.tqdm = module.tqdm.tqdm


def fix_foresight(module: Any) -> None:
    """Answer dataset/vlrmbench.py:260: of pandas 3, nothing `is True` any more."""
    upstream = module.VLRMBench.evaluate_foresight

    def evaluate_foresight(data: pd.DataFrame) -> object:
        truths = pd.Series([bool(each) for each in data["task_gt"]], dtype=object)
        return upstream(data.assign(task_gt=truths.set_axis(data.index)))

    module.VLRMBench.evaluate_foresight = staticmethod(evaluate_foresight)


def fix_school_maths(module: Any) -> None:
    """Answer dataset/mmmath.py:159: answers are compared in threads, under an alarm.

    No alarm can be set there, so all but equal texts are wrong. In corrected scoring
    they are compared.
    """
    upstream = module.AutoScoringJudge.is_equal

    def refuse(_judge: object, first: str, second: str) -> bool:
        raise ValueError(f"{first!r} and {second!r} are compared in a thread")

    module.AutoScoringJudge.is_equal = _when_corrected(refuse)(upstream)


def fix_spatial_judge(module: Any) -> None:
    """Answer dataset/utils/spatial_bench/cal_scores.py:349: no judge without a key.

    Keys are not known here, but whether there is a judge is.
    """
    module.gpt_key_set = lambda: current_job().ask is not None


def fix_simple_questions(module: Any) -> None:
    """Answer dataset/simplevqa.py:146: its judge is a client that it makes itself."""
    judging: Any = import_module("vlmeval.dataset.utils.judge_util")

    def create(messages: Any, temperature: float, **_settings: object) -> object:
        text = judging.build_judge().generate(
            messages[0]["content"], temperature=temperature
        )
        message = SimpleNamespace(content=text)
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])

    completions = SimpleNamespace(completions=SimpleNamespace(create=create))
    module.OpenAI = lambda **_settings: SimpleNamespace(chat=completions)


def fix_space(_module: ModuleType) -> None:
    """Answer dataset/vsibench.py:9: what scores SPBench imports a reader of videos."""
    if "decord" not in sys.modules and find_spec("decord") is None:
        reader: Any = ModuleType("decord")
        reader.VideoReader = reader.cpu = None
        sys.modules["decord"] = reader


def fix_pages(module: Any) -> None:
    """Answer dataset/slidevqa.py:175: the judge gets one row after the other."""
    module.tqdm = import_module("vlmeval.dataset.mmlongbench").tqdm


def fix_physics(module: Any) -> None:
    """Answer dataset/utils/hipho_verifier.py:925: formulas are parsed in threads.

    There the package sets no alarm, and finds all formulas unequal.
    """

    def parse(*_given: object, **_settings: object) -> NoReturn:
        raise ValueError("no alarm can be set in a thread")

    module.parse = parse


def _unzip(packed: Path, folder: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder)


BEFORE: dict[str, Callable[[ModuleType], None]] = {
    "vlmeval.dataset.utils.bmmr": fill_package,
    "vlmeval.dataset.utils.llavabench": alias_log,
    "vlmeval.dataset.utils.physics_eval_utils": leave_settings,
    "vlmeval.dataset.utils.vgrpbench.score": leave_json,
}
AFTER: dict[str, Callable[[Any], None]] = {
    "vlmeval.dataset.utils.multiple_choice": fix_choices,
    "vlmeval.dataset.utils.yorn": fix_yes_no,
    "vlmeval.dataset.utils.mmvet": fix_counts,
    "vlmeval.dataset.image_mt": fix_counts,
    "vlmeval.dataset.utils.mmdu": fix_conversations,
    "vlmeval.dataset.utils.mathv": fix_formulas,
    "vlmeval.dataset.utils.mathvista": fix_mathvista,
    "vlmeval.dataset.utils.videomme": fix_video_options,
    "vlmeval.dataset.utils.vqa_eval": fix_distances,
    "vlmeval.dataset.mmlongbench": fix_documents,
    "vlmeval.dataset.vcr": fix_covered_texts,
    "vlmeval.dataset.image_mcq": fix_lists,
    "vlmeval.dataset.image_vqa": fix_sources,
    "vlmeval.dataset.utils.bmmr": fix_blank,
    "vlmeval.dataset.utils.crpe": fix_empty,
    "vlmeval.dataset.utils.mme_reasoning": fix_reasoning,
    "vlmeval.dataset.utils.ocr_reasoning": fix_reasons,
    "vlmeval.dataset.utils.wemath": fix_tables,
    "vlmeval.dataset.videommmu": fix_unpacking,
    "vlmeval.dataset.worldsense": fix_sound,
    "vlmeval.dataset.vcrbench": fix_shell,
    "vlmeval.dataset.mvu_eval": fix_several_videos,
    "vlmeval.dataset.v2pbench": fix_folder,
    "vlmeval.dataset.chartbench": fix_chart_questions,
    "vlmeval.dataset.reasonmap_plus": fix_sums,
    "vlmeval.dataset.spatial457": fix_progress,
    "vlmeval.dataset.vlrmbench": fix_foresight,
    "vlmeval.dataset.mmmath": fix_school_maths,
    "vlmeval.dataset.utils.spatial_bench.cal_scores": fix_spatial_judge,
    "vlmeval.dataset.spbench": fix_space,
    "vlmeval.dataset.dude": fix_pages,
    "vlmeval.dataset.slidevqa": fix_pages,
    "vlmeval.dataset.simplevqa": fix_simple_questions,
    "vlmeval.dataset.utils.hipho_verifier": fix_physics,
}
