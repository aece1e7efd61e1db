"""A batch gives what single commands give, goes on where it was stopped, and no scene ends another."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from batch_scenes import write_scenes

from g2vlm.cli.main import main
from g2vlm.cluster.engines import run_batch, work_here
from g2vlm.cluster.tasks import read_tasks
from g2vlm.cluster.worker import SceneWorker, WorkSettings
from g2vlm.scene.storage import read_npz


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = write_scenes(tmp_path_factory.mktemp("scenes"), ["a", "b", "c"])
    write_scenes(folder, ["one"], num_views=1)
    write_scenes(folder, ["three"], num_views=3)
    (folder / "broken").mkdir()
    (folder / "broken" / "0.png").write_text("no picture")
    return folder


def settings(tmp_path, checkpoint, **changes):
    return WorkSettings(str(tmp_path / "out"), "run", str(checkpoint), dtype="float32", **changes)


def run(chosen, folder):
    return list(run_batch(work_here, chosen, read_tasks(folder)))


@pytest.mark.filterwarnings("ignore::g2vlm.inputs.notices.SkippedInputWarning")
def test_scenes_are_those_of_single_commands_bit_for_bit(tmp_path, random_folder, scenes):
    rows = run(settings(tmp_path, random_folder, view_budget=6), scenes)
    assert sorted((row["id"], row["state"]) for row in rows) == [
        ("a", "done"),
        ("b", "done"),
        ("broken", "failed"),
        ("c", "done"),
        ("one", "done"),
        ("three", "done"),
    ]
    for name in ("a", "b", "c", "one", "three"):
        single = str(tmp_path / f"{name}.npz")
        words = ["recon", "--ckpt", str(random_folder), "--dtype", "float32"]
        assert main([*words, "--data_path", str(scenes / name), "--save_path", single]) == 0
        expected, batched = read_npz(single), read_npz(tmp_path / "out" / name / "scene.npz")
        for mine, theirs in zip(batched.views, expected.views, strict=True):
            for field in ("points_camera", "T_world_camera", "K", "confidence", "valid", "rgb"):
                np.testing.assert_array_equal(getattr(mine, field), getattr(theirs, field))


@pytest.mark.filterwarnings("ignore::g2vlm.inputs.notices.SkippedInputWarning")
def test_what_is_done_is_not_done_again(tmp_path, random_folder, scenes):
    chosen = settings(tmp_path, random_folder)
    run(chosen, scenes)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.npz")}
    assert len(before) == 5
    again = run(WorkSettings(**{**vars(chosen), "run": "next"}), scenes)
    assert [row["id"] for row in again] == ["broken"]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.npz")} == before


def test_questions_of_all_and_of_each_are_answered(tmp_path, random_folder, scenes):
    manifest = tmp_path / "scenes.jsonl"
    row = {"id": "asked", "folder": str(scenes / "a"), "questions": ["And this?"]}
    manifest.write_text(json.dumps(row))
    run(settings(tmp_path, random_folder, questions=("How far?",), max_new_tokens=3), manifest)
    told = json.loads((tmp_path / "out" / "asked" / "result.json").read_text())
    assert told["questions"] == ["How far?", "And this?"]
    assert len(told["answers"]) == 2


def test_trouble_that_may_pass_is_tried_again(tmp_path, random_folder, scenes, monkeypatch):
    read, failures = SceneWorker._read, ["a", "a"]

    def flaky(self, task):
        if task.id in failures:
            failures.remove(task.id)
            raise OSError("the network drive is away")
        return read(self, task)

    monkeypatch.setattr(SceneWorker, "_read", flaky)
    write_scenes(tmp_path / "in", ["a"])
    rows = run(settings(tmp_path, random_folder), tmp_path / "in")
    assert [row["state"] for row in rows] == ["failed", "failed", "done"]


def test_a_checkpoint_that_is_none_is_no_failure_of_a_scene(tmp_path, scenes):
    from g2vlm.errors import CheckpointError

    with pytest.raises(CheckpointError):
        run(settings(tmp_path, tmp_path), scenes)
    assert not list((tmp_path / "out" / ".attempts").iterdir())


POISONED = """
import os, sys
from g2vlm.cluster.worker import SceneWorker
read = SceneWorker._read
def deadly(self, task):
    if task.id == "poison":
        os.kill(os.getpid(), 9)
    return read(self, task)
SceneWorker._read = deadly
from g2vlm.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_scene_that_kills_its_process_comes_last(tmp_path, random_folder):
    folder = write_scenes(tmp_path / "in", ["poison", "room1", "room2"])
    words = [
        "batch",
        str(folder),
        str(tmp_path / "out"),
        "--ckpt",
        str(random_folder),
        "--dtype",
        "float32",
    ]
    for _ in range(2):
        ended = subprocess.run([sys.executable, "-c", POISONED, *words], capture_output=True, check=False)
        assert ended.returncode == -signal.SIGKILL
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.name[0] != ".") == ["room1", "room2"]


@pytest.mark.slow
def test_killed_at_random_instants_nothing_is_lost_or_half(tmp_path, random_folder):
    folder = write_scenes(tmp_path / "in", [f"room{k}" for k in range(12)])
    words = [
        "batch",
        str(folder),
        str(tmp_path / "out"),
        "--ckpt",
        str(random_folder),
        "--dtype",
        "float32",
    ]
    words += ["--view_budget", "2", "--max_attempts", "20"]
    done = 0
    for delay in (0.0, 0.05, 0.2):
        process = subprocess.Popen([sys.executable, "-m", "g2vlm", *words], stderr=subprocess.DEVNULL)
        # From the first finished scene on, not while modules are imported.
        while process.poll() is None and len(list(tmp_path.glob("out/room*"))) <= done:
            time.sleep(0.01)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        finished = list(tmp_path.glob("out/room*"))
        assert all((scene / "g2vlm.json").is_file() for scene in finished)
        done = len(finished)
    assert main(words) == 0
    for scene in tmp_path.glob("out/room*"):
        assert len(read_npz(scene / "scene.npz").views) == 2
    assert len(list(tmp_path.glob("out/room*"))) == 12


def test_the_plan_is_told_and_nothing_done(tmp_path, random_folder, scenes, capsys):
    words = [
        "batch",
        str(scenes),
        str(tmp_path / "out"),
        "--ckpt",
        str(random_folder),
        "--dry_run",
        "--json",
    ]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["scenes"], told["open"], told["done"]) == (6, 6, 0)
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--formats", "fbx"], "--formats among"),
        (["--formats", "npz", "npz"], "every format once"),
        (["--view_budget", "0"], "view_budget"),
        (["--address", "auto"], "--engine ray"),
    ],
)
def test_mistakes_are_told_before_the_work(tmp_path, scenes, words, told, capsys):
    assert main(["batch", str(scenes), str(tmp_path / "out"), *words]) == 2
    assert told in capsys.readouterr().err
