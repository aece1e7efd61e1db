"""MindCube: where things are that some views show and others do not.

Source: Yin et al. (arXiv 2506.21458), huggingface.co/datasets/MLL-Lab/MindCube (licence: see the data set's
page).
Protocol: raw questions as they are, answers read by the authors' patterns; the score counts all questions
alike. The setting "translation" is left out, as the official score does. Figures of the G2VLM paper do not
say which of the two sets (tinybench with 1,050 questions, or all) they are over.

"""

import json
from pathlib import Path

from g2vlm.errors import InputError
from g2vlm.evaluation.benchmarks.reasoning import rules
from g2vlm.evaluation.benchmarks.reasoning.asked import ReasoningBenchmark, grouped, photo_files, spread
from g2vlm.evaluation.published import G2VLM_PAPER, SENSENOVA_README, table
from g2vlm.evaluation.trials import Aggregate, Item, inline_choices

VERSION = 2
LAYOUT = (
    "MindCube's folder with MindCube_tinybench.jsonl or MindCube.jsonl in it, in raw/ or in data/raw/, and "
    "other_all_image/ beside raw/"
)
SETTINGS = ("rotation", "among", "around")
AGGREGATES = (
    Aggregate("average", "MindCube, all questions"),
    *(Aggregate.of_groups(name, f"setting {name}", [[name]]) for name in SETTINGS),
)
PUBLISHED = table(
    G2VLM_PAPER,
    tuple(f"score/{key}/full" for key in ("average", *SETTINGS)),
    {
        "G2VLM": (38.83, 47.00, 26.50, 32.75),
        "G2VLM-SR": (48.33, 53.17, 31.50, 49.50),
        "Qwen2-VL-2B": (37.83, 34.50, 41.16, 32.25),
        "Qwen2.5-VL-7B": (29.26, 38.76, 29.50, 21.35),
        "Spatial-MLLM": (32.06, 38.39, 20.92, 32.82),
        "VLM-3R-7B": (42.09, 36.73, 44.22, 24.45),
        "GPT-4o": (38.81, 32.65, 40.17, 29.16),
    },
    0.01,
) + table(
    f"{SENSENOVA_README}, tinybench",
    ("score/average/full",),
    {
        "Qwen3-VL-2B": (34.5,),
        "Qwen3-VL-8B": (29.4,),
        "VST-3B-SFT": (35.9,),
        "VST-7B-SFT": (39.7,),
        "SenseNova-SI-1.2-8B": (89.0,),
    },
    0.01,
)


def mindcube(folder: Path, num_scenes: int | None = None) -> ReasoningBenchmark:
    """The small set where it is there, else the whole one; questions about the same photos share them.

    Args:
        folder: see `LAYOUT`.
        num_scenes: at most so many sets of photos.

    Raises:
        InputError: files are missing or malformed.
    """
    places = [folder / inside for inside in ("", "raw", "data/raw")]
    files = [place / name for name in ("MindCube_tinybench.jsonl", "MindCube.jsonl") for place in places]
    path = next((file for file in files if file.is_file()), None)
    roots = [root for root in (folder, folder / "data") if (root / "other_all_image").is_dir()]
    if path is None or not roots:
        raise InputError(f"Expected {LAYOUT}; {folder} does not look like it.")
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            entry = _entry(line, f"{path}, line {number}", roots[0])
            if entry[2].family != "translation":
                entries.append(entry)
    return ReasoningBenchmark(
        f"mindcube-{VERSION}",
        path,
        spread(grouped(entries), num_scenes),
        AGGREGATES,
        {"prompt": "raw question"},
    )


def _entry(line: str, where: str, root: Path) -> tuple:
    try:
        record = json.loads(line)
        images = tuple(record["images"])
        question, truth = record["question"].replace("<image>", "").strip(), record["gt_answer"].strip()
        family = _setting(str(record["id"]))
        photos = photo_files([root / name for name in images])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{where}: expected MindCube's id, images, question and gt_answer: {error!r}."
        ) from error
    choices = inline_choices(question)
    item = Item(family, question, truth, True, choices, len(images) > 1, judge_by=rules.mindcube_choice)
    return "+".join(images), photos, item, 0


def _setting(identifier: str) -> str:
    known = ("around", "rotation", "translation", "among")
    return next((name for name in known if name in identifier.lower()), "other")
