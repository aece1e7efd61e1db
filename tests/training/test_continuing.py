"""Runs that are killed, continued, continued with something else, or started twice."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import small_recipe, small_trainer

from g2vlm.errors import CheckpointError, InputError
from g2vlm.training.recipes.recipe import LoraSettings, Optimisation, Phase, Rhythm, SyntheticData
from g2vlm.training.recipes.stages import Stage
from g2vlm.training.run import record
from g2vlm.training.run.states import newest_state, state_folder

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from small_runs import small_trainer
from test_continuing import endless
trainer = small_trainer(endless(sys.argv[2]), Path(sys.argv[3]))
print("ready", flush=True)
trainer.run()
"""


def endless(checkpoint):
    return small_recipe(
        Path(checkpoint),
        data=SyntheticData(phases=(Phase(1, views=(1,)),), widths=(28,)),
        optimisation=Optimisation(steps=100_000, learning_rate=1e-3, ema_decay=0.9),
        rhythm=Rhythm(log_every=1, validate_every=10**9, save_every=1, keep=2),
    )


def stopped(recipe, folder, **runtime):
    """A run with one step behind it."""
    trainer = small_trainer(recipe, folder, max_minutes=0.0, **runtime)
    trainer.run()
    return trainer


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_killed_at_any_moment_a_run_continues(training_checkpoint, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(training_checkpoint)]
    run = tmp_path / "run"
    process = subprocess.Popen([*command, str(run)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout.readline() == b"ready\n"
        # While another process trains there, this one is refused.
        with pytest.raises(InputError, match=f"process {process.pid} does"):
            small_trainer(endless(training_checkpoint), run)
        deadline = time.monotonic() + 60
        # With a state after each step, most of the time goes into writing one.
        while newest_state(run) is None and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with (run / "log.jsonl").open("a") as log:
        log.write('{"kind": "tra')
    before = int(newest_state(run).name.split("-")[1])
    assert before >= 1
    trainer = stopped(endless(training_checkpoint), run)
    assert trainer.progress.step == before + 1
    assert [line["step"] for line in lines(run) if line["kind"] == "start"] == [0, before]
    assert not list((run / "states").glob(".*"))


def test_a_truncated_state_is_left_out_and_told(training_checkpoint, tmp_path):
    recipe = small_recipe(training_checkpoint)
    for _ in range(2):
        stopped(recipe, tmp_path)
    newest = state_folder(tmp_path, 2)
    file = next(newest.glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:-100])
    assert newest_state(tmp_path) == state_folder(tmp_path, 1)
    assert stopped(recipe, tmp_path).progress.step == 2
    assert any("step-00000002" in line["note"] for line in lines(tmp_path) if line["kind"] == "note")


def test_another_recipe_is_refused_with_the_difference(training_checkpoint, tmp_path):
    recipe = small_recipe(training_checkpoint)
    stopped(recipe, tmp_path)
    slower = dataclasses.replace(
        recipe,
        optimisation=dataclasses.replace(recipe.optimisation, learning_rate=5e-4),
        data=dataclasses.replace(recipe.data, widths=(28, 56)),
    )
    with pytest.raises(InputError) as refused:
        small_trainer(slower, tmp_path)
    assert "recipe.optimisation.learning_rate: 0.001 before, 0.0005 now" in str(refused.value)
    assert "recipe.data.widths: [56] before, [28, 56] now" in str(refused.value)
    assert "--override" in str(refused.value)
    assert stopped(slower, tmp_path, override=True).progress.step == 2
    notes = [line["note"] for line in lines(tmp_path) if line["kind"] == "note"]
    assert "overridden: recipe.data.widths: [56] before, [28, 56] now" in notes
    # What was overridden is the run from now on; how it began stays on record.
    assert stopped(slower, tmp_path).progress.step == 3
    facts = json.loads((tmp_path / record.RECORD_NAME).read_text())
    assert facts["recipe"]["data"]["widths"] == [28, 56]
    assert facts["history"][0]["recipe"]["data"]["widths"] == [56]


def test_another_rhythm_is_no_other_run(training_checkpoint, tmp_path):
    recipe = small_recipe(training_checkpoint)
    stopped(recipe, tmp_path)
    rhythm = dataclasses.replace(recipe.rhythm, log_every=3, save_every=7)
    assert stopped(dataclasses.replace(recipe, rhythm=rhythm), tmp_path).progress.step == 2


@pytest.mark.parametrize("what", ["version", "checkpoint", "world"])
def test_other_versions_weights_and_worlds_are_refused(training_checkpoint, tmp_path, monkeypatch, what):
    recipe = small_recipe(training_checkpoint)
    stopped(recipe, tmp_path)
    real = record.describe_run

    def changed(*arguments):
        facts = real(*arguments)
        if what == "version":
            facts["versions"]["torch"] = "2.0.0"
        elif what == "checkpoint":
            facts["start"]["model.safetensors"] = "0"
        else:
            facts["data"]["easy"]["room_width_m"] = [1, 2]
        return facts

    monkeypatch.setattr("g2vlm.training.run.trainer.describe_run", changed)
    names = {"version": "versions.torch", "checkpoint": "start.model.safetensors", "world": "room_width_m"}
    with pytest.raises(InputError, match=names[what]):
        small_trainer(recipe, tmp_path)


def test_changed_code_is_told(training_checkpoint, tmp_path, monkeypatch):
    recipe = small_recipe(training_checkpoint)
    stopped(recipe, tmp_path)
    monkeypatch.setattr(record, "code_digest", lambda: "other")
    stopped(recipe, tmp_path)
    assert [line["note"] for line in lines(tmp_path) if line["kind"] == "note"] == [
        "the code of g2vlm has changed since this run began or was last continued"
    ]


def test_a_folder_without_a_state_may_become_another_run(training_checkpoint, tmp_path):
    small_trainer(small_recipe(training_checkpoint), tmp_path).close()
    small_trainer(small_recipe(training_checkpoint, seed=5), tmp_path).close()
    assert json.loads((tmp_path / record.RECORD_NAME).read_text())["recipe"]["seed"] == 5


def test_states_come_by_time_as_well(training_checkpoint, tmp_path):
    rhythm = Rhythm(log_every=1, validate_every=10**9, save_every=10**9, keep=9)
    small_trainer(small_recipe(training_checkpoint, rhythm=rhythm), tmp_path, save_minutes=0.0).run()
    assert len(list((tmp_path / "states").iterdir())) == 4


def test_low_rank_states_hold_the_updates_only(training_checkpoint, tmp_path):
    recipe = small_recipe(training_checkpoint, Stage.SPATIAL_REASONING, lora=LoraSettings(rank=2))
    first = stopped(recipe, tmp_path / "sliced")
    assert all(".lora_" in name for name in first.learner.content()["weights"])
    second, whole = small_trainer(recipe, tmp_path / "sliced"), small_trainer(recipe, tmp_path / "whole")
    second.run()
    whole.run()
    for name, weight in whole.learner.weights.items():
        assert weight.equal(second.learner.weights[name]), name


def test_a_state_of_another_network_is_told(training_checkpoint, tmp_path):
    recipe = small_recipe(training_checkpoint, Stage.SPATIAL_REASONING, lora=LoraSettings(rank=2))
    stopped(recipe, tmp_path)
    wider = dataclasses.replace(recipe, lora=LoraSettings(rank=4))
    with pytest.raises(CheckpointError, match="does not fit"):
        small_trainer(wider, tmp_path, override=True)
