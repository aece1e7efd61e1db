"""SPAR-Bench: 7,207 questions about depth, distance and relations in one or several views.

Source: Zhang et al., From Flatland to Space (arXiv 2503.22976),
huggingface.co/datasets/jasonzhango/SPAR-Bench (licence: that of the data set's page; ScanNet, ScanNet++ and
Structured3D underneath).
Protocol: the authors' lmms-eval task: their prompts, accuracy of letters, mean relative accuracy of
numbers, and view_change_infer by its five moves; the score is the mean over the 20 tasks.

"""

from functools import partial
from pathlib import Path

from g2vlm.evaluation.benchmarks.reasoning import rules
from g2vlm.evaluation.benchmarks.reasoning.asked import (
    Place,
    ReasoningBenchmark,
    first_existing,
    grouped,
    spread,
)
from g2vlm.evaluation.benchmarks.reasoning.tables import Row, read_pictures, read_rows
from g2vlm.evaluation.published import G2VLM_PAPER, table
from g2vlm.evaluation.trials import Aggregate, Item, inline_choices

VERSION = 1
LAYOUT = (
    "SPAR-Bench's folder with parquet files (data/test-*.parquet) of id, task, image, question and answer"
)
COLUMNS = ("id", "task", "question", "answer")
NUMBER_PROMPT = "Please answer the question using a single word or phrase."
CHOICE_PROMPT = "Answer with the option's letter from the given choices directly."
BOX_PROMPT = (
    "The values represent the bounding box coordinates normalized to a 0-1000 scale, with the top-left "
    "corner as the origin of the image."
)
_DISTANCES = (
    "depth_prediction_oc",
    "depth_prediction_oo",
    "distance_prediction_oc",
    "distance_prediction_oo",
)
LOW = (*_DISTANCES, *(f"{name}_mv" for name in _DISTANCES))
MIDDLE = ("view_change_infer", "position_matching", "camera_motion_infer")
HIGH = (
    "obj_spatial_relation_oo",
    "obj_spatial_relation_oc_mv",
    "obj_spatial_relation_oo_mv",
    "spatial_imagination_oc",
    "spatial_imagination_oo",
    "spatial_imagination_oc_mv",
    "spatial_imagination_oo_mv",
    "distance_infer_center_oo",
    "distance_infer_center_oo_mv",
)
AGGREGATES = (
    Aggregate.of_groups("average", "SPAR-Bench, mean of tasks", [[name] for name in (*LOW, *MIDDLE, *HIGH)]),
    Aggregate.of_groups("low", "low level (depth, distance)", [[name] for name in LOW]),
    Aggregate.of_groups("middle", "middle level (views, motion)", [[name] for name in MIDDLE]),
    Aggregate.of_groups("high", "high level (relations, imagination)", [[name] for name in HIGH]),
)
PUBLISHED = table(
    G2VLM_PAPER,
    tuple(f"score/{key}/full" for key in ("average", "low", "middle", "high")),
    {
        "G2VLM": (41.66, 56.49, 32.60, 31.49),
        "G2VLM-SR": (54.87, 59.99, 36.27, 56.51),
        "Qwen2-VL-2B": (24.60, 19.43, 27.55, 28.22),
        "Qwen2.5-VL-7B": (33.07, 28.75, 22.97, 40.27),
        "Spatial-MLLM": (32.15, 29.88, 20.30, 38.13),
        "VLM-3R-7B": (43.21, 39.78, 28.43, 51.18),
        "GPT-4o": (36.39, 29.25, 24.93, 45.11),
    },
    0.01,
)


def spar_bench(folder: Path, num_scenes: int | None = None) -> ReasoningBenchmark:
    """All questions, each with its own pictures.

    Raises:
        InputError: the files are missing, or not as `LAYOUT` says.
    """
    paths = first_existing(folder, ("data/test-*.parquet", "test-*.parquet", "*.parquet"), LAYOUT)
    rows = read_rows(paths, COLUMNS)
    places = grouped([_entry(row) for row in rows])
    chosen: tuple[Place, ...] = spread(places, num_scenes)
    return ReasoningBenchmark(
        f"spar_bench-{VERSION}",
        paths[0],
        chosen,
        AGGREGATES,
        {"number_prompt": NUMBER_PROMPT, "choice_prompt": CHOICE_PROMPT, "box_prompt": BOX_PROMPT},
    )


def _entry(row: Row) -> tuple:
    name = f"{row.path.stem}:{row.number}"
    return name, partial(read_pictures, row.path, row.number, "image"), item_of(row.values), 0


def item_of(values: dict) -> Item:
    """A row as a question with its prompt."""
    task, question, truth = str(values["task"]), str(values["question"]), str(values["answer"]).strip()
    several = task.endswith("_mv") or task in MIDDLE
    if task in LOW:
        return Item(
            task, f"{question}\n{NUMBER_PROMPT}", truth, False, (), several, judge_by=rules.spar_number
        )
    if task == "view_change_infer":
        return Item(task, question, truth, True, (), True, judge_by=rules.spar_view_change)
    boxed = f"\n{BOX_PROMPT}" if task in ("position_matching", "camera_motion_infer") else ""
    text = f"{question}{boxed}\n{CHOICE_PROMPT}"
    return Item(task, text, truth, True, inline_choices(question), several, judge_by=rules.spar_choice)
