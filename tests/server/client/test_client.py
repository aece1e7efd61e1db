"""The client, and recon and chat with --server, against a real server with processes that decode."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_service import pictures

import g2vlm
from g2vlm.cli.main import main
from g2vlm.client.connection import ServiceError
from g2vlm.client.service import Client
from g2vlm.errors import InputError
from g2vlm.server.running import address_of, listen, make_service, serving_in_thread
from g2vlm.server.settings import Settings


@pytest.fixture(scope="module")
def address(model: g2vlm.Model) -> Iterator[str]:
    with serving_in_thread(make_service(model, Settings("small", grace_s=2))) as address:
        yield address


@pytest.fixture
def room(tmp_path: Path) -> Path:
    folder = tmp_path / "room"
    folder.mkdir()
    for number, picture in enumerate(pictures(2)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


def test_a_client_gets_what_the_model_gives(
    model: g2vlm.Model, address: str, room: Path, tmp_path: Path
) -> None:
    offline = model.perceive(room)
    expected = offline.ask("Why?", max_new_tokens=7).text
    shares: list[float] = []
    with g2vlm.Client(address) as client:
        assert client.model == "small"
        assert client.ask("Why?", room, max_tokens=6).text == expected
        told: list[str] = []
        streamed = client.ask("Why?", sorted(room.iterdir()), on_text=told.append, max_tokens=6)
        assert streamed.text == "".join(told) == expected
        assert streamed.finish_reason == "length"
        assert streamed.num_tokens == 6
        scene = client.reconstruct(room, on_progress=shares.append)
        assert scene.status == "done"
        assert shares[-1] == 1
        assert np.array_equal(scene.load().views[1].points_camera, offline.scene.views[1].points_camera)
        assert scene.save(tmp_path / "room.glb").read_bytes().startswith(b"glTF")
        assert scene.ask("Why?", max_tokens=6).text == expected
        values, unit = scene.measure("depth", view=0, pixel=[3, 4])
        assert values[0] == pytest.approx(offline.scene.measure_depth(0, (3, 4)).value)
        assert unit == "units"
        assert scene.id in [one.id for one in client.scenes()]
        scene.delete()
        with pytest.raises(ServiceError) as gone:
            scene.describe()
        assert (gone.value.status, gone.value.code) == (404, "not_found")


def test_depth_of_a_photo(address: str, room: Path) -> None:
    with Client(address) as client:
        found = client.depth(room / "0.png")
    assert found.depth.shape == (48, 64)
    assert found.K.shape == (3, 3)
    assert np.isfinite(found.depth).any()


def test_what_is_wrong_is_told(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="http"):
        Client("localhost")
    with Client(address) as client:
        with pytest.raises(InputError, match="No such file"):
            client.upload(tmp_path / "none")
        (tmp_path / "a.png").write_bytes(b"hello")
        with pytest.raises(ServiceError, match="photo"):
            client.upload(tmp_path / "a.png")
    with listen("127.0.0.1", 0) as free:
        nobody = address_of(free)
    with Client(nobody) as client, pytest.raises(ServiceError, match="reached"):
        print(client.model)


def test_recon_with_a_service(
    model: g2vlm.Model, address: str, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "room.npz"
    words = ["recon", "--server", address, "--data_path", str(room), "--save_path", str(target), "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    offline = model.reconstruct(room)
    assert told["points"] == offline.num_points
    assert np.array_equal(np.load(target)["points_camera"][0], offline.views[0].points_camera)
    with Client(address) as client:
        assert client.scenes() == ()


def test_chat_with_a_service(
    model: g2vlm.Model, address: str, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offline = model.perceive(room).ask("Why?", max_new_tokens=7).text
    words = ["chat", "--server", address, "--data_path", str(room), "--question", "Why?"]
    assert main([*words, "--max_new_tokens", "7"]) == 0
    assert capsys.readouterr().out == offline + "\n"
    assert main([*words, "--max_new_tokens", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == offline


@pytest.mark.parametrize(
    "words",
    [
        ["chat", "--ckpt", "g2vlm-tiny"],
        ["chat", "--save_path", "room.ply"],
        ["recon", "--frames", "motion"],
        ["recon", "--spill", "."],
        ["recon", "--window", "4"],
    ],
)
def test_what_a_service_decides_cannot_be_chosen(
    words: list[str], address: str, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--server", address, "--data_path", str(room)]) == 2
    assert "--server" in capsys.readouterr().err
