"""Scenes over HTTP: from photos to files, questions and measurements; restarts, tenants, removal."""

import base64
import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from small_service import image_part, pictures, png, small_service, wait_until

import g2vlm
from g2vlm.errors import OutputError
from g2vlm.model.pausing import pause
from g2vlm.scene.save_options import SaveOptions, Upsampling
from g2vlm.server.app import create_app
from g2vlm.server.engine.work import Terms
from g2vlm.server.guard.keys import create_key
from g2vlm.server.scenes.exporting import endings
from g2vlm.server.scenes.jobs import NUM_AT_ONCE
from g2vlm.server.service import Service
from g2vlm.server.store.records import JobState, SceneRecord

pytestmark = pytest.mark.filterwarnings("ignore::g2vlm.export.originals.MissingOriginalWarning")


def upload(client: TestClient, count: int = 2) -> list[str]:
    files = [("files", (f"{n}.png", png(one), "image/png")) for n, one in enumerate(pictures(count))]
    response = client.post("/v1/uploads", files=files)
    assert response.status_code == 201, response.text
    return [one["id"] for one in response.json()["data"]]


def file_parts(ids: list[str]) -> list[dict[str, Any]]:
    return [{"type": "file", "file": {"file_id": one}} for one in ids]


def make(client: TestClient, **options: Any) -> str:
    body = {"inputs": file_parts(upload(client)), **options}
    response = client.post("/v1/scenes", json=body)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def finished(client: TestClient, scene_id: str) -> dict[str, Any]:
    end = time.monotonic() + 20
    while True:
        found: dict[str, Any] = client.get(f"/v1/scenes/{scene_id}").json()
        if found["status"] in ("done", "failed"):
            return found
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def scene(client: TestClient) -> str:
    scene_id = make(client)
    assert finished(client, scene_id)["status"] == "done"
    return scene_id


def test_a_scene_is_the_offline_one(model: g2vlm.Model, client: TestClient, tmp_path: Path) -> None:
    offline = {True: model.perceive(pictures(2)).scene, False: model.reconstruct(pictures(2))}
    for questions, expected in offline.items():
        scene_id = make(client, questions=questions)
        facts = finished(client, scene_id)["result"]
        assert facts["num_points"] == expected.num_points
        assert facts["views"][1]["K"] == expected.views[1].K_original.tolist()
        content = client.get(f"/v1/scenes/{scene_id}.npz").content
        found = np.load(io.BytesIO(content))
        for number, view in enumerate(expected.views):
            assert np.array_equal(found["points_camera"][number], view.points_camera)
            assert np.array_equal(found["rgb"][number], view.rgb)


def test_photos_may_come_inside_of_the_request(client: TestClient) -> None:
    body = {"inputs": [image_part(one) for one in pictures(2)], "max_views": 1}
    scene_id = client.post("/v1/scenes", json=body).json()["id"]
    assert len(finished(client, scene_id)["result"]["views"]) == 1


def test_every_format_can_be_had(client: TestClient, scene: str) -> None:
    magic = {"glb": b"glTF", "ply": b"ply", "zip": b"PK", "npz": b"PK", "html": b"<!"}
    for ending in endings():
        response = client.get(f"/v1/scenes/{scene}.{ending}")
        if response.status_code == 400:  # several formats share the ending, and none is the usual one
            assert "Expected" in response.json()["error"]["message"]
            continue
        assert response.status_code == 200, (ending, response.text)
        assert response.content.startswith(magic.get(ending, b""))
        assert len(response.content) == int(response.headers["content-length"])
        again = client.get(f"/v1/scenes/{scene}.{ending}")
        assert again.content == response.content
    with zipfile.ZipFile(io.BytesIO(client.get(f"/v1/scenes/{scene}.zip").content)) as colmap:
        assert any(name.endswith("cameras.bin") for name in colmap.namelist())
    depth = client.get(f"/v1/scenes/{scene}.zip", params={"kind": "depth"})
    with zipfile.ZipFile(io.BytesIO(depth.content)) as maps:
        assert any(name.endswith("g2vlm.json") for name in maps.namelist())


@pytest.mark.parametrize(
    ("name", "status"),
    [("exe", 400), ("glb?kind=colmap", 400), ("zip?kind=ply", 400), ("ply?kind=nothing", 400)],
)
def test_other_formats_are_refused(client: TestClient, scene: str, name: str, status: int) -> None:
    assert client.get(f"/v1/scenes/{scene}.{name}").status_code == status


def test_the_page_shows_the_scene_and_asks_for_nothing(client: TestClient, scene: str) -> None:
    response = client.get(f"/view/{scene}")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert b"<canvas" in response.content


def test_questions_about_a_scene_are_answered_as_offline(
    model: g2vlm.Model, client: TestClient, scene: str
) -> None:
    offline = model.perceive(pictures(2)).ask("Why?", max_new_tokens=7)
    found = client.post(f"/v1/scenes/{scene}/ask", json={"question": "Why?", "max_tokens": 6}).json()
    assert found["answer"] == offline.text
    assert found["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert 0 < found["confidence"] <= 1


def test_photos_that_were_forgotten_are_looked_at_again(
    client: TestClient, scene: str, service: Service
) -> None:
    body = {"question": "Why?", "max_tokens": 6}
    first = client.post(f"/v1/scenes/{scene}/ask", json=body).json()
    service.engine.perceptions.drop(lambda key: False)
    again = client.post(f"/v1/scenes/{scene}/ask", json=body).json()
    assert again["answer"] == first["answer"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_measurements_are_those_of_the_scene(model: g2vlm.Model, client: TestClient, scene: str) -> None:
    offline = model.perceive(pictures(2)).scene
    queries: list[tuple[dict[str, Any], list[float]]] = [
        (
            {"kind": "depth", "view": 1, "pixel": [10, 20.5]},
            [offline.measure_depth(1, (10, 20.5)).value],
        ),
        (
            {"kind": "distance", "view_a": 0, "pixel_a": [1, 2], "view_b": 1, "pixel_b": [30, 30]},
            [offline.measure_distance(0, (1, 2), 1, (30, 30)).value],
        ),
    ]
    size = offline.measure_size(0, (5, 5, 40, 40))
    queries.append(
        ({"kind": "size", "view": 0, "box": [5, 5, 40, 40]}, [size.width, size.height, size.depth])
    )
    for query, expected in queries:
        found = client.post(f"/v1/scenes/{scene}/measure", json=query).json()
        assert found["values"] == pytest.approx(expected)
        assert found["unit"] == "units"


@pytest.mark.parametrize(
    "query",
    [
        {"kind": "depth", "view": 7, "pixel": [1, 1]},
        {"kind": "depth", "view": 0, "pixel": [1, 1000]},
        {"kind": "depth", "view": 0, "pixel": [1]},
        {"kind": "size", "view": 0, "box": [9, 9, 1, 1]},
        {"kind": "volume"},
    ],
)
def test_senseless_measurements_are_refused(client: TestClient, scene: str, query: dict[str, Any]) -> None:
    response = client.post(f"/v1/scenes/{scene}/measure", json=query)
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_progress_is_told_until_the_end(client: TestClient, service: Service) -> None:
    scene_id = make(client)
    with client.stream("GET", f"/v1/scenes/{scene_id}/events") as response:
        lines = [line for line in response.iter_lines() if line]
    names = [line for line in lines if line.startswith("event:")]
    assert names[-1] == "event: done"
    last = json.loads(lines[-1].removeprefix("data: "))
    assert last["status"] == "done"
    assert last["progress"] == 1


def test_a_scene_that_cannot_be_made_says_why(client: TestClient) -> None:
    flat = [image_part(np.zeros((14, 400, 3), np.uint8))]
    scene_id = client.post("/v1/scenes", json={"inputs": flat}).json()["id"]
    found = finished(client, scene_id)
    assert found["status"] == "failed"
    assert "400x14" in found["error"]
    assert client.get(f"/v1/scenes/{scene_id}.ply").status_code == 409
    assert client.post(f"/v1/scenes/{scene_id}/ask", json={"question": "Why?"}).status_code == 409


def test_what_is_removed_is_gone(client: TestClient, scene: str) -> None:
    assert client.delete(f"/v1/scenes/{scene}").json() == {"id": scene, "deleted": True}
    for response in (
        client.get(f"/v1/scenes/{scene}"),
        client.get(f"/v1/scenes/{scene}.ply"),
        client.get(f"/view/{scene}"),
        client.delete(f"/v1/scenes/{scene}"),
        client.post(f"/v1/scenes/{scene}/ask", json={"question": "Why?"}),
    ):
        assert response.status_code == 404
    assert client.get("/v1/scenes").json()["data"] == []


def test_removing_a_scene_that_waits_stops_it(client: TestClient, service: Service) -> None:
    may_end: list[int] = []

    def hold() -> None:
        while not may_end:
            time.sleep(0.001)
            pause()

    service.engine.run(hold, cost=1, terms=Terms())
    scene_id = make(client)
    wait_until(lambda: bool(service.engine.num_waiting))
    assert client.delete(f"/v1/scenes/{scene_id}").status_code == 200
    may_end.append(1)
    wait_until(lambda: not service.jobs._jobs)
    assert client.get(f"/v1/scenes/{scene_id}").status_code == 404


def test_scenes_survive_a_restart_and_interrupted_ones_are_made(model: g2vlm.Model, tmp_path: Path) -> None:
    first = small_service(model, data=tmp_path / "data")
    with TestClient(create_app(first)) as client:
        done = make(client)
        before = finished(client, done)
        ids = upload(client)
    wanted = {"questions": True, "max_views": None, "fit": "stretch", "frame_count": 8}
    second = small_service(model, data=tmp_path / "data")
    interrupted = second.store.scenes.add("local", wanted, ids).id
    second.store.scenes.begin("local", interrupted)
    second.store.close()
    third = small_service(model, data=tmp_path / "data")
    with TestClient(create_app(third)) as client:
        assert client.get(f"/v1/scenes/{done}").json()["result"] == before["result"]
        assert finished(client, interrupted)["status"] == "done"
        assert client.get(f"/v1/scenes/{done}.ply").status_code == 200
    assert third.store.is_kept


def test_stopping_hands_unfinished_scenes_back(model: g2vlm.Model, tmp_path: Path) -> None:
    service = small_service(model, data=tmp_path / "data")
    with TestClient(create_app(service)) as client:

        def hold() -> None:
            while True:
                time.sleep(0.001)
                pause()

        service.engine.run(hold, cost=1, terms=Terms())
        scene_id = make(client)
        wait_until(lambda: bool(service.engine.num_waiting))
    again = small_service(model, data=tmp_path / "data")
    assert again.store.scenes.get("local", scene_id).state is JobState.HANDED_BACK
    again.store.close()


@pytest.fixture
def keyed(model: g2vlm.Model, tmp_path: Path) -> Iterator[tuple[TestClient, dict[str, dict[str, str]]]]:
    path = tmp_path / "keys.json"
    headers = {who: {"Authorization": f"Bearer {create_key(path, who)}"} for who in ("anna", "bert")}
    with TestClient(create_app(small_service(model, keys=path))) as client:
        yield client, headers


def test_nothing_of_one_tenant_is_another_ones(keyed: tuple[TestClient, dict[str, dict[str, str]]]) -> None:
    client, headers = keyed
    client.headers = headers["anna"]  # type: ignore[assignment]
    scene_id, upload_id = make(client), upload(client)[0]
    finished(client, scene_id)
    client.headers = headers["bert"]  # type: ignore[assignment]
    for response in (
        client.get(f"/v1/scenes/{scene_id}"),
        client.get(f"/v1/scenes/{scene_id}.npz"),
        client.get(f"/v1/scenes/{scene_id}/events"),
        client.get(f"/view/{scene_id}"),
        client.post(f"/v1/scenes/{scene_id}/ask", json={"question": "Why?"}),
        client.post(f"/v1/scenes/{scene_id}/measure", json={"kind": "depth", "view": 0, "pixel": [1, 1]}),
        client.delete(f"/v1/scenes/{scene_id}"),
        client.get(f"/v1/uploads/{upload_id}"),
        client.delete(f"/v1/uploads/{upload_id}"),
        client.post("/v1/scenes", json={"inputs": file_parts([upload_id])}),
        client.post("/v1/depth", json={"image": file_parts([upload_id])[0]}),
    ):
        assert response.status_code == 404, response.text
    assert client.get("/v1/scenes").json()["data"] == []


def test_without_a_key_nothing_is_open_but_health(
    keyed: tuple[TestClient, dict[str, dict[str, str]]],
) -> None:
    client, headers = keyed
    assert client.get("/health").status_code == 200
    for path in ("/v1/models", "/v1/scenes", "/view/scene_" + "0" * 32):
        response = client.get(path)
        assert response.status_code == 401
        assert "Bearer" in response.headers["www-authenticate"]
        assert response.json()["error"]["type"] == "authentication_error"
    token = headers["anna"]["Authorization"].removeprefix("Bearer ")
    assert client.get("/v1/models", auth=("anybody", token)).status_code == 200
    assert client.get("/v1/models", auth=("anybody", "wrong")).status_code == 401


def test_depth_of_a_photo(model: g2vlm.Model, client: TestClient, tmp_path: Path) -> None:
    picture = pictures(1)[0]
    offline = model.reconstruct([picture])
    options = SaveOptions(upsampling=Upsampling.LINEAR)
    folder = offline.save(f"depth:{tmp_path / 'depth'}", options)
    (expected,) = folder.glob("*.png")
    found = client.post("/v1/depth", json={"image": image_part(picture), "format": "json"}).json()
    response = client.post("/v1/depth", json={"image": image_part(picture)})
    assert response.content == base64.b64decode(found["png"]) == expected.read_bytes()
    counts = np.asarray(Image.open(io.BytesIO(response.content)))
    assert counts.dtype == np.uint16
    assert counts.shape == (found["height"], found["width"]) == picture.shape[:2]
    facts = json.loads((folder / "g2vlm.json").read_text())
    assert float(response.headers["x-depth-unit-per-count"]) == facts["unit_per_count"]
    assert json.loads(response.headers["x-camera-k"]) == found["K"]
    assert np.allclose(found["K"], offline.views[0].K_original, atol=1e-3)


def test_a_disk_that_fails_ends_no_later_scene(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many failures as there are workers, each of which cannot even be noted."""
    failures: list[str] = []

    def broken(record: SceneRecord, error: str) -> None:
        failures.append(record.id)
        raise OutputError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(service.store.scenes, "fail", broken)
        patch.setattr(service.jobs, "_keep", lambda job, scene: 1 / 0)
        for _ in range(NUM_AT_ONCE + 1):
            make(client)
        wait_until(lambda: len(failures) >= NUM_AT_ONCE + 1, 20)
    assert finished(client, make(client))["status"] == "done"
