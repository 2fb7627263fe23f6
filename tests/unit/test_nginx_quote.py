"""What nginx_quote writes, a real nginx reads back the same."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given, settings
from hypothesis import strategies as st

from filter_plugins.credentials import nginx_quote

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NASTY = st.lists(
    st.sampled_from(["\\", '"', "'", "$", "$host", "${x}", " ", ";", "{", "}", "#", "\n", "\r", "\t", "\\n", "é"])
).map("".join)


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self.path))


def _answers(connection: _Connection) -> bool:
    """Whether nginx listens by now; the file of the socket is there a moment before."""
    try:
        connection.connect()
    except OSError:
        return False
    return True


@contextmanager
def nginx_serving(locations: str) -> Iterator[_Connection]:
    """A throw-away nginx on a unix socket, with these location blocks."""
    if NGINX is None:
        pytest.fail("nginx is needed for this test: install it (apt install nginx-light)")
    with tempfile.TemporaryDirectory(prefix="nq") as name:
        where = Path(name)
        temporary = "".join(
            f"{kind}_temp_path {where}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (where / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {where}/pid; error_log {where}/error.log;\n"
            f'events {{}}\nhttp {{ access_log off; {temporary} geo $a_dollar {{ default "$"; }}\n'
            f"server {{ listen unix:{where}/socket;\n{locations}\n}} }}\n",
            encoding="utf-8",
            newline="",
        )
        command = [NGINX, "-p", name, "-e", f"{where}/error.log", "-c", f"{where}/nginx.conf"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            try:
                until = time.monotonic() + 10
                connection = _Connection(where / "socket")
                while not _answers(connection):
                    assert process.poll() is None, (where / "error.log").read_text(errors="replace")
                    assert time.monotonic() < until, "nginx did not come up in 10 s"
                    time.sleep(0.01)
                yield connection
                connection.close()
            finally:
                process.terminate()


@settings(max_examples=6)
@given(st.lists(TEXTS | NASTY, min_size=20, max_size=60))
def test_every_text_is_read_back_by_nginx(texts: list[str]) -> None:
    locations = "\n".join(
        f"location = /{number} {{ return 200 {nginx_quote(text, dollar='a_dollar')}; }}"
        for number, text in enumerate(texts)
    )
    with nginx_serving(locations) as connection:
        for number, text in enumerate(texts):
            connection.request("GET", f"/{number}")
            assert connection.getresponse().read().decode() == text


def test_the_longest_text_is_read_back_by_nginx() -> None:
    text = "x" * 4000
    with nginx_serving(f"location / {{ return 200 {nginx_quote(text)}; }}") as connection:
        connection.request("GET", "/")
        assert connection.getresponse().read().decode() == text


@pytest.mark.parametrize(
    ("text", "says"),
    [("a$b", "has no escape for it"), ("a\0b", "NUL"), ("é" * 2001, "4000 bytes at most"), ("\ud800", "surrogate")],
)
def test_what_nginx_cannot_read_is_refused(text: str, says: str) -> None:
    with pytest.raises(AnsibleFilterError, match=says):
        nginx_quote(text)
