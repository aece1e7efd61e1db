"""OmniSpatial: 1,533 questions of choice about single pictures, four dimensions.

Source: Jia et al. (arXiv 2506.03135), github.com/qizekun/OmniSpatial and
huggingface.co/datasets/qizekun/OmniSpatial (data CC BY-NC 4.0).
Protocol: question, lettered options and the sentence of the authors' answer format `direct`, without their
system prompt; the first character of the answer counts. Their leaderboard asks with a chain of thought and
averages five runs; greedy answers are the same every time. The G2VLM paper reports Spatial Interaction and
Perspective Taking.

"""

import json
from pathlib import Path

from g2vlm.errors import InputError
from g2vlm.evaluation.benchmarks.reasoning import rules
from g2vlm.evaluation.benchmarks.reasoning.asked import ReasoningBenchmark, grouped, photo_files, spread
from g2vlm.evaluation.published import G2VLM_PAPER, table
from g2vlm.evaluation.trials import Aggregate, Item

VERSION = 1
LAYOUT = "OmniSpatial's unpacked test folder with data.json and <task_type>/<number>.png"
PROMPT = "Note: You only need to respond with A, B, C, or D without providing any additional information."
DIMENSIONS = ("Dynamic_Reasoning", "Spatial_Interaction", "Complex_Logic", "Perspective_Taking")
AGGREGATES = (
    Aggregate("average", "OmniSpatial, all questions"),
    Aggregate(
        "paper", "the two dimensions of the G2VLM paper", only=("Spatial_Interaction", "Perspective_Taking")
    ),
    *(Aggregate(name.lower(), name.replace("_", " ").lower(), only=(name,)) for name in DIMENSIONS),
)
PUBLISHED = table(
    G2VLM_PAPER,
    tuple(f"score/{key}/full" for key in ("paper", "spatial_interaction", "perspective_taking")),
    {
        "G2VLM": (44.13, 42.67, 44.92),
        "G2VLM-SR": (50.41, 52.67, 49.20),
        "Qwen2-VL-2B": (43.90, 49.00, 41.18),
        "Qwen2.5-VL-7B": (41.83, 46.20, 39.50),
        "Spatial-MLLM": (44.94, 47.33, 43.67),
        "VLM-3R-7B": (48.08, 55.33, 44.21),
        "GPT-4o": (50.74, 59.31, 46.16),
    },
    0.01,
)


def omnispatial(folder: Path, num_scenes: int | None = None) -> ReasoningBenchmark:
    """All questions; those about one picture share it.

    Raises:
        InputError: files are missing or malformed.
    """
    path = folder / "data.json"
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        entries = [_entry(record, folder) for record in records]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"Expected {LAYOUT}; {path}: {error!r}.") from error
    return ReasoningBenchmark(
        f"omnispatial-{VERSION}", path, spread(grouped(entries), num_scenes), AGGREGATES, {"prompt": PROMPT}
    )


def _entry(record: dict, folder: Path) -> tuple:
    kind, options = record["task_type"], [str(option) for option in record["options"]]
    picture = folder / kind / f"{str(record['id']).split('_')[0]}.png"
    text = f"{record['question']}\n{rules.lettered(options)}\n{PROMPT}"
    truth = rules.LETTERS[record["answer"]]
    item = Item(kind, text, truth, True, tuple(options), judge_by=rules.omnispatial_choice)
    return f"{kind}/{picture.stem}", photo_files([picture]), item, 0
