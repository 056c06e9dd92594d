"""What a cell may name: forty that it may not, none of which reaches a socket or a file; what is permitted is read."""

import http.server
import io
import socket
import sys
import threading

import numpy as np
import pytest
from PIL import Image

import mmfuse.data.files.locations as locations
from mmfuse.data.files.locations import absent_hint, check_urls, is_inner, place, read_location, refusal
from mmfuse.data.files.stores import FetchError
from mmfuse.data.readers.documents import read_report
from mmfuse.data.readers.images import ImageError, content_hash, read_image, read_spacing
from mmfuse.types import MmfuseError

PIXELS = np.zeros((4, 4, 3), np.uint8)


def png():
    data = io.BytesIO()
    Image.fromarray(PIXELS).save(data, "PNG")
    return data.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """A picture at every path; /to/URL redirects there. `asked` has the paths that were asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.port = [], self.server_address[1]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        body = png()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    made = Server()
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


WATCHED = {"events": None}


@pytest.fixture(scope="module", autouse=True)
def _audit_hook():
    """Connections and name look-ups of the process, and files that are opened, while a test wants to know."""

    def hook(event, args):
        if WATCHED["events"] is not None and (
            event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen")
            or (event == "open" and "marker" in str(args[0]))
        ):
            WATCHED["events"].append((event, str(args)))

    sys.addaudithook(hook)  # cannot be taken away: afterwards it does nothing


@pytest.fixture
def watched():
    WATCHED["events"] = []
    yield WATCHED["events"]
    WATCHED["events"] = None


# Of each, whether it is refused although http and https are permitted to any host.
HOSTILE = {
    "a reference file": "reference://x::file://MARKER",
    "a chain of http": "simplecache::http://127.0.0.1:PORT/x",
    "a file cache": "filecache::http://127.0.0.1:PORT/x",
    "a block cache": "blockcache::http://127.0.0.1:PORT/x",
    "a tar of http": "tar://x::http://127.0.0.1:PORT/x.tar",
    "a zip of a file": "zip://x::file://MARKER",
    "a zip of https": "zip://x::https://example.com/x.zip",
    "libarchive": "libarchive://x::file://MARKER",
    "a chain after a good URL": "https://example.com/a.png::file://MARKER",
    "a chain without slashes": "https://example.com/dir::reference",
    "memory": "memory://x",
    "data": "data://image/png;base64,AAAA",
    "github": "github://org:repo@main/x.png",
    "git": "git://MARKER",
    "ssh": "ssh://127.0.0.1:PORT/x",
    "sftp": "sftp://user@127.0.0.1:PORT/x",
    "ftp": "ftp://127.0.0.1:PORT/x",
    "smb": "smb://127.0.0.1:PORT/share/x",
    "webhdfs": "webhdfs://127.0.0.1:PORT/x",
    "dir": "dir://x",
    "local": "local://MARKER",
    "a file": "file://MARKER",
    "a file of another host": "file://example.com/etc/passwd",
    "jupyter": "jupyter://127.0.0.1:PORT/x",
    "a bucket": "s3://bucket/x.png",
    "no protocol": "://127.0.0.1:PORT/x",
    "a protocol in a path": "pictures/http://127.0.0.1:PORT/x",
    "loopback": "http://127.0.0.1:PORT/x",
    "loopback in capitals": "HTTP://LOCALHOST:PORT/x",
    "localhost with a dot": "http://localhost.:PORT/x",
    "below localhost": "http://images.localhost:PORT/x",
    "a decimal address": "http://2130706433:PORT/x",
    "a hexadecimal address": "http://0x7f000001:PORT/x",
    "an octal address": "http://0177.0.0.1:PORT/x",
    "a short address": "http://127.1:PORT/x",
    "zero": "http://0.0.0.0:PORT/x",
    "IPv6 loopback": "http://[0:0:0:0:0:0:0:1]:PORT/x",
    "IPv4 in IPv6": "http://[0:0:0:0:0:ffff:7f00:1]:PORT/x",
    "IPv4 by NAT64": "http://[64:ff9b:0:0:0:0:7f00:1]:PORT/x",
    "IPv4 by 6to4": "http://[2002:7f00:1:0:0:0:0:1]:PORT/x",
    "link-local": "http://169.254.169.254/latest/meta-data/",
    "private": "http://10.0.0.1/x",
    "shared by carriers": "http://100.64.0.1/x",
    "a cloud's metadata": "http://192.0.0.192/opc/v1/",
    "a relay of 6to4": "http://192.88.99.1/x",
    "a letter that becomes another": "http://LOCALHO\u017fT:PORT/x",
    "digits of another script": "http://127.0.0.1:\u0661/x",
    "a host of a page": "http://" + "a" * 70_000 + "/x",
    "a name and a password": "http://example.com:secret@127.0.0.1:PORT/x",
    "a backslash": "http://example.com\\@127.0.0.1:PORT/x",
    "a line break": "http://example.com\r\nHost: 127.0.0.1/x",
    "a percent sign": "http://%31%32%37.0.0.1:PORT/x",
    "letters that become others": "http://127。0。0。1:PORT/x",
    "a zone": "http://[fe80:0:0:0:0:0:0:1%25lo]:PORT/x",
}


@pytest.fixture
def hostile(tmp_path, server):
    marker = tmp_path / "marker.json"
    marker.write_text('{"refs": {"x": "base64:AAAA"}}')
    return {
        name: cell.replace("MARKER", str(marker)).replace("PORT", str(server.port)) for name, cell in HOSTILE.items()
    }


@pytest.mark.parametrize("urls", [(), ("https", "http")], ids=["none", "http"])
def test_no_hostile_cell_is_opened(hostile, server, watched, urls):
    assert len(hostile) >= 40
    for name, cell in hostile.items():
        for read in (read_image, read_spacing, content_hash):
            with pytest.raises(ImageError) as error:
                read(cell, urls=urls)
            message = str(error.value)
            assert "\n" not in message, name
            assert len(message) < 200, name
            assert "marker" not in message, name
            assert "secret" not in message, name
        with pytest.raises(locations.LocationError):
            read_location(cell, 100, urls)
    assert watched == []
    assert server.asked == []


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("https://images.example/a.png", "image.urls: [https] does, or [https://images.example]"),
        ("https://images.example:8443/a.png", "[https://images.example:8443]"),
        ("s3://bucket/a.png", "image.urls: [s3] does, or [s3://bucket]"),
        ("http://10.0.0.1/a.png", "private network: image.urls may name it"),
    ],
)
def test_the_reason_names_the_key(cell, words):
    assert words in (refusal(cell, ()) or "")


@pytest.mark.parametrize(
    ("urls", "permitted", "refused"),
    [
        (["https"], ["https://a.example/x", "https://a.example:99/x", "HTTPS://A.example/x"], ["http://a.example/x"]),
        (["s3"], ["s3://bucket/x/../y", "s3://b_1/x"], ["gs://bucket/x"]),
        (["s3://one"], ["s3://one/x"], ["s3://two/x", "s3://one.two/x"]),
        (
            ["https://a.example"],
            ["https://a.example/x", "https://A.EXAMPLE:443/x", "https://a.example./x"],
            ["https://b.a.example/x", "https://a.example:8443/x", "https://a.example.org/x", "http://a.example/x"],
        ),
        (["https://a.example:8443"], ["https://a.example:8443/x"], ["https://a.example/x"]),
        (["http://127.0.0.1:80"], ["http://127.0.0.1/x"], ["http://127.0.0.2/x", "http://127.0.0.1:81/x"]),
        (["http://[0:0:0:0:0:0:0:1]"], ["http://[0:0:0:0:0:0:0:1]/x"], ["http://[0:0:0:0:0:0:0:2]/x"]),
        (["file"], ["file:///data/x"], ["file://host/x", "local:///data/x"]),
        (
            ["s3://bucket/films"],  # as a root is
            ["s3://bucket/films/x", "s3://bucket/films/a b.png"],
            ["s3://bucket/other", "s3://bucket/films/../x", "s3://bucket/films/%2e%2e/x", "s3://bucket/filmstrip/x"],
        ),
        (["memory://films"], ["memory://films/x"], ["memory://films/x::zip", "memory://other/x"]),
        (["simplecache::s3://b/films"], ["simplecache::s3://b/films/x"], ["simplecache::s3://b/other"]),
    ],
)
def test_what_is_named_is_permitted_and_no_more(urls, permitted, refused):
    assert [url for url in permitted if refusal(url, urls)] == []
    assert [url for url in refused if not refusal(url, urls)] == []


@pytest.mark.parametrize(
    "entry",
    [
        *(
            "reference",
            "simplecache",
            "zip",
            "memory",
            "data",
            "local",
            "ftp",
            "",
            "https://",
            "https://a/b",
            "s3://a::b",
        ),
        *(
            "https://a b",
            "https://u@a",
            "https://2130706433",
            "https://*.example",
            "HTTPS",
            "file://host",
            "https://a:b",
        ),
    ],
)
def test_entries_that_name_nothing_are_refused(entry):
    with pytest.raises(MmfuseError, match=r"m\.yaml: image\.urls: "):
        check_urls([entry], "m.yaml")


def test_legal_entries():
    check_urls(["https", "http", "s3", "gs", "az", "abfs", "hf", "file"], "m")
    check_urls(["https://a.example", "http://localhost:8000", "s3://bucket_1", "http://[fe80:0:0:0:0:0:0:1]:80"], "m")


def test_a_named_host_is_read(server):
    here = f"http://127.0.0.1:{server.port}"
    assert np.array_equal(read_image(f"{here}/a.png", urls=[here]), PIXELS)
    assert np.array_equal(read_image(f"{here}/films/a.png", urls=[f"{here}/films"]), PIXELS)
    assert content_hash(f"{here}/a.png", urls=[here]) == content_hash(png())
    assert np.array_equal(
        read_image(f"http://localhost:{server.port}/b.png", urls=[f"http://localhost:{server.port}"]), PIXELS
    )


def test_a_redirect_is_asked_again(server):
    other = Server()
    threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
    here, there = (f"http://127.0.0.1:{one.port}" for one in (server, other))
    try:
        assert np.array_equal(read_image(f"{here}/to/{there}/x", urls=[here, there]), PIXELS)
        other.asked.clear()
        for target in (f"{there}/x", f"http://localhost:{other.port}/x", f"http://2130706433:{other.port}/x"):
            for urls in ([here], [here, "http"]):
                with pytest.raises(ImageError) as error:
                    read_image(f"{here}/to/{target}", urls=urls)
                assert not isinstance(error.value.__cause__, FetchError)  # or it would be tried again
                assert "image.urls" in str(error.value) or "can be permitted" in str(error.value)
        with pytest.raises(ImageError):
            read_image(f"{here}/to/file:///etc/passwd", urls=[here, "file", "http"])
        assert other.asked == []
    finally:
        other.shutdown()
        other.server_close()


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1", "::ffff:192.168.0.1"]
)
def test_a_name_that_a_server_gives_a_private_address_is_refused(server, watched, monkeypatch, address):
    """Also where it was another one when it was looked up before: what is connected to is what is checked."""
    asked = []

    def lookup(host, port, *args, **kwargs):
        asked.append(host)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port, 0, 0) if ":" in address else (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(ImageError, match="has an address of this machine or of a private network"):
        read_image(f"http://images.example:{server.port}/x", urls=["http"])
    assert asked
    assert [event for event, _ in watched if event == "socket.connect"] == []
    assert server.asked == []
    if address == "127.0.0.1":
        named = f"http://images.example:{server.port}"
        assert np.array_equal(read_image(f"{named}/x", urls=[named]), PIXELS)


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700:4700:0:0:0:0:1111", "example.com", "127.0.0.1.example.com"])
def test_public_hosts(host):
    assert not is_inner(host)


def test_places():
    assert place("a.png", "/root") == "/root/a.png"
    assert place("../a.png", "/root") == "/root/../a.png"
    assert place("/abs/a.png", "s3://bucket") == "/abs/a.png"
    assert place("https://a.example/b.png", "/root") == "https://a.example/b.png"
    assert place("a.png", "s3://bucket") == "s3://bucket/a.png"


def test_of_a_file_that_is_not_there_the_likely_cause_is_told(tmp_path):
    for name in ("a.jpg", "b.PNG", "c.jpeg"):
        (tmp_path / name).write_bytes(b"")
    assert absent_hint(f"{tmp_path}/a.JPG") == " (there is a.jpg)"
    assert absent_hint(f"{tmp_path}/b.png") == " (there is b.PNG)"
    assert absent_hint(f"{tmp_path}/c.jpg") == " (there is c.jpeg)"
    assert absent_hint(f"{tmp_path}/d.jpg") == ""
    for cell in ("C:\\films\\a.jpg", "films\\a.jpg"):
        with pytest.raises(ImageError, match=r"no such file .*backslashes"):
            read_image(f"{tmp_path}/{cell}")


@pytest.mark.parametrize(
    "text",
    [
        '<?xml version="1.0"?><r href="URL" xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="URL"/>no</r>',
        '<html><body><img src="URL"><iframe src="URL"></iframe><link rel="import" href="URL">no</body></html>',
        '{"$ref": "URL", "report": "no"}',
        '{"report": "URL"}',
        '<?xml-stylesheet href="URL"?><report><text>no</text></report>',
        "URL",
        r"{\rtf1{\field{\*\fldinst{INCLUDETEXT URL}}}no}",
    ],
)
def test_references_within_reports_are_text(tmp_path, server, watched, text):
    for url in (f"http://127.0.0.1:{server.port}/x", f"file://{tmp_path}/marker"):
        path = tmp_path / "report.txt"
        path.write_text(text.replace("URL", url))
        read_report(path)
    assert watched == []
    assert server.asked == []
