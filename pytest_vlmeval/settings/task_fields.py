"""Every field of a task file of EvalScope or VLMEvalKit, and what becomes of it.

The fields are those of EvalScope's TaskConfig, of ms-vlmeval's Arguments
(vlmeval/utils/arguments.py), of its API models (vlmeval/api/gpt.py, base.py,
lmdeploy.py) and of VLMEvalKit's configuration (docs/en/ConfigSystem.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pytest_vlmeval.settings.groups import OFFICIAL


class Kind(NamedTuple):
    """What a field may hold; empty (null) always means that it is not there."""

    accepts: str
    types: tuple[type, ...]


# A flag is a number to Python, and none to a reader of the file.
ANYTHING = Kind("anything", (object, bool))
TEXT = Kind("a text (in quotes, if it looks like a number)", (str,))
NUMBER = Kind("a number", (int, float, str))
FLAG = Kind("true or false", (bool,))
OBJECT = Kind("a mapping", (dict,))
LIST = Kind("a list", (list, str))


@dataclass(frozen=True, slots=True)
class Field:
    """A field and what becomes of it.

    It is an `option` by this name, whose text `read` returns, None for nothing. Or it
    is `refused` or `idle`, for this reason: an error, or a remark that it changes
    nothing; neither where it has one of the values `unless`, or is refused and off. Or
    it is honoured together with others, as `note` says.
    """

    kind: Kind = ANYTHING
    note: str = ""
    option: str = ""
    read: Callable[[Any], str | None] = str
    refused: str = ""
    idle: str = ""
    unless: tuple[object, ...] = ()


def official(address: str) -> str:
    """Return the address of an endpoint, which may be named OFFICIAL."""
    return OFFICIAL if address == "OFFICIAL" else address


def whether(value: object) -> str:
    """Return the text of a flag."""
    return "yes" if value else "no"


FOLLOWS = "the judge follows --vlm-concurrency, --vlm-retries and --vlm-timeout"
RESUMES = "what has no usable answer is asked by the next command, and nothing else"
PYTEST_SAYS = "pytest's -v and -vv say more"
SUBTITLES_OF = "Video-MME with 8 frames or 0.5 frames per second: its preset `..._subs`"
PACKED = "a preset's name says it: MMBench_Video_8frame_pack"
SENT = "images and videos are sent, not their paths"
OWN_PROMPTS = "prompts are those of the dataset"
IN_BODY = "--vlm-extra-body, with base_url"
OUTSIDE = (
    "EvalScope reads it for its native backend only; what VLMEvalKit is told stands in "
    "eval_config"
)
# Read by EvalScope itself, whose own backend they belong to: VLMEvalKit tasks of it
# never see them.
NATIVE = frozenset(
    "model model_id model_args model_task chat_template datasets dataset_args "
    "dataset_dir dataset_hub repeats generation_config eval_type limit "
    "eval_batch_size rerun_review ignore_errors api_url api_key timeout stream judge "
    "analysis_report collect_perf sandbox use_sandbox sandbox_type "
    "sandbox_manager_config agent_config enable_progress_tracker "
    "evalscope_version judge_strategy judge_worker_num judge_model_args".split()
)

# The top level of a task of EvalScope.
EVALSCOPE: Mapping[str, Field] = {
    "eval_backend": Field(TEXT, "has to be VLMEvalKit"),
    "eval_config": Field(
        note="the fields below, or the path of a file that holds them"
    ),
    "work_dir": Field(
        TEXT, "from the current folder; no subfolder by time", option="work-dir"
    ),
    "use_cache": Field(
        idle="answers are kept in the run store, and found there whenever it ran"
    ),
    "no_timestamp": Field(idle="the run store has no subfolders by time"),
    "debug": Field(idle=PYTEST_SAYS, unless=(False,)),
    "seed": Field(idle="only --vlm-sample draws at random, with --vlm-seed"),
}
# Of models that are names in an `eval_config`; what is no option goes into the body.
BASE_URL: Mapping[str, Field] = {
    "base_url": Field(
        TEXT, "of models that are names", option="api-base", read=official
    ),
    "key": Field(TEXT, "the model's key, with base_url"),
    "max_tokens": Field(NUMBER, "with base_url (32768)", option="max-tokens"),
    "temperature": Field(NUMBER, "with base_url", option="temperature"),
    "timeout": Field(NUMBER, "with base_url (1800)", option="timeout"),
    "top_k": Field(NUMBER, IN_BODY),
    "top_p": Field(NUMBER, IN_BODY),
    "repetition_penalty": Field(NUMBER, IN_BODY),
    "extra_body": Field(TEXT, IN_BODY),
    "video_llm": Field(FLAG, "with base_url", option="video-url", read=whether),
}
# The `eval_config` of a task.
EVAL_CONFIG: Mapping[str, Field] = {
    "data": Field(LIST, "--vlm-data"),
    "model": Field(
        LIST, "one of them: --vlm-model=NAME chooses where there are several"
    ),
    "mode": Field(
        TEXT,
        "eval is score",
        option="mode",
        read=lambda mode: "score" if mode == "eval" else str(mode),
    ),
    "limit": Field(NUMBER, option="limit"),
    "reuse": Field(
        FLAG,
        "false asks every sample again at each start",
        option="fresh",
        read=lambda reuse: whether(not reuse),
    ),
    "rerun": Field(
        FLAG, "reuse, before ms-vlmeval 0.0.11", option="fresh", read=whether
    ),
    "work_dir": Field(TEXT, "where the top level has none", option="work-dir"),
    "nproc": Field(NUMBER, option="concurrency"),
    "api_nproc": Field(NUMBER, "where nproc is not", option="concurrency"),
    "retry": Field(NUMBER, option="retries"),
    "judge": Field(TEXT, "--vlm-judge; LOCAL_LLM stands for it"),
    "judge_base_url": Field(TEXT, "--vlm-judge-api-base"),
    "judge_key": Field(TEXT, "the judge's key"),
    "OPENAI_API_KEY": Field(TEXT, "the judge's key; EMPTY is none"),
    "OPENAI_API_BASE": Field(TEXT, "--vlm-judge-api-base"),
    "LOCAL_LLM": Field(TEXT, "--vlm-judge"),
    "judge_args": Field(
        refused="a judge has a name, an address and a key here", unless=("",)
    ),
    "judge_api_nproc": Field(idle=FOLLOWS),
    "judge_retry": Field(idle=FOLLOWS),
    "judge_timeout": Field(idle=FOLLOWS),
    "use_verifier": Field(
        FLAG, refused="the verifier is a model that ms-vlmeval loads while it scores"
    ),
    "nframe": Field(NUMBER, "--vlm-nframe, unless fps is above 0"),
    "fps": Field(NUMBER, "--vlm-fps, if above 0"),
    "use_subtitle": Field(FLAG, SUBTITLES_OF),
    "pack": Field(FLAG, refused=PACKED),
    **BASE_URL,
    "local_media": Field(FLAG, refused=SENT),
    "custom_prompt": Field(TEXT, refused=OWN_PROMPTS, unless=("",)),
    "thinker": Field(
        FLAG, refused="it doubles other fields: give max_tokens and timeout themselves"
    ),
    "use_vllm": Field(
        FLAG, refused="serve the model with vLLM, and give its address as api_base"
    ),
    "config": Field(
        TEXT, refused="give that file itself as --vlm-config", unless=("",)
    ),
    "reuse_aux": Field(
        idle="judges' replies are kept in the store like answers", unless=("all",)
    ),
    "keep_failed": Field(idle=RESUMES, unless=(False,)),
    "ignore": Field(idle=RESUMES, unless=(False,)),
    "verbose": Field(idle=PYTEST_SAYS, unless=(False,)),
    "api_mode": Field(
        idle="requests are always asked side by side", unless=(True, False)
    ),
    "monitor_interval": Field(idle="progress is always shown"),
    "debug": Field(idle=PYTEST_SAYS, unless=(False,)),
}
# A model behind an OpenAI-compatible endpoint; other fields go into the body.
API_MODEL: Mapping[str, Field] = {
    "type": Field(TEXT, "--vlm-model, the name it is served under"),
    "name": Field(TEXT, "CustomAPIModel"),
    "model": Field(TEXT, "--vlm-model, in a configuration of VLMEvalKit"),
    "api_base": Field(TEXT, "OFFICIAL is OpenAI's", option="api-base", read=official),
    "key": Field(TEXT, "the model's key; EMPTY is none"),
    "temperature": Field(NUMBER, option="temperature"),
    "max_tokens": Field(NUMBER, option="max-tokens"),
    "img_size": Field(
        NUMBER,
        "-1 is none",
        option="image-size",
        read=lambda size: None if size == -1 else str(size),
    ),
    "img_detail": Field(TEXT, option="image-detail"),
    "system_prompt": Field(TEXT, option="system-prompt"),
    "video_llm": Field(FLAG, option="video-url", read=whether),
    "retry": Field(NUMBER, option="retries"),
    "timeout": Field(NUMBER, option="timeout"),
    "total_img_size": Field(
        NUMBER, refused="images are bounded one by one, by img_size", unless=(-1,)
    ),
    "max_file_size": Field(
        NUMBER, refused="images are bounded in pixels, by img_size", unless=(1e9,)
    ),
    "use_azure": Field(
        FLAG,
        refused="give the deployment's URL as api_base, and --vlm-api-query and "
        "--vlm-api-header-file",
    ),
    "local_media": Field(FLAG, refused=SENT),
    "custom_prompt": Field(TEXT, refused=OWN_PROMPTS, unless=("",)),
    "stream": Field(FLAG, refused="answers are asked for as a whole"),
    "wait": Field(idle="pauses between retries grow by themselves"),
    "verbose": Field(idle=PYTEST_SAYS, unless=(False,)),
    "fail_msg": Field(idle="a failure is a state of its own here"),
}
# A model that ms-vlmeval loads; other fields are arguments of its class.
LOCAL_MODEL: Mapping[str, Field] = {
    "name": Field(TEXT, "--vlm-model, with --vlm-backend=local"),
    "model_path": Field(TEXT, option="model-path"),
    "max_new_tokens": Field(
        NUMBER, "and an argument of the class", option="max-tokens"
    ),
    "temperature": Field(NUMBER, "and an argument of the class", option="temperature"),
    "video_llm": Field(FLAG, idle="a local class says itself whether it takes videos"),
}
# A dataset in a configuration of VLMEvalKit.
DATASET: Mapping[str, Field] = {
    "class": Field(TEXT, "has to be that of ms-vlmeval"),
    "dataset": Field(TEXT, "--vlm-data; else the name of the entry"),
    "nframe": Field(NUMBER, "--vlm-nframe, which all datasets share"),
    "fps": Field(NUMBER, "--vlm-fps, which all datasets share"),
    "use_subtitle": Field(FLAG, SUBTITLES_OF),
    "pack": Field(FLAG, refused=PACKED),
}
# The top level of VLMEvalKit's `--config`.
VLMEVALKIT: Mapping[str, Field] = {
    "model": Field(OBJECT, "entries; --vlm-model=NAME chooses"),
    "data": Field(OBJECT, "entries by their names"),
}
