"""One look at a host before the role touches it: standard library only, since nothing is installed yet.

The role hands this file to the host's Python on standard input, followed by a call of ``main`` with one JSON request,
and reads one JSON answer. A single look costs one round trip where a module for each question would cost a dozen.
The request may hold broker passwords; the answer never does.
"""

from __future__ import annotations

import base64
import glob
import hashlib
import hmac
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

TIMEOUT = 5.0  # seconds for one broker to answer
DEFAULT_PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672, "pyamqp": 5672, "amqps": 5671, "sentinel": 26379}


def os_release() -> dict[str, str]:
    """Return ``id``, ``version`` and ``name`` from /etc/os-release (os-release(5)), or empty texts."""
    fields: dict[str, str] = {}
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.strip().partition("=")
                fields[key] = value.strip("\"'")
    except OSError:
        pass
    return {"id": fields.get("ID", ""), "version": fields.get("VERSION_ID", ""), "name": fields.get("PRETTY_NAME", "")}


def first_number(command: list[str], pattern: str) -> str:
    """Return the first group of ``pattern`` in what ``command`` prints, or an empty text."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(pattern, done.stdout)
    return found.group(1) if found else ""


def unit_of(pid: str) -> str:
    """Return the collector's unit that the process is of, or an empty text (cgroups(7))."""
    found = re.search(r"/(flower-collector@[^/\n]+\.service)", _text(f"/proc/{pid}/cgroup"))
    return found.group(1) if found else ""


def listeners(ports: list[int]) -> dict[str, str]:
    """Return who listens on those of ``ports`` that are taken: ``{"443": "nginx"}``; ``"?"`` where ss does not tell.

    A collector is told by its unit, since an instance's own is no stranger and another instance's is.
    """
    try:
        done = subprocess.run(["ss", "-Hltnp"], stdout=subprocess.PIPE, text=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return {}
    taken: dict[str, str] = {}
    for line in done.stdout.splitlines():
        fields = line.split()
        port = fields[3].rpartition(":")[2] if len(fields) > 3 else ""
        if port.isdigit() and int(port) in ports:
            name = re.search(r'\(\("([^"]+)",pid=(\d+)', line)
            taken[port] = unit_of(name.group(2)) or name.group(1) if name else "?"
    return taken


def free_bytes(path: str) -> int:
    """Return the free space in bytes of the file system that ``path`` is, or would be, on."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


def readable_json(path: str) -> bool:
    """Tell whether ``path`` holds a JSON object; what is broken is made anew as if it were not there."""
    try:
        with open(path, encoding="utf-8") as file:
            return isinstance(json.load(file), dict)
    except (OSError, ValueError):
        return False


def newer(paths: list[str], stamp: str) -> bool:
    """Tell whether ``stamp`` is missing, or one of ``paths`` is missing or was changed after it."""
    try:
        since = os.stat(stamp).st_mtime_ns
        # Within one tick of the kernel's clock nobody knows which came first: stale.
        return any(os.lstat(path).st_ctime_ns >= since for path in paths)
    except OSError:
        return True


def _connect(parts: SplitResult, tls: ssl.SSLContext | None, default_port: int) -> socket.socket:
    host, port = parts.hostname or "localhost", parts.port or default_port
    plain = socket.create_connection((host, port), timeout=TIMEOUT)
    return tls.wrap_socket(plain, server_hostname=host) if tls else plain


def _tls_context(query: dict[str, list[str]], options: dict[str, object]) -> ssl.SSLContext:
    """Return a context that verifies as the broker's settings say: always, unless it is turned off by name."""
    settings: dict[str, object] = {**{key: values[-1] for key, values in query.items()}, **options}
    ca_file = settings.get("ssl_ca_certs") or settings.get("ca_certs")
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    if settings.get("ssl_check_hostname") in (False, "False", "false"):
        context.check_hostname = False
    if str(settings.get("ssl_cert_reqs", settings.get("cert_reqs", "required"))).lower() in ("none", "cert_none", "0"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = settings.get("ssl_certfile") or settings.get("certfile")
    if certificate:
        key = settings.get("ssl_keyfile") or settings.get("keyfile")
        context.load_cert_chain(str(certificate), str(key) if key else None)
    return context


def ask_redis(link: socket.socket, user: str, password: str) -> str:
    """Return what is wrong, or nothing, in RESP (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""

    def call(*words: str) -> str:
        encoded = [word.encode() for word in words]
        link.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded))
        answer = b""
        while not answer.endswith(b"\r\n"):
            chunk = link.recv(4096)
            if not chunk:
                raise ConnectionError("closed the connection")
            answer += chunk
        return answer.decode("utf-8", "replace").strip()

    if password:
        answer = call("AUTH", user, password) if user else call("AUTH", password)
        # A Redis without a password refuses AUTH with ERR and would refuse Celery in the same way.
        if answer.startswith("-"):
            return "refused"
    answer = call("PING")
    if answer.startswith(("-NOAUTH", "-NOPERM", "-WRONGPASS")):
        return "refused" if password else "password-needed"
    if answer.startswith("-LOADING"):
        return ""
    return "" if answer == "+PONG" else "not-redis"


def read_exactly(link: socket.socket, size: int) -> bytes:
    """Return so many bytes, or raise ConnectionResetError when the other side has no more."""
    data = b""
    while len(data) < size:
        chunk = link.recv(size - len(data))
        if not chunk:
            raise ConnectionResetError("closed the connection")
        data += chunk
    return data


def ask_amqp(link: socket.socket, user: str, password: str, vhost: str) -> str:
    """Return what is wrong, or nothing, in AMQP 0-9-1 up to open-ok (https://www.rabbitmq.com/amqp-0-9-1-protocol)."""

    def receive() -> tuple[int, int, bytes]:
        """Return class, method and arguments of the next frame; zeros for what is no frame."""
        head = read_exactly(link, 7)
        if head[0] != 1:
            return (0, 0, b"")
        body = read_exactly(link, struct.unpack(">I", head[3:7])[0] + 1)
        class_id, method = struct.unpack(">HH", body[:4])
        return (class_id, method, body[4:-1])

    def send(method: int, arguments: bytes) -> None:
        payload = struct.pack(">HH", 10, method) + arguments
        link.sendall(b"\x01\x00\x00" + struct.pack(">I", len(payload)) + payload + b"\xce")

    def short(text: str) -> bytes:
        encoded = text.encode()
        return bytes([len(encoded)]) + encoded

    link.sendall(b"AMQP\x00\x00\x09\x01")
    if receive()[:2] != (10, 10):
        return "not-amqp"
    answer = b"\0" + user.encode() + b"\0" + password.encode()
    send(11, struct.pack(">I", 0) + short("PLAIN") + struct.pack(">I", len(answer)) + answer + short("en_US"))
    try:
        class_id, method, limits = receive()
    except ConnectionError:
        # RabbitMQ closes the connection on a wrong password.
        return "refused"
    if (class_id, method) != (10, 30):
        return "refused"
    # What the broker offers is agreed to, since RabbitMQ takes no channel_max above its own; but no heartbeat.
    send(31, limits[:6] + struct.pack(">H", 0))
    send(40, short(vhost) + short("") + b"\x00")
    return "" if receive()[:2] == (10, 41) else "no-vhost"


def _ask(link: socket.socket, scheme: str, user: str, password: str, vhost: str) -> str:
    try:
        if scheme in ("redis", "rediss"):
            return ask_redis(link, user, password)
        if scheme in ("amqp", "amqps", "pyamqp"):
            return ask_amqp(link, user or "guest", password or "guest", vhost)
    except (TimeoutError, ConnectionError):
        # Something took the connection and did not understand a word.
        return "not-redis" if scheme.startswith("redis") else "not-amqp"
    return ""


def ask_broker(url: str, ssl_options: dict[str, object]) -> dict[str, str]:
    """Return ``{"at": where, "problem": code, "detail": text}`` for one broker URL; no problem is an empty one.

    Codes: unreachable, unknown-host, tls, refused, password-needed, not-redis, not-amqp, no-vhost.
    """
    parts = urlsplit(url)
    scheme, query = parts.scheme, parse_qs(parts.query)
    base = scheme.partition("+")[0]
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    at = parts.path if scheme.endswith("+socket") else f"{parts.hostname}:{parts.port or DEFAULT_PORTS.get(base, 0)}"
    answer = {"at": at, "problem": "", "detail": ""}
    try:
        if scheme.endswith("+socket"):
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(TIMEOUT)
            link.connect(unquote(parts.path))
        else:
            secure = scheme in ("rediss", "amqps") or bool(ssl_options)
            tls = _tls_context(query, ssl_options) if secure else None
            link = _connect(parts, tls, DEFAULT_PORTS.get(base, 0))
        with link:
            answer["problem"] = _ask(link, base, user, password, unquote(parts.path[1:]) or "/")
    except socket.gaierror as error:
        answer.update(problem="unknown-host", detail=error.strerror or "")
    except (ssl.SSLError, ssl.CertificateError) as error:
        answer.update(problem="tls", detail=getattr(error, "verify_message", "") or getattr(error, "reason", "") or "")
    except OSError as error:
        answer.update(problem="unreachable", detail=error.strerror or str(error))
    return answer


def scram_proof(password: str, first: bytes, challenge: bytes) -> bytes:
    """Return the client's last message of SCRAM-SHA-256 (RFC 7677), without channel binding.

    ``first`` is the client's first message without its header, ``challenge`` the server's first.  Raises ValueError for
    a challenge that is none, or that is not an answer to ours.
    """
    said = dict(part.split(b"=", 1) for part in challenge.split(b","))
    if not {b"r", b"s", b"i"} <= said.keys() or not said[b"r"].startswith(first.rpartition(b"r=")[2]):
        raise ValueError("no challenge")
    # A hostile server may not keep us busy: PostgreSQL asks for 4096 rounds.
    rounds = min(int(said[b"i"]), 1_000_000)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(said[b"s"]), rounds)
    key = hmac.digest(salted, b"Client Key", "sha256")
    last = b"c=biws,r=" + said[b"r"]
    signature = hmac.digest(hashlib.sha256(key).digest(), b",".join((first, challenge, last)), "sha256")
    proof = bytes(one ^ other for one, other in zip(key, signature, strict=True))
    return last + b",p=" + base64.b64encode(proof)


def ask_postgresql(link: socket.socket, user: str, password: str, database: str) -> str:
    """Return what is wrong, or nothing, up to the first ReadyForQuery of PostgreSQL's protocol 3.0.

    https://www.postgresql.org/docs/current/protocol-flow.html; a way to sign in that is not known here is no problem.
    """

    def receive() -> tuple[bytes, bytes]:
        kind, length = read_exactly(link, 1), struct.unpack(">I", read_exactly(link, 4))[0]
        if not 4 <= length <= 65536:
            raise ConnectionResetError("not PostgreSQL")
        return kind, read_exactly(link, length - 4)

    def send(kind: bytes, body: bytes) -> None:
        link.sendall(kind + struct.pack(">I", len(body) + 4) + body)

    def error(body: bytes) -> str:
        fields = {part[:1]: part[1:] for part in body.split(b"\0") if part}
        # Wrong password, no such role or no entry in pg_hba.conf; no such database (errcodes-appendix.html).
        codes = {b"28P01": "refused", b"28000": "refused", b"3D000": "no-database"}
        return codes.get(fields.get(b"C", b""), "")

    names = {"user": user, "database": database}
    start = b"".join(f"{name}\0{value}\0".encode() for name, value in names.items()) + b"\0"
    send(b"", struct.pack(">I", 196608) + start)
    first = b"n=,r=" + base64.b64encode(os.urandom(18))
    while True:
        kind, body = receive()
        if kind == b"E":
            return error(body)
        if kind == b"Z":
            return ""
        if kind != b"R":
            continue
        way = struct.unpack(">I", body[:4])[0]
        if way in (3, 5, 10) and not password:
            return "password-needed"
        if way == 3:
            send(b"p", password.encode() + b"\0")
        elif way == 5:
            inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
            outer = hashlib.md5(inner.encode() + body[4:8], usedforsecurity=False).hexdigest()
            send(b"p", b"md5" + outer.encode() + b"\0")
        elif way == 10 and b"SCRAM-SHA-256\0" in body[4:]:
            send(b"p", b"SCRAM-SHA-256\0" + struct.pack(">I", len(first) + 3) + b"n,," + first)
        elif way == 11:
            send(b"p", scram_proof(password, first, body[4:]))
        elif way not in (0, 12):
            return ""


def ask_history(url: str) -> dict[str, str]:
    """Return ``{"at": where, "problem": code, "detail": text}`` for the PostgreSQL server of a history's URL.

    Codes: unreachable, unknown-host, not-postgresql, plain, tls, refused, password-needed, no-database.
    """
    parts = urlsplit(url)
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    host = parts.hostname or query.get("host", "")
    port = str(parts.port or query.get("port", "5432"))
    answer = {"at": f"{host}:{port}", "problem": "", "detail": ""}
    if not parts.scheme.startswith("postgres") or not host or host.startswith("/"):
        # A file, or a socket of this host's, whose user is not the one who asks here.
        return answer
    try:
        link = socket.create_connection((host, int(port)), timeout=TIMEOUT)
    except socket.gaierror as error:
        return {**answer, "problem": "unknown-host", "detail": error.strerror or ""}
    except (OSError, ValueError, OverflowError) as error:
        return {**answer, "problem": "unreachable", "detail": getattr(error, "strerror", None) or str(error)}
    mode = query.get("sslmode", "prefer")
    try:
        with link:
            # SSLRequest, which every PostgreSQL answers with one letter (protocol-message-formats.html).
            link.sendall(struct.pack(">II", 8, 80877103))
            said = link.recv(1)
            if said not in (b"S", b"N"):
                answer["problem"] = "not-postgresql"
            elif said == b"N" and mode in ("require", "verify-ca", "verify-full"):
                answer["problem"] = "plain"
            elif not {"passfile", "service", "sslcert"} & query.keys():
                answer["problem"] = _sign_in(url, link, said == b"S" and mode != "disable", mode, query)
    except (ssl.SSLError, ssl.CertificateError) as error:
        detail = getattr(error, "verify_message", "") or getattr(error, "reason", "") or ""
        answer.update(problem="tls", detail=detail)
    except (OSError, ValueError, struct.error):
        answer["problem"] = "not-postgresql"
    return answer


def _sign_in(url: str, link: socket.socket, secure: bool, mode: str, query: dict[str, str]) -> str:
    """Sign in with what the URL says, as libpq's sslmode has it: verified only when it is asked for."""
    parts = urlsplit(url)
    user, password = unquote(parts.username or query.get("user", "")), unquote(parts.password or "")
    names = (user, password or query.get("password", ""), unquote(parts.path[1:]) or user)
    if not secure:
        if mode == "disable":
            # The server waits for a start in clear, on a connection on which TLS was not asked for.
            peer = link.getpeername()
            with socket.create_connection(peer[:2], timeout=TIMEOUT) as plain:
                return ask_postgresql(plain, *names)
        return ask_postgresql(link, *names)
    context = ssl.create_default_context(cafile=query.get("sslrootcert") if mode.startswith("verify") else None)
    if mode != "verify-full":
        context.check_hostname = False
    if not mode.startswith("verify"):
        context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(link, server_hostname=parts.hostname or query.get("host")) as tls:
        return ask_postgresql(tls, *names)


def ask_issuer(issuer: str, ca_bundle: str) -> dict[str, str]:
    """Return ``{"problem": code, "detail": text}`` for an OpenID Connect issuer, from its discovery document.

    Codes: unreachable, unknown-host, tls, ca-bundle, status, rubbish, issuer, endpoints
    (https://openid.net/specs/openid-connect-discovery-1_0.html, section 4).
    """

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    try:
        context = ssl.create_default_context(cafile=ca_bundle or None)
    except OSError as error:
        return {"problem": "ca-bundle", "detail": error.strerror or str(error)}
    # Flower itself asks without a proxy, whatever the environment of this look says.
    without_proxy = urllib.request.ProxyHandler({})
    opener = urllib.request.build_opener(NoRedirect, without_proxy, urllib.request.HTTPSHandler(context=context))
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    try:
        with opener.open(url, timeout=TIMEOUT) as answer:
            document = json.loads(answer.read(1 << 20))
    except urllib.error.HTTPError as error:
        return {"problem": "status", "detail": f"{error.code}"}
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, socket.gaierror):
            return {"problem": "unknown-host", "detail": reason.strerror or ""}
        if isinstance(reason, ssl.SSLError):
            return {"problem": "tls", "detail": getattr(reason, "verify_message", "") or reason.reason or ""}
        return {"problem": "unreachable", "detail": getattr(reason, "strerror", None) or str(reason)}
    except (OSError, http.client.HTTPException) as error:
        return {"problem": "unreachable", "detail": getattr(error, "strerror", None) or type(error).__name__}
    except ValueError:
        return {"problem": "rubbish", "detail": ""}
    if not isinstance(document, dict):
        return {"problem": "rubbish", "detail": ""}
    if document.get("issuer") != issuer:
        return {"problem": "issuer", "detail": str(document.get("issuer"))[:200]}
    needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    if missing := [name for name in needed if not str(document.get(name, "")).startswith("https://")]:
        return {"problem": "endpoints", "detail": missing[0]}
    return {"problem": "", "detail": ""}


def proxy_conflicts(file: str, names: list[str], ports: list[int]) -> list[str]:
    """Return the other enabled sites of nginx that already serve one of ``names`` on one of ``ports``."""
    found = []
    for path in sorted(glob.glob("/etc/nginx/sites-enabled/*") + glob.glob("/etc/nginx/conf.d/*.conf")):
        if os.path.realpath(path) == os.path.realpath(file) or path.endswith(".challenge.conf"):
            continue
        try:
            with open(path, encoding="utf-8", errors="replace") as site:
                text = re.sub(r"#.*", "", site.read())
        except OSError:
            continue
        used = " ".join(re.findall(r"\bserver_name\s+([^;]+);", text)).split()
        listens = {int(port) for port in re.findall(r"\blisten\s+(?:[^\s;]*:)?(\d+)\b", text)}
        if set(names) & set(used) and set(ports) & listens:
            found.append(path)
    return found


def addresses_of(name: str) -> list[str]:
    """Return the addresses that ``name`` has for this host; none for a name that it does not know."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return []
    return sorted(address.partition("%")[0] for address in found)


def own_addresses() -> list[str]:
    """Return the addresses of this host's interfaces."""
    try:
        done = subprocess.run(["ip", "-j", "address"], stdout=subprocess.PIPE, text=True, check=False, timeout=10)
        links = json.loads(done.stdout or "[]")
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    return sorted(entry["local"] for link in links for entry in link.get("addr_info", []) if "local" in entry)


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _text(path: str) -> str:
    return _content(path).decode("utf-8", "replace")


def acme(asked: dict[str, Any]) -> dict[str, object]:
    """Return what certbot has for an instance, and where ``names`` lead.

    ``certificate`` is its PEM text, and empty when a part is missing or the key does not fit: then there is none.
    ``left`` are those of ``traces`` that are there; ``answered`` the names whose challenges nginx hands out already.
    """
    tls, live = asked["tls"], f"/etc/letsencrypt/live/{asked['name']}"
    renewal, site = _text(f"/etc/letsencrypt/renewal/{asked['name']}.conf"), _text(asked["site"])
    chain, key = _content(f"{live}/fullchain.pem"), _content(f"{live}/privkey.pem")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(f"{live}/fullchain.pem", f"{live}/privkey.pem")
    except (OSError, ValueError):
        chain = b""
    bundle = ""
    try:
        if asked["ca_bundle"]:
            ssl.create_default_context(cafile=asked["ca_bundle"])
    except OSError as error:
        bundle = error.strerror or "no certificates in it"
    served = [_content(f"{tls}/{file}.pem") for file in ("certificate", "private_key")]
    server_name = re.search(r"(?m)^\s*server_name\s+([^;]+);", site if "/.well-known/acme-challenge/" in site else "")
    settings = dict(re.findall(r"(?m)^(server|authenticator|webroot_path) = (.*?),?$", renewal))
    return {
        "certbot": os.path.exists("/usr/bin/certbot"),
        "certificate": chain.decode("ascii", "replace") if settings else "",
        "renewal": settings,
        "deployed": bool(chain) and served == [chain, key],
        "serves": bool(site),
        "served": all(served),
        "answered": server_name.group(1).split() if server_name else [],
        "left": [path for path in asked["traces"] if os.path.lexists(path)],
        "others_trust": [path for path in glob.glob("/etc/flower/*/tls/acme-ca.pem") if not path.startswith(f"{tls}/")],
        "ca_bundle": bundle,
        "email": "".join(re.findall(r"(?m)^email = (.*)$", _text(asked["settings"]))),
        "names": {name: addresses_of(name) for name in asked["names"]},
        "addresses": own_addresses() if asked["names"] else [],
    }


def main(request: str) -> None:
    """Answer ``request``, a JSON object, with a JSON object on standard output."""
    asked = json.loads(request)
    root, instance = asked["root"], asked["instance"]
    current = os.path.realpath(f"{root}/{instance}/current")
    stamps = glob.glob(f"{root}/releases/*/.complete")
    answer = {
        "os": os_release(),
        "python": list(sys.version_info[:3]),
        "abi": f"{sysconfig.get_config_var('SOABI') or sys.implementation.cache_tag}",
        "systemd": int(first_number(["systemctl", "--version"], r"systemd (\d+)") or 0)
        if os.path.isdir("/run/systemd/system")
        else 0,
        "nginx": first_number(["/usr/sbin/nginx", "-v"], r"nginx/([\d.]+)")
        if os.path.exists("/usr/sbin/nginx")
        else "",
        # What it runs with is the last on the line, where it is not what it was built with.
        "openssl": first_number(["/usr/sbin/nginx", "-V"], r"built with.*OpenSSL ([\d.]+)"),
        "ipv6": os.path.exists("/proc/net/if_inet6"),
        # Newest first, so that the role can keep the first few.
        "complete": [stamp.split("/")[-2] for stamp in sorted(stamps, key=os.path.getmtime, reverse=True)],
        "releases": sorted(os.path.basename(path) for path in glob.glob(f"{root}/releases/*")),
        "in_use": sorted({os.path.basename(os.path.realpath(link)) for link in glob.glob(f"{root}/*/current")}),
        "used_by_others": sorted(
            {
                os.path.basename(os.path.realpath(link))
                for link in glob.glob(f"{root}/*/current")
                if link != f"{root}/{instance}/current"
            }
        ),
        "other_instances": sorted(
            {
                os.path.basename(path)
                for top in (root, "/etc/flower", "/var/lib/flower")
                for path in glob.glob(f"{top}/*")
            }
            - {"releases", instance}
        ),
        "current": os.path.basename(current) if os.path.exists(current) else "",
        "configured": readable_json(f"/etc/flower/{instance}/credentials/flower.json"),
        "activation_stale": newer(asked["activation_files"], asked["activation_stamp"]),
        "collector_stale": newer(asked["collector_files"], asked["collector_stamp"]),
        "collector_left": [path for path in asked["collector_files"][:-1] if os.path.lexists(path)],
        "proxy_stale": newer(asked["proxy_files"], asked["proxy_stamp"]),
        "listeners": listeners(asked["ports"]),
        "conflicts": proxy_conflicts(asked["proxy_files"][0], asked["names"], asked["ports"])
        if asked["proxy_files"]
        else [],
        "free_bytes": free_bytes(f"{root}/releases"),
        "issuer": ask_issuer(asked["issuer"], asked["issuer_ca"]) if asked["issuer"] else {"problem": "", "detail": ""},
        "acme": acme(asked["acme"]),
        "history": ask_history(asked["history"]),
        "brokers": [ask_broker(url, asked["broker_ssl"]) for url in asked["brokers"]],
    }
    print(json.dumps(answer))
