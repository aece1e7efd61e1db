"""API keys: hashed at rest, compared in constant time, revoked while the service runs."""

import hashlib
import hmac
import json
import os
import stat
from pathlib import Path

import pytest

from g2vlm.errors import InputError
from g2vlm.server.guard.keys import KeyRing, check_listening, create_key, read_keys, revoke_key
from g2vlm.server.guard.refusals import NotAuthenticatedError


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_opens_its_tenant(key_file: Path) -> None:
    ada, bob = create_key(key_file, "ada"), create_key(key_file, "bob")
    ring = KeyRing(key_file)
    assert ring.check(f"Bearer {ada}").tenant == "ada"
    assert ring.check(f"bearer  {bob} ").tenant == "bob"


def test_the_file_holds_no_token_and_is_its_owners(key_file: Path) -> None:
    token = create_key(key_file, "ada")
    text = key_file.read_text()
    assert token not in text
    assert token.split("-", 2)[2] not in text
    assert hashlib.sha256(token.encode()).hexdigest() in text
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_tokens_are_long_and_differ(key_file: Path) -> None:
    tokens = {create_key(key_file, "ada") for _ in range(20)}
    assert len(tokens) == 20
    assert all(len(token.split("-", 2)[2]) >= 43 for token in tokens)  # 256 bits in base64


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer g2vlm-", "Bearer g2vlm-00000000-AAAA"),
        *("Bearer é\udcff", "Bearer " + "x" * 100_000, "Bearer \0"),
    ],
)
def test_anything_else_is_refused(key_file: Path, header: str | None) -> None:
    create_key(key_file, "ada")
    with pytest.raises(NotAuthenticatedError) as caught:
        KeyRing(key_file).check(header)
    assert caught.value.status == 401


def test_a_token_that_differs_in_its_last_letter_is_refused(key_file: Path) -> None:
    token = create_key(key_file, "ada")
    other = token[:-1] + ("A" if token[-1] != "A" else "B")
    with pytest.raises(NotAuthenticatedError):
        KeyRing(key_file).check(f"Bearer {other}")


def test_unknown_keys_cost_the_same_comparison(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = create_key(key_file, "ada")
    ring, calls, original = KeyRing(key_file), [], hmac.compare_digest

    def compare(first: str, second: str) -> bool:
        calls.append((len(first), len(second)))
        return original(first, second)

    monkeypatch.setattr("g2vlm.server.guard.keys.hmac.compare_digest", compare)
    ring.check(f"Bearer {token}")
    with pytest.raises(NotAuthenticatedError):
        ring.check("Bearer g2vlm-ffffffff-" + "A" * 43)
    assert calls == [(64, 64)] * 2


def test_revoked_keys_open_nothing_at_once(key_file: Path) -> None:
    ada, bob = create_key(key_file, "ada"), create_key(key_file, "bob")
    ring = KeyRing(key_file)
    key = ring.check(f"Bearer {ada}")
    revoke_key(key_file, key.id)
    with pytest.raises(NotAuthenticatedError):
        ring.check(f"Bearer {ada}")
    assert ring.check(f"Bearer {bob}").tenant == "bob"


def test_new_keys_open_at_once(key_file: Path) -> None:
    create_key(key_file, "ada")
    ring = KeyRing(key_file)
    bob = create_key(key_file, "bob")
    assert ring.check(f"Bearer {bob}").tenant == "bob"


@pytest.mark.parametrize("damage", ["remove", "garble", "open"])
def test_a_key_file_that_goes_bad_opens_nothing(key_file: Path, damage: str) -> None:
    token = create_key(key_file, "ada")
    ring = KeyRing(key_file)
    if damage == "remove":
        key_file.unlink()
    elif damage == "garble":
        key_file.write_text("{")
    else:
        key_file.chmod(0o644)
    with pytest.raises(NotAuthenticatedError):
        ring.check(f"Bearer {token}")


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"version": 2, "keys": []}', '{"version": 1, "keys": [{}]}', "[" * 100_000),
        json.dumps(
            {"version": 1, "keys": [{"id": "a", "tenant": "../b", "digest": "0" * 64, "created_s": 0}]}
        ),
        json.dumps({"version": 1, "keys": [{"id": "a", "tenant": "b", "digest": "", "created_s": 0}]}),
    ],
)
def test_damaged_key_files_are_told(key_file: Path, text: str) -> None:
    key_file.touch(mode=0o600)
    key_file.write_text(text)
    with pytest.raises(InputError):
        KeyRing(key_file)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o620, 0o606, 0o666])
def test_key_files_open_to_others_are_refused(key_file: Path, mode: int) -> None:
    create_key(key_file, "ada")
    key_file.chmod(mode)
    with pytest.raises(InputError, match="chmod 600"):
        KeyRing(key_file)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_secrets_as_systems_mount_them_are_taken(key_file: Path, mode: int) -> None:
    token = create_key(key_file, "ada")
    key_file.chmod(mode)
    assert KeyRing(key_file).check(f"Bearer {token}").tenant == "ada"


def test_a_ring_without_keys_is_refused(key_file: Path) -> None:
    with pytest.raises(InputError, match="make a key"):
        KeyRing(key_file)
    create_key(key_file, "ada")
    revoke_key(key_file, read_keys(key_file)[0].id)
    with pytest.raises(InputError, match="not revoked"):
        KeyRing(key_file)


@pytest.mark.parametrize("tenant", ["", "../x", "A", "a b", "a/b", "x" * 33, "-a", "é", "a\n"])
def test_tenants_have_names_that_are_safe_everywhere(key_file: Path, tenant: str) -> None:
    with pytest.raises(InputError, match="tenant"):
        create_key(key_file, tenant)
    assert not key_file.exists()


def test_revoking_an_unknown_key_names_those_there_are(key_file: Path) -> None:
    create_key(key_file, "ada")
    with pytest.raises(InputError, match=read_keys(key_file)[0].id):
        revoke_key(key_file, "nobody")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "example.org", "127.example.org"])
def test_other_machines_need_keys(host: str) -> None:
    with pytest.raises(InputError, match="keys"):
        check_listening(host, has_keys=False)
    check_listening(host, has_keys=True)
    check_listening(host, has_keys=False, told=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.1.2.3"])
def test_this_machine_needs_none(host: str) -> None:
    check_listening(host, has_keys=False)


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="key file"):
        read_keys(tmp_path)
    if os.geteuid() != 0:
        with pytest.raises(InputError):
            create_key(Path("/proc/keys.json"), "ada")
