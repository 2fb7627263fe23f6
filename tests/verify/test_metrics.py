"""Flower and the collector leave their metrics open to everybody; the front door does not."""

from __future__ import annotations

import pytest

from tests.hosts import USER_NAME, Host, basic

#: the path, and what is in the answer
METRICS = [("/metrics", "flower_events_total"), ("/collector/metrics", "celery_workers_online")]


@pytest.mark.parametrize(("path", "text"), METRICS)
def test_metrics_are_closed_to_outsiders(host: Host, path: str, text: str) -> None:
    answer = host.get(path)
    assert answer.status in (401, 403)
    assert text not in answer.text


@pytest.mark.parametrize(("path", "text"), METRICS)
def test_metrics_are_closed_by_address_even_with_a_login(
    host: Host, secrets: dict[str, str], path: str, text: str
) -> None:
    answer = host.get(path, basic(USER_NAME, secrets["user_password"]))
    assert answer.status == 403
    assert text not in answer.text


@pytest.mark.parametrize(("path", "text"), METRICS)
def test_metrics_are_open_to_the_host_itself(host: Host, path: str, text: str) -> None:
    """127.0.0.1 is in flower_metrics_allow by default."""
    script = """
import http.client, json, socket, ssl, sys
name, path = json.load(sys.stdin)
class Connection(http.client.HTTPSConnection):
    def connect(self):
        self.sock = self._context.wrap_socket(socket.create_connection(("127.0.0.1", 443), 30), server_hostname=name)
context = ssl.create_default_context(cafile="/etc/flower/main/tls/certificate.pem")
connection = Connection(name, 443, context=context)
connection.request("GET", path)
answer = connection.getresponse()
print(json.dumps([answer.status, answer.read().decode()]))
"""
    status, answered = host.python(script, [host.server_name, path])
    assert status == 200
    assert text in answered
