"""Every field of a task file, and what becomes of it here.

The fields are those of EvalScope's TaskConfig, of ms-vlmeval's Arguments
(vlmeval/utils/arguments.py), of its API models (vlmeval/api/gpt.py, base.py,
lmdeploy.py) and of VLMEvalKit's configuration (docs/en/ConfigSystem.md).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict

from pytest_vlmeval.option_values import list_datasets
from pytest_vlmeval.tasks.fates import (
    Anything,
    Becomes,
    Flag,
    Idle,
    Mapping,
    Number,
    Read,
    Refused,
    Several,
    Text,
    unless,
    whether,
)

FOLLOWS = "the judge follows --vlm-concurrency, --vlm-retries and --vlm-timeout"
RESUMES = "what has no usable answer is asked by the next command, and nothing else"
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


class _Fields(BaseModel):
    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, protected_namespaces=()
    )


class EvalScopeTask(_Fields):
    """The top level of a task of EvalScope."""

    eval_backend: Annotated[Text, Read("has to be VLMEvalKit")] = None
    eval_config: Annotated[
        Anything, Read("the fields below, or the path of a file that holds them")
    ] = None
    work_dir: Annotated[
        Text, Becomes("work-dir", note="from the current folder; no subfolder by time")
    ] = None
    use_cache: Annotated[
        Anything,
        Idle("answers are kept in the run store, and found there whenever it ran"),
    ] = None
    no_timestamp: Annotated[
        Anything, Idle("the run store has no subfolders by time")
    ] = None
    debug: Annotated[Anything, Idle("pytest's -v and -vv say more", (False,))] = None
    seed: Annotated[
        Anything,
        Idle("only --vlm-sample draws at random, with --vlm-seed"),
    ] = None


class EvalConfig(_Fields):
    """The `eval_config` of a task."""

    data: Annotated[Several, Becomes("data", read=list_datasets)] = None
    model: Annotated[
        Several,
        Read("one of them: --vlm-model=NAME chooses where there are several"),
    ] = None
    mode: Annotated[
        Text,
        Becomes(
            "mode",
            read=lambda mode: "score" if mode == "eval" else str(mode),
            note="eval is score",
        ),
    ] = None
    limit: Annotated[Number, Becomes("limit")] = None
    reuse: Annotated[
        Flag,
        Becomes(
            "fresh",
            read=lambda reuse: whether(not reuse),
            note="false asks every sample again at each start",
        ),
    ] = None
    rerun: Annotated[
        Flag, Becomes("fresh", read=whether, note="reuse, before ms-vlmeval 0.0.11")
    ] = None
    work_dir: Annotated[
        Text, Becomes("work-dir", note="where the top level has none")
    ] = None
    nproc: Annotated[Number, Becomes("concurrency")] = None
    api_nproc: Annotated[Number, Becomes("concurrency", note="where nproc is not")] = (
        None
    )
    retry: Annotated[Number, Becomes("retries")] = None
    judge: Annotated[Text, Read("--vlm-judge; LOCAL_LLM stands for it")] = None
    judge_base_url: Annotated[Text, Read("--vlm-judge-api-base")] = None
    judge_key: Annotated[Text, Read("the judge's key")] = None
    OPENAI_API_KEY: Annotated[Text, Read("the judge's key; EMPTY is none")] = None
    OPENAI_API_BASE: Annotated[Text, Read("--vlm-judge-api-base")] = None
    LOCAL_LLM: Annotated[Text, Read("--vlm-judge")] = None
    judge_args: Annotated[
        Anything,
        Refused("a judge has a name, an address and a key here", ("",)),
    ] = None
    judge_api_nproc: Annotated[Anything, Idle(FOLLOWS)] = None
    judge_retry: Annotated[Anything, Idle(FOLLOWS)] = None
    judge_timeout: Annotated[Anything, Idle(FOLLOWS)] = None
    use_verifier: Annotated[
        Flag, Refused("the verifier is a model that ms-vlmeval loads while it scores")
    ] = None
    nframe: Annotated[Number, Read("--vlm-nframe, unless fps is above 0")] = None
    fps: Annotated[Number, Read("--vlm-fps, if above 0")] = None
    use_subtitle: Annotated[
        Flag,
        Read("Video-MME with 8 frames or 0.5 frames per second: its preset `..._subs`"),
    ] = None
    pack: Annotated[
        Flag, Refused("a preset's name says it: MMBench_Video_8frame_pack")
    ] = None
    base_url: Annotated[Text, Read("--vlm-api-base of models that are names")] = None
    key: Annotated[Text, Read("the model's key, with base_url")] = None
    max_tokens: Annotated[Number, Read("--vlm-max-tokens, with base_url (32768)")] = (
        None
    )
    temperature: Annotated[Number, Read("--vlm-temperature, with base_url")] = None
    timeout: Annotated[Number, Read("--vlm-timeout, with base_url (1800)")] = None
    top_k: Annotated[Number, Read("--vlm-extra-body, with base_url")] = None
    top_p: Annotated[Number, Read("--vlm-extra-body, with base_url")] = None
    repetition_penalty: Annotated[Number, Read("--vlm-extra-body, with base_url")] = (
        None
    )
    extra_body: Annotated[Text, Read("--vlm-extra-body, with base_url")] = None
    video_llm: Annotated[Flag, Read("--vlm-video-url, with base_url")] = None
    local_media: Annotated[
        Flag, Refused("pictures and videos are sent, not their paths")
    ] = None
    custom_prompt: Annotated[
        Text, Refused("prompts are those of the dataset", ("",))
    ] = None
    thinker: Annotated[
        Flag, Refused("it doubles other fields: give max_tokens and timeout themselves")
    ] = None
    use_vllm: Annotated[
        Flag, Refused("serve the model with vLLM, and give its address as api_base")
    ] = None
    config: Annotated[Text, Refused("give that file itself as --vlm-config", ("",))] = (
        None
    )
    reuse_aux: Annotated[
        Anything, Idle("judges' replies are kept in the store like answers", ("all",))
    ] = None
    keep_failed: Annotated[Anything, Idle(RESUMES, (False,))] = None
    ignore: Annotated[Anything, Idle(RESUMES, (False,))] = None
    verbose: Annotated[Anything, Idle("pytest's -v and -vv say more", (False,))] = None
    api_mode: Annotated[
        Anything, Idle("requests are always asked side by side", (True, False))
    ] = None
    monitor_interval: Annotated[Anything, Idle("progress is always shown")] = None
    debug: Annotated[Anything, Idle("pytest's -v and -vv say more", (False,))] = None


class ApiModel(_Fields):
    """A model behind an OpenAI-compatible endpoint; other fields go into the body."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[Text, Read("--vlm-model, the name it is served under")] = None
    name: Annotated[Text, Read("CustomAPIModel")] = None
    model: Annotated[Text, Read("--vlm-model, in a configuration of VLMEvalKit")] = None
    api_base: Annotated[Text, Becomes("api-base", note="OFFICIAL is OpenAI's")] = None
    key: Annotated[Text, Read("the model's key; EMPTY is none")] = None
    temperature: Annotated[Number, Becomes("temperature")] = None
    max_tokens: Annotated[Number, Becomes("max-tokens")] = None
    img_size: Annotated[
        Number, Becomes("image-size", read=unless(-1), note="-1 is none")
    ] = None
    img_detail: Annotated[Text, Becomes("image-detail")] = None
    system_prompt: Annotated[Text, Becomes("system-prompt")] = None
    video_llm: Annotated[Flag, Becomes("video-url", read=whether)] = None
    retry: Annotated[Number, Becomes("retries")] = None
    timeout: Annotated[Number, Becomes("timeout")] = None
    total_img_size: Annotated[
        Number, Refused("pictures are bounded one by one, by img_size", (-1,))
    ] = None
    max_file_size: Annotated[
        Number, Refused("pictures are bounded in pixels, by img_size", (1e9,))
    ] = None
    use_azure: Annotated[
        Flag,
        Refused(
            "give the deployment's URL as api_base, and --vlm-api-query and "
            "--vlm-api-header-file"
        ),
    ] = None
    local_media: Annotated[
        Flag, Refused("pictures and videos are sent, not their paths")
    ] = None
    custom_prompt: Annotated[
        Text, Refused("prompts are those of the dataset", ("",))
    ] = None
    stream: Annotated[Flag, Refused("answers are asked for as a whole")] = None
    wait: Annotated[Anything, Idle("pauses between retries grow by themselves")] = None
    verbose: Annotated[Anything, Idle("pytest's -v and -vv say more", (False,))] = None
    fail_msg: Annotated[Anything, Idle("a failure is a state of its own here")] = None


class LocalModel(_Fields):
    """A model that ms-vlmeval loads; other fields are arguments of its class."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[Text, Read("--vlm-model, with --vlm-backend=local")] = None
    model_path: Annotated[Text, Becomes("model-path")] = None
    max_new_tokens: Annotated[
        Number, Becomes("max-tokens", note="and an argument of the class")
    ] = None
    temperature: Annotated[
        Number, Becomes("temperature", note="and an argument of the class")
    ] = None
    video_llm: Annotated[
        Flag, Idle("a local class says itself whether it takes videos")
    ] = None


class DatasetFields(_Fields):
    """A dataset in a configuration of VLMEvalKit."""

    dataset: Annotated[Text, Read("--vlm-data; else the name of the entry")] = None
    nframe: Annotated[Number, Read("--vlm-nframe, which all datasets share")] = None
    fps: Annotated[Number, Read("--vlm-fps, which all datasets share")] = None
    use_subtitle: Annotated[
        Flag,
        Read("Video-MME with 8 frames or 0.5 frames per second: its preset `..._subs`"),
    ] = None
    pack: Annotated[
        Flag, Refused("a preset's name says it: MMBench_Video_8frame_pack")
    ] = None


class VlmevalkitConfig(_Fields):
    """The top level of VLMEvalKit's `--config`."""

    model: Annotated[Mapping, Read("entries; --vlm-model=NAME chooses")] = None
    data: Annotated[Mapping, Read("entries by their names")] = None
