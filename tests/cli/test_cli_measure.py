"""`g2vlm measure` reads the lengths that Python does."""

import json

import pytest
from noisy_room import box_room

from g2vlm.cli.main import main


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return str(box_room().save(tmp_path_factory.mktemp("scene") / "room.npz"))


def test_everything_is_measured_with_its_deviation(stored, capsys):
    flags = ["--distance", "0,40,100,frame_2,260,130", "--depth", "1,160,120", "--height", "1,160,120"]
    flags += [
        "--area",
        "1,160,80",
        "--box",
        "0,80,60,200,160",
        "--points",
        "0,0,0,0,0,2",
        "--floor",
        "--json",
    ]
    assert main(["measure", stored, *flags]) == 0
    told = json.loads(capsys.readouterr().out)
    found = {each["kind"]: each for each in told["measurements"]}
    scene = box_room()
    distance = scene.measure_distance(0, (40, 100), 2, (260, 130))
    assert found["distance"]["value"] == pytest.approx(distance.value)
    assert found["distance"]["uncertainty"] == pytest.approx(distance.uncertainty)
    assert found["depth"]["value"] == pytest.approx(scene.measure_depth(1, (160, 120)).value)
    assert found["height"]["value"] == pytest.approx(scene.measure_height(1, (160, 120)).value)
    assert found["area"]["value"] == pytest.approx(scene.measure_area(1, (160, 80)).value)
    assert found["box"]["lengths"] == pytest.approx(scene.measure_box(0, (80, 60, 200, 160)).lengths)
    assert found["points"]["value"] == 2
    assert found["floor"]["cameras"][0] == pytest.approx(1.6, abs=0.01)
    assert (told["unit"], told["scale"]) == ("units", "relative")


def test_lines_say_what_was_measured_and_the_scale(stored, capsys):
    assert main(["measure", stored, "--distance", "0,40,100,2,260,130", "--floor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("distance 0,40,100,2,260,130: ")
    assert "+-" in lines[0]
    assert lines[1].startswith("floor: ")
    assert lines[2] == "scale relative: test"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "something to measure"),
        (["--distance", "0,1,2"], "3 parts instead of 6"),
        (["--depth", "0,5000,2"], "inside the original image"),
        (["--depth", "7,5,2"], "from 0 to 3"),
        (["--box", "0,50,50,10,10"], "left <= right"),
        (["--points", "0,0,0,0,0,x"], "numbers in"),
    ],
)
def test_mistakes_end_with_two(stored, capsys, flags, expected):
    assert main(["measure", stored, *flags]) == 2
    assert expected in capsys.readouterr().err
