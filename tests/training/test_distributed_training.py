"""Two processes against one: every stage, with validations between the steps, stopped and continued."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import small_recipe, small_trainer, write_frames

from g2vlm.model.precision import Precision
from g2vlm.training.guidance.matching import MatchingGuide
from g2vlm.training.guidance.pointing import PointingGuide
from g2vlm.training.recipes.recipe import Batching, LoraSettings, Optimisation, OptimizerKind, Rhythm
from g2vlm.training.recipes.stages import Stage, released_groups
from g2vlm.training.run.distributed import Processes
from g2vlm.training.run.trainer import Ending

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from small_runs import small_trainer
from test_distributed_training import shared_recipes, watching
from g2vlm.training.run.distributed import joined_processes
with joined_processes(torch.device("cpu")) as processes:
    for name, recipe in shared_recipes(Path(sys.argv[2])).items():
        for minutes in (0.0, None):  # the second run resumes from the shards of the first
            runtime = {"processes": processes, "max_minutes": minutes, "export_dtype": torch.float32}
            runtime |= watching(name, Path(sys.argv[3]))
            small_trainer(recipe, Path(sys.argv[3]) / name, **runtime).run()
"""


HALF = {"precision": Precision.BFLOAT16, "weight_precision": Precision.BFLOAT16}
CLOSE = {"rel": 1e-3, "abs": 2e-4}
ROUGH = {"rel": 0.1, "abs": 0.02}
"""Shards are rounded to bfloat16 on their way, where one process rounds factors alone."""


def shared_recipes(checkpoint):
    base = small_recipe(
        checkpoint,
        optimisation=Optimisation(3, 1e-3, warmup=1, ema_decay=0.9, kind=OptimizerKind.MUON),
        batching=Batching(tokens=24, accumulate=2),
        rhythm=Rhythm(log_every=1, validate_every=1, validation_batches=3, save_every=2),
    )
    data = dataclasses.replace(base.data, questions_per_sample=1)
    base = dataclasses.replace(base, data=data)
    adam = dataclasses.replace(base.optimisation, kind=OptimizerKind.ADAMW)

    def stage(stage, **changes):
        return dataclasses.replace(base, stage=stage, trained=released_groups(stage), **changes)

    reasoning = Stage.SPATIAL_REASONING
    guides = {"matching": MatchingGuide(layers=(1,)), "pointing": PointingGuide(layers=(1,))}
    return {
        "geometry": stage(Stage.GEOMETRY, matching=MatchingGuide(layers=(1,))),
        "joint": stage(Stage.JOINT, optimisation=adam, checkpointing=True, precision=Precision.BFLOAT16),
        "reasoning": stage(reasoning, optimisation=adam),
        # Two micro-batches in each process: gradients are summed over the processes after the second.
        "both": stage(Stage.GEOMETRY_AND_LANGUAGE, batching=Batching(24, accumulate=4), **guides),
        "lora": stage(reasoning, optimisation=adam, lora=LoraSettings(rank=2), **HALF),
    }


def watching(name, folder):
    """One of the runs also measures real frames at every validation."""
    return {"watch": folder / "frames"} if name == "geometry" else {}


def figures(folder):
    """Losses and validations by step, the last word counting where a step was visited twice."""
    found = {}
    for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines()):
        if line["kind"] in ("train", "validation"):
            kept = {
                name: value
                for name, value in line.items()
                if name not in ("kind", "step", "time", "samples_per_s", "tokens_per_s")
            }
            found[line["kind"], line["step"]] = kept
    return found


@pytest.fixture(scope="module")
def two(training_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    write_frames(folder / "frames")
    script = folder / "run.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0"]
    arguments = [str(Path(__file__).parent), str(training_checkpoint), str(folder)]
    command = [*torchrun, "--standalone", str(script), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stderr[-6000:]
    return folder


def test_two_processes_agree_with_one(training_checkpoint, tmp_path, two):
    for name, recipe in shared_recipes(training_checkpoint).items():
        small_trainer(recipe, tmp_path / name, export_dtype=torch.float32, **watching(name, two)).run()
        ours, theirs = figures(two / name), figures(tmp_path / name)
        assert ours.keys() == theirs.keys()
        assert len(theirs) == 6
        watched = {key for values in theirs.values() for key in values if key.startswith("frames_")}
        assert watched == (
            {"frames_abs_rel", "frames_auc30", "frames_focal_error"} if watching(name, two) else set()
        )
        exact = recipe.precision is Precision.FLOAT32
        for key, values in theirs.items():
            # Angles and areas jump where numbers are rough.
            kept = {k: v for k, v in values.items() if exact or not k.endswith(("deg", "auc30", "accuracy"))}
            assert {k: ours[key][k] for k in kept} == pytest.approx(kept, **(CLOSE if exact else ROUGH)), name
        exported = [load_file(run / name / "model" / "model.safetensors") for run in (two, tmp_path)]
        for key, weight in exported[1].items():
            torch.testing.assert_close(exported[0][key], weight, rtol=1e-2, atol=4e-3, msg=f"{name} {key}")


def test_states_of_two_processes_are_continued_by_one(training_checkpoint, two):
    # SR: some weights of the geometric expert never see a gradient, and so have no moments of their own.
    trainer = small_trainer(shared_recipes(training_checkpoint)["reasoning"], two / "reasoning")
    assert trainer.progress.step == 3
    assert trainer.run() is Ending.COMPLETE


def test_cores_are_shared_out_among_processes_and_workers(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert Processes().own_threads(workers=1) == 15
    assert Processes(1, 4, 1, local_count=4).own_threads(workers=1) == 3
    assert Processes(0, 16, 0, local_count=16).own_threads(workers=2) == 1
