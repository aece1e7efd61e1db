"""A few endpoints of a model hub on localhost, with faults on demand."""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class StandInHub:
    """Serves one model repository over plain HTTP and remembers what it was asked."""

    repo_id: str
    files: dict[str, bytes]
    large: frozenset[str] = frozenset({"model.safetensors"})
    """Files stored as large ones: their etag is a SHA-256 and they come through a redirect."""
    token: str | None = None
    """If set, every request must carry it."""
    break_after: dict[str, list[int]] = field(default_factory=dict)
    """Per file: body bytes after which successive GET connections are cut."""
    corrupt: set[str] = field(default_factory=set)
    """Files of which one byte is wrong on the way."""
    ranges: bool = True
    """Whether the Range header is honoured."""
    xet: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Per file: its hash in a Xet store, and the address of that."""
    status: int | None = None
    """If set, answer every request with it."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    uploaded: dict[str, bytes] = field(default_factory=dict)

    def __enter__(self) -> "StandInHub":
        hub = self

        class Handler(_Handler):
            state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def etag(self, name: str) -> str:
        content = self.files[name]
        if name in self.large:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()

    def asked(self, method: str, part: str) -> list[dict[str, str]]:
        """Headers (names in lower case) of the requests of this method whose path holds `part`."""
        return [headers for verb, path, headers in self.requests if verb == method and part in path]


class _Handler(BaseHTTPRequestHandler):
    state: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        hub, path = self.state, urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.requests.append(("POST", path, self._headers()))
        if path == "/api/repos/create":
            self._json({"url": f"{hub.url}/{hub.repo_id}"})
        elif path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            self._json(
                {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
            )
        elif path.endswith("/commit/main"):
            import base64

            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    hub.uploaded[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._json({"commitUrl": f"{hub.url}/{hub.repo_id}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._refuse(404)

    def _serve(self) -> None:
        hub, path = self.state, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self._headers()))
        if hub.status is not None:
            return self._refuse(hub.status)
        if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._refuse(401)
        if path.startswith(f"/api/models/{hub.repo_id}"):
            if path.endswith("/revision/lost"):
                return self._refuse(404, "RevisionNotFound")
            return self._json(self._info())
        prefix = f"/{hub.repo_id}/resolve/{COMMIT}/"
        if path.startswith(prefix) and path.removeprefix(prefix) in hub.files:
            return self._resolve(path.removeprefix(prefix))
        if path.startswith("/xet-token/"):
            return self._open_xet(path.removeprefix("/xet-token/"))
        if path.startswith("/storage/"):
            return self._content(path.removeprefix("/storage/"))
        return self._refuse(404, "RepoNotFound")

    def _info(self) -> dict[str, object]:
        hub = self.state
        siblings = [{"rfilename": name, "size": len(content)} for name, content in hub.files.items()]
        return {"id": hub.repo_id, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}

    def _resolve(self, name: str) -> None:
        hub = self.state
        if name not in hub.large:
            return self._content(name)
        self.send_response(302)
        self.send_header("Location", f"{hub.url}/storage/{name}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Size", str(len(hub.files[name])))
        self.send_header("X-Linked-Etag", f'"{hub.etag(name)}"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _open_xet(self, name: str) -> None:
        self.send_response(200)
        self.send_header("X-Xet-Cas-Url", self.state.xet[name][1])
        self.send_header("X-Xet-Access-Token", "for a while")
        self.send_header("X-Xet-Token-Expiration", str(int(time.time()) + 3600))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _content(self, name: str) -> None:
        hub = self.state
        content = hub.files[name]
        if name in hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = 0
        asked = self.headers.get("Range")
        if hub.ranges and asked:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self._refuse(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{hub.etag(name)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if name in hub.xet:  # redirects within a host are followed by the library: the last answer counts
            self.send_header("X-Xet-Hash", hub.xet[name][0])
            self.send_header("X-Xet-Refresh-Route", f"{hub.url}/xet-token/{name}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return None
        body = content[start:]
        if hub.break_after.get(name):
            body = body[: hub.break_after[name].pop(0)]
            self.close_connection = True
        self.wfile.write(body)
        return None

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str | None = None) -> None:
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
