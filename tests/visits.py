"""Requests made on the host itself, from any address of 127.0.0.0/8: as many clients and proxies as a test needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from tests.hosts import Host

VISIT = """
import http.client, json, socket, ssl, sys
server_name, asked = json.load(sys.stdin)
context = ssl._create_unverified_context()
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.create_connection(("127.0.0.1", asked["port"]), 20, (asked["source"], 0))
        self.sock.sendall(asked["before"].encode())
        if asked["tls"]:
            self.sock = context.wrap_socket(self.sock, server_hostname=server_name)
answers = []
connection = Connection(server_name)
for _ in range(asked["most"]):
    try:
        headers = {"Host": server_name, **asked["headers"]}
        connection.request(asked["method"], asked["path"], asked["body"].encode() or None, headers)
        response = connection.getresponse()
        answers.append([response.status, dict(response.getheaders()), response.read().decode("utf-8", "replace")])
    except (OSError, http.client.HTTPException) as error:
        answers.append([0, {}, repr(error)])
        connection.close()
    if answers[-1][0] == asked["until"]:
        break
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Visit:
    """A request, sent again until an answer has the status `until`, and `most` times at most."""

    path: str = "/"
    source: str = "127.0.0.1"
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    before: str = ""
    """What is said first on the connection, before TLS: a line of the PROXY protocol."""
    port: int = 443
    tls: bool = True
    most: int = 1
    until: int = -1


@dataclass(frozen=True)
class Seen:
    """What came back; status 0 is a connection that was closed without an answer."""

    status: int
    headers: dict[str, str]
    text: str


def visit(host: Host, visit: Visit) -> list[Seen]:
    """Go there from the host itself; one answer for each request."""
    return [Seen(*answer) for answer in host.python(VISIT, [host.server_name, asdict(visit)])]


def log_lines(host: Host, marked: str, instance: str = "main") -> list[str]:
    """Lines of the instance's access log with this text in them."""
    lines = host.run("cat", f"/var/log/nginx/flower-{instance}.access.log").splitlines()
    return [line for line in lines if marked in line]
