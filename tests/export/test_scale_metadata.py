"""Files say how well the scene meets what fixed its metre."""

import json
from dataclasses import replace

from g2vlm.export.ply import scene_comments
from g2vlm.scene.scale import Scale, ScaleKind


def test_files_say_the_residual_of_the_metre(room, tmp_path):
    scene = replace(room, scale=Scale(ScaleKind.METRIC, "3 known distances", 0.012, 0.004))
    scene.save(tmp_path / "room.glb")
    data = (tmp_path / "room.glb").read_bytes()
    length = int.from_bytes(data[12:16], "little")
    extras = json.loads(data[20 : 20 + length])["scenes"][0]["extras"]
    about = json.loads((scene.save(tmp_path / "depth") / "g2vlm.json").read_text())
    for told in (extras, about):
        assert told["scale_source"] == "3 known distances"
        assert (told["scale_residual_m"], told["scale_relative_error"]) == (0.012, 0.004)
    assert "median residual 0.012 m" in scene_comments(scene)[1]


def test_an_unknown_residual_is_left_out(room, tmp_path):
    about = json.loads((room.save(tmp_path / "depth") / "g2vlm.json").read_text())
    assert not {"scale_residual_m", "scale_relative_error"} & set(about)
