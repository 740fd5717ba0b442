"""The fixes of ms-vlmeval: the places they answer, and the bounds on one comparison."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.catalog import locate_package
from pytest_vlmeval.sandbox.inside.fixes import (
    MAX_LENGTH,
    SLOW_SECONDS,
    Allowance,
    bounded,
    timeout_decorator,
)
from tests.support.sandbox_calls import BOOTSTRAP

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

# File below vlmeval/, line, and what stands there: where a fix answers ms-vlmeval.
ANSWERED = [
    ("__init__.py", 8, "_create_unverified_context"),
    ("__init__.py", 15, "logging.basicConfig("),
    ("__init__.py", 31, "load_env()"),
    ("smp/file.py", 149, "def dump("),
    ("smp/file.py", 166, "engine='xlsxwriter'"),
    ("smp/file.py", 248, "def load("),
    ("smp/file.py", 287, "def download_file("),
    ("smp/misc.py", 58, "eval(s)"),
    ("smp/misc.py", 203, "def load_env("),
    ("smp/misc.py", 255, "eval(s)"),
    ("smp/vlm.py", 9, "Image.MAX_IMAGE_PIXELS = 1e9"),
    ("smp/vlm.py", 150, "base64.b64decode("),
    ("smp/vlm.py", 159, "def decode_base64_to_image_file("),
    ("utils/matching_util.py", 113, "def can_infer("),
    ("utils/mp_util.py", 31, "def track_progress_rich("),
    ("dataset/utils/judge_util.py", 8, "def build_judge("),
    ("utils/result_transfer.py", 17, "def MMMU_result_transfer("),
    ("dataset/dude.py", 79, "kwargs['model']"),
    ("dataset/slidevqa.py", 93, "kwargs['model']"),
    ("dataset/image_base.py", 325, "toliststr(line['image_path'])"),
    ("dataset/image_yorn.py", 91, "data['answer'] == data['extracted']"),
    ("dataset/utils/olympiadbench.py", 198, "exit(f'Error parsing"),
    ("dataset/utils/mathv.py", 26, "@timeout_decorator.timeout(30, use_signals=False)"),
    ("dataset/utils/mathv.py", 36, "eval(gt_asw)"),
    ("dataset/utils/mathv.py", 38, "abs(a - b) < 1e-6"),
    ("dataset/utils/multiple_choice.py", 62, "def MMMU_preproc("),
    ("dataset/utils/multiple_choice.py", 405, "rd.choice(options)"),
    ("dataset/utils/multiple_choice.py", 573, "/tmp/{timestr()}"),
    ("dataset/utils/vqa_eval.py", 233, "def anls_compute("),
    ("dataset/utils/vqa_eval.py", 242, "def process_answer("),
    ("dataset/utils/vqa_eval.py", 254, "eval(line['answer'])"),
    ("dataset/utils/multiple_choice.py", 77, "def report_acc("),
    ("dataset/utils/multiple_choice.py", 95, "abilities.sort()"),
    ("dataset/utils/multiple_choice.py", 103, "def report_acc_MMT("),
    ("dataset/utils/multiple_choice.py", 108, "for _, name in MMT_abbrs.items():"),
    ("dataset/utils/yorn.py", 60, "stats[category][image_path] = []"),
    ("dataset/utils/yorn.py", 70, "val[0] * val[1]"),
    ("dataset/utils/yorn.py", 103, "_{line['set_id']}_{line['figure_id']}"),
    ("dataset/image_mt.py", 54, "dlgs.append(dict(role='assistant'"),
    ("dataset/image_mt.py", 81, "int(line[k])"),
    ("dataset/image_mt.py", 90, "all[k] / valid[k]"),
    ("dataset/utils/mmdu.py", 113, "eval(dictionary_str)"),
    ("dataset/utils/mmvet.py", 103, "score[k] / tot[k] * 100"),
    ("dataset/utils/mathvista.py", 85, "can_infer(response, choices)"),
    ("dataset/utils/mathvista.py", 90, "int(response)"),
    ("dataset/utils/mathvista.py", 93, "float(response)"),
    ("dataset/utils/mathvista.py", 96, "res = str(res)"),
    ("dataset/utils/llavabench.py", 6, "from ..smp.log import get_logger"),
    ("dataset/utils/llavabench.py", 39, "return [-1, -1]"),
    ("dataset/mmlongbench.py", 11, "import torchvision.transforms"),
    ("dataset/mmlongbench.py", 379, "/ len(gt_pos_data)"),
    ("dataset/mmlongbench.py", 461, "kwargs['model']"),
    ("dataset/mmlongbench.py", 493, "base64.b64decode("),
    ("dataset/mmlongbench.py", 573, "for model, line in tqdm(tups):"),
    ("dataset/mmlongbench.py", 594, "logger.info(score)"),
    ("dataset/vcr.py", 22, "def initialize("),
    ("dataset/vcr.py", 99, "def find_best_match("),
    ("dataset/vcr.py", 277, "def evaluate("),
    ("dataset/vcr.py", 311, "progress_queue.get()"),
    ("dataset/vcr.py", 343, "logger.info('{}:{}'.format(key, value))"),
    ("dataset/image_base.py", 168, "assert idx in image_map"),
    ("dataset/image_base.py", 218, "def prepare_tsv("),
    ("dataset/image_mcq.py", 268, "'mmbench', 'ccbench', 'circular', 'mmcr'"),
    ("dataset/image_vqa.py", 87, "mp.Pool(16)"),
    ("smp/file.py", 372, "def md5("),
    ("smp/misc.py", 70, "def get_cache_path("),
    ("smp/misc.py", 73, "import create_temporary_directory_and_cache"),
    ("dataset/__init__.py", 391, "in cls.supported_datasets()"),
    ("dataset/__init__.py", 393, "if k in init_params"),
    ("dataset/refspatial.py", 87, "list(set("),
    ("dataset/video_base.py", 45, "lmu_root = LMUDataRoot()"),
    ("dataset/video_base.py", 174, "def prepare_tsv("),
    ("dataset/video_concat_dataset.py", 10, "class ConcatVideoDataset("),
    ("dataset/video_concat_dataset.py", 17, "from . import build_dataset"),
    ("dataset/dsrbench.py", 62, 'os.path.join(cache_path, "raw_data")'),
    ("dataset/vdc.py", 173, "if modelscope_flag_set():"),
    ("dataset/mmbench_video.py", 31, "pickle.load(file)"),
    ("dataset/mvbench.py", 9, "import cv2"),
    ("dataset/mvbench.py", 186, "huggingface_hub.login("),
    ("dataset/videomme.py", 264, "for idx in data['index']:"),
    ("dataset/utils/videomme.py", 120, "def extract_option("),
    ("dataset/vladbench.py", 519, "~/.cache/vlmeval/vladbench/"),
    ("dataset/image_vqa.py", 244, "https://huggingface.co/datasets/MLLM-CL/VTCBench"),
    ("dataset/image_vqa.py", 294, "load_dataset("),
    ("dataset/image_vqa.py", 2061, "max_tokens=3"),
    ("dataset/image_vqa.py", 2523, "qspatial_root ="),
    ("dataset/image_vqa.py", 2538, "os.system("),
    ("dataset/image_vqa.py", 2591, "self.qspatial_root"),
    ("dataset/image_vqa.py", 2805, "download_file(url[i], data_path)"),
    ("dataset/image_mcq.py", 961, "mme_realworld_lite.tsv"),
    ("dataset/image_mcq.py", 2091, "localize_df("),
    ("dataset/image_mcq.py", 2292, "localize_df("),
    ("dataset/image_mcq.py", 2634, "num_proc=8"),
    ("dataset/da2k.py", 43, "https://huggingface.co/datasets/depth-anything/DA-2K"),
    ("dataset/da2k.py", 78, "hf_hub_download("),
    ("dataset/da2k.py", 94, "'annotations.json'"),
    ("dataset/da2k.py", 127, "'annotations.json'"),
    ("dataset/chartmimic.py", 494, "wget"),
    ("dataset/chartmimic.py", 507, "tar"),
    ("dataset/matbench.py", 168, "line[2]"),
    ("dataset/worldvqa.py", 239, "/blob/main/"),
    ("dataset/worldvqa.py", 274, "open(path"),
    ("tools.py", 371, "def LOCALIZE("),
    ("dataset/EgoExoBench/egoexobench.py", 245, "return None"),
    ("dataset/moviechat1k.py", 137, "os.path.join(self.video_path, line['video'])"),
    ("dataset/mvu_eval.py", 136, "rows.append(dict("),
    ("dataset/omtgbench.py", 197, "fps=2.0"),
    ("dataset/omtgbench.py", 233, 'os.path.join(self.data_root, line["video"])'),
    ("dataset/v2pbench.py", 118, "root=dataset_path"),
    ("dataset/v2pbench.py", 125, "relative_video_path"),
    ("dataset/vcrbench.py", 25, "os.system("),
    ("dataset/vdc.py", 269, "random.choice("),
    ("dataset/video_base.py", 57, "'video' in self.data"),
    ("dataset/video_base.py", 64, "self.fps > 0 and self.nframe > 0"),
    ("dataset/video_mmlu.py", 198, "random.choice("),
    ("dataset/videommev2.py", 187, "nframe=64"),
    ("dataset/videommmu.py", 499, "if not target_dir.exists():"),
    ("dataset/worldsense.py", 88, "from moviepy.editor import VideoFileClip"),
    ("dataset/worldsense.py", 150, "md5(data_file)"),
    ("dataset/GUI/screenspot.py", 405, '"img_path": os.path.join(self.img_root, line['),
    ("dataset/GUI/venusbench.py", 182, "final_score_dict[c + '_Accuracy'] = np.mean(["),
    (
        "dataset/OmniDocBench/metrics.py",
        227,
        'bleu = evaluate.load("bleu", keep_in_memory=T',
    ),
    ("dataset/chartbench.py", 104, "def ChartBench_auxeval(tup):"),
    ("dataset/chartcap.py", 144, 'bert_scorer = BERTScorer(lang="en", rescale_w'),
    ("dataset/chartmimic.py", 288, "subprocess.run("),
    ("dataset/chartx.py", 97, "scores['GPT_Overall'] = np.mean("),
    ("dataset/charxiv.py", 205, "judge_model_name = judge_model.model"),
    ("dataset/flames.py", 128, "harmless_score[d] = 0.0"),
    ("dataset/foxbench.py", 36, '"meteor": meteor_score.meteor_score([referenc'),
    ("dataset/gobench.py", 173, "response_json_str = judge.score(prompt=judge_"),
    ("dataset/groundingme.py", 114, "raw_item = raw_data.iloc[i]"),
    ("dataset/image_mcq.py", 1952, "from .utils.multiple_choice import mcq_vanill"),
    ("dataset/image_mcq.py", 2818, "answer = ast.literal_eval(row['answer'])"),
    ("dataset/image_shortqa.py", 118, "main_data = data[[x == y for x, y in zip(data"),
    ("dataset/image_vqa.py", 1546, "acc = 100 * correct_num / len(sample_list[i])"),
    ("dataset/image_vqa.py", 1883, "def evaluate(self, eval_file, **judge_kwargs)"),
    ("dataset/image_vqa.py", 3750, "response = json.loads(line['res'])"),
    ("dataset/image_vqa.py", 4173, "from .utils.mmreason import MMReason_acc, MMR"),
    ("dataset/mmgenbench.py", 65, "def evaluate(self, eval_file, **judge_kwargs)"),
    ("dataset/mmmath.py", 159, "@timeout_decorator.timeout(30)"),
    ("dataset/oceanocr.py", 34, 'metrics["meteor"] = meteor_score([reference],'),
    ("dataset/ost_bench.py", 174, "def collect_results(static_results):"),
    ("dataset/reasonmap_plus.py", 218, "total = np.sum(difficulty_weights[a] for a in"),
    ("dataset/refspatialbench.py", 181, "if not os.path.exists(mask_path):"),
    ("dataset/scidocbench.py", 130, "result = subprocess.run("),
    ("dataset/simplevqa.py", 146, "client = OpenAI("),
    ("dataset/slidevqa.py", 175, "for model, line in tqdm(tups):"),
    ("dataset/spatial457.py", 56, "for i in tqdm(range(len(lines))):"),
    ("dataset/ssi_bench.py", 110, "taxonomy_path = osp.join(osp.dirname(__file__"),
    (
        "dataset/utils/Ocrbench_v2/page_ocr_metric.py",
        25,
        'metrics["meteor"] = meteor_score.meteor_score',
    ),
    ("dataset/utils/bmmr.py", 8, "from vlmeval import dump, load"),
    ("dataset/utils/bmmr.py", 183, "continue"),
    ("dataset/utils/crpe.py", 5, "elif len(answer) != 1 and answer[0] in ['A',"),
    ("dataset/utils/hipho_verifier.py", 925, "parsing_timeout=1,"),
    ("dataset/utils/mathcanvas.py", 102, "'messages': messages,"),
    ("dataset/utils/mme_reasoning.py", 1178, "except:"),
    ("dataset/utils/mme_reasoning.py", 1190, "res = defaultdict(list)"),
    (
        "dataset/utils/mmhelix/evaluators/wordladder_eval.py",
        43,
        "nltk.data.find('corpora/words')",
    ),
    (
        "dataset/utils/mmif/function_and_compare.py",
        51,
        "sentences = nltk.sent_tokenize(response)",
    ),
    ("dataset/utils/mmsci.py", 77, 'bertscore_metric = evaluate.load("bertscore")'),
    ("dataset/utils/ocr_reasoning.py", 112, "reason_score = int(match.group(1)) / 10"),
    ("dataset/utils/physics_eval_utils.py", 5, "from dotenv import load_dotenv"),
    ("dataset/utils/sarena.py", 25, "from .SArena.metrics import InternSVGMetrics,"),
    ("dataset/utils/spatial_bench/cal_scores.py", 349, "mode=mode,"),
    ("dataset/utils/spatial_bench/tools/utils.py", 308, "cls.logger.info(msg)"),
    ("dataset/utils/uni_svg.py", 22, 'CLIP_MODEL_PATH = "openai/clip-vit-large-patc'),
    ("dataset/utils/vgrpbench/score.py", 15, "from json_repair import repair_json"),
    ("dataset/utils/wemath.py", 196, "main_results_df = main_results_df._append(new"),
    ("dataset/vladbench.py", 186, "bbox_gt = sample['reference'][q_ind]"),
    ("dataset/vlrmbench.py", 260, "if task_gt is True:"),
    ("dataset/vsibench.py", 9, "import decord"),
    ("dataset/vsibench.py", 637, "dataset_name=getattr(self, 'dataset_name', f'"),
]


@pytest.fixture(scope="module")
def package(sandbox_environment: SandboxEnvironment) -> Path:
    """Give ms-vlmeval's folder in the sandbox's environment."""
    return locate_package(sandbox_environment.python).folder


@pytest.mark.parametrize(("file", "line", "text"), ANSWERED)
def test_what_a_fix_answers_is_still_there(
    package: Path, file: str, line: int, text: str
) -> None:
    lines = (package / file).read_text(encoding="utf-8").splitlines()
    assert text in lines[line - 1], f"{file}:{line} is now: {lines[line - 1]}"


def test_every_place_that_the_sandbox_names_is_checked() -> None:
    named = {
        (file, int(line))
        for source in BOOTSTRAP.parent.rglob("*.py")
        for file, line in re.findall(
            r"\b((?:dataset|smp|utils)/[\w/]+\.py):(\d+)", source.read_text("utf-8")
        )
    }
    assert named <= {(file, line) for file, line, _ in ANSWERED}


def test_too_much_time_is_a_timeout() -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"^took longer than 0\.1 s$"), bounded(0.1):
        time.sleep(60)
    assert time.monotonic() - start < 30


def test_a_large_power_is_interrupted() -> None:
    start = time.process_time()
    nine = 9
    with pytest.raises(TimeoutError), bounded(0.3):
        _ = nine**nine**nine
    assert time.process_time() - start < 5


def test_code_that_swallows_the_alarm_gets_it_again() -> None:
    def stubborn() -> None:
        for _ in range(2):
            try:
                time.sleep(60)
            except BaseException:
                continue
        time.sleep(60)

    start = time.monotonic()
    with pytest.raises(TimeoutError), bounded(0.1):
        stubborn()
    assert time.monotonic() - start < 50


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_too_much_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError), bounded(10, size=2**26):
        bytearray(2**28)
    assert len(bytearray(2**28)) == 2**28


def test_it_stands_in_for_the_package() -> None:
    module = timeout_decorator()

    @module.timeout(0.1, use_signals=False)  # type: ignore[untyped-decorator]
    def wait(seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    assert wait(0) == "done"
    assert wait.__name__ == "wait"
    with pytest.raises(module.TimeoutError):
        wait(5)


def test_a_text_that_is_too_long_is_not_compared() -> None:
    @timeout_decorator().timeout(5)  # type: ignore[untyped-decorator]
    def compare(_text: str) -> bool:
        return True

    assert compare("x" * MAX_LENGTH)
    with pytest.raises(TimeoutError, match=r"^a text of more than 100,000 characters$"):
        compare("x" * (MAX_LENGTH + 1))


def test_slow_comparisons_share_an_allowance() -> None:
    allowance = Allowance()
    with allowance.bounded(SLOW_SECONDS):
        assert allowance.left_s == SLOW_SECONDS
    allowance.left_s = 0.3
    start = time.monotonic()
    with pytest.raises(TimeoutError), allowance.bounded(60):
        time.sleep(60)
    assert allowance.left_s < 0.3
    allowance.left_s = -100
    reason = r"^took longer than 0\.25 s$"
    with pytest.raises(TimeoutError, match=reason), allowance.bounded(60):
        time.sleep(60)
    assert time.monotonic() - start < 50
    allowance.renew()
    assert allowance.left_s == SLOW_SECONDS
