"""Files as repositories of hubs have them: tables, JSON, Parquet and tars."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any


def lines(rows: Sequence[Mapping[str, object]], *drop: str) -> bytes:
    """Write a TSV without some columns."""
    names = [name for name in rows[0] if name not in drop]
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    return "".join("\t".join(line) + "\n" for line in cells).encode()


def json_lines(rows: Sequence[Mapping[str, object]]) -> bytes:
    """Write a row as JSON on each line."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: Sequence[Mapping[str, object]], *images: str) -> bytes:
    """Write Parquet as Hugging Face does, with columns or lists of `images`."""
    # Here, as every session of this checkout reads what tests import.
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(list(rows))
    features: dict[str, Any] = {
        name: {"dtype": str(kind), "_type": "Value"}
        for name, kind in zip(table.schema.names, table.schema.types, strict=True)
        if not pa.types.is_nested(kind)
    }
    for name in images:
        features[name] = {"_type": "Image"}
        if pa.types.is_list(table.schema.field(name).type):
            features[name] = {"feature": {"_type": "Image"}, "_type": "List"}
    for name in {"steps", "options"} & set(table.schema.names):
        features[name] = {
            "feature": {"dtype": "string", "_type": "Value"},
            "_type": "List",
        }
    if len(features) == len(table.schema.names):
        features = {name: features[name] for name in table.schema.names}
        known = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": known})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def tape(files: Mapping[str, bytes], mode: str = "") -> bytes:
    """Pack files into a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{mode}") as packed:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return out.getvalue()
