"""OST-Bench: what an agent that walks through a scene knows after each new picture.

Source: Lin et al. (arXiv 2507.07984), github.com/OpenRobotLab/OST-Bench,
huggingface.co/datasets/rbler/OST-Bench (CC BY-NC 4.0; ScanNet, Matterport3D and ARKitScenes underneath).
Protocol: each question by itself, in front of it the scene's system prompt and all pictures seen so far
(the interleaved form; the multi-round form keeps the dialogue). Questions with more than 15 pictures are
left out, as in the G2VLM paper. Rules of the authors: judgements by the longest common subsequence,
estimates by mean relative accuracy, counts exactly; the score is the mean over eight groups.

"""

import json
from pathlib import Path

from g2vlm.errors import InputError
from g2vlm.evaluation.benchmarks.reasoning import rules
from g2vlm.evaluation.benchmarks.reasoning.asked import ReasoningBenchmark, grouped, photo_files, spread
from g2vlm.evaluation.published import G2VLM_PAPER, table
from g2vlm.evaluation.trials import Aggregate, Item

VERSION = 1
LAYOUT = "OST-Bench's folder with OST_bench.json and images/<scan_id>/"
MAX_IMAGES = 15
_DIRECTION, _DISTANCE = "Agent_object_spatial-direction", "Agent_object_spatial-distance"
_INFO, _STATE = "Agent_visible_info", "Agent_state"
STATE_JUDGED = (f"{_STATE}-orientation(Judgement)", f"{_STATE}-position(Judgement)")
STATE_ESTIMATED = (f"{_STATE}-orientation(Estimation)", f"{_STATE}-position(Estimation)")
INFO_JUDGED = tuple(f"{_INFO}-{what}(Judgement)" for what in ("existence", "order", "diversity"))
INFO_TEMPORAL = tuple(f"{_INFO}-existence(Temporal-loc{k})" for k in (1, 2))
INFO_COUNTED = (f"{_INFO}-quantity(Counting)",)
SPATIAL_JUDGED = tuple(f"{what}(Judgement{k})" for what in (_DIRECTION, _DISTANCE) for k in (1, 2, 3))
SPATIAL_ESTIMATED = tuple(f"{what}(Estimation)" for what in (_DIRECTION, _DISTANCE))
SPATIAL_TEMPORAL = tuple(f"{what}(Temporal-loc)" for what in (_DIRECTION, _DISTANCE))
_STATE_GROUPS = (STATE_JUDGED, STATE_ESTIMATED)
_INFO_GROUPS = (INFO_JUDGED, INFO_TEMPORAL, INFO_COUNTED)
_SPATIAL_GROUPS = (SPATIAL_JUDGED, SPATIAL_ESTIMATED, SPATIAL_TEMPORAL)
AGGREGATES = (
    Aggregate.of_groups(
        "average", "OST-Bench, mean of groups", (*_STATE_GROUPS, *_INFO_GROUPS, *_SPATIAL_GROUPS)
    ),
    Aggregate.of_groups("state", "agent's state", _STATE_GROUPS),
    Aggregate.of_groups("info", "agent's visible info", _INFO_GROUPS),
    Aggregate.of_groups("spatial", "agent and objects", _SPATIAL_GROUPS),
)
PUBLISHED = table(
    f"{G2VLM_PAPER} (questions with at most 15 pictures)",
    tuple(f"score/{key}/full" for key in ("average", "state", "info", "spatial")),
    {
        "G2VLM": (24.60, 25.32, 36.23, 17.18),
        "G2VLM-SR": (37.02, 30.73, 45.54, 31.42),
        "Qwen2-VL-2B": (22.59, 30.43, 26.85, 17.94),
        "Qwen2.5-VL-7B": (44.22, 42.19, 56.12, 34.21),
        "Spatial-MLLM": (26.72, 22.95, 42.19, 20.97),
        "GPT-4o": (53.05, 37.58, 77.66, 41.93),
    },
    0.01,
)


def ost_bench(folder: Path, num_scenes: int | None = None) -> ReasoningBenchmark:
    """Questions of all scans, with the pictures seen up to each.

    Args:
        folder: see `LAYOUT`.
        num_scenes: at most so many scans.

    Raises:
        InputError: files are missing or malformed.
    """
    path = folder / "OST_bench.json"
    entries: list[tuple] = []
    try:
        seen: dict[str, list[str]] = {}
        for record in json.loads(path.read_text(encoding="utf-8")):
            pictures = seen.setdefault(record["scan_id"], [])
            pictures += record["new_observations"]
            item = item_of(record)
            if item is not None and len(pictures) <= MAX_IMAGES:
                files = [folder / "images" / name for name in pictures]
                entries.append((record["scan_id"], photo_files(files), item, tuple(pictures)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"Expected {LAYOUT}; {path}: {error!r}.") from error
    places = spread(grouped(entries), num_scenes)
    return ReasoningBenchmark(f"ost_bench-{VERSION}", path, places, AGGREGATES, {"max_images": MAX_IMAGES})


def item_of(record: dict) -> Item | None:
    """A record as a question with its prompt; None for kinds that the authors do not score."""
    kind, truth = record["type"], str(record["answer"])
    text = f"{record['system_prompt']}\n{record['user_message']}".strip()
    if "Judgement" in kind:
        options = [str(option) for option in record["option"]]
        letter = rules.LETTERS[options.index(truth.replace('"', ""))]
        return Item(kind, text, letter, True, tuple(options), True, judge_by=rules.ost_judgement)
    if "Estimation" in kind:
        return Item(kind, text, truth, False, (), True, judge_by=rules.ost_number)
    if "Counting" in kind or "Temporal-loc" in kind:
        return Item(kind, text, truth, False, (), True, judge_by=rules.ost_count)
    return None
