"""Scenes: from the request to the files, whole or absent, each tenant's own."""

import inspect
import threading
from pathlib import Path
from typing import Any

import pytest

from g2vlm.errors import InputError, OutputError
from g2vlm.server.guard.limits import Limits
from g2vlm.server.guard.refusals import BusyError, ConflictError, NotFoundError, QuotaError
from g2vlm.server.store.records import JobState, SceneRecord
from g2vlm.server.store.scenes import Scenes
from g2vlm.server.store.store import Store
from g2vlm.server.store.uploads import Uploads

LIMITS = Limits(tenant_disk_bytes=1000, disk_bytes=1500, scenes_per_tenant=4, jobs_per_tenant=2)


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        self.now += 1
        return self.now


def finished(store: Store, tenant: str = "ada", content: bytes = b"points") -> SceneRecord:
    begun = store.scenes.begin(tenant, store.scenes.add(tenant, {"views": 2}).id)
    with store.scenes.filling(begun) as filling:
        (filling.folder / "scene.npz").write_bytes(content)
        filling.about = {"num_points": 7}
    return store.scenes.get(tenant, begun.id)


def test_a_scene_goes_from_queued_to_done_and_survives(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        asked = store.scenes.add("ada", {"views": 2, "prompt": "é"})
        assert asked.state is JobState.QUEUED
        assert [scene.id for scene in store.scenes.waiting()] == [asked.id]
        begun = store.scenes.begin("ada", asked.id)
        assert (begun.state, begun.attempts) == (JobState.RUNNING, 1)
        assert store.scenes.waiting() == ()
        with store.scenes.filling(begun) as filling:
            (filling.folder / "scene.npz").write_bytes(b"points")
            filling.about = {"num_points": 7}
    with Store(tmp_path) as store:
        done = store.scenes.get("ada", asked.id)
        assert (done.state, done.num_bytes, done.about) == (JobState.DONE, 6, {"num_points": 7})
        assert done.request == {"views": 2, "prompt": "é"}
        with store.scenes.reading("ada", asked.id) as files:
            assert files["scene.npz"].read_bytes() == b"points"
        assert store.check() == ()


def test_a_result_that_fails_on_the_way_leaves_no_trace(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        begun = store.scenes.begin("ada", store.scenes.add("ada", {}).id)
        with pytest.raises(MemoryError):
            _fail_filling(store, begun)
        assert store.scenes.get("ada", begun.id).state is JobState.RUNNING
        store.scenes.fail(begun, "too many photos")
        failed = store.scenes.get("ada", begun.id)
        assert (failed.state, failed.error) == (JobState.FAILED, "too many photos")
        with pytest.raises(ConflictError, match="too many photos"), store.scenes.reading("ada", begun.id):
            pass
        assert list((tmp_path / "incoming").iterdir()) == []
        assert store.check() == ()


def _fail_filling(store: Store, begun: SceneRecord) -> None:
    with store.scenes.filling(begun) as filling:
        (filling.folder / "scene.npz").write_bytes(b"po")
        raise MemoryError


def test_what_was_interrupted_is_computed_again_but_not_for_ever(tmp_path: Path) -> None:
    limits = Limits(scene_attempts=2)
    with Store(tmp_path, limits) as store:
        scene_id = store.scenes.add("ada", {}).id
    states = []
    for _ in range(2):
        with Store(tmp_path, limits) as store:
            store.scenes.begin("ada", scene_id)
        with Store(tmp_path, limits) as store:
            states.append(store.scenes.get("ada", scene_id).state)
    assert states == [JobState.QUEUED, JobState.FAILED]
    with Store(tmp_path, limits) as store:
        assert "2 times" in store.scenes.get("ada", scene_id).error
        assert store.recovery.num_requeued == store.recovery.num_failed == 0


def test_what_is_handed_back_waits_and_does_not_count(tmp_path: Path) -> None:
    with Store(tmp_path, Limits(scene_attempts=1)) as store:
        begun = store.scenes.begin("ada", store.scenes.add("ada", {}).id)
        store.scenes.hand_back(begun)
    with Store(tmp_path, Limits(scene_attempts=1)) as store:
        (waiting,) = store.scenes.waiting()
        assert (waiting.id, waiting.state, waiting.attempts) == (begun.id, JobState.HANDED_BACK, 0)


def test_half_written_things_are_removed_at_the_start(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        scene = finished(store)
        begun = store.scenes.begin("ada", store.scenes.add("ada", {}).id)
        folder = store._folder
        # As a kill leaves them: files moved in before the row, a removal begun, a file added half-way.
        folder.scene("ada", begun.id).mkdir(parents=True)
        (folder.scene("ada", begun.id) / "scene.npz").write_bytes(b"half")
        (folder.incoming / "something").write_bytes(b"half")
        gone = finished(store, content=b"gone")
        store._shelf._mark_doomed(_item(gone), "1")
        (folder.scene("ada", scene.id) / "scene.glb").write_bytes(b"added")
        with store._database.changing() as rows:
            rows.execute("INSERT INTO scene_files VALUES ('ada', ?, 'scene.glb', 5, '')", (scene.id,))
        assert [file.name for file in store.scenes.files("ada", scene.id)] == ["scene.npz"]
    with Store(tmp_path) as store:
        assert store.recovery.num_half_files == 3
        assert store.recovery.num_requeued == 1
        assert store.check() == ()
        assert {scene.id for scene in store.scenes.list("ada")} == {scene.id, begun.id}
        assert not (tmp_path / "tenants/ada/scenes" / begun.id).exists()


def _item(scene: SceneRecord) -> Any:
    from g2vlm.server.store.shelf import SCENES, Item

    return Item(SCENES, scene.tenant, scene.id)


def test_check_sees_what_a_broken_disk_does(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        changed, lost = finished(store), finished(store)
        (store._folder.scene("ada", changed.id) / "scene.npz").write_bytes(b"pointz")
        (store._folder.scene("ada", changed.id) / "more.bin").write_bytes(b"")
        (store._folder.scene("ada", lost.id) / "scene.npz").unlink()
        (store._folder.root / "tenants/ada/scenes/scene_stray").mkdir()
        wrong = "\n".join(store.check())
        for words in ("not what was stored", "not listed", "missing", "no row knows"):
            assert words in wrong


def test_files_can_be_added_to_a_finished_scene_and_replaced(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        scene = finished(store)
        for content in (b"first", b"second!"):
            with store.scenes.adding("ada", scene.id, "scene.glb") as path:
                assert path.suffix == ".glb"
                path.write_bytes(content)
        with store.scenes.reading("ada", scene.id) as files:
            assert files["scene.glb"].read_bytes() == b"second!"
        assert store.scenes.get("ada", scene.id).num_bytes == 6 + 7
        with pytest.raises(OutputError), store.scenes.adding("ada", scene.id, "never.ply"):
            pass
        assert store.check() == ()


@pytest.mark.parametrize(
    "name", ["../a", "a/b", ".hidden", "", "a" * 100, "a\0", "a.b.c.d", "a b", "é.npz", "a\n", "..", "con:"]
)
def test_names_of_files_are_plain(name: str) -> None:
    with Store(None) as store:
        scene = finished(store)
        with pytest.raises(InputError), store.scenes.adding("ada", scene.id, name) as path:
            path.write_bytes(b"")


def test_a_result_of_links_or_folders_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for make in (
            lambda folder: (folder / "link.npz").symlink_to("/etc/passwd"),
            lambda folder: (folder / "inside").mkdir(),
        ):
            begun = store.scenes.begin("ada", store.scenes.add("ada", {}).id)
            with pytest.raises(InputError), store.scenes.filling(begun) as filling:
                make(filling.folder)


def test_a_scene_deleted_while_it_is_computed_stays_deleted(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        begun = store.scenes.begin("ada", store.scenes.add("ada", {}).id)
        with pytest.raises(ConflictError, match="deleted"), store.scenes.filling(begun):
            store.scenes.delete("ada", begun.id)
        store.scenes.fail(begun, "late")
        store.scenes.hand_back(begun)
        assert store.scenes.list("ada") == ()
        assert store.check() == ()


def test_only_one_begins_a_scene() -> None:
    with Store(None) as store:
        scene_id = store.scenes.add("ada", {}).id
        outcomes: list[bool] = []

        def begin() -> None:
            try:
                store.scenes.begin("ada", scene_id)
                outcomes.append(True)
            except ConflictError:
                outcomes.append(False)

        threads = [threading.Thread(target=begin) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == [False] * 7 + [True]


def test_every_method_refuses_what_belongs_to_another(tmp_path: Path) -> None:
    """Of all public methods of a tenant's things; a new one must be added here."""
    with Store(tmp_path) as store:
        scene, waiting = finished(store), store.scenes.add("ada", {})
        with store.uploads.receiving("ada") as arriving:
            arriving.write(b"a")
            upload = store.uploads.finish("ada", arriving, "image/png")
        crossings: dict[str, Any] = {
            "Scenes.add": lambda: store.scenes.add("bob", {}, [upload.id]),
            "Scenes.get": lambda: store.scenes.get("bob", scene.id),
            "Scenes.list": lambda: store.scenes.list("bob", before=scene.id),
            "Scenes.begin": lambda: store.scenes.begin("bob", waiting.id),
            "Scenes.adding": lambda: store.scenes.adding("bob", scene.id, "a.glb").__enter__(),
            "Scenes.reading": lambda: store.scenes.reading("bob", scene.id).__enter__(),
            "Scenes.delete": lambda: store.scenes.delete("bob", scene.id),
            "Uploads.get": lambda: store.uploads.get("bob", upload.id),
            "Uploads.reading": lambda: store.uploads.reading("bob", upload.id).__enter__(),
            "Uploads.delete": lambda: store.uploads.delete("bob", upload.id),
        }
        for name, cross in crossings.items():
            with pytest.raises(NotFoundError):
                cross()
            assert name
        assert store.scenes.list("bob") == ()
        assert store.scenes.files("bob", scene.id) == ()
        assert store.scenes.counts("bob") == {}
        assert store.uploads.count("bob") == 0
        assert store.usage("bob").num_bytes == 0
        # The others take a record that only the tenant's own call gives, make things, give nothing to
        # strangers as asserted above, or are the scheduler's.
        others = {"fail", "hand_back", "filling", "receiving", "finish"}
        others |= {"files", "counts", "count", "waiting"}
        public = {
            f"{kind.__name__}.{name}"
            for kind in (Scenes, Uploads)
            for name, _ in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and name not in others
        }
        assert public == set(crossings)


def test_the_same_id_of_another_tenant_is_another_scene() -> None:
    with Store(None) as store:
        scene = finished(store)
        with store._database.changing() as rows:
            rows.execute(
                "INSERT INTO scenes (tenant, id, state, request, created_s, updated_s, used_s, expires_s) "
                "VALUES ('bob', ?, 'done', '{}', 0, 0, 0, 0)",
                (scene.id,),
            )
        with store.scenes.reading("bob", scene.id) as files:
            assert files == {}
        store.scenes.delete("bob", scene.id)
        with store.scenes.reading("ada", scene.id) as files:
            assert files["scene.npz"].read_bytes() == b"points"


def test_the_least_recently_used_scene_makes_room() -> None:
    clock = Clock()
    with Store(None, LIMITS, now=clock) as store:
        first, second = finished(store, content=bytes(400)), finished(store, content=bytes(400))
        clock.now += 1000
        with store.scenes.reading("ada", first.id):
            pass
        finished(store, content=bytes(400))
        store.scenes.get("ada", first.id)
        with pytest.raises(NotFoundError):
            store.scenes.get("ada", second.id)


def test_a_scene_that_is_read_is_not_evicted() -> None:
    with Store(None, LIMITS) as store:
        scene = finished(store, content=bytes(900))
        with store.scenes.reading("ada", scene.id) as files:
            with pytest.raises(QuotaError):
                finished(store, content=bytes(900))
            assert files["scene.npz"].exists()


def test_numbers_of_scenes_and_jobs_are_limited() -> None:
    with Store(None, LIMITS) as store:
        first = finished(store)
        for _ in range(2):
            finished(store)
        for _ in range(2):
            store.scenes.add("ada", {})
        with pytest.raises(NotFoundError):
            store.scenes.get("ada", first.id)
        with pytest.raises(BusyError) as caught:
            store.scenes.add("ada", {})
        assert caught.value.status == 429
        store.scenes.add("bob", {})


def test_scenes_expire_after_their_last_use_but_not_before_they_are_done() -> None:
    clock = Clock()
    with Store(None, now=clock) as store:
        old, used = finished(store), finished(store)
        waiting = store.scenes.add("ada", {})
        clock.now += 0.9 * store.limits.keep_scene_seconds
        with store.scenes.reading("ada", used.id):
            pass
        clock.now += 0.2 * store.limits.keep_scene_seconds
        assert store.sweep() == 1
        assert {scene.id for scene in store.scenes.list("ada")} == {used.id, waiting.id}
        assert old.id not in {scene.id for scene in store.scenes.list("ada")}


def test_lists_come_in_parts_newest_first() -> None:
    with Store(None, Limits(jobs_per_tenant=20), now=Clock()) as store:
        ids = [store.scenes.add("ada", {}).id for _ in range(7)][::-1]
        found: list[str] = []
        while part := store.scenes.list("ada", 3, before=found[-1] if found else None):
            found += [scene.id for scene in part]
        assert found == ids


def test_one_folder_serves_one_service(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(InputError, match="another"):
        Store(tmp_path)
    with Store(tmp_path):
        pass


def test_files_that_are_no_store_or_of_a_later_release_are_told(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(InputError, match="cannot be used"):
        Store(tmp_path)
    (tmp_path / "store.sqlite").unlink()
    with Store(tmp_path) as store, store._database.changing() as rows:
        rows.execute("PRAGMA user_version=99")
    with pytest.raises(InputError, match="release"):
        Store(tmp_path)


def test_a_temporary_store_leaves_nothing() -> None:
    with Store(None) as store:
        finished(store)
        folder = store._folder.root
        assert not store.is_kept
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_requests_are_stored_as_json_alone() -> None:
    with Store(None) as store:
        with pytest.raises(ValueError, match="JSON"):
            store.scenes.add("ada", {"seed": float("nan")})
        with pytest.raises(TypeError):
            store.scenes.add("ada", {"seed": object()})


def test_many_threads_store_and_read_at_once(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work(tenant: str) -> None:
        try:
            for number in range(5):
                scene = finished(store, tenant, tenant.encode() * (number + 1))
                with store.scenes.reading(tenant, scene.id) as files:
                    assert files["scene.npz"].read_bytes() == tenant.encode() * (number + 1)
        except BaseException as error:  # noqa: BLE001  told below
            errors.append(error)

    with Store(tmp_path) as store:
        threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert store.check() == ()
