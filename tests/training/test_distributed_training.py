import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import small_recipe, small_trainer

from g2vlm.training.guidance.matching import MatchingGuide
from g2vlm.training.recipes.recipe import Batching, Optimisation, OptimizerKind
from g2vlm.training.recipes.stages import Stage

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from small_runs import small_recipe, small_trainer
from test_distributed_training import shared_recipe
from g2vlm.training.run.distributed import joined_processes
with joined_processes(torch.device("cpu")) as processes:
    for minutes in (0.0, None):  # the second run resumes from the shards of the first
        runtime = {"processes": processes, "max_minutes": minutes}
        small_trainer(shared_recipe(sys.argv[2]), Path(sys.argv[3]), **runtime).run()
"""


def shared_recipe(checkpoint):
    return small_recipe(
        Path(checkpoint),
        Stage.GEOMETRY_AND_LANGUAGE,
        optimisation=Optimisation(2, 1e-3, warmup=1, ema_decay=0.9, kind=OptimizerKind.MUON),
        matching=MatchingGuide(layers=(1,)),
        batching=Batching(tokens=24, accumulate=2),
    )


def losses(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(line["loss"], line["gradient_norm"]) for line in lines if line["kind"] == "train"]


def test_two_processes_agree_with_one(training_checkpoint, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0"]
    arguments = [str(Path(__file__).parent), str(training_checkpoint), str(tmp_path / "two")]
    command = [*torchrun, "--standalone", str(script), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stderr[-3000:]
    small_trainer(shared_recipe(training_checkpoint), tmp_path / "one").run()
    two, one = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert len(two) == len(one) == 2
    for ours, theirs in zip(two, one, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4)
    assert (tmp_path / "two" / "model" / "model.safetensors").is_file()
