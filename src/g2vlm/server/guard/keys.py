"""API keys: who may ask, and for which tenant.

A key is a random token of 256 bits, shown once when it is made. The key file holds its SHA-256 digest only.
Slow hashes such as scrypt protect passwords, which can be guessed; 256 random bits cannot, so a slow hash
would add nothing but work that anybody could cause by sending wrong keys.
"""

import fcntl
import hashlib
import hmac
import ipaddress
import json
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from g2vlm.errors import InputError
from g2vlm.scene.writing import atomic_path
from g2vlm.server.guard.refusals import NotAuthenticatedError

LOCAL_TENANT = "local"
"""The tenant of a service without keys, which listens to this machine alone."""

TOKEN_PREFIX = "g2vlm-"
"""How every key begins, so that scanners for leaked secrets can know it."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_FILE_VERSION = 1
# A group may read: systemd, Kubernetes and Docker hand secrets to a service in that way.
_OTHERS = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
_UNKNOWN_DIGEST = hashlib.sha256(secrets.token_bytes(32)).hexdigest()


@dataclass(frozen=True)
class Key:
    """One row of the key file; the token itself is nowhere."""

    id: str
    """Public part of the token, for logs and for revoking."""

    tenant: str
    """Whose scenes, uploads and cache it opens."""

    digest: str
    """SHA-256 of the whole token, hexadecimal."""

    created_s: float
    """When it was made, in seconds since 1970."""

    revoked: bool = False
    """Whether it opens nothing any more."""


def check_tenant(name: str) -> str:
    """A tenant's name that is safe in file names, logs and headers.

    Raises:
        InputError: Other characters than a-z, 0-9, - and _, or more than 32.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"Expected a tenant's name of 1 to 32 characters a-z, 0-9, - and _, got {name[:40]!r}: "
            "choose such a name."
        )
    return name


def create_key(path: str | os.PathLike[str], tenant: str) -> str:
    """Make a key and add it to a key file, which is created if there is none.

    Args:
        path: The key file; readable by its owner alone.
        tenant: Whose key it is; several keys may share a tenant.

    Returns:
        The token. It is not stored and cannot be shown again.

    Raises:
        InputError: An unusable name or key file.
        OutputError: The file cannot be written.
    """
    check_tenant(tenant)
    key_id = secrets.token_hex(4)
    token = f"{TOKEN_PREFIX}{key_id}-{secrets.token_urlsafe(32)}"
    with _locked(Path(path)):
        keys = read_keys(path) if Path(path).exists() else ()
        _write_keys(path, (*keys, Key(key_id, tenant, _digest(token), time.time())))
    return token


def revoke_key(path: str | os.PathLike[str], key_id: str) -> Key:
    """Make a key useless; services that run notice at the next request.

    Args:
        path: The key file.
        key_id: Its public part, as `read_keys` lists it.

    Raises:
        InputError: No such key, or an unusable key file.
    """
    with _locked(Path(path)):
        keys = read_keys(path)
        found = next((key for key in keys if key.id == key_id), None)
        if found is None:
            known = ", ".join(key.id for key in keys) or "none"
            raise InputError(f"Expected the id of a key in {path}, got {key_id[:40]!r}: there are {known}.")
        revoked = replace(found, revoked=True)
        _write_keys(path, tuple(revoked if key is found else key for key in keys))
    return revoked


def read_keys(path: str | os.PathLike[str]) -> tuple[Key, ...]:
    """The rows of a key file.

    Raises:
        InputError: No such file, no key file, or one that any user can read or that a group can change.
    """
    try:
        with open(path, "rb") as file:
            # The opened file is looked at, not the name: that could be exchanged in between.
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except OSError as error:
        raise InputError(
            f"Expected a key file at {path}, got {error.strerror}: make a key first, or name another file."
        ) from error
    if mode & _OTHERS:
        raise InputError(
            f"Expected a key file for its owner, and at most a group that reads it, but {path} is open to "
            f"others (mode {stat.S_IMODE(mode):o}): run  chmod 600 {path}"
        )
    try:
        document = json.loads(content)
        if document["version"] != _FILE_VERSION:
            raise ValueError(f"version {document['version']}")
        return tuple(_checked_row(row) for row in document["keys"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"Expected a key file at {path}, but it is damaged ({error}): make it anew."
        ) from error


def _checked_row(row: dict[str, object]) -> Key:
    key = Key(**row)  # type: ignore[arg-type]
    check_tenant(key.tenant)
    if not re.fullmatch(r"[0-9a-f]{64}", key.digest) or not isinstance(key.revoked, bool):
        raise ValueError(f"key {key.id}")
    return key


class KeyRing:
    """The keys that open a service; follows changes of the key file while it runs. Thread-safe."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read a key file.

        Raises:
            InputError: As `read_keys`, or no key in it that is not revoked.
        """
        self._path = Path(path)
        self._lock = threading.Lock()
        self._stamp = self._stamp_now()
        self._keys = {key.id: key for key in read_keys(path)}
        if all(key.revoked for key in self._keys.values()):
            raise InputError(f"Expected a key in {path} that is not revoked, got none: make one.")

    def check(self, authorization: str | None) -> Key:
        """The key that a request carries.

        Args:
            authorization: Its header `Authorization`, "Bearer TOKEN".

        Raises:
            NotAuthenticatedError: No key, an unknown one or a revoked one; the message does not say which of
                the last two.
        """
        scheme, _, token = (authorization or "").strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise NotAuthenticatedError(
                "Expected an API key, got none: send the header  Authorization: Bearer KEY"
            )
        self._follow_file()
        key = self._keys.get(_key_id(token))
        # An unknown id costs the same digest and comparison, so that time tells nothing about ids.
        expected = _UNKNOWN_DIGEST if key is None else key.digest
        matches = hmac.compare_digest(_digest(token), expected)
        if key is None or not matches or key.revoked:
            raise NotAuthenticatedError(
                "Expected a valid API key, got one that does not exist or was revoked: ask the operator."
            )
        return key

    def _follow_file(self) -> None:
        """Read the file again if it has changed; one that cannot be read opens nothing."""
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        with self._lock:
            if stamp != self._stamp:
                try:
                    self._keys = {key.id: key for key in read_keys(self._path)}
                except InputError:
                    # Keeping the old keys would keep a revoked one alive: closed is the safe side.
                    self._keys = {}
                self._stamp = stamp

    def _stamp_now(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (status.st_mtime_ns, status.st_ino, status.st_mode)


def check_listening(host: str, *, has_keys: bool, told: bool = False) -> None:
    """Refuse to serve other machines without keys, unless the operator says so.

    Args:
        host: Address or name to listen on.
        has_keys: Whether requests need a key.
        told: The operator wants it all the same.

    Raises:
        InputError: Other machines could ask without a key.
    """
    if has_keys or told or is_loopback(host):
        return
    raise InputError(
        f"Expected API keys before other machines may connect to {host}, got none: make one and name the key "
        "file, listen on 127.0.0.1, or say that anybody may ask."
    )


def is_loopback(host: str) -> bool:
    """Whether an address or name leads to this machine alone; empty means every interface, so no."""
    bare = host.strip("[]")
    if bare.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def _key_id(token: str) -> str:
    return token.removeprefix(TOKEN_PREFIX).partition("-")[0]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep two commands from writing a key file at once, which would lose a key."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise InputError(f"Cannot write the key file {path}: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_keys(path: str | os.PathLike[str], keys: tuple[Key, ...]) -> None:
    text = json.dumps({"version": _FILE_VERSION, "keys": [asdict(key) for key in keys]}, indent=1)
    with atomic_path(path) as temporary:
        temporary.chmod(0o600)
        temporary.write_text(text + "\n", encoding="utf-8")
