"""URLs of clients: forbidden addresses, pinning, redirects, certificates, size and time."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from g2vlm.server.guard.addresses import checked_address, is_public, parse_url
from g2vlm.server.guard.fetching import Fetcher
from g2vlm.server.guard.limits import Limits
from g2vlm.server.guard.refusals import CancelledError, ForbiddenError, RefusedError, TooLargeError

trustme = pytest.importorskip("trustme", reason="makes certificates for the stand-in server")

PUBLIC = "93.184.215.14"
LIMITS = Limits(url_bytes=100_000, url_seconds=3.0, url_redirects=2)


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("https://example.org", "example.org", "/"),
        ("https://Example.ORG/a.jpg?b=c&d=%20#e", "example.org", "/a.jpg?b=c&d=%20"),
        ("HTTPS://example.org:443/a?b?c", "example.org", "/a?b?c"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", "/"),
        ("https://example.org?a", "example.org", "/?a"),
    ],
)
def test_plain_urls_are_taken_apart(url: str, host: str, path: str) -> None:
    target = parse_url(url)
    assert (target.host, target.path) == (host, path)


FORBIDDEN_URLS = [
    # Other schemes and things that are no URLs
    *("http://example.org/", "ftp://example.org/", "file:///etc/passwd", "gopher://example.org/", "data:,a"),
    *("", "example.org", "//example.org/", "https:example.org", "https:///a", "https://", "javascript:a"),
    *("https:/example.org", "https:\\\\example.org", "jar:https://example.org!/", " https://example.org"),
    # Users, ports
    *("https://user@example.org/", "https://user:word@example.org/", "https://example.org@evil.example/"),
    *("https://example.org:80/", "https://example.org:8443/", "https://example.org:/", "https://a.org:0443/"),
    *(
        "https://example.org:443@evil.example/",
        "https://example.org#@evil.example/\\",
        "https://a.org:443:443/",
    ),
    # Addresses in all their spellings
    *("https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0/"),
    *("https://0177.0.0.1/", "https://0x7f.0.0.1/", "https://017700000001/", "https://127.0.0.1./"),
    *("https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[::]/", "https://[fe80::1%25eth0]/"),
    *(
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://8.8.8.8/",
        "https://1.2.3.0x4/",
    ),
    *("https://[64:ff9b::7f00:1]/", "https://0x7f.1/", "https://00000177.0.0.1/", "https://a.0x7f000001/"),
    # Names that two programs read in two ways
    *(
        "https://ⓛocalhost.org/",
        "https://example。org/",
        "https://ex\u00adample.org/",
        "https://bücher.example/",
    ),
    *(
        "https://exa%6dple.org/",
        "https://example.org%00.evil.example/",
        "https://example.org\\.evil.example/",
    ),
    *("https://localhost/", "https://intranet/", "https://a..org/", "https://.org/", "https://-a.org/"),
    *(
        "https://example.org./",
        "https://a_b.org/",
        "https://" + "a" * 64 + ".org/",
        "https://" + "a." * 200 + "org/",
    ),
    *(
        "https://example.org/\r\nHost: evil",
        "https://example.org/ a",
        "https://example.org/\t",
        "https://a.org/é",
    ),
    *(
        "https://exa\nmple.org/",
        "https://example.org/a\\b",
        "https://example.org/\0",
        "https://example.org/" + "a" * 2100,
    ),
]


@pytest.mark.parametrize("url", FORBIDDEN_URLS, ids=range(len(FORBIDDEN_URLS)))
def test_every_other_url_is_refused_before_anything_is_looked_up(url: str) -> None:
    def resolve(host: str) -> Sequence[str]:
        raise AssertionError(f"looked up {host}")

    with pytest.raises(RefusedError):
        Fetcher(LIMITS, resolve=resolve).fetch(url)


FORBIDDEN_ADDRESSES = [
    *("0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254"),
    *("172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1"),
    *("198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1"),
    *("255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8"),
    *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::7f00:1", "100::1", "2001::1", "2001:0:7f00:1::"),
    *("2001:db8::1", "2002:7f00:1::", "2002:a00:1::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1"),
    *("fe80::1%eth0", "fec0::1", "ff02::1", "2001:10::1", "2001:20::1", "5f00::1", "4000::1"),
    *("2a00::5efe:7f00:1", "2a00::200:5efe:a00:1", "2606:4700::1%1"),
    *("", "localhost", "0x7f000001", "127.1", "0177.0.0.1", "1.2.3", "[::1]", "8.8.8.8:80"),
]


@pytest.mark.parametrize("address", FORBIDDEN_ADDRESSES)
def test_addresses_that_are_no_public_machines(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(ForbiddenError) as caught:
        checked_address("example.org", lambda _: [address], 1.0)
    assert not address or address not in str(caught.value)
    with pytest.raises(ForbiddenError):
        checked_address("example.org", lambda _: [PUBLIC, address], 1.0)


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::6810:85e5"])
def test_addresses_of_public_machines(address: str) -> None:
    assert is_public(address)
    assert checked_address("example.org", lambda _: [address], 1.0) == address


def test_names_without_an_address_or_that_take_too_long_are_refused() -> None:
    def fails(host: str) -> Sequence[str]:
        raise socket.gaierror

    def hangs(host: str) -> Sequence[str]:
        time.sleep(1)
        return [PUBLIC]

    for resolve in (fails, hangs, lambda _: []):
        with pytest.raises(RefusedError, match="cannot be found"):
            checked_address("example.org", resolve, 0.05)


class StandIn:
    """A TLS server on this machine, to which a fake connection to a public address leads."""

    def __init__(self, authority: object, name: str) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(self.context)  # type: ignore[attr-defined]
        self.answers: dict[str, Callable[[socket.socket], None]] = {}
        self.seen: list[bytes] = []
        self.connected: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def connect(self, address: str, timeout_s: float) -> socket.socket:
        self.connected.append(address)
        return socket.create_connection(self._listener.getsockname(), timeout_s)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(plain, server_side=True) as tls:
                    request = tls.recv(65536)
                    self.seen.append(request)
                    path = request.split()[1].decode() if request else ""
                    self.answers.get(path, lambda tls: None)(tls)
            except OSError:
                plain.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.thread.join(5)


def says(head: str, body: bytes = b"") -> Callable[[socket.socket], None]:
    return lambda tls: tls.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)


@pytest.fixture(scope="module")
def authority() -> object:
    return trustme.CA()


@pytest.fixture
def server(authority: object) -> Iterator[StandIn]:
    server = StandIn(authority, "example.org")
    yield server
    server.close()


@pytest.fixture
def fetcher(authority: object, server: StandIn) -> Fetcher:
    context = ssl.create_default_context()
    authority.configure_trust(context)  # type: ignore[attr-defined]
    addresses = {"example.org": [PUBLIC], "other.example": [PUBLIC], "inside.example": ["10.0.0.1"]}
    return Fetcher(LIMITS, resolve=addresses.__getitem__, connect=server.connect, context=context)


def test_a_photo_is_fetched_from_the_address_that_was_checked(server: StandIn, fetcher: Fetcher) -> None:
    server.answers["/a.png?b"] = says("HTTP/1.1 200 OK\nContent-Type: image/png\nContent-Length: 5", b"photo")
    fetched = fetcher.fetch("https://example.org/a.png?b#c")
    assert (fetched.content, fetched.media_type) == (b"photo", "image/png")
    assert server.connected == [PUBLIC]
    assert b"Host: example.org\r\n" in server.seen[0]
    assert b"Accept-Encoding: identity" in server.seen[0]


def test_a_name_that_changes_its_address_is_connected_where_it_was_checked(
    server: StandIn, fetcher: Fetcher
) -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])
    fetcher._resolve = lambda _: next(answers)
    server.answers["/"] = says("HTTP/1.1 200 OK", b"photo")
    assert fetcher.fetch("https://example.org/").content == b"photo"
    assert server.connected == [PUBLIC]


def test_a_certificate_of_another_name_is_refused(server: StandIn, fetcher: Fetcher) -> None:
    server.answers["/"] = says("HTTP/1.1 200 OK", b"photo")
    with pytest.raises(RefusedError, match="failed"):
        fetcher.fetch("https://other.example/")
    assert server.seen == []


def test_a_certificate_that_nobody_vouches_for_is_refused(server: StandIn) -> None:
    plain = Fetcher(LIMITS, resolve=lambda _: [PUBLIC], connect=server.connect)
    with pytest.raises(RefusedError, match="failed"):
        plain.fetch("https://example.org/")


def test_redirects_are_followed_and_checked_like_the_first(server: StandIn, fetcher: Fetcher) -> None:
    server.answers["/1"] = says("HTTP/1.1 302 Found\nLocation: 2?x")
    server.answers["/2?x"] = says("HTTP/1.1 308 Moved\nLocation: https://example.org/3")
    server.answers["/3"] = says("HTTP/1.1 200 OK", b"photo")
    assert fetcher.fetch("https://example.org/1").content == b"photo"


@pytest.mark.parametrize(
    "location",
    [
        *("https://inside.example/", "http://example.org/", "https://127.0.0.1/", "https://[::1]/"),
        *("file:///etc/passwd", "//inside.example/", "https://example.org:8080/", "https://a@example.org/"),
        "\\\\inside.example",
    ],
)
def test_redirects_to_the_inside_are_refused(server: StandIn, fetcher: Fetcher, location: str) -> None:
    server.answers["/"] = says(f"HTTP/1.1 302 Found\nLocation: {location}")
    with pytest.raises(RefusedError):
        fetcher.fetch("https://example.org/")
    assert set(server.connected) == {PUBLIC}
    assert all(b"Host: example.org" in request for request in server.seen)


def test_redirects_in_a_circle_end(server: StandIn, fetcher: Fetcher) -> None:
    server.answers["/"] = says("HTTP/1.1 302 Found\nLocation: /")
    with pytest.raises(RefusedError, match="redirects"):
        fetcher.fetch("https://example.org/")
    assert len(server.seen) == LIMITS.url_redirects + 1


@pytest.mark.parametrize(
    "head",
    ["HTTP/1.1 200 OK\nContent-Length: 200000", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\nContent-Length: 1e9"],
)
def test_too_many_bytes_are_refused_whatever_the_header_says(
    server: StandIn, fetcher: Fetcher, head: str
) -> None:
    server.answers["/"] = says(head, bytes(200_000))
    with pytest.raises(TooLargeError):
        fetcher.fetch("https://example.org/")


@pytest.mark.parametrize(
    "head",
    [
        *("HTTP/1.1 404 Not Found", "HTTP/1.1 500 Oh", "HTTP/1.1 204 Nothing", "nonsense", "HTTP/9 9", ""),
        *(
            "HTTP/1.1 302 Found",
            "HTTP/1.1 200 OK\nContent-Encoding: gzip",
            "HTTP/1.1 200 OK\nContent-Length: 9",
        ),
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nzz",
    ],
)
def test_answers_without_a_photo_are_refused(server: StandIn, fetcher: Fetcher, head: str) -> None:
    server.answers["/"] = says(head, b"abc")
    with pytest.raises(RefusedError):
        fetcher.fetch("https://example.org/")


@pytest.mark.parametrize("where", ["head", "body"])
def test_bytes_that_drip_in_end_at_the_time_limit(server: StandIn, fetcher: Fetcher, where: str) -> None:
    fetcher._limits = Limits(url_seconds=0.4)

    def drip(tls: socket.socket) -> None:
        tls.sendall(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if where == "body" else b"X: "))
        for _ in range(200):
            tls.sendall(b"a")
            time.sleep(0.02)

    server.answers["/"] = drip
    started_s = time.monotonic()
    with pytest.raises(RefusedError, match="too long"):
        fetcher.fetch("https://example.org/")
    assert time.monotonic() - started_s < 2.0


def test_a_handshake_that_never_ends_is_cut() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        fetcher = Fetcher(
            Limits(url_seconds=0.3),
            resolve=lambda _: [PUBLIC],
            connect=lambda _, timeout_s: socket.create_connection(listener.getsockname(), timeout_s),
        )
        with pytest.raises(RefusedError, match="too long"):
            fetcher.fetch("https://example.org/")


def test_a_client_that_leaves_ends_it(server: StandIn, fetcher: Fetcher) -> None:
    server.answers["/"] = says("HTTP/1.1 200 OK", bytes(1000))
    with pytest.raises(CancelledError):
        fetcher.fetch("https://example.org/", is_cancelled=lambda: True)


def test_proxies_of_the_environment_are_not_asked(
    server: StandIn, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    server.answers["/"] = says("HTTP/1.1 200 OK", b"photo")
    assert fetcher.fetch("https://example.org/").content == b"photo"
