"""A list from elsewhere leads to the public internet alone, in bounded time; zips are read in bounded pieces."""

from __future__ import annotations

import http.server
import os
import socket
import threading
import zipfile
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import pytest

from ddpm_core.data import bounds, collection, download, reach
from ddpm_core.data.collection import open_collection
from ddpm_core.data.reach import is_public
from ddpm_core.errors import InvalidInput


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    ],
)  # fmt: skip
def test_what_is_not_of_the_public_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_what_is(address: str) -> None:
    assert is_public(address)


class Inner(http.server.BaseHTTPRequestHandler):
    """Tells a secret, or leads to where it is told."""

    asked: list[str]
    leads: str

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header("Location", self.leads)
        self.end_headers()
        self.wfile.write(b"secret")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def inner() -> Iterator[tuple[type[Inner], int]]:
    handler = type("Here", (Inner,), {"asked": [], "leads": "http://127.0.0.1:9/"})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield handler, server.server_port
        server.shutdown()


def fetch(folder: Path, address: str, **more: bool) -> tuple[list[bytes], list[str]]:
    files, failures = download.download([address], folder / "files", lambda *_: None, **more)
    return [(folder / "files" / name).read_bytes() for name in files.values()], list(failures.values())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"])
def test_loopback_is_not_asked_however_it_is_written(inner, host: str, tmp_path: Path) -> None:
    handler, port = inner

    files, (why,) = fetch(tmp_path, f"http://{host}:{port}/")

    assert (files, handler.asked) == ([], [])
    assert "not on the public internet; --allow-private" in why


def test_it_is_asked_by_those_who_mean_it(inner, tmp_path: Path) -> None:
    assert fetch(tmp_path, f"http://127.0.0.1:{inner[1]}/", allow_private=True) == ([b"secret"], [])


def test_each_redirect_is_checked(inner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler, port = inner
    handler.leads = f"http://127.0.0.2:{port}/inside"
    monkeypatch.setattr(reach, "is_public", lambda address: address == "127.0.0.1")

    files, (why,) = fetch(tmp_path, f"http://127.0.0.1:{port}/away")

    assert (files, handler.asked) == ([], ["/away"])
    assert "127.0.0.2 is not on the public internet" in why


@pytest.mark.parametrize("leads", ["file:///etc/passwd", "ftp://127.0.0.1:9/x", "data:,x"])
def test_redirects_lead_to_http_alone(inner, leads: str, tmp_path: Path) -> None:
    inner[0].leads = leads
    files, failures = fetch(tmp_path, f"http://127.0.0.1:{inner[1]}/away", allow_private=True)
    assert files == []
    assert len(failures) == 1


def test_a_name_of_which_one_address_is_private_is_not_asked(inner, tmp_path: Path, monkeypatch) -> None:
    handler, port = inner
    real = socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)
    public = [(*real[0][:4], ("1.1.1.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: public + real)

    files, _ = fetch(tmp_path, f"http://two-faced.example:{port}/")

    assert (files, handler.asked) == ([], [])


def test_the_address_that_was_checked_is_the_one_that_is_asked(inner, tmp_path: Path, monkeypatch) -> None:
    """A name that leads elsewhere when it is asked for again is not asked for again."""
    port = inner[1]
    monkeypatch.setattr(reach, "is_public", lambda _: True)
    answers = [socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers.pop())

    assert fetch(tmp_path, f"http://rebound.example:{port}/") == ([b"secret"], [])


def test_a_server_that_drips_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TIMEOUT", 0.1)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not over.wait(0.02):
                    try:
                        client.sendall(b"x")
                    except OSError:
                        return

        dripping = threading.Thread(target=drip)
        dripping.start()
        files, (why,) = fetch(tmp_path, f"http://127.0.0.1:{server.getsockname()[1]}/", allow_private=True)
        over.set()
        dripping.join()
    assert files == []
    assert why == "took longer than 0.4 seconds"


def test_a_zip_that_makes_very_much_of_few_bytes_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(bounds, "MAX_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(10_000_000))

    with pytest.raises(InvalidInput, match="unpacks to more than 100 times its size"):
        open_collection(tmp_path / "bomb.zip")


def test_members_of_a_zip_that_lie_one_over_the_other_are_refused(tmp_path: Path) -> None:
    picture = os.urandom(5000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w") as file:
        file.writestr("0.png", picture)
        first = file.getinfo("0.png")
        for number in range(1, 9):
            again = copy(first)
            again.filename = f"{number}.png"
            file.filelist.append(again)

    with pytest.raises(InvalidInput, match="its members lie one over the other"):
        open_collection(tmp_path / "bomb.zip")


def test_of_one_source_a_bounded_number_of_pictures_is_taken(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(bounds, "MAX_MEMBERS", 2)
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as file:
        for number in range(3):
            file.writestr(f"{number}.png", b"")

    with pytest.raises(InvalidInput, match="it has 3 members, and at most 2 are taken"):
        open_collection(tmp_path / "many.zip")
    with pytest.raises(OSError, match="it has 3 members"):
        download.download(["http://a/", "http://b/", "http://c/"], tmp_path / "to", lambda *_: None)


@pytest.mark.parametrize("packed", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_of_a_zip_is_read_to_the_limit_alone(tmp_path: Path, packed: int, monkeypatch) -> None:
    monkeypatch.setattr(collection, "MAX_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", packed) as file:
        file.writestr("a.png", bytes(20_000))
    bomb = open_collection(tmp_path / "bomb.zip")

    with pytest.raises(OSError, match=r"larger than|is not taken"):
        bomb.read("a.png")
