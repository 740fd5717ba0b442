"""Any image-text-to-text checkpoint of transformers, asked in batches."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

Prompt = dict[str, Any]


class Checkpoint:
    """A processor and a model from one folder, on the GPU if there is one."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._processor = AutoProcessor.from_pretrained(order["path"])
        # Prompts of different lengths end together, where the answers begin.
        self._processor.tokenizer.padding_side = "left"
        self._model = AutoModelForImageTextToText.from_pretrained(
            order["path"], **{"dtype": "auto", **order["arguments"]}
        )
        self._model.to(self._device).eval()
        ends = self._model.generation_config.eos_token_id
        ends = self._processor.tokenizer.eos_token_id if ends is None else ends
        self._ends = set(ends if isinstance(ends, list) else [ends])

    def describe(self) -> str:
        """Describe what was loaded, and where."""
        return f"{type(self._model).__name__} on {self._device}"

    def answer(self, prompts: list[Prompt]) -> list[dict[str, Any]]:
        """Answer prompts in one batch; one that cannot be answered brings an error."""
        try:
            return self._answer(prompts)
        except Exception as error:
            if len(prompts) == 1:
                return [{"error": " ".join(f"{type(error).__name__}: {error}".split())}]
        # One of them is at fault, or they are too many for the memory.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(prompts) // 2
        return [*self.answer(prompts[:half]), *self.answer(prompts[half:])]

    @torch.inference_mode()
    def _answer(self, prompts: list[Prompt]) -> list[dict[str, Any]]:
        inputs = self._encode(prompts).to(self._device)
        length = inputs["input_ids"].shape[1]
        made = self._model.generate(
            **inputs, max_new_tokens=self._order["max_tokens"], **self._sampling()
        )[:, length:]
        texts = self._processor.batch_decode(made, skip_special_tokens=True)
        counts = inputs["attention_mask"].sum(dim=1).tolist()
        return [
            self._reply(text, tokens, count)
            for text, tokens, count in zip(texts, made.tolist(), counts, strict=True)
        ]

    def _encode(self, prompts: list[Prompt]) -> Any:
        texts: list[str] = []
        images: list[Image.Image] = []
        for prompt in prompts:
            messages: list[dict[str, Any]] = []
            if prompt["system"]:
                messages.append(_message("system", prompt["system"]))
            for turn, reply in zip_longest(prompt["turns"], prompt["replies"]):
                content = [_content(part, images) for part in turn]
                messages.append({"role": "user", "content": content})
                if reply is not None:
                    messages.append(_message("assistant", reply))
            texts.append(
                self._processor.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            )
        given = {"images": images} if images else {}
        return self._processor(text=texts, **given, padding=True, return_tensors="pt")

    def _sampling(self) -> dict[str, Any]:
        temperature = self._order["temperature"]
        if temperature == 0:
            # What only sampling reads would be complained of.
            unread = dict.fromkeys(("temperature", "top_p", "top_k"))
            return {"do_sample": False, **unread}
        return {"do_sample": True, "temperature": temperature}

    def _reply(
        self, text: str, tokens: list[int], prompt_tokens: int
    ) -> dict[str, Any]:
        ended = [place for place, token in enumerate(tokens) if token in self._ends]
        return {
            "text": text,
            "finish_reason": "stop" if ended else "length",
            "prompt_tokens": prompt_tokens,
            "completion_tokens": ended[0] + 1 if ended else len(tokens),
        }


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _content(part: dict[str, str], images: list[Image.Image]) -> dict[str, str]:
    """Return a part as the chat template takes it, and add its image to the others."""
    if part["kind"] == "video":
        raise ValueError("videos are not taken here, only their frames")
    if part["kind"] == "text":
        return {"type": "text", "text": part["text"]}
    with Image.open(part["path"]) as image:
        images.append(image.convert("RGB"))
    return {"type": "image"}
