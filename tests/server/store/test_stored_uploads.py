"""Uploads: whole or absent, within the quota, each tenant's own."""

import hashlib
from pathlib import Path

import pytest

from g2vlm.server.guard.limits import Limits
from g2vlm.server.guard.refusals import ConflictError, NotFoundError, QuotaError, TooLargeError
from g2vlm.server.store.records import UploadRecord
from g2vlm.server.store.store import Store

LIMITS = Limits(tenant_disk_bytes=1000, disk_bytes=1500, uploads_per_tenant=3)


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        self.now += 1
        return self.now


def upload(store: Store, tenant: str, content: bytes = b"content") -> UploadRecord:
    with store.uploads.receiving(tenant) as arriving:
        arriving.write(content)
        return store.uploads.finish(tenant, arriving, "image/png")


def files(folder: Path) -> list[Path]:
    return [path for path in (folder / "tenants").rglob("*") if path.is_file()] + list(
        (folder / "incoming").iterdir()
    )


def _break_off(store: Store) -> None:
    with store.uploads.receiving("ada") as arriving:
        arriving.write(b"123")
        raise ConnectionError


def test_what_was_sent_is_there_after_a_restart(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        record = upload(store, "ada", b"12345")
    with Store(tmp_path) as store:
        assert store.uploads.get("ada", record.id) == record
        with store.uploads.reading("ada", record.id) as path:
            assert path.read_bytes() == b"12345"
        assert record.digest == hashlib.sha256(b"12345").hexdigest()
        assert store.check() == ()


def test_an_upload_that_breaks_off_leaves_no_trace(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        with pytest.raises(ConnectionError):
            _break_off(store)
        assert files(tmp_path) == []
        assert store.usage("ada").num_bytes == 0


def test_too_large_an_upload_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with (
        Store(tmp_path) as store,
        pytest.raises(TooLargeError),
        store.uploads.receiving("ada", max_bytes=4) as arriving,
    ):
        arriving.write(b"12345")
    assert files(tmp_path) == []


def test_another_tenant_finds_nothing(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        record = upload(store, "ada")
        with pytest.raises(NotFoundError) as theirs:
            store.uploads.get("bob", record.id)
        with pytest.raises(NotFoundError) as nobodys:
            store.uploads.get("bob", "upload_" + "0" * 32)
        assert str(theirs.value).replace(record.id, "") == str(nobodys.value).replace(
            "upload_" + "0" * 32, ""
        )
        with pytest.raises(NotFoundError):
            store.uploads.delete("bob", record.id)
        with pytest.raises(NotFoundError), store.uploads.reading("bob", record.id):
            pass
        with pytest.raises(NotFoundError):
            store.scenes.add("bob", {}, [record.id])
        assert store.uploads.get("ada", record.id) == record


def test_the_least_recently_used_upload_makes_room() -> None:
    clock = Clock()
    with Store(None, LIMITS, now=clock) as store:
        first, second = (upload(store, "ada", bytes(400)) for _ in range(2))
        clock.now += 1000
        with store.uploads.reading("ada", first.id):
            pass
        third = upload(store, "ada", bytes(400))
        store.uploads.get("ada", first.id)
        store.uploads.get("ada", third.id)
        with pytest.raises(NotFoundError):
            store.uploads.get("ada", second.id)
        assert store.usage("ada").num_bytes == 800


def test_what_is_in_use_or_needed_is_not_evicted() -> None:
    with Store(None, LIMITS) as store:
        needed, read = (upload(store, "ada", bytes(450)) for _ in range(2))
        scene = store.scenes.add("ada", {}, [needed.id])
        with store.uploads.reading("ada", read.id) as path:
            with pytest.raises(QuotaError):
                upload(store, "ada", bytes(450))
            assert path.exists()
        with pytest.raises(ConflictError):
            store.uploads.delete("ada", needed.id)
        store.scenes.delete("ada", scene.id)
        store.uploads.delete("ada", needed.id)
        upload(store, "ada", bytes(450))


def test_more_than_the_share_is_refused_and_costs_nothing_else() -> None:
    with Store(None, LIMITS) as store:
        kept, own = upload(store, "ada", bytes(10)), upload(store, "bob", bytes(10))
        with pytest.raises(QuotaError):
            upload(store, "bob", bytes(1001))
        store.uploads.get("ada", kept.id)
        store.uploads.get("bob", own.id)


def test_a_full_disk_is_relieved_by_who_uses_most() -> None:
    with Store(None, LIMITS) as store:
        large = upload(store, "ada", bytes(900))
        small = upload(store, "bob", bytes(300))
        upload(store, "cleo", bytes(400))
        store.uploads.get("bob", small.id)
        with pytest.raises(NotFoundError):
            store.uploads.get("ada", large.id)


def test_the_number_of_uploads_is_limited() -> None:
    with Store(None, LIMITS) as store:
        records = [upload(store, "ada", bytes([number])) for number in range(4)]
        with pytest.raises(NotFoundError):
            store.uploads.get("ada", records[0].id)
        assert store.uploads.count("ada") == 3


def test_uploads_expire_unless_they_are_used() -> None:
    clock = Clock()
    with Store(None, LIMITS, now=clock) as store:
        old, used, needed = (upload(store, "ada") for _ in range(3))
        store.scenes.add("ada", {}, [needed.id])
        clock.now += 0.9 * LIMITS.keep_upload_seconds
        with store.uploads.reading("ada", used.id):
            pass
        clock.now += 0.2 * LIMITS.keep_upload_seconds
        assert store.sweep() == 1
        with pytest.raises(NotFoundError):
            store.uploads.get("ada", old.id)
        store.uploads.get("ada", used.id)
        store.uploads.get("ada", needed.id)


def test_photos_of_a_scene_stay_as_long_as_it_does() -> None:
    clock = Clock()
    with Store(None, now=clock) as store:
        record = upload(store, "ada")
        begun = store.scenes.begin("ada", store.scenes.add("ada", {}, [record.id]).id)
        with store.scenes.filling(begun) as filling:
            (filling.folder / "scene.npz").write_bytes(b"points")
        clock.now += 2 * store.limits.keep_upload_seconds
        assert store.sweep() == 0
        store.scenes.delete("ada", begun.id)
        assert store.sweep() == 1
        with pytest.raises(NotFoundError):
            store.uploads.get("ada", record.id)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "", "upload_/..", "a\0b", "%2e%2e", "'; --"]
)
def test_no_id_leads_to_another_path(name: str) -> None:
    with Store(None) as store:
        with pytest.raises(NotFoundError):
            store.uploads.get("ada", name)
        with pytest.raises(NotFoundError):
            store.uploads.delete("ada", name)
        with pytest.raises(NotFoundError):
            store.scenes.delete("ada", name)
        with pytest.raises(NotFoundError), store.scenes.reading("ada", name):
            pass
