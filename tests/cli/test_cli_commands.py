"""The commands for real, on small random weights: files written, streams kept apart, mistakes found early."""

import json
from pathlib import Path

import numpy as np
import pytest

from g2vlm.cli import demo, doctor
from g2vlm.cli.main import main
from g2vlm.cli.shared import scene_options


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty-cache"))


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


def test_recon_writes_the_scene_and_says_so(
    checkpoint: str, photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "room.npz"
    words = ["--data_path", photos, "--ckpt", checkpoint, "--save_path", str(target), "--dtype", "float32"]
    assert main(["recon", *words]) == 0
    captured = capsys.readouterr()
    assert f"checkpoint: {checkpoint} (a local folder)" in captured.err
    assert "device: cpu, float32" in captured.err
    assert captured.out.startswith("3 views, ")
    assert str(target) in captured.out
    with np.load(target, allow_pickle=False) as stored:
        assert stored["names"].tolist() == ["view0.png", "view1.png", "view2.png"]
        assert stored["rgb"].shape[0] == 3


def test_recon_json_is_one_object_and_matches_the_file(
    checkpoint: str, photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "room.npz"
    words = ["--data-path", photos, "--ckpt", checkpoint, "--save-path", str(target), "--max-views", "2"]
    assert main(["recon", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [view["name"] for view in told["views"]] == ["view0.png", "view2.png"]
    assert told["views"][0]["original_size"] == [80, 60]
    assert told["files"] == [str(target)]
    assert told["scale"] == "relative"
    assert {"load_s", "read_s", "forward_s"} <= set(told["timings"])
    with np.load(target) as stored:
        points = stored["points_world"][stored["valid"]]
    assert told["points"] == len(points)
    np.testing.assert_allclose(told["bounds"]["min"], points.min(axis=0), rtol=1e-6)
    np.testing.assert_allclose(told["bounds"]["max"], points.max(axis=0), rtol=1e-6)


def test_recon_anchors_and_filters_as_asked(
    checkpoint: str, photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--data_path", photos, "--ckpt", checkpoint, "--max_views", "1"]
    plain, changed = tmp_path / "plain.npz", tmp_path / "changed.npz"
    assert main(["recon", *common, "--save_path", str(plain)]) == 0
    with np.load(plain) as before:
        limit = float(np.median(before["confidence"]))
        kept = before["valid"] & (before["confidence"] >= np.float32(limit))
        assert not np.allclose(before["T_world_camera"][0], np.eye(4))
    assert 0 < kept.sum() < kept.size
    flags = ["--anchor_first", "--min_confidence", str(limit)]
    assert main(["recon", *common, "--save_path", str(changed), *flags]) == 0
    with np.load(changed) as after:
        np.testing.assert_array_equal(after["T_world_camera"][0], np.eye(4))
        np.testing.assert_array_equal(after["valid"], kept)


def test_recon_without_a_path_takes_the_examples_here_first(
    checkpoint: str, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "recon_images").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    assert main(["recon", "--ckpt", checkpoint, "--max_views", "1"]) == 0
    assert (tmp_path / "examples" / "result.ply").stat().st_size > 0


def test_examples_of_the_package_come_next(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scene_options, "EXAMPLES_IN_PACKAGE", Path(photos))
    assert scene_options.SceneOptions().source() == photos


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--save_path", "room.stl"], "ending in .*'room.stl'"),
        (["--save_path", "/dev/null/room.ply"], "Expected to create the folder"),
        (["--data_path", "/no/such/folder"], "No such file or folder"),
        (["--data_path", "/no/such/*.jpg"], "/no/such/"),
        (["--device", "cuda:99"], "CUDA device"),
        (["--device", "toaster"], "toaster"),
        (["--dtype", "float16"], "float32 or bfloat16"),
        (["--max_views", "0"], "--max_views of 1 or more"),
    ],
)
def test_mistakes_end_with_two_and_one_line(
    words: list[str], expected: str, checkpoint: str, photos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = {"--data_path": photos, "--ckpt": checkpoint, "--save_path": "outputs/never.ply"}
    common.update(zip(words[::2], words[1::2], strict=True))
    assert main(["recon", *(word for pair in common.items() for word in pair)]) == 2
    import re

    assert re.search(expected, last_error(capsys))


TOO_LONG = "x" * 300


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["recon", "--save_path", f"{TOO_LONG}.ply"], "too long"),
        (["recon", "--save_path", "file/x.ply"], "a file where a folder should be"),
        (["recon", "--window", "8", "--pieces", "file", "--save_path", "x.ply"], "a file where a folder"),
        (["recon", "--spill", "file", "--save_path", "x.ply"], "a file where a folder"),
        (["chat", "--save_path", "folder.ply"], "is a folder"),
        (["chat", "--save_path", f"{TOO_LONG}.npz"], "too long"),
        (["eval", "synthetic", "--save_path", "file/x.json"], "a file where a folder"),
        (["eval", "synthetic", "--save_path", f"{TOO_LONG}.json"], "too long"),
        (["train", "tiny-geometry", "--folder", "file"], "a file where a folder"),
        (["bench", "--json", "folder.ply"], "is a folder"),
        (["bench", "--json", f"{TOO_LONG}.json"], "too long"),
        (["bench", "--plot", "x.unknown"], "picture ending in"),
        (["bench", "--history", "file/x.jsonl"], "a file where a folder"),
        (["bench", "--history", "file"], "is not JSON"),
        (["bench", "--checkpoint", "file"], "a file where a folder"),
        (["demo", "--folder", "file"], "a file where a folder"),
        (["download", "someone/model", "--folder", "file"], "a file where a folder"),
    ],
)
def test_places_for_results_are_checked_before_the_work(
    words: list[str],
    expected: str,
    photos: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("no JSON")
    Path("folder.ply").mkdir()
    inputs = ["--data_path", photos] if words[0] in ("recon", "chat") else []
    checkpoint = ["--ckpt", "no such checkpoint"] if words[0] in ("recon", "chat", "eval") else []
    assert main([*words, *inputs, *checkpoint]) == 2
    error = last_error(capsys)
    assert expected in error
    assert "no such checkpoint" not in error


@pytest.mark.filterwarnings("ignore:.*tiny")  # sizes of a checkpoint that is not there are a guess
def test_output_and_input_are_checked_before_the_checkpoint(
    photos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["--save_path", "x.stl", "--data_path", photos],
        ["--data_path", "/no/such", "--save_path", "x.ply"],
    ):
        assert main(["recon", *words, "--ckpt", "no such checkpoint"]) == 2
        assert "checkpoint" not in last_error(capsys)
    assert main(["recon", "--data_path", photos, "--ckpt", "no such checkpoint", "--save_path", "x.ply"]) == 2
    assert "no such checkpoint" in last_error(capsys)


def test_missing_checkpoint_is_a_clear_error(photos: str, capsys: pytest.CaptureFixture[str]) -> None:
    if demo.has_bundled():
        pytest.skip("this installation carries a checkpoint")
    assert main(["chat", "--data_path", photos]) == 2
    assert "none was named" in last_error(capsys)


def test_info_counts_every_parameter_of_the_file(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", checkpoint, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["complete"] is True
    stored = (Path(checkpoint) / "model.safetensors").stat().st_size
    counted = sum(part["bytes"] for part in told["parts"].values())
    assert 0 < stored - counted < 100_000  # the header
    assert told["parts"]["confidence_head"]["parameters"] == 0
    assert told["config"]["mixture"]["num_layers"] == 3


def test_info_lists_missing_and_extra_keys(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "broken"
    folder.mkdir()
    for file in Path(checkpoint).glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(Path(checkpoint) / "model.safetensors")
    lost = sorted(tensors)[0]
    tensors["stray.weight"] = tensors.pop(lost)
    save_file(tensors, folder / "model.safetensors")
    assert main(["info", str(folder)]) == 1
    out = capsys.readouterr().out
    assert f"1 missing keys: {lost}" in out
    assert "1 unexpected keys: stray.weight" in out
    assert "unknown" in out


def test_download_says_where_the_files_are(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from g2vlm.cli import download

    seen = []

    def fake(repo: str, revision: str, folder: Path | None) -> Path:
        seen.append((repo, revision, folder))
        return Path(checkpoint)

    monkeypatch.setattr(download, "download_checkpoint", fake)
    assert main(["download", "someone/model", "--revision", "v1", "--folder", "here"]) == 0
    assert seen == [("someone/model", "v1", Path("here"))]
    assert capsys.readouterr().out == f"{checkpoint}\n"


def test_download_without_network_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download"]) == 2
    assert "HF_HUB_OFFLINE" in last_error(capsys)


def test_doctor_has_a_state_and_advice_for_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for subject in ("python", "torch", "memory", "disk", "extra heif", "checkpoint"):
        assert any(f"] {subject}: " in line for line in lines), subject
    assert all(line.startswith(("[  ok] ", "[warn] ", "[fail] ")) for line in lines)


def test_doctor_json_and_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bad = doctor.Finding("torch", doctor.State.FAIL, "does not import", "reinstall it")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: [bad],))
    assert main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["findings"] == [
        {"subject": "torch", "state": "fail", "found": "does not import", "advice": "reinstall it"}
    ]


def test_demo_goes_the_whole_way_and_owns_up_to_random_weights(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "EXAMPLES_IN_PACKAGE", Path(photos))
    monkeypatch.setattr(demo, "has_bundled", lambda: False)
    assert main(["demo", "--folder", str(tmp_path / "demo")]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("RANDOM WEIGHTS") == 2
    assert "$ g2vlm recon" in captured.out
    assert "$ g2vlm chat" in captured.out
    for name in ("scene.ply", "scene.npz"):
        assert (tmp_path / "demo" / name).stat().st_size > 0
        assert str(tmp_path / "demo" / name) in captured.out


@pytest.mark.parametrize("script", ["inference_recon", "inference_chat"])
def test_root_scripts_are_the_commands(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy

    root = Path(__file__).parents[2]
    monkeypatch.setattr("sys.argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(root / f"{script}.py"), run_name="__main__")
    assert stop.value.code == 0


def test_a_checkpoint_trained_here_says_how_far_it_got(tmp_path):
    assert scene_options.training_status(tmp_path) is None
    record = tmp_path / "TRAINING.json"
    record.write_text('{"status": "half way"}')
    assert scene_options.training_status(tmp_path) == "half way"
    record.write_text("[")
    assert scene_options.training_status(tmp_path) == f"{record} cannot be read."


@pytest.mark.parametrize("command", ["recon", "chat"])
def test_unusable_photos_are_told_before_a_model_is_looked_for(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    words = ["--data_path", str(tmp_path), "--ckpt", str(tmp_path / "no-checkpoint")]
    assert main([command, *words]) == 2
    error = last_error(capsys)
    assert "broken.png" in error
    assert "no-checkpoint" not in error


def test_tf32_needs_a_gpu(photos: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["recon", "--data_path", photos, "--ckpt", str(checkpoint), "--device", "cpu", "--tf32"]
    assert main(words) == 2
    assert "Expected a CUDA GPU for TF32" in last_error(capsys)
