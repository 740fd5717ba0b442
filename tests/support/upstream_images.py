"""What ms-vlmeval's API models send for images; run by the sandbox's interpreter.

`upstream_images.py JOBS RESULTS`: JOBS is a JSON list of base64 text, suffix of the
file it is kept in ("" for an image that is a file already) and img_size; RESULTS gets
the base64 text that is sent for each, or null where an exception is.
"""

from __future__ import annotations

import base64
import importlib
import json
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any


def encode(folder: Path, text: str, suffix: str, img_size: int) -> str | None:
    """Send an image; give what stands in the request."""
    gpt: Any = importlib.import_module("vlmeval.api.gpt")
    smp: Any = importlib.import_module("vlmeval.smp")
    path = str(folder / f"image{suffix}")
    model = gpt.CustomAPIModel(model="m", key="EMPTY", img_size=img_size)
    try:
        if suffix:
            smp.decode_base64_to_image_file(text, path)
        else:
            Path(path).write_bytes(base64.b64decode(text))
        (part,) = model.prepare_itlist([{"type": "image", "value": path}])
    except Exception:
        return None
    opening, _, sent = part["image_url"]["url"].partition(",")
    assert opening == "data:image/jpeg;base64"
    return str(sent)


if __name__ == "__main__":
    requests = runpy.run_path(str(Path(__file__).with_name("upstream_requests.py")))
    requests["enter"]()
    found = []
    for job in json.loads(Path(sys.argv[1]).read_text()):
        with tempfile.TemporaryDirectory() as scratch:
            found.append(encode(Path(scratch), *job))
    Path(sys.argv[2]).write_text(json.dumps(found))
