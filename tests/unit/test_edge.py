"""What the front door refuses in its variables: one sentence that names the variable, and none for what works."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from filter_plugins.edge import edge_problems, nginx_networks
from tests.unit.test_nginx_quote import nginx_serving

ROLE = Path(__file__).resolve().parents[2] / "roles/flower"
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text())

NETWORKS = st.ip_addresses().map(str) | st.one_of(
    st.builds(
        lambda ip, bits: ipaddress.ip_network((ip, bits), strict=False), st.ip_addresses(v=4), st.integers(1, 32)
    ),
    st.builds(
        lambda ip, bits: ipaddress.ip_network((ip, bits), strict=False), st.ip_addresses(v=6), st.integers(1, 128)
    ),
).map(str)


def problems(**changes: Any) -> list[str]:
    return edge_problems({**DEFAULTS, **changes})


def test_the_defaults_have_no_problem() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"flower_allow": ["192.0.2.0/24", "192.0.2.7", "2001:db8::/32", "::1", "0.0.0.0/0"]},
        {"flower_allow": "192.0.2.0/24"},
        {"flower_proxy_protocol": True, "flower_trusted_proxies": ["10.0.0.1"]},
        {"flower_proxy_protocol": "false"},
        {"flower_auth": "header", "flower_header_proxies": ["10.0.0.1"]},
        {"flower_auth": "header", "flower_proxy": "none"},
        {"flower_header_user": "X-Auth-Request-User"},
        {"flower_max_body": "512k"},
        {"flower_max_body": 1048576},
        {"flower_content_security_policy": ""},
        {"flower_content_security_policy": "default-src 'self'; script-src 'self' https://a.example.org 'nonce-a+/='"},
    ],
)
def test_what_works_has_no_problem(changes: dict[str, Any]) -> None:
    assert problems(**changes) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        *(
            ({name: [bad]}, f"{name}: '{bad}' is not an address or a network")
            for name in ("flower_allow", "flower_trusted_proxies", "flower_header_proxies", "flower_metrics_allow")
            for bad in ("10.0.0", "10.0.0.256", "example.org", "10.0.0.0/33", "all", "fe80::1%eth0", "1; deny all")
        ),
        (
            {"flower_allow": ["192.0.2.7/24"]},
            "'192.0.2.7/24' is not an address or a network (did you mean 192.0.2.0/24?)",
        ),
        ({"flower_trusted_proxies": ["0.0.0.0/0"]}, "flower_trusted_proxies: 0.0.0.0/0 is everybody"),
        ({"flower_header_proxies": ["::/0"]}, "flower_header_proxies: ::/0 is everybody"),
        ({"flower_proxy_protocol": True}, "flower_proxy_protocol: nobody is trusted"),
        ({"flower_proxy_protocol": "yes"}, "flower_trusted_proxies"),
        ({"flower_auth": "header"}, "flower_header_proxies: nobody could sign in"),
        ({"flower_header_user": "Remote User"}, "flower_header_user: 'Remote User' cannot name a header"),
        ({"flower_header_user": "Remote_User"}, "flower_header_user"),
        ({"flower_header_groups": ""}, "flower_header_groups: '' cannot name a header"),
        ({"flower_header_email": "x: y\nz"}, "flower_header_email"),
        ({"flower_header_user": "Cookie"}, "flower_header_user: Cookie has a meaning of its own"),
        ({"flower_header_user": "x-forwarded-for"}, "flower_header_user"),
        ({"flower_header_email": "remote-user"}, "flower_header_email: remote-user is flower_header_user already"),
        *(
            ({"flower_max_body": bad}, f"flower_max_body: '{bad}' is not a size")
            for bad in ("0", "1 MB", "1m;", "-1", "1.5m", "1t")
        ),
        ({"flower_content_security_policy": "default-src 'self';\nscript-src 'none'"}, "policy: it has line"),
        ({"flower_content_security_policy": "default-src “self”"}, "policy: it has line"),
        ({"flower_content_security_policy": 'default-src "self"'}, 'policy: it has ", \\ or $'),
        ({"flower_content_security_policy": "report-uri /$host"}, "flower_content_security_policy"),
        ({"flower_content_security_policy": "x" * 3001}, "flower_content_security_policy: it is 3001 bytes long"),
    ],
)
def test_a_mistake_gives_one_sentence(changes: dict[str, Any], says: str) -> None:
    found = problems(**changes)
    assert len(found) == 1
    assert says in found[0]
    assert found[0].endswith(".")
    assert "\n" not in found[0]


def test_all_problems_are_said_at_once() -> None:
    assert len(problems(flower_allow=["a", "b"], flower_max_body="lots", flower_proxy_protocol=True)) == 4


def test_networks_are_written_once_and_in_order() -> None:
    written = nginx_networks(["192.0.2.7", "10.0.0.0/8", "::1"], ["192.0.2.7/32", "::1/128", "127.0.0.1"], "", None)
    assert written == ["10.0.0.0/8", "127.0.0.1/32", "192.0.2.7/32", "::1/128"]


def test_what_is_no_network_is_not_written() -> None:
    with pytest.raises(AnsibleFilterError, match="nginx_networks"):
        nginx_networks(["10.0.0.0/8", "1; deny all"])


@given(st.lists(NETWORKS, max_size=5), st.text(max_size=20))
def test_what_is_no_problem_can_be_written(networks: list[str], other: str) -> None:
    asked = [*networks, other]
    if not problems(flower_allow=asked):
        assert {ipaddress.ip_network(one) for one in nginx_networks(asked)} == {
            ipaddress.ip_network(one.strip()) for one in asked
        }


def test_nginx_reads_what_is_written() -> None:
    networks = nginx_networks(["192.0.2.7", "10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "::/0", "::ffff:192.0.2.1"])
    rules = "\n".join(f"allow {network}; set_real_ip_from {network};" for network in networks)
    with nginx_serving(f"{rules}\nlocation / {{ return 200 fine; }}") as connection:
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"fine"
