"""The same batch by actors of Ray, some of which are killed."""

import os
import signal
import subprocess
import sys
import time

import pytest
from batch_scenes import write_scenes

pytest.importorskip("ray", reason="needs the extra cluster")
psutil = pytest.importorskip("psutil")

pytestmark = pytest.mark.slow


def actors_below(pid):
    """Processes of actors that a driver started."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = []
    for child in children:
        try:
            if any("_Actor" in word for word in child.cmdline()):
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def test_scenes_are_those_of_this_process_and_a_killed_actor_loses_none(tmp_path, random_folder):
    folder = write_scenes(tmp_path / "in", [f"room{k}" for k in range(8)])
    common = [sys.executable, "-m", "g2vlm", "batch", str(folder)]
    model = ["--ckpt", str(random_folder), "--dtype", "float32"]
    subprocess.run([*common, str(tmp_path / "here"), *model], check=True, capture_output=True)

    words = [*common, str(tmp_path / "out"), *model, "--engine", "ray", "--scenes_per_call", "2"]
    driver = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while driver.poll() is None and not list(tmp_path.glob("out/room*")):
        time.sleep(0.05)
    for actor in actors_below(driver.pid):
        os.kill(actor, signal.SIGKILL)
    assert driver.wait(timeout=240) == 0
    for k in range(8):
        mine, theirs = (tmp_path / name / f"room{k}" / "scene.npz" for name in ("out", "here"))
        assert mine.read_bytes() == theirs.read_bytes()
