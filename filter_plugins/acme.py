"""What ``flower_tls: letsencrypt`` asks of its variables, and what certbot said when it failed, in one sentence.

Pure functions that run on the controller. No sentence holds a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from .preflight import _valid_from_until, is_true

# No public authority issues for these: RFC 6761, RFC 6762, RFC 8375, `internal` as ICANN reserves it, and usual habits.
_PRIVATE_DOMAINS = (
    "local", "localhost", "localdomain", "internal", "intranet", "lan", "home", "corp", "private", "test", "example",
    "invalid", "onion", "home.arpa",
)  # fmt: skip
_DEFAULTS: dict[str, Any] = {
    "flower_acme_email": "",
    "flower_acme_agree_tos": False,
    "flower_acme_staging": False,
    "flower_acme_directory": "",
    "flower_acme_ca_bundle": "",
    "flower_acme_eab_kid": "",
    "flower_acme_eab_hmac_key": "",
}


def _text(variables: Mapping[str, Any], name: str) -> str:
    value = variables.get(name)
    return "" if value is None else str(value)


def _shown(text: str) -> str:
    """A wrong value short enough for a sentence."""
    return text if len(text) <= 60 else text[:57] + "..."


def _name_problem(name: str, public: bool) -> str:
    """Why the challenge over HTTP cannot prove this name, or nothing; public: to an authority that browsers believe."""
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        pass
    else:
        return "it is an address, and certificates are for names: write the name that leads to it"
    if name.startswith("*."):
        return "a wildcard cannot be proved over HTTP: list each name"
    labels = name.rstrip(".").lower().split(".")
    if not public:
        return ""
    if len(labels) < 2:
        return "it has no dot, so that no public authority can find it: write the full name, such as flower.example.org"
    for domain in _PRIVATE_DOMAINS:
        if labels[-len(domain.split(".")) :] == domain.split("."):
            return f"no public authority issues for names below .{domain}: use a name of a domain that you own"
    return ""


def _directory_problems(directory: str, staging: bool) -> list[str]:
    if not directory:
        return []
    try:
        parts = urlsplit(directory)
        right = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", directory)
        secret = bool(parts.password or parts.username)
    except ValueError:
        right, secret = False, False
    problems = []
    if secret:
        problems.append(
            "flower_acme_directory: it holds a user or a password, and certbot writes it where all can read it: leave "
            "them out; flower_acme_eab_kid and flower_acme_eab_hmac_key bind to an account."
        )
    elif not right:
        problems.append(
            f"flower_acme_directory: {_shown(directory)} is not an https URL: write https://acme.example.org/directory."
        )
    if staging:
        problems.append(
            "flower_acme_staging: that is Let's Encrypt's, and flower_acme_directory names another server: "
            "set one of the two."
        )
    return problems


def _binding_problems(kid: str, key: str) -> list[str]:
    both = "flower_acme_eab_kid and flower_acme_eab_hmac_key"
    if bool(kid) != bool(key):
        given, missing = ("first", "second") if kid else ("second", "first")
        return [f"{both}: only the {given} is set: give the {missing} as well, or neither."]
    problems = []
    if re.search(r"[\s#;]", kid):
        problems.append("flower_acme_eab_kid: it holds a space, # or ;: copy the key id as the authority shows it.")
    # RFC 8555, section 7.3.4: the key is given in base64url.
    if key and not re.fullmatch(r"[A-Za-z0-9_-]+={0,2}", key):
        problems.append(
            "flower_acme_eab_hmac_key: it is not base64url (letters, digits, - and _): "
            "copy it as the authority shows it."
        )
    return problems


def acme_problems(variables: Mapping[str, Any]) -> list[str]:
    """What is wrong with the variables of ``flower_tls: letsencrypt``, one sentence a problem.

    variables: every variable that begins with ``flower_``, the role's defaults included.
    """
    tls = _text(variables, "flower_tls")
    if tls != "letsencrypt":
        # A boolean on a command line is a text.
        unused = [
            name
            for name, default in _DEFAULTS.items()
            if (is_true(variables.get(name)) if isinstance(default, bool) else _text(variables, name) != default)
        ]
        if not unused:
            return []
        return [f"{', '.join(unused)}: not used with flower_tls: {tls}: leave out, or set flower_tls: letsencrypt."]
    email, directory = _text(variables, "flower_acme_email"), _text(variables, "flower_acme_directory")
    bundle = _text(variables, "flower_acme_ca_bundle")
    problems = []
    if not email:
        problems.append(
            "flower_acme_email: it is empty, and flower_tls: letsencrypt needs an address for the authority to write "
            "to: set it to one that somebody reads."
        )
    elif not re.fullmatch(r"[^\s@,;#=]+@[^\s@,;#=]+\.[^\s@,;#=.]+", email):
        problems.append(
            f"flower_acme_email: {_shown(email)} is not an e-mail address: write one, such as ops@example.org."
        )
    if not is_true(variables.get("flower_acme_agree_tos")):
        problems.append(
            "flower_acme_agree_tos: nothing is issued to those who do not agree to the authority's terms of service: "
            "read them, and set it to true."
        )
    problems += _directory_problems(directory, is_true(variables.get("flower_acme_staging")))
    problems += _binding_problems(_text(variables, "flower_acme_eab_kid"), _text(variables, "flower_acme_eab_hmac_key"))
    if bundle and not re.fullmatch(r"/[^\s\"'%$\\]+", bundle):
        problems.append(
            f"flower_acme_ca_bundle: {_shown(bundle)} is not a plain absolute path on the host: "
            "write it as /etc/ssl/company-ca.pem."
        )
    if _text(variables, "flower_proxy") != "nginx":
        problems.append(
            "flower_proxy: flower_tls: letsencrypt answers the authority through our nginx, and there is none: "
            "set flower_proxy: nginx, or flower_tls: none and let your own proxy have the certificate."
        )
    if not directory and _text(variables, "flower_http_port") != "80":
        problems.append(
            f"flower_http_port: Let's Encrypt comes to port 80 and nowhere else, not to "
            f"{_text(variables, 'flower_http_port')}: set it to 80."
        )
    aliases = [str(name) for name in variables.get("flower_server_aliases") or []]
    for variable, name in [
        ("flower_server_name", _text(variables, "flower_server_name")),
        *(("flower_server_aliases", name) for name in aliases),
    ]:
        problem = _name_problem(name, public=not directory)
        if problem:
            problems.append(f"{variable}: no certificate can be had for {_shown(name)}: {problem}.")
    return problems


# ---------------------------------------------------------------- the certificate that is there


def _leaf(pem: Any) -> Any:
    """The first certificate of a PEM text, or None. Uses `cryptography`, which ansible-core depends on."""
    try:
        return x509.load_pem_x509_certificates(str(pem).encode())[0]
    except ValueError:
        return None


def self_signed(pem: Any) -> bool:
    """Whether a PEM certificate was issued by nobody but itself."""
    leaf = _leaf(pem)
    return leaf is not None and leaf.issuer == leaf.subject


def acme_due(acme: Mapping[str, Any], names: Sequence[str], server: str, webroot: str) -> list[str]:
    """Why a certificate must be asked for; nothing when the one that is there is good.

    acme: what files/look.py says of it. Renewing in time is the timer's; this only sees to one that it let grow old.
    """
    leaf = _leaf(acme["certificate"])
    if leaf is None:
        return ["there is none"]
    reasons = []
    try:
        covered = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns_names = covered.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        dns_names = []
    if {name.lower() for name in dns_names} != {str(name).rstrip(".").lower() for name in names}:
        reasons.append("other names")
    begins, ends = _valid_from_until(leaf)
    # certbot renews at a third of the lifetime, or at 30 days; at a tenth something is wrong with its timer.
    if datetime.now(timezone.utc) >= ends - (ends - begins) / 10:
        reasons.append("it was not renewed")
    renewal = acme["renewal"]
    if renewal.get("server") != server:
        reasons.append("another authority")
    if renewal.get("authenticator") != "webroot" or renewal.get("webroot_path") != webroot:
        reasons.append("it would not be renewed through our nginx")
    return reasons


# ---------------------------------------------------------------- where names lead


def _elsewhere(address: str, own: Sequence[str]) -> bool:
    """Whether an address is surely not this host's: NAT hides only public addresses from a host without any."""
    found = ip_address(address)
    if found.is_loopback or address in own:
        return False
    ours = [other for other in map(ip_address, own) if other.version == found.version]
    return not found.is_global or any(other.is_global for other in ours)


def acme_host_problems(acme: Mapping[str, Any], due: bool = True) -> list[str]:
    """What keeps the authority from finding the host under each name, as far as the host itself can see.

    acme: what files/look.py says; due: whether a certificate will be asked for, so that it matters where names lead.
    """
    problems = []
    if acme["ca_bundle"]:
        problems.append(
            f"flower_acme_ca_bundle: the host cannot read certificates from it ({acme['ca_bundle']}): "
            "put the bundle there first, as PEM text."
        )
    variables = "flower_server_name and flower_server_aliases"
    unless = "or set flower_acme_check: false where only the authority can see it"
    own = [str(address) for address in acme["addresses"]]
    for name, addresses in acme["names"].items() if due else ():
        if not addresses:
            problems.append(
                f"{variables}: {name} has no address, so that no authority can come to it: "
                f"make its DNS record first, {unless}."
            )
        elif own and all(_elsewhere(address, own) for address in addresses):
            here = ", ".join(address for address in own if not _unreachable(address))
            problems.append(
                f"{variables}: {name} leads to {', '.join(addresses)} and this host has {here}: "
                f"mend its DNS record, {unless}."
            )
    return problems


def _unreachable(address: str) -> bool:
    found = ip_address(address)
    return found.is_loopback or found.is_link_local


def challenge_problems(answers: Mapping[str, str]) -> list[str]:
    """What answered for the host, of what files/challenge.py saw: somebody else's answer is a problem, none is not."""
    return [
        f"flower_server_name and flower_server_aliases: something else than this host ({answer}) answers at "
        f"http://{name}/.well-known/acme-challenge/: mend its DNS record or what stands before this host, "
        "or set flower_acme_check: false."
        for name, answer in answers.items()
        if answer not in ("ours", "")
    ]


# ---------------------------------------------------------------- what certbot says

# RFC 8555, section 6.7, with what an operator can do.
_HINTS = {
    "rateLimited": "wait until it allows more; flower_acme_staging: true is for trying",
    "caa": "let the CAA records of the name allow this authority",
    "dns": "mend the DNS of the name",
    "connection": "let the name lead to this host, and port 80 be open to everybody",
    "unauthorized": "let the name lead to this host, and nothing before it answer instead",
    "tls": "let nothing before this host redirect /.well-known/acme-challenge/",
    "rejectedIdentifier": "choose names that the authority issues for",
    "unsupportedIdentifier": "choose names that the authority issues for",
    "malformed": "mend flower_server_name and flower_server_aliases",
    "accountDoesNotExist": "the server has forgotten this host: move its folder out of /etc/letsencrypt/accounts",
    "externalAccountRequired": "set flower_acme_eab_kid and flower_acme_eab_hmac_key",
    "invalidContact": "mend flower_acme_email",
    "unsupportedContact": "mend flower_acme_email",
    "userActionRequired": "read and accept the authority's new terms",
    "serverInternal": "the fault is the authority's: try later",
}
_CHALLENGE = re.compile(r"Domain: *(\S+)\s+Type: *(\S+)\s+Detail: *(.+)")
_ERROR = re.compile(r"acme\.messages\.Error: urn:ietf:params:acme:error:(\w+) :: (.+)")
# What the Python below certbot says, by what it means.
_TROUBLES = [
    (
        r"CERTIFICATE_VERIFY_FAILED\] certificate verify failed: ([^(\n]+?) *\(",
        "the certificate of the server is not trusted ({0}): name its CA in flower_acme_ca_bundle",
    ),
    (
        r"Name or service not known|Temporary failure in name resolution|No address associated",
        "its name is not known on this host: mend flower_acme_directory or the host's DNS",
    ),
    (
        r"(Connection refused|Network is unreachable|No route to host|[Tt]imed out|Connection reset|Remote end closed)",
        "it does not answer ({0}): wait until it is up, or let this host reach it",
    ),
    (
        r"acme\.errors\.ClientError|JSONDecodeError|KeyError: 'newNonce'|DeserializationError|SSLError",
        "what answers there is no ACME server: mend flower_acme_directory",
    ),
    (
        r"already running",
        "another certbot is at work on this host: apply again when it has ended",
    ),
    (
        r"(?i)choose an account|multiple accounts",
        "this host has several accounts there: keep one of them in /etc/letsencrypt/accounts",
    ),
    (
        r"[Rr]equires external account binding",
        "it issues only to accounts that it knows: set flower_acme_eab_kid and flower_acme_eab_hmac_key",
    ),
]


def _short(detail: str) -> str:
    """An authority's words without the URL of the challenge, which says nothing, and without a full stop."""
    detail = re.sub(r'Get "(https?://[^"]*)": ', "", detail.strip())
    detail = re.sub(r"https?://([^/\s\"]+)/\.well-known/acme-challenge/[\w-]+", r"http://\1/…", detail)
    return " ".join(detail.split())[:300].rstrip(". ")


def certbot_failure(output: str, log: str = "", server: str = "") -> str:
    """Say in one sentence why certbot failed.

    output: what it printed; log: the end of its log, from which only the last run is read: certbot 2.1, Debian 12's,
    says "can't set attribute" instead of the authority's words (a frozen exception, josepy before 1.14).
    """
    run = log.rpartition("certbot version:")[2] if log else ""
    if refused := _CHALLENGE.findall(output):
        told = "; ".join(f"{name}: {_short(detail)}" for name, _, detail in refused)
        hint = _HINTS.get(refused[0][1], "mend that")
        return f"The authority could not see that the names are yours ({told}): {hint}."
    where = f"The authority at {urlsplit(server).netloc or server}" if server else "The authority"
    if errors := _ERROR.findall(run) or _ERROR.findall(output):
        kind, words = errors[-1]
        detail = _short(words.rpartition(" :: ")[2] or words)
        return f"{where} refuses ({kind}: {detail}): {_HINTS.get(kind, 'see what it says')}."
    for pattern, sentence in _TROUBLES:
        if found := re.search(pattern, output):
            return f"{where} gave no certificate: {sentence.format(*found.groups())}."
    noise = (
        r"Saving debug log|Ask for help|An unexpected error occurred|Hint:|Requesting a|Renewing an|Account registered"
    )
    lines = [line.strip() for line in output.splitlines() if line.strip() and not re.match(noise, line.strip())]
    said = re.sub(r"^.*Error returned by the ACME server: ", "", lines[-1]) if lines else "it gave no reason"
    if "external account binding" in said or "'kid'" in said:
        return f"{where} refuses the account ({_short(said)}): mend flower_acme_eab_kid and flower_acme_eab_hmac_key."
    return f"{where} gave no certificate ({_short(said)}): see /var/log/letsencrypt/letsencrypt.log on the host."


class FilterModule:
    """Names of the filters for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name of each filter and its function."""
        return {
            "acme_due": acme_due,
            "acme_host_problems": acme_host_problems,
            "acme_problems": acme_problems,
            "certbot_failure": certbot_failure,
            "challenge_problems": challenge_problems,
            "self_signed": self_signed,
        }
