"""Tables of one's own in each format: what is read, what is said of it, and errors."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vlmeval.datasets.own import describe_own, read_facts
from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import COLUMNS, COUNTED
from pytest_vlmeval.sandbox.own_columns import OwnTable
from pytest_vlmeval.settings import load_from
from pytest_vlmeval.settings.option import parse_columns
from pytest_vlmeval.settings.sources import call_sources
from tests.support.documentation import ROOT, block, read
from tests.support.hub_files import json_lines, parquet
from tests.support.own_tables import access
from tests.support.sandbox_tables import cell, draw, prepare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_vlmeval.sandbox.process import Sandbox

IMAGE = draw(1)
CHOICE: dict[str, Any] = {"question": "Which?", "choices": ["red", "blue"]}


def csv_of(rows: Sequence[Mapping[str, object]], separator: str = ",") -> bytes:
    """Write rows as pandas does."""
    import pandas as pd

    return pd.DataFrame(rows).to_csv(index=False, sep=separator).encode()


def put(folder: Path, name: str, content: bytes) -> Path:
    """Write a file; return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def rows_of(path: Path, **columns: str) -> list[dict[str, str]]:
    """Return the rows of a table in the one form."""
    table = OwnTable([path], columns)
    found = []
    for row in table.rows():
        assert not row.fault, row
        found.append(row.cells)
    return found


def fault_of(path: Path, **columns: str) -> str:
    """Return what is said of a table, without its path in front."""
    with pytest.raises(VlmEvalError) as caught:
        describe_own(str(path), access(path.parent), columns)
    text = str(caught.value)
    assert text.startswith(str(path))
    return text.removeprefix(str(path)).strip()


def faults_of(path: Path, **columns: str) -> list[str]:
    """Return what is said of a table's rows."""
    head, *lines = fault_of(path, **columns).splitlines()
    assert head.startswith("cannot be used (row 1 is the ")
    return [line.strip() for line in lines]


def user(content: object) -> dict[str, object]:
    """Give a message of the user."""
    return {"role": "user", "content": content}


def said(content: object) -> dict[str, object]:
    """Give a message of the model."""
    return {"role": "assistant", "content": content}


GOOD = {"question": "W?", "answer": "x", "choices": ["x", "y"], "image": None}
GOOD["images"] = []
ROW = {"prompt": "What?", "img": "a.png", "label": "007"}
WAYS = {
    "my.csv": csv_of([ROW]),
    "my.csv.gz": gzip.compress(csv_of([ROW])),
    "my.tsv": csv_of([ROW], "\t"),
    "my.jsonl": json_lines([ROW]),
    "my.json": json.dumps([ROW]).encode(),
    "other.json": json.dumps({"data": [ROW]}).encode(),
    "my.parquet": parquet([ROW]),
}


@pytest.mark.parametrize("name", WAYS)
def test_columns_are_known_by_their_usual_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    path = put(tmp_path, name, WAYS[name])
    row = {"question": "What?", "answer": "007", "image": "", "image_path": "a.png"}
    (found,) = rows_of(path)
    assert found == row
    said: list[str] = []
    info = describe_own(str(path), access(tmp_path)._replace(announce=said.append))
    assert said == [
        f"{name}: question from 'prompt', answer from 'label', image from 'img'"
    ]
    assert (info.kind, info.modality) == ("vqa", "image")
    assert info.name == name.partition(".")[0]


def test_the_same_rows_in_other_formats_are_other_datasets(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    found = {
        describe_own(str(put(tmp_path, name, WAYS[name])), access(tmp_path)).checksum
        for name in WAYS
    }
    assert len(found) == len(WAYS)


def test_columns_of_any_name_are_given(tmp_path: Path) -> None:
    row = {"frage": "Was?", "bild": "a.png", "antwort": "B", "eins": "x", "zwei": "y"}
    (tmp_path / "a.png").write_bytes(IMAGE)
    path = put(tmp_path, "my.csv", csv_of([row]))
    given = parse_columns("question=frage,image=bild,answer=antwort,A=eins,B=zwei")
    info = describe_own(str(path), access(tmp_path), given)
    assert (info.kind, info.columns) == ("multiple_choice", given)
    # What a column is for decides what is asked.
    swapped = parse_columns("question=frage,image=bild,answer=antwort,A=zwei,B=eins")
    assert describe_own(str(path), access(tmp_path), swapped).checksum != info.checksum
    assert fault_of(path, question="Frage") == (
        "has no column 'Frage', which --vlm-columns=question=Frage names. It has the "
        "columns frage, bild, antwort, eins, zwei. Did you mean frage?"
    )


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"qestion": "W?", "answer": "x"}, ["question=qestion", "question=NAME"]),
        (
            {"my question": "W?", "answer": "x"},
            ["'question=my question'", "question=NAME"],
        ),
        ({"text": "W?", "answer": "x"}, ["question=NAME"]),
        ({"question": "W?", "reply": "x"}, ["answer=NAME"]),
        ({"question": "W?", "answer": "x", "imgage": "a.png"}, ["image=imgage"]),
        (
            {"prompt": "W?", "problem": "V?", "answer": "x"},
            ["question=prompt", "question=problem"],
        ),
        (
            {**CHOICE, "label": 1},
            ["answer_from_0=label", "answer_from_1=label", "answer=label"],
        ),
        ({**CHOICE, "choices": ["B", "A"], "answer": "A"}, ["answer=answer"]),
        ({"question": "W?", "answer": "x", "id": 1}, ["index="]),
    ],
)
def test_the_columns_that_a_message_advises_are_taken(
    tmp_path: Path, row: dict[str, Any], options: list[str]
) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    path = put(tmp_path, "my.jsonl", json_lines([row, row]))
    # Words as a shell takes them.
    words = re.findall(
        r"""--vlm-columns=((?:'[^']*'|"[^"]*"|[^\s.;'"])*)""", fault_of(path)
    )
    advised = [shlex.split(word)[0] for word in dict.fromkeys(words)]
    assert advised == options
    for option in options:
        columns = parse_columns(option)
        if "NAME" in columns.values():
            columns = dict.fromkeys(columns, next(iter(row.keys() - GOOD.keys())))
        if option == "answer=label":  # where the number is no option's text
            assert "is not the letter" in faults_of(path, **columns)[0]
        else:
            describe_own(str(path), access(tmp_path), columns)


def test_a_system_message_goes_where_the_message_says(tmp_path: Path) -> None:
    row = {"messages": [{"role": "system", "content": "Be brief"}, user("W?")]}
    path = put(tmp_path, "my.jsonl", json_lines([row]))
    assert "--vlm-system-prompt gives one to all rows" in fault_of(path)
    path = put(tmp_path, "my.jsonl", json_lines([{"messages": row["messages"][1:]}]))
    assert read_facts([path]).kind == "vqa"
    keywords = {"system_prompt": "Be brief", "model": "m"}
    keywords["api_base"] = "http://127.0.0.1:1/v1"
    settings = load_from(call_sources(keywords, tmp_path, {}))
    assert settings.prompting.system_prompt == "Be brief"


@pytest.mark.parametrize(
    "text",
    "question what=x question=x,question=y question=x,hint=x =x , "
    "answer=x,answer_from_0=y".split(),
)
def test_an_option_that_names_no_column(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_columns(text)


def test_the_option_names_each_thing_that_a_column_is_for() -> None:
    named = ", ".join([*COLUMNS, *COUNTED])
    assert f"; of {named} and A, B, ... for options" in parse_columns.accepts


def test_names_with_blanks_and_no_column(tmp_path: Path) -> None:
    given = parse_columns("question='my, prompt' index=")
    assert given == {"question": "my, prompt", "index": ""}
    rows = [{"my, prompt": "W?", "id": 1, "answer": "x"}] * 2
    path = put(tmp_path, "my.csv", csv_of(rows))
    assert faults_of(path, question="my, prompt") == [
        "row 2 (line 3): its index '1' is that of row 1 (line 2) too; each row needs "
        "one of its own. --vlm-columns=index= numbers the rows instead"
    ]
    assert read_facts([path], given).kind == "vqa"


def test_the_page_names_each_column_and_its_other_names() -> None:
    for path, between in (("docs/own-data.md", ", "), ("docs/zh/own-data.md", "、")):
        rows = re.findall(r"(?m)^\| (`[^|]*) \|([^|]*)\|", read(ROOT / path))
        cells = {
            name.strip("`"): tuple(re.findall("`([^`]*)`", others))
            for names, others in rows
            for name in names.split(between)
            if name.strip("`") in COLUMNS
        }
        assert {**cells, "messages": COLUMNS["messages"]} == COLUMNS


def test_the_conversations_of_the_page_are_read(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(IMAGE)
    lines = block(read(ROOT / "docs/own-data.md"), "Messages", "json")
    data = lines.replace("base64,...", f"base64,{cell(IMAGE)}").encode()
    for line in data.splitlines():
        found = read_facts([put(tmp_path, "my.jsonl", line)])
        assert (found.has_images, found.has_references) == (True, True)


def test_lines_count_what_is_quoted_and_blank(tmp_path: Path) -> None:
    text = 'question,answer\n"What\nis it?",x\n\nWhat?,\n'
    path = put(tmp_path, "my.csv", text.encode())
    assert faults_of(path) == ["row 2 (line 5): its answer is empty"]
    (first, _) = rows_of(path)
    assert first["question"] == "What\nis it?"


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_of_a_csv_are_said(tmp_path: Path, separator: str) -> None:
    rows = [{"question": "A, or B?", "answer": "x"}]
    path = put(tmp_path, "my.csv", b"\xef\xbb\xbf" + csv_of(rows, separator))
    said: list[str] = []
    describe_own(str(path), access(tmp_path)._replace(announce=said.append))
    name = {";": "semicolons", "\t": "tabs"}[separator]
    assert said == [f"my.csv: {name} between its columns"]


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (["red", "blue"], "B", "B"),
        (["red", "blue"], "blue", "B"),
        ({"A": "red", "B": "blue"}, "blue", "B"),
        ({"label": ["A", "B"], "text": ["red", "blue"]}, "B", "B"),
        ('["red", "blue"]', "red", "A"),
        ("['red', 'blue']", "b", "b"),
        (["A. red", "B. blue"], "B", "B"),
        ([3, 14], "14", "B"),
        ([30, 14], 14, "B"),
        (["red", "blue"], ["blue"], "B"),
    ],
)
def test_a_list_of_options(
    tmp_path: Path, options: object, answer: object, letter: str
) -> None:
    rows = [{"question": "Which?", "choices": options, "answer": answer}]
    path = put(tmp_path, "my.jsonl", json_lines(rows))
    assert rows_of(path)[0]["answer"] == letter
    assert read_facts([path]).kind == "multiple_choice"
    assert "A. " not in rows_of(path)[0]["A"]


def test_options_of_several_lengths_and_none_at_all(tmp_path: Path) -> None:
    rows = [
        {**CHOICE, "answer": "blue"},
        {"question": "Which?", "choices": ["x", "y", "z"], "answer": "z"},
    ]
    path = put(tmp_path, "my.parquet", parquet(rows))
    assert [row["answer"] for row in rows_of(path)] == ["B", "C"]
    assert read_facts([path]).mapped == (
        "options from 'choices', the letters of answers from the options' texts"
    )
    none = [{"question": "W?", "choices": [], "answer": "z"}]
    assert read_facts([put(tmp_path, "n.jsonl", json_lines(none))]).kind == "vqa"
    mixed = put(tmp_path, "mixed.jsonl", json_lines([*rows, *none]))
    assert faults_of(mixed) == ["row 3 (line 3): all its options are empty"]


NUMBER = (
    "row 1 (line 1): the answer 1 may be the number of an option. Give "
    "--vlm-columns=answer_from_0=label if they count from 0, "
    "--vlm-columns=answer_from_1=label if from 1, or --vlm-columns=answer=label if it "
    "is an option's text"
)


def test_a_number_is_no_option_unless_it_is_said_which(tmp_path: Path) -> None:
    path = put(tmp_path, "my.jsonl", json_lines([{**CHOICE, "label": 1}]))
    assert faults_of(path) == [NUMBER]
    assert rows_of(path, answer_from_0="label")[0]["answer"] == "B"
    assert rows_of(path, answer_from_1="label")[0]["answer"] == "A"
    numbers = [{**CHOICE, "choices": [1, 2], "label": 1}]
    path = put(tmp_path, "two.jsonl", json_lines(numbers))
    assert faults_of(path) == [NUMBER]
    assert rows_of(path, answer="label")[0]["answer"] == "A"
    path = put(tmp_path, "far.jsonl", json_lines([{**CHOICE, "label": 2}]))
    assert faults_of(path, answer_from_0="label") == [
        "row 1 (line 1): the answer '2' is not the number of one of its options, from "
        "0 to 1"
    ]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"question": None, "answer": "x"}, "its question is empty"),
        ({"question": ["W?"], "answer": "x"}, "its question is a list, not a text"),
        ({"question": "W?", "answer": {"a": 1}}, "its answer is an object, not a text"),
        (
            {"question": "W?", "answer": [["x"]]},
            "its answer is a list, but not one of texts",
        ),
        (
            {"question": "W?", "answer": "x", "choices": "red; blue"},
            'its options \'red; blue\' are no list of texts; write ["red", "blue"], or '
            "give each a column A, B, ...",
        ),
        (
            {"question": "W?", "answer": "x", "choices": {"B": "red", "A": "blue"}},
            "its options are an object whose names are not A, B, ... in order",
        ),
        (
            {"question": "W?", "answer": "x", "choices": ["x"] * 27},
            "it has 27 options; there are letters for 26",
        ),
        (
            {**CHOICE, "choices": ["B", "A"], "answer": "A"},
            "the answer 'A' is the letter of an option and the text of B; "
            "--vlm-columns=answer=answer takes letters for letters",
        ),
        (
            {"question": "W?", "answer": "x", "image": "https://host/a.png"},
            "its image 'https://host/a.png' is a URL, and no images are downloaded. "
            "Download it, and name the file",
        ),
        (
            {"question": "W?", "answer": "x", "image": {"width": 3}},
            "its image is an object without bytes and path",
        ),
        (
            {"question": "W?", "answer": "x", "image": 1.5},
            "its image '1.5' is neither an image nor a path",
        ),
        (
            {"question": "W?", "answer": "x", "images": [cell(IMAGE), "a.png"]},
            "some of its images are files and some are in the table",
        ),
        ("text", "is a text, not an object"),
        (None, "is null, not an object"),
        ([1], "is a list, not an object"),
        (7, "is a number, not an object"),
    ],
)
def test_a_row_that_cannot_be_used(tmp_path: Path, row: Any, fault: str) -> None:
    names = row if isinstance(row, dict) else ("question", "answer")
    good = {name: GOOD[name] for name in names}
    lines = "\n".join([json.dumps(good), json.dumps(row)])
    path = put(tmp_path, "my.jsonl", lines.encode())
    assert f"row 2 (line 2): {fault}" in faults_of(path)


def test_a_line_that_is_no_json(tmp_path: Path) -> None:
    path = put(tmp_path, "my.jsonl", b'{"question": "W?", "answer": "x"}\n{"a": \n')
    assert faults_of(path) == [
        "row 2 (line 2): is not JSON (Expecting value: line 2 column 1 (char 7))"
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("my.json", "[]", "has no rows."),
        ("my.json", '{"data": []}', "has no rows."),
        ("my.csv", "question,answer\n", "has no rows below the line of names."),
        (
            "my.jsonl",
            '{"a": ' + "[" * 100_000,
            "cannot be used (row 1 is the first):\n  row 1 (line 1): is not JSON (it "
            "is nested too deeply)",
        ),
        (
            "my.jsonl",
            '{"answer": ' + "9" * 5_000 + "}",
            "cannot be used (row 1 is the first):\n  row 1 (line 1): is not JSON "
            "(Exceeds the limit (4300 digits) for integer string conversion: value has "
            "5000 digits; use sys.set_int_max_str_digits() to increase the limit)",
        ),
    ],
)
def test_a_file_without_any_row(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    assert fault_of(put(tmp_path, name, content.encode())) == said


def test_values_of_parquet(tmp_path: Path) -> None:
    rows = [
        {"question": "W?", "answer": True, "image": {"bytes": IMAGE, "path": None}},
        {"question": "V?", "answer": False, "image": {"bytes": IMAGE, "path": "x"}},
    ]
    path = put(tmp_path, "my.parquet", parquet(rows, "image"))
    assert [row["answer"] for row in rows_of(path)] == ["Yes", "No"]
    assert [row["image"] for row in rows_of(path)] == [cell(IMAGE)] * 2
    facts = read_facts([path])
    assert (facts.kind, facts.images) == ("yes_no", {})
    assert facts.mapped == "answers Yes for true, No for false"
    several = [{"question": "W?", "answer": None, "images": [rows[0]["image"]] * 2}]
    (row,) = rows_of(put(tmp_path, "two.parquet", parquet(several)))
    assert row == {
        "question": "W?",
        "answer": "",
        "image": repr([cell(IMAGE)] * 2),
    }


def test_labels_of_classes_are_their_names(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = pa.table({"question": ["W?", "W?"], "label": [1, 0]})
    known = json.dumps({"info": {"features": features}})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": known}), tmp_path / "my.parquet"
    )
    assert [row["answer"] for row in rows_of(tmp_path / "my.parquet")] == ["dog", "cat"]


def test_half_characters_and_nulls_of_json(tmp_path: Path) -> None:
    text = '{"question": "W\\ud83d?", "answer": "x", "hint": null}\n'
    path = put(tmp_path, "my.jsonl", text.encode())
    assert rows_of(path) == [{"question": "W\ufffd?", "answer": "x", "hint": ""}]


URL = "data:image/png;base64," + base64.b64encode(IMAGE).decode()
OPENAI = [
    user(
        [
            {"type": "image_url", "image_url": {"url": URL}},
            {"type": "text", "text": "What is it?"},
        ]
    ),
    said("A cat"),
]
CONVERSATIONS: list[dict[str, object]] = [
    {"messages": OPENAI},
    {
        "messages": [user("<image>What is it?"), said("A cat")],
        "images": ["a.png"],
    },
    {"query": "<image>What is it?", "response": "A cat", "images": ["a.png"]},
    {
        "conversations": [
            {"from": "human", "value": "<image>What is it?"},
            {"from": "gpt", "value": "A cat"},
        ],
        "image": "a.png",
    },
    {"messages": [user("What is it?")], "solution": "A cat", "images": ["a.png"]},
]


@pytest.mark.parametrize("row", CONVERSATIONS)
def test_a_conversation_is_asked_as_it_is_written(
    sandbox: Sandbox, tmp_path: Path, row: dict[str, object]
) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    path = put(tmp_path, "my.jsonl", json_lines([row]))
    info = describe_own(str(path), access(tmp_path))
    (sample,) = read_samples(prepare(info, sandbox, tmp_path / "cache"))
    assert sample.error is None
    (turn,) = sample.prompt
    assert [part.kind for part in turn] == ["image", "text"]
    assert turn[1].text == "What is it?"
    assert sample.reference == "A cat"


def test_images_stand_where_a_question_has_places_for_them(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(draw(number))
    row = {
        "messages": [user("First <image> then <image>: which?"), said("B")],
        "images": ["1.png", "2.png"],
        "choices": ["one", "two"],
    }
    path = put(tmp_path, "my.jsonl", json_lines([row]))
    info = describe_own(str(path), access(tmp_path))
    assert info.kind == "multiple_choice"
    (sample,) = read_samples(prepare(info, sandbox, tmp_path / "cache"))
    (turn,) = sample.prompt
    assert [part.text or part.kind for part in turn] == [
        "First ",
        "image",
        " then ",
        "image",
        ": which?",
    ]
    shown = [part.media for part in turn if part.kind == "image"]
    assert len(set(shown)) == 2
    # In a question of its own the sign is a text.
    plain = [{"question": "Why <image>?", "answer": "x", "image": cell(IMAGE)}]
    info = describe_own(
        str(put(tmp_path, "plain.jsonl", json_lines(plain))), access(tmp_path)
    )
    (sample,) = read_samples(prepare(info, sandbox, tmp_path / "cache"))
    assert "Why <image>?" in sample.prompt[0][-1].text


SYSTEM = (
    "has a system message, and a row holds what the user asks. Leave it out; "
    "--vlm-system-prompt gives one to all rows"
)
TURNS = (
    "has several turns, and a row asks one question. Make a row of each question, or "
    "write what was said before into it"
)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"messages": [{"role": "system", "content": "Be"}, user("W?")]}, SYSTEM),
        ({"query": "W?", "response": "x", "system": "Be"}, SYSTEM),
        ({"query": "W?", "response": "x", "history": [["a", "b"]]}, TURNS),
        ({"messages": [user("V?"), said("x"), user("W?"), said("y")]}, TURNS),
        (
            {"messages": [said("x")]},
            "its messages are not one of the user and an answer to it",
        ),
        ({"messages": []}, "its messages are no list of messages"),
        ({"messages": "hello"}, "its messages are no list of messages"),
        ({"messages": ["hello"]}, "one of its messages is not an object"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "has a message of the role 'tool'; user and assistant are read",
        ),
        (
            {"messages": [user([{"type": "input_audio"}])]},
            "has a part of the type 'input_audio' in a message; text, image_url and "
            "image are read",
        ),
        (
            {"messages": [user(7)]},
            "the content of a message is neither a text nor a list of parts",
        ),
        (
            {"messages": [user("<image><image>W?")], "images": ["a.png"]},
            "has 2 <image> in its question, and 1 image",
        ),
        (
            {"messages": [user("<image>W?")]},
            "has 1 <image> in its question, and no images",
        ),
        (
            {"messages": [user("<video>W?")]},
            "has <video> in its question; only images are shown",
        ),
        (
            {"messages": OPENAI, "images": ["a.png"]},
            "has images in its messages and in its column images; their order is open. "
            "Leave out one of these",
        ),
    ],
)
def test_a_conversation_that_cannot_be_asked(
    tmp_path: Path, row: dict[str, object], fault: str
) -> None:
    path = put(tmp_path, "my.jsonl", json_lines([row]))
    assert faults_of(path) == [f"row 1 (line 1): {fault}"]


def test_a_folder_of_images(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "my.images"
    rows = [
        {"file_name": f"in/{n}.png", "question": "W?", "label": "x"} for n in (0, 1)
    ]
    for number in (0, 1):
        put(folder, f"in/{number}.png", draw(number))
    put(folder, "metadata.jsonl", json_lines(rows))
    put(folder, "notes.csv", b"a,b\n")
    said: list[str] = []
    info = describe_own(str(folder), access(tmp_path)._replace(announce=said.append))
    assert (info.name, info.path) == ("my.images", folder / "metadata.jsonl")
    assert said == ["my.images: answer from 'label', image_path from 'file_name'"]
    samples = read_samples(prepare(info, sandbox, tmp_path / "cache"))
    assert len({part.media for s in samples for part in s.prompt[0] if part.media}) == 2
    put(folder, "metadata.csv", csv_of(rows))
    with pytest.raises(VlmEvalError) as caught:
        describe_own(str(folder), access(tmp_path))
    assert str(caught.value) == (
        f"{folder} has several tables: metadata.csv, metadata.jsonl. Name one of them: "
        f"--vlm-data={folder}/metadata.csv."
    )
    info = describe_own(f"{folder}/metadata.csv", access(tmp_path))
    assert info.path == folder / "metadata.csv"


def test_a_folder_without_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    start = (
        f"{folder} is a folder without a table. Put one beside its images, as "
        "metadata.csv with the columns file_name, question and answer (.tsv, .csv, "
        ".jsonl, .json, each also with .gz, or .parquet)."
    )
    for hint in (
        "",
        f" There is one in {folder}/test, which --vlm-data={folder}/test/ takes.",
    ):
        with pytest.raises(VlmEvalError) as caught:
            describe_own(str(folder), access(tmp_path))
        assert str(caught.value) == start + hint
        put(folder, "test/metadata.csv", b"question,answer\nW?,x\n")
    advised = hint.partition("--vlm-data=")[2].removesuffix(" takes.")
    assert describe_own(advised, access(tmp_path)).name == "test"


def test_images_outside_are_named_and_may_be_refused(tmp_path: Path) -> None:
    outside = put(tmp_path, "photos/a.png", IMAGE)
    rows = [{"question": "W?", "answer": "x", "image": "../photos/a.png"}]
    path = put(tmp_path, "in/my.jsonl", json_lines(rows))
    said: list[str] = []
    files = access(tmp_path)._replace(announce=said.append)
    describe_own(str(path), files)
    assert said == [f"my.jsonl names images outside of its folder, in {outside.parent}"]
    with pytest.raises(VlmEvalError) as caught:
        describe_own(str(path), files._replace(own_paths="inside"))
    assert (
        f"row 1 (line 1): ../photos/a.png: {outside} lies outside of the table's folder"
    ) in str(caught.value)


def test_a_missing_image_is_named_with_its_line(tmp_path: Path) -> None:
    rows = [{"question": "W?", "answer": "x", "images": ["a.png", "b.png"]}]
    put(tmp_path, "a.png", IMAGE)
    path = put(tmp_path, "my.jsonl", json_lines(rows))
    assert fault_of(path).splitlines() == [
        "cannot be used (row 1 is the first):",
        "  row 1 (line 1): b.png: No such file or directory",
        "A path of an image counts from the table's folder, or is absolute.",
    ]
