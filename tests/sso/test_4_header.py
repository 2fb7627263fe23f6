"""Behind a proxy that says who people are: believed from the proxies that are named, and from nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hosts import Host
from tests.sso.conftest import Apply, Audit

OPERATOR = {"Remote-User": "ada", "Remote-Email": "ada@example.org", "Remote-Groups": "staff,celery-operators"}
VIEWER = {"Remote-User": "vera", "Remote-Email": "vera@example.org", "Remote-Groups": "staff"}
POST = {"X-Requested-With": "XMLHttpRequest"}


@pytest.fixture(scope="module")
def behind_a_proxy(apply: Apply, variables: dict[str, Any], gateway: str) -> dict[str, Any]:
    """The host with this machine as the proxy that is believed."""
    headers = {
        "flower_auth": "header",
        "flower_header_proxies": [gateway],
        "flower_access": variables["flower_access"],
    }
    apply(headers).well()
    assert apply(headers).well().changed_tasks == []
    return headers


@pytest.mark.usefixtures("behind_a_proxy")
def test_the_proxy_is_believed(host: Host) -> None:
    assert "celery-a@" in host.get("/workers", VIEWER).text
    assert host.get("/workers", {**VIEWER, "Remote-Email": "vera@elsewhere.example"}).status in (302, 401, 403)
    assert host.get("/workers", {}).status in (302, 401)


@pytest.mark.usefixtures("behind_a_proxy")
def test_nobody_else_is_believed(host: Host) -> None:
    """From the host itself, which is not among the proxies."""
    script = (
        "import json, ssl, urllib.request as u, urllib.error\n"
        "q = u.Request('https://127.0.0.1/api/workers', headers={'Host': 'flower.test', 'Remote-User': 'ada',"
        " 'Remote-Email': 'ada@example.org', 'Remote-Groups': 'celery-operators', 'Remote_User': 'ada'})\n"
        "try:\n    print(u.urlopen(q, context=ssl._create_unverified_context()).status)\n"
        "except urllib.error.HTTPError as e:\n    print(e.code)\n"
    )
    assert host.python(script) == 401


@pytest.mark.usefixtures("behind_a_proxy")
def test_roles_by_header(host: Host, audit: Audit) -> None:
    """Without the page's token nobody changes anything; with a good one the operator can."""
    token = host.get("/workers", VIEWER).headers["Set-Cookie"].split("_xsrf=")[1].split(";")[0].strip('"')
    sent = {**POST, "X-XSRFToken": token, "Cookie": f'_xsrf="{token}"', "Sec-Fetch-Site": "same-origin"}
    path = "/api/worker/pool/grow/nobody@nowhere"
    assert host.post(path, {**VIEWER, **sent}).status == 403
    assert host.post(path, {**OPERATOR, **POST, "Sec-Fetch-Site": "same-origin"}).status == 403, "no token"
    assert host.post(path, {**OPERATOR, **sent}).status == 404, "Flower knows no such worker"
    line = audit.line("failed")
    assert (line["user"], line["role"], line["via"]) == ("ada", "operator", "header")
