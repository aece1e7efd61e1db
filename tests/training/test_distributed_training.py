"""Two processes against one: every stage, with validations between the steps, stopped and continued."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import small_recipe, small_trainer

from g2vlm.training.guidance.matching import MatchingGuide
from g2vlm.training.guidance.pointing import PointingGuide
from g2vlm.training.recipes.recipe import Batching, LoraSettings, Optimisation, OptimizerKind, Rhythm
from g2vlm.training.recipes.stages import Stage, released_groups

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from small_runs import small_trainer
from test_distributed_training import shared_recipes
from g2vlm.training.run.distributed import joined_processes
with joined_processes(torch.device("cpu")) as processes:
    for name, recipe in shared_recipes(Path(sys.argv[2])).items():
        for minutes in (0.0, None):  # the second run resumes from the shards of the first
            runtime = {"processes": processes, "max_minutes": minutes, "export_dtype": torch.float32}
            small_trainer(recipe, Path(sys.argv[3]) / name, **runtime).run()
"""


def shared_recipes(checkpoint):
    base = small_recipe(
        checkpoint,
        optimisation=Optimisation(3, 1e-3, warmup=1, ema_decay=0.9, kind=OptimizerKind.MUON),
        batching=Batching(tokens=24, accumulate=4),
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
        "joint": stage(Stage.JOINT, optimisation=adam, checkpointing=True),
        "reasoning": stage(reasoning, optimisation=adam),
        "both": stage(Stage.GEOMETRY_AND_LANGUAGE, **guides),
        "lora": stage(reasoning, optimisation=adam, lora=LoraSettings(rank=2)),
    }


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
    script = folder / "run.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0"]
    arguments = [str(Path(__file__).parent), str(training_checkpoint), str(folder)]
    command = [*torchrun, "--standalone", str(script), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stderr[-6000:]
    return folder


@pytest.mark.parametrize("name", ["geometry", "joint", "reasoning", "both", "lora"])
def test_two_processes_agree_with_one(training_checkpoint, tmp_path, two, name):
    small_trainer(shared_recipes(training_checkpoint)[name], tmp_path).run()
    ours, theirs = figures(two / name), figures(tmp_path)
    assert ours.keys() == theirs.keys()
    assert len(theirs) == 6
    for key, values in theirs.items():
        assert ours[key] == pytest.approx(values, rel=1e-3, abs=2e-4), key
    assert (two / name / "model" / "model.safetensors").is_file()
