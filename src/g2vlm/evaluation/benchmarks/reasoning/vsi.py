"""VSI-Bench: 5,130 questions about 288 videos of indoor scenes.

Source: Yang et al., Thinking in Space (arXiv 2412.14171), huggingface.co/datasets/nyu-visionx/VSI-Bench
(Apache-2.0; ScanNet, ScanNet++ and ARKitScenes underneath).
Protocol: the authors' lmms-eval task: 32 frames evenly over the video, their prompts, accuracy of letters,
mean relative accuracy of numbers; the score is the mean over eight kinds of question.

"""

from functools import partial
from pathlib import Path

from PIL import Image

from g2vlm.errors import InputError
from g2vlm.evaluation.benchmarks.reasoning import rules
from g2vlm.evaluation.benchmarks.reasoning.asked import ReasoningBenchmark, first_existing, grouped, spread
from g2vlm.evaluation.benchmarks.reasoning.tables import read_rows
from g2vlm.evaluation.published import SENSENOVA_README, table
from g2vlm.evaluation.trials import Aggregate, Item
from g2vlm.inputs.photos import load_photos

VERSION = 1
LAYOUT = (
    "VSI-Bench's folder with test.jsonl (or test-*.parquet) and the unpacked videos: scannet/NAME.mp4, "
    "scannetpp/NAME.mp4, arkitscenes/NAME.mp4"
)
COLUMNS = ("id", "dataset", "scene_name", "question_type", "question", "options", "ground_truth")
NUM_FRAMES = 32
PRE_PROMPT = "These are frames of a video."
NUMBER_PROMPT = "Please answer the question using a single word or phrase."
CHOICE_PROMPT = "Answer with the option's letter from the given choices directly."
NUMBERS = ("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation")
DIRECTIONS = tuple(f"object_rel_direction_{level}" for level in ("easy", "medium", "hard"))
KINDS = (
    *((name,) for name in NUMBERS),
    ("object_rel_distance",),
    DIRECTIONS,
    ("route_planning",),
    ("obj_appearance_order",),
)
AGGREGATES = (
    Aggregate.of_groups("average", "VSI-Bench, mean of kinds", KINDS),
    Aggregate.of_groups("numbers", "numbers, mean relative accuracy", KINDS[:4]),
    Aggregate.of_groups("choices", "choices, accuracy", KINDS[4:]),
)
PUBLISHED = table(
    SENSENOVA_README,
    ("score/average/full",),
    {
        "Qwen3-VL-2B": (50.3,),
        "InternVL3-2B": (32.9,),
        "Spatial-MLLM-4B": (46.3,),
        "VST-3B-SFT": (57.9,),
        "Qwen3-VL-8B": (57.9,),
        "VST-7B-SFT": (60.6,),
        "SenseNova-SI-1.2-8B": (69.6,),
    },
    0.01,
)


def vsi_bench(
    folder: Path, num_scenes: int | None = None, num_frames: int | None = None
) -> ReasoningBenchmark:
    """All questions; those about one video share its frames.

    Args:
        folder: see `LAYOUT`.
        num_scenes: at most so many videos.
        num_frames: of each video, `NUM_FRAMES` if None.

    Raises:
        InputError: files are missing, or not as `LAYOUT` says.
    """
    frames = NUM_FRAMES if num_frames is None else num_frames
    path = first_existing(folder, ("test.jsonl", "test-*.parquet", "data/test-*.parquet"), LAYOUT)[0]
    entries = []
    for values in _rows(folder, path):
        name = f"{values['dataset']}/{values['scene_name']}"
        video = folder / f"{name}.mp4"
        if not video.is_file():
            raise InputError(f"Expected {LAYOUT}; {video} is not there.")
        entries.append((name, partial(_frames, video, frames), item_of(values), 0))
    return ReasoningBenchmark(
        f"vsi_bench-{VERSION}",
        path,
        spread(grouped(entries), num_scenes),
        AGGREGATES,
        {
            "num_frames": frames,
            "pre_prompt": PRE_PROMPT,
            "number_prompt": NUMBER_PROMPT,
            "choice_prompt": CHOICE_PROMPT,
        },
    )


def _rows(folder: Path, path: Path) -> list[dict]:
    if path.suffix == ".parquet":
        return [
            row.values
            for row in read_rows(sorted(path.parent.glob(path.name.split("-")[0] + "-*.parquet")), COLUMNS)
        ]
    try:
        rows = rules.read_json(path.read_text(encoding="utf-8"))
        assert isinstance(rows, list)
        return [
            {name: row[name] for name in COLUMNS if name != "options"} | {"options": row.get("options")}
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise InputError(f"Expected {LAYOUT}; {path}: {error!r}.") from error


def _frames(video: Path, most: int) -> tuple[Image.Image, ...]:
    return tuple(photo.image for photo in load_photos(video, max_views=most).photos)


def item_of(values: dict) -> Item:
    """A row as a question with its prompt."""
    kind, question, truth = values["question_type"], values["question"], str(values["ground_truth"])
    if kind in NUMBERS:
        text = f"{PRE_PROMPT}\n{question}\n{NUMBER_PROMPT}"
        return Item(kind, text, truth, False, (), True, judge_by=rules.vsi_number)
    options = list(values["options"] or ())
    text = "\n".join([PRE_PROMPT, question, "Options:", *options, CHOICE_PROMPT])
    plain = tuple(option.split(".", 1)[-1].strip() for option in options)
    return Item(kind, text, truth, True, plain, True, judge_by=rules.vsi_choice)
