"""Flower leaves /metrics open to everybody; the front door does not."""

from __future__ import annotations

from tests.hosts import USER_NAME, Host, basic


def test_metrics_are_closed_to_outsiders(host: Host) -> None:
    answer = host.get("/metrics")
    assert answer.status in (401, 403)
    assert "flower_" not in answer.text


def test_metrics_are_closed_by_address_even_with_a_login(host: Host, secrets: dict[str, str]) -> None:
    assert host.get("/metrics", basic(USER_NAME, secrets["user_password"])).status == 403


def test_metrics_are_open_to_the_host_itself(host: Host) -> None:
    """127.0.0.1 is in flower_metrics_allow by default."""
    script = """
import http.client, json, socket, ssl, sys
name = json.load(sys.stdin)
class Connection(http.client.HTTPSConnection):
    def connect(self):
        self.sock = self._context.wrap_socket(socket.create_connection(("127.0.0.1", 443), 30), server_hostname=name)
context = ssl.create_default_context(cafile="/etc/flower/main/tls/certificate.pem")
connection = Connection(name, 443, context=context)
connection.request("GET", "/metrics")
answer = connection.getresponse()
print(json.dumps([answer.status, answer.read().decode()]))
"""
    status, text = host.python(script, host.server_name)
    assert status == 200
    assert "flower_events_total" in text
