"""Published benchmarks of questions, on miniatures of their layouts: read, asked and judged as published."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from g2vlm.cli.main import main
from g2vlm.errors import InputError
from g2vlm.evaluation.benchmarks.reasoning import mindcube, omnispatial, ost, rules, spar, vsi
from g2vlm.evaluation.benchmarks.reasoning.asked import ReasoningBenchmark
from g2vlm.evaluation.records import AnswerRecord, SceneRecord
from g2vlm.evaluation.results import read_result
from g2vlm.evaluation.summary import score_figures
from g2vlm.evaluation.trials import Aggregate, Item


def picture(shade: int) -> Image.Image:
    return Image.new("RGB", (32, 24), (shade, 0, 0))


def encoded(shade: int) -> bytes:
    buffer = io.BytesIO()
    picture(shade).save(buffer, "PNG")
    return buffer.getvalue()


def make_spar(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="parquet files need the extra data")
    import pyarrow.parquet as parquet

    choice = "Which is nearer? A. chair B. table"
    rows = [
        ("1", "depth_prediction_oc", "How deep is it?", "2.0", 1),
        ("2", "depth_prediction_oo_mv", "And from here?", "3.5", 2),
        ("3", "obj_spatial_relation_oo", choice, "B", 1),
        ("4", "position_matching", choice, "A", 2),
        ("5", "view_change_infer", "How did the camera move?", "move_right:0.5,rotate_left:20", 2),
    ]
    columns = {
        "id": [row[0] for row in rows],
        "task": [row[1] for row in rows],
        "question": [row[2] for row in rows],
        "answer": [row[3] for row in rows],
        "image": [[{"bytes": encoded(40 * k), "path": None} for k in range(row[4])] for row in rows],
    }
    (folder / "data").mkdir(parents=True)
    table = pyarrow.table(columns)
    parquet.write_table(table, folder / "data" / "test-00000-of-00001.parquet", row_group_size=2)


def make_vsi(folder: Path) -> None:
    (folder / "scannet").mkdir(parents=True)
    video = cv2.VideoWriter(
        str(folder / "scannet" / "scene0.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 4, (64, 48)
    )
    for shade in range(0, 240, 20):
        video.write(np.full((48, 64, 3), shade, np.uint8))
    video.release()
    base = {"dataset": "scannet", "scene_name": "scene0"}
    options = ["A. 1", "B. 2", "C. 3"]
    rows = [
        {"id": 0, **base, "question_type": "object_counting", "question": "How many?", "options": None,
         "ground_truth": "4"},
        {"id": 1, **base, "question_type": "object_rel_direction_easy", "question": "Where?",
         "options": options, "ground_truth": "C"},
        {"id": 2, **base, "question_type": "object_rel_direction_hard", "question": "And where?",
         "options": options, "ground_truth": "A"},
    ]  # fmt: skip
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))


def make_mindcube(folder: Path) -> None:
    (folder / "raw").mkdir(parents=True)
    (folder / "other_all_image" / "x").mkdir(parents=True)
    for k in (1, 2):
        picture(k).save(folder / "other_all_image" / "x" / f"{k}.png")
    images = ["other_all_image/x/1.png", "other_all_image/x/2.png"]
    asked = "Where is it? A. Left B. Right"
    kinds = ("among_group_1", "translation_1", "rotation_1", "around_new_1", "rotation_2")
    lines = [
        {
            "id": kind,
            "images": images[: 1 + (k == 4)],
            "question": asked,
            "gt_answer": "B",
        }
        for k, kind in enumerate(kinds)
    ]
    (folder / "raw" / "MindCube_tinybench.jsonl").write_text("\n".join(map(json.dumps, lines)))


def make_omnispatial(folder: Path) -> None:
    records = []
    for k, kind in enumerate(omnispatial.DIMENSIONS):
        (folder / kind).mkdir(parents=True)
        picture(k).save(folder / kind / "0.png")
        records.append(
            {"id": "0_0", "question": "How long?", "options": ["2.7s", "14.7s", "25.7s"], "answer": k % 3,
             "task_type": kind, "sub_task_type": "Any"}
        )  # fmt: skip
    (folder / "data.json").write_text(json.dumps(records))


def make_ost(folder: Path) -> None:
    (folder / "images" / "scan1").mkdir(parents=True)
    for k in range(18):
        picture(k).save(folder / "images" / "scan1" / f"{k}.png")

    def record(kind: str, new: list[int], answer: str, option: list[str] | None = None) -> dict:
        pictures = [f"scan1/{k}.png" for k in new]
        about = {"scan_id": "scan1", "system_prompt": "You walk.", "user_message": f"Now: {kind}?"}
        return about | {"new_observations": pictures, "type": kind, "answer": answer, "option": option}

    records = [
        record("Agent_state-position(Judgement)", [0, 1], "No", ["Yes", "No"]),
        record("Agent_state-position(Estimation)", [2], "2.5"),
        record("Agent_visible_info-quantity(Counting)", [], "3"),
        record("None", [3], "nothing"),
        record("Agent_object_spatial-direction(Judgement1)", list(range(4, 18)), "Left", ["Left", "Right"]),
    ]
    (folder / "OST_bench.json").write_text(json.dumps(records))


MADE: dict[str, tuple[Callable[[Path], None], Callable[[Path], ReasoningBenchmark], int]] = {
    "spar_bench": (make_spar, spar.spar_bench, 5),
    "vsi_bench": (make_vsi, vsi.vsi_bench, 3),
    "mindcube": (make_mindcube, mindcube.mindcube, 4),
    "omnispatial": (make_omnispatial, omnispatial.omnispatial, 4),
    "ost_bench": (make_ost, ost.ost_bench, 3),
}


def answer_of(item: Item) -> str:
    """What a model that knows the truth would write."""
    if item.family.startswith("Agent") and item.is_choice:
        return item.choices[rules.LETTERS.index(item.truth)]
    return item.truth


@pytest.mark.parametrize("name", MADE)
def test_a_miniature_is_read_and_true_answers_are_right(name: str, tmp_path: Path) -> None:
    make, build, count = MADE[name]
    make(tmp_path)
    benchmark = build(tmp_path)
    items, records = [], []
    for scene in benchmark.scenes():
        trial = benchmark.load(scene)
        assert all(group.photos for group in trial.groups)
        mine = [item for group in trial.groups for item in group.items]
        items += mine
        records.append(
            SceneRecord(scene, answers=tuple(item.judge(answer_of(item), "full") for item in mine))
        )
    assert len(items) == count == benchmark.settings["num_questions"]
    assert all(answer.is_right and answer.score == 1 for record in records for answer in record.answers)
    figures = score_figures(records, benchmark.aggregates)
    assert figures
    assert all(figure.value == 1 for figure in figures)
    assert not any(item.judge("", "full").is_right for item in items if not item.is_choice)
    assert len(build(tmp_path, 1).scenes()) == 1


@pytest.mark.parametrize("name", MADE)
def test_other_folders_are_refused_with_the_layout(name: str, tmp_path: Path) -> None:
    make, build, _ = MADE[name]
    with pytest.raises(InputError, match="Expected"):
        build(tmp_path)
    make(tmp_path)
    for file in (*tmp_path.rglob("*.png"), *tmp_path.rglob("*.mp4")):
        file.unlink()
    if name != "spar_bench":  # its pictures lie in the table
        with pytest.raises(InputError, match=r"Expected|not found"):
            build(tmp_path)


def test_a_whole_run_prints_published_figures_beside_ours(
    random_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_omnispatial(tmp_path / "data")
    call = ["eval", "omnispatial", "--data_path", str(tmp_path / "data"), "--ckpt", str(random_folder)]
    call += ["--dtype", "float32", "--sights", "full", "--max_new_tokens", "2"]
    assert main([*call, "--save_path", str(tmp_path / "r.json")]) == 0
    told = capsys.readouterr().out
    assert "OmniSpatial, all questions" in told
    assert "G2VLM-SR" in told
    assert "arXiv 2511.21688, table 1" in told
    result = read_result(tmp_path / "r.json")
    assert {one.key for one in result.published} >= {"score/paper/full"}
    assert main(["eval", "--report", str(tmp_path / "r.json")]) == 0
    assert capsys.readouterr().out == told


def numbered(truth: str, family: str = "x") -> Item:
    return Item(family, "?", truth, False)


def lettered(truth: str, choices: tuple[str, ...] = ()) -> Item:
    return Item("x", "?", truth, True, choices)


@pytest.mark.parametrize(
    ("rule", "answer", "item", "score"),
    [
        (rules.vsi_choice, "B. the chair", lettered("B"), 1),
        (rules.vsi_choice, "The answer is B", lettered("B"), 0),
        (rules.vsi_number, "4.", numbered("4"), 1),
        (rules.vsi_number, "5", numbered("4"), 0.6),  # 25 % off: thresholds 0.50 to 0.75, the bound included
        (rules.vsi_number, "about 4", numbered("4"), 0),
        (rules.spar_choice, "B. table", lettered("B"), 1),
        (rules.spar_choice, "", lettered("B"), 0),
        (rules.spar_choice, "It is B", lettered("B"), 0),
        (rules.spar_number, "from 2.0 to 3.0", numbered("2", "depth_prediction_oc"), 1),
        (rules.spar_number, "from 2.0 to 3.0", numbered("3", "depth_prediction_oc_mv"), 1),
        (rules.spar_number, "no idea", numbered("3"), 0),
        (rules.spar_view_change, "move_right:0.5", lettered("move_right:0.5,rotate_left:20"), 0.8),
        (rules.spar_view_change, "to the right", lettered("move_right:0.5"), 0),
        (rules.mindcube_choice, "A. is wrong, so B. right", lettered("B"), 1),
        (rules.mindcube_choice, "<think>A</think><Answer>C</Answer>", lettered("C"), 1),
        (rules.mindcube_choice, "My answer is D", lettered("D"), 1),
        (rules.mindcube_choice, "nothing", lettered("A"), 0),
        (rules.omnispatial_choice, " b) two", lettered("B"), 1),
        (rules.omnispatial_choice, "Answer: B", lettered("B"), 0),
        (rules.ost_judgement, "yes, it is", lettered("A", ("Yes", "No")), 1),
        (rules.ost_judgement, '{"answer": "No", "reason": "yes"}', lettered("B", ("Yes", "No")), 1),
        (rules.ost_number, "2.0", numbered("2.5"), 0.6),
        (rules.ost_number, "2.5 m", numbered("2.5"), 0),
        (rules.ost_count, "There are three", numbered("3"), 1),
        (rules.ost_count, "3", numbered("3"), 1),
        (rules.ost_count, "three or 4", numbered("4"), 0),
    ],
)
def test_answers_are_read_as_each_benchmark_publishes(
    rule: Callable[..., tuple], answer: str, item: Item, score: float
) -> None:
    assert rule(answer, item)[1] == pytest.approx(score)


def test_the_longest_common_subsequence_by_hand() -> None:
    assert rules.common_subsequence("abcbdab", "bdcaba") == 4
    assert rules.common_subsequence("", "abc") == 0


def test_a_score_is_a_mean_of_means() -> None:
    def answer(family: str, score: float) -> AnswerRecord:
        return AnswerRecord(
            "full", family, True, False, "?", (), "A", "", None, False, None, score=float(score)
        )

    records = [
        SceneRecord("1", answers=(answer("easy", 1), answer("hard", 0), answer("other", 0.5))),
        SceneRecord("2", answers=(answer("easy", 1), answer("hard", 1))),
    ]
    nested = Aggregate.of_groups("a", "nested", [["easy", "hard"], ["other"]])
    flat, some = Aggregate("b", "flat"), Aggregate("c", "some", only=("hard", "other"))
    missing = Aggregate.of_groups("d", "missing", [["easy"], ["nowhere"]])
    values = {f.key: f.value for f in score_figures(records, (nested, flat, some, missing))}
    assert values["score/a/full"] == pytest.approx(((1 + 0.5) / 2 + 0.5) / 2)
    assert values["score/b/full"] == pytest.approx(3.5 / 5)
    assert values["score/c/full"] == pytest.approx(1.5 / 3)
    assert values["score/d/full"] == pytest.approx(1)
