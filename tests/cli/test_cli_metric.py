"""`g2vlm metric`, and known things in `g2vlm recon`."""

import json

import numpy as np
import pytest
from noisy_room import box_room
from PIL import Image
from plane_checkpoint import plane_checkpoint

import g2vlm
from g2vlm.cli.main import main
from g2vlm.export import save_scene
from g2vlm.scene.scale import ScaleKind
from g2vlm.scene.storage import read_npz


@pytest.fixture
def stored(tmp_path):
    return str(box_room(unit=0.2).save(tmp_path / "room.npz"))


def test_a_known_distance_makes_metres(stored, tmp_path, capsys):
    flags = [
        "--known_distance",
        "0,40,100,frame_2.png,260,130,2.5",
        "--known_distance=1,20,30,frame_1,300,200,3",
    ]
    assert main(["metric", stored, str(tmp_path / "m.npz"), *flags, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["scale"] == "metric"
    assert told["scale_source"] == "2 known distances"
    assert told["findings"][0]["given"] == 2
    assert told["findings"][0]["residual"] == pytest.approx(told["residual_m"])
    scene = read_npz(tmp_path / "m.npz")
    assert scene.scale.kind is ScaleKind.METRIC
    assert scene.scale.residual_m == pytest.approx(told["residual_m"])
    assert "2 known distances" in scene.scale.source


def test_poses_depth_and_intrinsics_are_told(stored, tmp_path, capsys):
    truth = box_room()
    save_scene(truth, tmp_path / "truth.tum")
    text = (tmp_path / "truth.tum").read_text().replace("unit: units", "unit: m")
    (tmp_path / "truth.tum").write_text(text)
    (tmp_path / "depth").mkdir()
    for view in truth.views:
        counts = (view.depth * 5000).round().astype(np.uint16)
        Image.fromarray(counts).save(tmp_path / "depth" / view.name)
    K = truth.views[0].K_original
    flags = [
        "--poses",
        str(tmp_path / "truth.tum"),
        "--depth",
        str(tmp_path / "depth"),
        "--depth_scale",
        "5000",
    ]
    flags += ["--intrinsics", f"{K[0, 0]},{K[1, 1]},{K[0, 2]},{K[1, 2]}"]
    assert main(["metric", stored, str(tmp_path / "m.npz"), *flags]) == 0
    said = capsys.readouterr().err
    assert "intrinsics of the option" in said
    assert "depth of depth/" in said
    assert "compared only" in said
    assert "matched in order" in said
    scene = read_npz(tmp_path / "m.npz")
    np.testing.assert_allclose(scene.views[3].T_world_camera, truth.views[3].T_world_camera, atol=2e-3)


def test_sources_that_disagree_are_warned_of(stored, tmp_path, capsys):
    flags = ["--known_distance", "0,40,100,2,260,130,2.5", "--known_baseline", "0,3,90"]
    assert main(["metric", stored, str(tmp_path / "m.npz"), *flags]) == 0
    assert "warning: known distance between two pixels says" in capsys.readouterr().err


def test_masks_leave_points_out(stored, tmp_path, capsys):
    folder = tmp_path / "masks"
    folder.mkdir()
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[30:] = 255
    Image.fromarray(mask).save(folder / "frame_1.png")
    assert main(["metric", stored, str(tmp_path / "m.npz"), "--masks", str(folder), "--mask_sky"]) == 0
    scene = read_npz(tmp_path / "m.npz")
    assert not scene.views[1].valid[:30].any()
    assert scene.views[1].valid[30:].all()
    assert scene.views[0].valid.all()
    assert scene.scale.kind is ScaleKind.RELATIVE


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "something known"),
        (["--known_distance", "0,1,2"], "3 parts instead of 7"),
        (
            ["--known_distance", "9,40,100,2,260,130,2.5"],
            "from 0 to 3 or a file name such as frame_0",
        ),
        (["--known_distance", "0,x,100,2,260,130,2.5"], "numbers in"),
        (["--known_distance", "0,40,100,2,260,130,-1"], "above 0"),
        (["--known_baseline", "0,0,1"], "twice"),
        (["--poses", "none.txt"], "no such file"),
        (["--depth", "none"], "folder of depth maps"),
        (["--intrinsics", "exif"], "focal lengths in the EXIF"),
        (["--gps"], "places in the EXIF"),
        (["--masks", "none"], "folder of masks"),
    ],
)
def test_mistakes_end_with_two_and_write_nothing(stored, tmp_path, capsys, flags, expected):
    assert main(["metric", stored, str(tmp_path / "m.npz"), *flags]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "m.npz").exists()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(plane_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny"))


def test_recon_takes_what_is_known(photos, checkpoint, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[:, 40:] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "0.png")
    flags = ["--data_path", photos, "--ckpt", checkpoint, "--save_path", str(tmp_path / "r.npz"), "--json"]
    flags += ["--known_distance", "0,50,20,0,66,48,1.25", "--masks", str(tmp_path / "masks")]
    assert main(["recon", *flags]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["scale"] == "metric"
    assert told["known"]["findings"][0]["fit"] == "scale"
    scene = read_npz(tmp_path / "r.npz")
    assert scene.measure_distance(0, (50, 20), 0, (66, 48)).value == pytest.approx(1.25, rel=1e-6)
    left = scene.views[0].valid[:, : scene.views[0].width // 2 - 1]
    assert not left.any()


def test_recon_keeps_its_work_where_what_is_known_does_not_fit(photos, checkpoint, tmp_path, capsys):
    flags = ["--data_path", photos, "--ckpt", checkpoint, "--save_path", str(tmp_path / "r.npz")]
    assert main(["recon", *flags, "--known_distance", "0,50,20,0,50,20,1.25"]) == 2
    assert "written without it" in capsys.readouterr().err
    assert read_npz(tmp_path / "r.npz").scale.kind is ScaleKind.RELATIVE


def test_recon_of_long_videos_takes_none(photos, tmp_path, capsys):
    flags = ["--data_path", photos, "--save_path", str(tmp_path / "r.ply"), "--window", "2"]
    assert main(["recon", *flags, "--known_baseline", "0,1,1"]) == 2
    assert "scenes of one pass" in capsys.readouterr().err


def test_chat_measures_beside_its_words(photos, checkpoint, capsys):
    flags = ["--data_path", photos, "--ckpt", checkpoint, "--max_new_tokens", "3", "--measure"]
    flags += ["--known_distance", "0,50,20,0,66,48,1.25"]
    question = "How far is (50, 20) from (66, 48) in image 1?"
    assert main(["chat", *flags, "--question", question]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("  measured: distance between (50, 20) in 0.png and (66, 48) in 0.png: 1.25")
    assert lines[-1].startswith("  measured: scale metric: known distance between two pixels")
    assert main(["chat", *flags, "--question", question, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["measured"]
    assert told["named_in"] == "question"
    assert told["measurements"][-1]["value"] == pytest.approx(1.25, rel=1e-6)
    assert main(["chat", *flags, "--question", "What is this?"]) == 0
    assert "nothing to measure" in capsys.readouterr().out.splitlines()[-1]


def test_an_answer_carries_its_citation(photos, checkpoint):
    perception = g2vlm.load(checkpoint).perceive(photos)
    question = "How deep is (50, 20) in image 2?"
    answer = perception.ask(question, max_new_tokens=3, measure=True)
    assert answer.citation.lengths[0].measurement == perception.scene.measure_depth(1, (50, 20))
    assert perception.ask(question, max_new_tokens=3).citation is None
