"""Filters that handle credentials: hashing, broker URLs, masking, quoting, and the policy on passwords.

Pure functions that run on the controller. Every sentence they return names the variable, says what is wrong and what
would be right, and never holds the secret. What they cannot do at all is an AnsibleFilterError.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from ansible.errors import AnsibleFilterError

MASK = "***"

# ---------------------------------------------------------------- plain values


def plain_text(value: Any, what: str) -> str:
    """Text or a number as a builtin str, without Ansible's tags; anything else is an AnsibleFilterError."""
    if type(value).__name__ == "AnsibleVaultEncryptedUnicode":  # ansible-core before 2.19
        value = str(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise AnsibleFilterError(f"{what}: expected text, got {type(value).__name__}.")


def listed(value: Any) -> list[Any]:
    """None as no items, one thing as one item, a list as it is."""
    if value is None:
        return []
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        return [value]
    return list(value)


# ---------------------------------------------------------------- writing text for a reader

_JINJA_OPENING = re.compile(r"\{(?=[{%#])")


def python_literal(value: Any) -> str:
    """Write a value as a Python literal that ast.literal_eval() reads back the same.

    Line breaks are escaped, and so is what opens a Jinja expression: the literal survives being templated again.
    """
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, float):
        if math.isnan(value):
            raise AnsibleFilterError("python_literal: NaN has no Python literal: use a number or null.")
        if math.isinf(value):
            return "1e999" if value > 0 else "-1e999"  # literal_eval knows no inf, but this is read as one
        return float.__repr__(value)
    if isinstance(value, int):
        try:
            return int.__repr__(value)
        except ValueError:  # more digits than Python itself would read
            raise AnsibleFilterError("python_literal: an integer has too many digits for Python to read.") from None
    if isinstance(value, bytes):
        return _JINJA_OPENING.sub(r"\\x7b", bytes.__repr__(value))
    if isinstance(value, str) or type(value).__name__ == "AnsibleVaultEncryptedUnicode":
        return _JINJA_OPENING.sub(r"\\x7b", str.__repr__(plain_text(value, "python_literal")))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{python_literal(k)}: {python_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + "".join(f"{python_literal(item)}, " for item in value).rstrip() + ")"
    if isinstance(value, Sequence):
        return "[" + ", ".join(python_literal(item) for item in value) + "]"
    raise AnsibleFilterError(
        f"python_literal: a value of type {type(value).__name__} cannot be written as a Python literal: "
        "use text, a number, true or false, null, a list or a dictionary."
    )


_SYSTEMD_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "%": "%%"}


def systemd_quote(value: Any, command: bool = False) -> str:
    """Write text as one word of a unit file, for settings that are split into words (Environment=, ExecStart=).

    Rules: systemd.syntax(7) for quotes and escapes, systemd.unit(5) for specifiers (% is written %%).
    command: also write $ as $$, which Exec lines expand and Environment= does not.
    systemd refuses NUL, unpaired surrogates and Unicode's noncharacters: so does this.
    """
    written = []
    for char in plain_text(value, "systemd_quote"):
        code = ord(char)
        if code == 0 or 0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE:
            raise AnsibleFilterError(
                f"systemd_quote: the character U+{code:04X} cannot be in a unit file: take it out of the value."
            )
        if char in _SYSTEMD_ESCAPES:
            written.append(_SYSTEMD_ESCAPES[char])
        elif char == "$" and command:
            written.append("$$")
        elif code < 0x20 or code == 0x7F:
            written.append(f"\\x{code:02x}")
        else:
            written.append(char)
    return '"' + "".join(written) + '"'


# nginx reads a parameter into a buffer of 4096 bytes (NGX_CONF_BUFFER).
_NGINX_MAX_BYTES = 4000
_NGINX_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def nginx_quote(value: Any, dollar: str | None = None) -> str:
    """Write text as one quoted parameter of an nginx configuration.

    nginx has no escape for $ where it expands variables. `dollar` names a variable that holds one, made in the http
    block by `geo $NAME { default "$"; }`; without it a $ is refused. In a directive that expands no variables
    a $ cannot be written at all.
    """
    text = plain_text(value, "nginx_quote")
    if "$" in text and not dollar:
        raise AnsibleFilterError(
            "nginx_quote: nginx would expand the '$' in this value and has no escape for it: take the '$' out, "
            "or name a variable that holds one (dollar='NAME', with `geo $NAME { default \"$\"; }` in the http block)."
        )
    if "\0" in text:
        raise AnsibleFilterError("nginx_quote: a NUL cannot be in an nginx configuration: take it out of the value.")
    escapes = {**_NGINX_ESCAPES, "$": f"${{{dollar}}}"}
    written = "".join(escapes.get(char, char) for char in text)
    try:
        length = len(written.encode())
    except UnicodeEncodeError:
        raise AnsibleFilterError("nginx_quote: an unpaired surrogate cannot be written as UTF-8.") from None
    if length > _NGINX_MAX_BYTES:
        raise AnsibleFilterError(f"nginx_quote: nginx reads {_NGINX_MAX_BYTES} bytes at most, this is {length}.")
    return f'"{written}"'


# ---------------------------------------------------------------- broker URLs

BROKER_SCHEMES = ("redis", "rediss", "amqp", "amqps", "sentinel", "redis+socket")
_REDIS_SCHEMES = ("redis", "rediss", "sentinel", "redis+socket")
_EXAMPLE_URL = "redis://user:password@host:6379/0"
_SSL_CERT_REQS = ("CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE", "required", "optional", "none")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_HOW_TO_QUOTE = (
    "in a user name or password write @ as %40, : as %3A, / as %2F, # as %23, ? as %3F, ; as %3B and % as %25"
)


def _quoted(value: Any, what: str) -> str:
    try:
        return quote(plain_text(value, what), safe="")
    except UnicodeEncodeError:
        raise AnsibleFilterError(f"{what}: an unpaired surrogate cannot be written as UTF-8.") from None


def _part(parts: Mapping[str, Any], *keys: str) -> Any:
    """The first of these parts that is there and not empty, else None."""
    return next((parts[key] for key in keys if parts.get(key) not in (None, "")), None)


def _host(value: Any) -> str:
    """A host as it stands in a URL: a name, an IPv4 address, or an IPv6 address in brackets."""
    host = plain_text(value, "broker_url: host").strip("[]")
    if ":" in host:
        try:
            return f"[{ip_address(host)}]"
        except ValueError:
            raise AnsibleFilterError("broker_url: host is neither a name nor an IP address.") from None
    if not _HOST.fullmatch(host):
        raise AnsibleFilterError("broker_url: host must be a name or an IP address, without port and scheme.")
    return host


def broker_url(parts: Mapping[str, Any]) -> str:
    """Build a broker URL from scheme, username, password, host, port, virtual_host (or db, or path) and query.

    With the scheme redis+socket, path is the socket's file and virtual_host (or db) the database.
    Kombu's URL parser reads every part back as it was given (a host in lower case); an empty part is no part.
    """
    if not isinstance(parts, Mapping):
        raise AnsibleFilterError("broker_url: expected a dictionary with scheme, host and the like.")
    known = {"scheme", "username", "password", "host", "port", "virtual_host", "db", "path", "query"}
    if unknown := sorted(set(map(str, parts)) - known):
        raise AnsibleFilterError(f"broker_url: unknown part {unknown[0]!r}: known are {', '.join(sorted(known))}.")
    scheme = _part(parts, "scheme")
    if scheme not in BROKER_SCHEMES:
        raise AnsibleFilterError(f"broker_url: scheme must be one of {', '.join(BROKER_SCHEMES)}.")
    username, password = _part(parts, "username"), _part(parts, "password")
    login = "" if username is None else _quoted(username, "broker_url: username")
    if password is not None:
        login += ":" + _quoted(password, "broker_url: password")
    query = dict(parts.get("query") or {})
    if scheme == "redis+socket":
        path = _part(parts, "path")
        if path is None or not str(path).startswith("/"):
            raise AnsibleFilterError("broker_url: redis+socket needs path, the absolute path of the socket.")
        if _part(parts, "host", "port") is not None:
            raise AnsibleFilterError("broker_url: redis+socket has a path, and neither host nor port.")
        where = quote(plain_text(path, "broker_url: path"))
        if (database := _part(parts, "virtual_host", "db")) is not None:
            query["virtual_host"] = database
    else:
        host = _part(parts, "host")
        if host is None:
            raise AnsibleFilterError("broker_url: host is missing.")
        where = _host(host)
        if (port := _part(parts, "port")) is not None:
            if not re.fullmatch(r"[0-9]{1,5}", str(port)) or not 1 <= int(port) <= 65535:
                raise AnsibleFilterError("broker_url: port must be a number from 1 to 65535.")
            where += f":{int(port)}"
        if (path := _part(parts, "virtual_host", "db", "path")) is not None:
            where += "/" + _quoted(path, "broker_url: virtual_host")
    url = f"{scheme}://{login}{'@' if login else ''}{where}"
    if query:
        url += "?" + urlencode({str(k): plain_text(v, "broker_url: query") for k, v in query.items()}, quote_via=quote)
    return url


def broker_url_parts(url: Any) -> dict[str, Any]:
    """Take a broker URL apart as Kombu does: the reverse of broker_url(), absent parts are None.

    Raises AnsibleFilterError, without the URL, when it cannot be read.
    """
    text = plain_text(url, "broker_url_parts")
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise AnsibleFilterError(f"broker_url_parts: the URL has no scheme: write it as {_EXAMPLE_URL}.")
    try:
        split = urlsplit("http://" + rest)  # as kombu.utils.url.url_to_parts does
        host, port = split.hostname, split.port
    except ValueError:
        raise AnsibleFilterError(f"broker_url_parts: the URL cannot be read: {_HOW_TO_QUOTE}.") from None
    query = dict(parse_qsl(split.query))
    parts: dict[str, Any] = {
        "scheme": scheme.lower(),
        "username": unquote(split.username or "") or None,
        "password": unquote(split.password or "") or None,
        "host": unquote(host or "") or None,
        "port": port,
        "virtual_host": None,
        "path": None,
        "query": query,
    }
    if parts["scheme"] == "redis+socket":
        parts["path"] = unquote(split.path) or None
        parts["virtual_host"] = query.pop("virtual_host", None)
    else:
        parts["virtual_host"] = unquote(split.path[1:]) or None
    return parts


def _split_urls(urls: Any) -> list[Any]:
    """A URL, several joined by ';', or a list of them, as a flat list."""
    return [piece for url in listed(urls) for piece in (str.__str__(url).split(";") if isinstance(url, str) else [url])]


def _one_broker_url_problems(url: Any, label: str, several: bool) -> list[str]:
    """What is wrong with one broker URL; the first thing found, since the rest often follows from it."""
    if not isinstance(url, str):
        return [f"{label} is {_kind(url)} and not text: write it as {_EXAMPLE_URL}."]
    text = str.__str__(url)
    bare = text.strip()
    if not bare or (":" not in bare and _is_placeholder(bare)) or (bare.startswith("<") and bare.endswith(">")):
        return [f"{label} is not set: write it as {_EXAMPLE_URL}."]
    scheme, separator, rest = text.partition("://")
    if not separator:
        hint = " A ';' separates URLs: in a password write it as %3B." if several else ""
        return [f"{label} has no scheme: write it as {_EXAMPLE_URL}.{hint}"]
    if scheme.lower() not in BROKER_SCHEMES:
        shown = scheme if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,20}", scheme) else MASK
        example = (
            "redis+socket:///run/redis/redis.sock" if scheme.lower().endswith(("unix", "socket")) else _EXAMPLE_URL
        )
        schemes = ", ".join(BROKER_SCHEMES)
        return [f"{label}: the scheme {shown!r} is not one of {schemes}: write it as {example}."]
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        return [f"{label} contains a space, a line break or a control character: write a space as %20."]
    if not rest.isascii():
        return [f"{label} contains a letter that is not ASCII: percent-encode it as UTF-8 (ü is %C3%BC)."]
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        return [f"{label} contains a '%' that is not followed by two hexadecimal digits: write a literal % as %25."]
    login, at, address = rest.rpartition("@")
    in_path = scheme.lower() == "redis+socket" and rest.startswith("/")  # there an @ is part of a file's name
    if at and not in_path and (unquoted := re.search(r"[@/?#\[\]]", login)):
        char = unquoted.group()
        return [f"{label} contains an unquoted {char!r} before the last '@': write it as {quote(char, safe='')}."]
    if "#" in address:
        return [f"{label} contains an unquoted '#': write it as %23."]
    try:
        parts = broker_url_parts(text)
    except AnsibleFilterError:
        port = re.match(r"[^/?\[\]]*:([^/?]*)", address)
        if port and not re.fullmatch(r"[0-9]+", port.group(1)):
            return [f"{label}: the port is not a number: write host:6379, and {_HOW_TO_QUOTE}."]
        if port:
            return [f"{label}: the port is not between 1 and 65535."]
        return [f"{label} cannot be read as a URL: write it as {_EXAMPLE_URL}."]
    problems = []
    database = parts["virtual_host"]
    if parts["scheme"] == "redis+socket":
        if parts["host"] or not str(parts["path"] or "").startswith("/") or parts["path"] == "/":
            problems.append(f"{label}: a socket is written with three slashes: redis+socket:///run/redis/redis.sock.")
        if several:
            problems.append(f"{label}: a redis+socket URL cannot be one of several: Kombu cannot switch to it.")
    else:
        if not parts["host"]:
            problems.append(f"{label}: the host is missing: write it as {_EXAMPLE_URL}.")
        elif ":" not in parts["host"] and not _HOST.fullmatch(parts["host"]):
            problems.append(f"{label}: the host is not a name or an IP address: write it as {_EXAMPLE_URL}.")
        if parts["port"] == 0:
            problems.append(f"{label}: the port is not between 1 and 65535.")
    # Kombu drops leading slashes of a Redis database and then wants an integer.
    redis_database = str(database or "").lstrip("/")
    if parts["scheme"] in _REDIS_SCHEMES and redis_database and not re.fullmatch(r"[0-9]+", redis_database):
        problems.append(f"{label}: a Redis database is a number: write it as {_EXAMPLE_URL}.")
    if parts["query"].get("ssl_cert_reqs", "none") not in _SSL_CERT_REQS:
        problems.append(f"{label}: ssl_cert_reqs is not one of CERT_REQUIRED, CERT_OPTIONAL, CERT_NONE.")
    return problems


def broker_url_problems(urls: Any, name: str = "flower_broker_url") -> list[str]:
    """What is wrong with a broker URL, several joined by ';', or a list of them, as sentences without secrets."""
    pieces = _split_urls(urls)
    if not pieces:
        return [f"{name} is not set: write it as {_EXAMPLE_URL}."]
    several = len(pieces) > 1
    problems = []
    for number, url in enumerate(pieces, 1):
        problems += _one_broker_url_problems(url, f"{name} (URL {number})" if several else name, several)
    return problems


def _is_local(host: str | None) -> bool:
    if host is None or host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def broker_credential_problems(urls: Any, name: str = "flower_broker_url") -> list[str]:
    """Credentials in broker URLs that must not be in use: guest:guest off loopback, placeholders.

    URLs that cannot be read are left to broker_url_problems.
    """
    problems = []
    pieces = _split_urls(urls)
    for number, url in enumerate(pieces, 1):
        label = f"{name} (URL {number})" if len(pieces) > 1 else name
        try:
            parts = broker_url_parts(url)
        except AnsibleFilterError:
            continue
        user, password, rabbit = parts["username"], parts["password"], parts["scheme"] in ("amqp", "amqps")
        # Kombu signs in as guest:guest at RabbitMQ when the URL names nobody.
        if rabbit and (user or "guest") == "guest" and (password or "guest") == "guest":
            if not _is_local(parts["host"]):
                problems.append(
                    f"{label} signs in as guest:guest at a host that is not localhost: "
                    "make a RabbitMQ user for Flower and write its name and password."
                )
        elif password and (_is_placeholder(password) or (password == user and not rabbit)):
            problems.append(f"{label} holds a placeholder for a password: write the broker's real one.")
    return problems


# ---------------------------------------------------------------- masking

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)?(_?hash)?|passwort|pwd|secrets?|tokens?|keys?|hash(es)?"
    r"|credentials?|basic_?auth|authorization|cookie|dsn",
    re.IGNORECASE,
)
_URL_LOGIN = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s:@/?#\"'<>]*)(?P<password>:[^\s\"'<>]*)?@")
_URL_START = re.compile(r"(?=(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*://)")
_QUERY_SECRET = re.compile(
    r"([?&;](?:[A-Za-z0-9_.-]*(?:password|passwd|secret|token|api_?key))=)[^&\s\"'<>;#]*", re.IGNORECASE
)


def _is_secret_key(key: Any) -> bool:
    """Whether a key names a secret: a whole word of it does (oauth2_key, cookie-secret, newPassword; not keyfile)."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", str(key)).lower()
    if _SECRET_KEY.fullmatch(words):
        return True
    pieces = re.split(r"[^a-z0-9]+", words)
    return any(_SECRET_KEY.fullmatch(piece) for piece in pieces if piece) and pieces[-1] not in ("file", "path", "dir")


def _mask_url_login(match: re.Match[str]) -> str:
    if match["password"] is None:  # a lone token, or a user name: nobody can tell
        return f"{match['scheme']}{MASK}@"
    return f"{match['scheme']}{match['user']}:{MASK}@"


def mask_text(text: str, secrets: Sequence[str] = ()) -> str:
    """Text without the passwords of its URLs and without the given secrets, as they are and percent-encoded."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    # Each URL by itself: a password may hold an unquoted @, so the last @ before a blank ends it.
    text = "".join(_URL_LOGIN.sub(_mask_url_login, piece) for piece in _URL_START.split(text))
    return _QUERY_SECRET.sub(rf"\1{MASK}", text)


def _forms_of(secrets: Any) -> list[str]:
    """Each secret in the forms in which it may be written, longest first; an empty one hides nothing."""
    forms: set[str] = set()
    for secret in listed(secrets):
        text = plain_text(secret, "mask_secrets: secrets")
        encodable = text.encode("utf-8", "surrogatepass")
        forms |= {text, quote(encodable), quote(encodable, safe=""), repr(text)[1:-1]}
    return sorted(forms - {""}, key=lambda form: (-len(form), form))


def _masked(value: Any, forms: Sequence[str]) -> Any:
    if isinstance(value, str):
        return mask_text(str.__str__(value), forms)
    if isinstance(value, Mapping):
        return {
            _masked(key, forms): MASK
            if _is_secret_key(key) and not isinstance(item, bool) and item not in (None, "")
            else _masked(item, forms)
            for key, item in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_masked(item, forms) for item in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return MASK if str(value) in forms else value
    return value


def mask_secrets(value: Any, secrets: Any = ()) -> Any:
    """The same structure with *** for passwords in URLs, values under keys that name a secret, and `secrets`."""
    return _masked(value, _forms_of(secrets))


# ---------------------------------------------------------------- users

HASH_SCHEMES = ("bcrypt", "argon2", "sha512_crypt", "pbkdf2_sha256", "scrypt")
"""Kinds of hash that are made here."""
READ_SCHEMES = (*HASH_SCHEMES, "sha256_crypt", "apr_md5_crypt")
"""Kinds of hash that may be given: as SCHEMES in the add-on's auth.py, which must read them."""
_HASH_FORMATS = re.compile(
    r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}"
    r"|\$6\$(rounds=[0-9]+\$)?[./A-Za-z0-9]{0,16}\$[./A-Za-z0-9]{86}"
    r"|\$5\$(rounds=[0-9]+\$)?[./A-Za-z0-9]{0,16}\$[./A-Za-z0-9]{43}"
    r"|\$apr1\$[./A-Za-z0-9]{0,8}\$[./A-Za-z0-9]{22}"
    r"|\$pbkdf2-sha256\$[0-9]+\$[./A-Za-z0-9]*\$[./A-Za-z0-9]{43}"
    r"|\$scrypt\$ln=[0-9]+,r=[0-9]+,p=[0-9]+\$[+/A-Za-z0-9]*\$[+/A-Za-z0-9]+"
    r"|\$argon2(id|i|d)\$(v=[0-9]+\$)?m=[0-9]+,t=[0-9]+,p=[0-9]+\$[+/A-Za-z0-9]+\$[+/A-Za-z0-9]+"
)
# Kinds with a cost in the hash, and the most of it that takes some seconds; a sign-in with more would block all others.
_COSTS = (
    (re.compile(r"\$2[aby]\$([0-9]{2})\$.*"), 15),
    (re.compile(r"\$[56]\$rounds=([0-9]+)\$.*"), 2_000_000),
    (re.compile(r"\$pbkdf2-sha256\$([0-9]+)\$.*"), 5_000_000),
    (re.compile(r"\$scrypt\$ln=([0-9]+),.*"), 20),
    (re.compile(r"\$argon2.*[$,]t=([0-9]+),.*"), 100),
)
_MIN_PASSWORD_CHARACTERS = 8
_MAX_BCRYPT_BYTES = 72
_RESERVED_NAMES = ("doctor",)  # the add-on's own health check signs in with it
ROLES = ("viewer", "operator")
_COMMON = (
    "password|passwort|passwd|pass|secret|admin|administrator|root|guest|user|test|demo|default|example|placeholder"
    "|letmein|welcome|qwerty|qwertz|asdf|flower|celery|redis|rabbitmq|foobar|todo|fixme|none|null"
)
_PLACEHOLDER = re.compile(
    rf"(my|the|a|new)?({_COMMON})\d{{0,4}}"
    r"|(change|replace)(me|it|this)(please|now|later|soon|first|\d+)*"
    r"|(change|replace|insert|enter|fill|put|set|your)\w*(here|password|secret|token|key|url|with\w*)|your"
    r"|\w*(password|secret|url)here|(?P<one>.)(?P=one)*"
    r"|0?1234567890?|12345678?9?|123456|abc123|abcdefgh"
)
_LEET = str.maketrans({"@": "a", "4": "a", "3": "e", "1": "i", "!": "i", "0": "o", "$": "s", "5": "s", "7": "t"})


def _is_placeholder(password: str) -> bool:
    """Whether a password stands for one still to be chosen, or is the first that anybody would try."""
    lower = password.lower()
    leet = re.sub(r"[0-9!$]+$", "", lower).translate(_LEET)
    spellings = {re.sub(r"[\W_]+", "", spelling) for spelling in (lower, leet)}
    bracketed = lower[:1] + lower[-1:] in ("<>", "{}", "[]") and len(lower) > 2
    return bracketed or any(_PLACEHOLDER.fullmatch(spelling) for spelling in spellings if spelling)


def _kind(value: Any) -> str:
    """What a user would call the type of this value."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "a dictionary"
    return "a list" if isinstance(value, Sequence) else f"a {type(value).__name__}"


def _password_problems(password: str, name: str, label: str, others: set[str]) -> list[str]:
    """Weakness of one password, as one sentence or none."""
    if password in others:
        return [f"{label} has the broker's password: choose another one for signing in."]
    if password.casefold() == name.casefold():
        return [f"{label} has a password that is the user name: choose another one."]
    if _is_placeholder(password):
        return [f"{label} has a placeholder or one of the most guessed passwords: choose a real one."]
    if len(password) < _MIN_PASSWORD_CHARACTERS:
        return [f"{label} has a password of {len(password)} characters: use at least {_MIN_PASSWORD_CHARACTERS}."]
    return []


def user_problems(
    users: Any,
    name: str = "flower_users",
    broker_urls: Any = (),
    allow_weak: bool = False,
    scheme: str = "bcrypt",
) -> list[str]:
    """What is wrong with the list of users, as sentences; an empty list is wrong too, since nobody could sign in.

    broker_urls: a user's password must not be one of theirs. allow_weak: only what cannot work is a problem.
    """
    if not isinstance(users, Sequence) or isinstance(users, (str, bytes)):
        return [f"{name} must be a list of users, each with name and password: it is {_kind(users)}."]
    if not users:
        return [f"{name} is empty, so nobody could sign in: give at least one user with name and password."]
    broker_passwords: set[str] = set()
    for url in _split_urls(broker_urls):
        try:
            broker_passwords.add(broker_url_parts(url)["password"] or "")
        except AnsibleFilterError:
            continue
    problems: list[str] = []
    seen: set[str] = set()
    for number, user in enumerate(users, 1):
        label = f"{name}: entry {number}"
        if not isinstance(user, Mapping):
            problems.append(f"{label} is {_kind(user)}: write it with the keys name and password.")
            continue
        user_name = user.get("name")
        if not isinstance(user_name, str) or not user_name:
            problems.append(f"{label} has no name: write name as text.")
            continue
        # A name that cannot be right is not shown: it may be "name:password".
        if wrong := _name_problem(user_name):
            problems.append(f"{label} has a user name with {wrong}: leave it out.")
            continue
        label = f"{name}: user '{user_name}'"
        if user_name in _RESERVED_NAMES:
            problems.append(f"{label} is reserved for the health check: choose another name.")
        if user_name in seen:
            problems.append(f"{label} is there twice: keep one of them.")
        seen.add(user_name)
        if user.get("role", ROLES[1]) not in ROLES:
            problems.append(f"{label} has a role that does not exist: write {' or '.join(ROLES)}, or leave it out.")
        problems += _user_secret_problems(user, label, broker_passwords - {""}, allow_weak, scheme)
    return problems


def _name_problem(name: str) -> str | None:
    """What a user name holds that it must not."""
    if ":" in name:
        return "a ':', which HTTP Basic cannot carry"
    if not name.isprintable() or name != name.strip():
        return "a control character or a blank at its end"
    return None


def _user_secret_problems(
    user: Mapping[str, Any], label: str, broker_passwords: set[str], allow_weak: bool, scheme: str
) -> list[str]:
    password, password_hash = _part(user, "password"), _part(user, "password_hash")
    if password is not None and password_hash is not None:
        return [f"{label} has both password and password_hash: keep one of them."]
    if password_hash is not None:
        if isinstance(password_hash, str) and _HASH_FORMATS.fullmatch(password_hash):
            return [f"{label} has a password_hash that {_TOO_DEAR}."] if _too_dear(password_hash) else []
        return [f"{label} has a password_hash that is not one of {', '.join(READ_SCHEMES)}: see its documentation."]
    if password is None:
        return [f"{label} has no password: write password or password_hash."]
    if not isinstance(password, str):
        return [f"{label} has a password that is {_kind(password)} and not text: put it in quotes."]
    password = str.__str__(password)
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", password):
        return [f"{label} has a password with a line break or a control character: leave it out."]
    if scheme == "bcrypt" and len(password.encode()) > _MAX_BCRYPT_BYTES:
        return [f"{label} has a password of more than {_MAX_BCRYPT_BYTES} bytes, which bcrypt ignores: shorten it."]
    return [] if allow_weak else _password_problems(password, str(user["name"]), label, broker_passwords)


_TOO_DEAR = "takes too long to check, so that nobody else could sign in meanwhile: make one with less cost"


def _too_dear(password_hash: str) -> bool:
    """Whether checking a password against this hash would take many seconds."""
    return any(
        (found := pattern.fullmatch(password_hash)) is not None and int(found[1]) > most for pattern, most in _COSTS
    )


_NO_PASSLIB = (
    "hashed_users: this controller cannot hash passwords{why}: run `pip install libpass bcrypt` "
    "for the Python that runs Ansible, after `pip uninstall passlib` if that is installed."
)


def _hashers() -> Any:
    """passlib.hash, from libpass; raises AnsibleFilterError where it is missing or broken."""
    try:
        hashers = importlib.import_module("passlib.hash")
    except ImportError:
        raise AnsibleFilterError(_NO_PASSLIB.format(why=" (no libpass)")) from None
    return hashers


def _hasher(scheme: str, rounds: int | None) -> Any:
    """A passlib handler of this scheme that is known to work."""
    handler = getattr(_hashers(), scheme)
    try:
        if hasattr(handler, "set_backend"):
            handler.set_backend()  # passlib 1.7.4 fails here with bcrypt 5
        return handler.using(rounds=rounds) if rounds else handler
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:  # MissingBackendError is a RuntimeError
        if rounds and "rounds" in str(error):
            raise AnsibleFilterError(f"hashed_users: rounds={rounds} is not possible with {scheme}.") from None
        why = " (no bcrypt, or one that passlib 1.7.4 cannot use)" if scheme == "bcrypt" else f" with {scheme}"
        raise AnsibleFilterError(_NO_PASSLIB.format(why=why)) from None


def _still_matches(password: str, stored: Any) -> bool:
    """Whether a stored hash of any known scheme is one of this password; a hash nobody can read is not."""
    if not isinstance(stored, str) or not _HASH_FORMATS.fullmatch(stored):
        return False
    hashers = _hashers()
    for scheme in READ_SCHEMES:
        handler = getattr(hashers, scheme)
        try:
            if handler.identify(stored):
                return bool(handler.verify(password, stored))
        except (ValueError, RuntimeError):  # malformed, or its backend is missing
            return False
    return False


def hashed_users(
    users: Sequence[Mapping[str, Any]],
    existing: Sequence[Mapping[str, Any]] | None = None,
    scheme: str = "bcrypt",
    rounds: int | None = None,
) -> list[dict[str, str]]:
    """Users as [{name, hash, role}] in the order given. An existing hash that still matches is kept byte for byte.

    users: [{name, password | password_hash, role: viewer | operator (default)}].
    existing: what this filter returned last time.
    rounds: the cost (bcrypt: its logarithm); None is passlib's default.
    """
    if scheme not in HASH_SCHEMES:
        raise AnsibleFilterError(f"hashed_users: scheme must be one of {', '.join(HASH_SCHEMES)}.")
    # Plain texts: the hashing libraries refuse the subclasses that Ansible makes of what it read on a host.
    stored = {
        plain_text(entry["name"], "hashed_users: existing"): plain_text(entry["hash"], "hashed_users: existing")
        for entry in listed(existing)
        if isinstance(entry, Mapping) and entry.get("name") and entry.get("hash")
    }
    hashed: list[dict[str, str]] = []
    hasher: Any = None
    for number, user in enumerate(listed(users), 1):
        what = f"hashed_users: entry {number}"
        if not isinstance(user, Mapping) or not user.get("name"):
            raise AnsibleFilterError(f"{what} has no name.")
        name = plain_text(user["name"], what)
        role = _role(user.get("role", ROLES[1]), what)
        if (given := _part(user, "password_hash")) is not None:
            hashed.append({"name": name, "hash": plain_text(given, what), "role": role})
            continue
        if _part(user, "password") is None:
            raise AnsibleFilterError(f"{what} has neither password nor password_hash.")
        password = plain_text(user["password"], what)
        if hasher is None:
            hasher = _hasher(scheme, None if rounds is None else int(rounds))
        kept = stored.get(name)
        if not _still_matches(password, kept):
            kept = _hash(hasher, password, scheme, what)
        hashed.append({"name": name, "hash": plain_text(kept, what), "role": role})
    return hashed


def _hash(hasher: Any, password: str, scheme: str, what: str) -> str:
    """A new hash of this password, or an AnsibleFilterError that does not hold it."""
    if scheme == "bcrypt" and len(password.encode("utf-8", "surrogatepass")) > _MAX_BCRYPT_BYTES:
        raise AnsibleFilterError(
            f"{what} has a password of more than {_MAX_BCRYPT_BYTES} bytes: bcrypt ignores the rest."
        )
    try:
        return str(hasher.hash(password))
    except (ValueError, TypeError):  # its text could hold the password
        raise AnsibleFilterError(
            f"{what} has a password that {scheme} cannot hash: leave out unusual characters."
        ) from None


def _role(value: Any, what: str) -> str:
    """One of ROLES, without Ansible's tags; anything else is an AnsibleFilterError."""
    if value not in ROLES:
        raise AnsibleFilterError(f"{what}: role must be {' or '.join(ROLES)}.")
    return plain_text(value, what)


# ---------------------------------------------------------------- htpasswd files

_BETTER_LINE = "make the line anew with `htpasswd -nB -C 12 NAME`"
_NO_GOOD_HASHES = (
    (r"\{S?SHA\}.*", "a SHA-1 hash, which is guessed billions of times a second"),
    (r"[./A-Za-z0-9]{13}", "a hash of the old crypt(), or a plain password: both are read too easily"),
    (r"\$y\$.*", "a yescrypt hash, which the sign-in cannot read"),
    (r"\$1\$.*", "an MD5 hash, which is guessed too fast"),
    (r"(\$|!|\*).*", "a hash of a kind that the sign-in cannot read, or a damaged one"),
    (r".*", "a password as plain text"),
)


def _htpasswd_lines(text: Any) -> list[tuple[int, str, str]]:
    """Number, name and hash of each line with a user; without a ':' the name is empty and the hash the whole line."""
    found = []
    for number, line in enumerate(plain_text(text, "htpasswd").lstrip("\ufeff").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        # a third field is a comment, as nginx has it
        found.append((number, name, rest.partition(":")[0].strip()) if colon else (number, "", line))
    return found


def htpasswd_problems(text: Any, name: str = "flower_htpasswd") -> list[str]:
    """What is wrong with the content of an htpasswd file, as sentences with line numbers and neither names nor hashes.

    An empty text is no problem: there is no such file. Accepted are bcrypt, SHA-512, SHA-256, apr1 and argon2.
    """
    if text is None or text == "":
        return []
    if not isinstance(text, str) and type(text).__name__ != "AnsibleVaultEncryptedUnicode":
        return [f"{name} must be the text of an htpasswd file: it is {_kind(text)}."]
    lines = _htpasswd_lines(text)
    if not lines:
        return [f"{name} holds no user: give lines of the form NAME:HASH; {_BETTER_LINE}."]
    problems = []
    first_line: dict[str, int] = {}
    for number, user, stored in lines:
        label = f"{name}: line {number}"
        if not user:
            problems.append(f"{label} is not of the form NAME:HASH: {_BETTER_LINE}.")
            continue
        if wrong := _name_problem(user):
            problems.append(f"{label} has a user name with {wrong}: leave it out.")
        elif user in _RESERVED_NAMES:
            problems.append(f"{label} has a user name that is reserved for the health check: choose another name.")
        elif user in first_line:
            problems.append(f"{label} has the same user name as line {first_line[user]}: keep one of them.")
        first_line.setdefault(user, number)
        if not stored:
            problems.append(f"{label} has no password hash: {_BETTER_LINE}.")
        elif not _HASH_FORMATS.fullmatch(stored):
            kind = next(words for pattern, words in _NO_GOOD_HASHES if re.fullmatch(pattern, stored))
            problems.append(f"{label} has {kind}: {_BETTER_LINE}.")
        elif _too_dear(stored):
            problems.append(f"{label} has a hash that {_TOO_DEAR}.")
    return problems


def htpasswd_users(text: Any, role: str = "viewer") -> list[dict[str, str]]:
    """The users of an htpasswd file as [{name, password_hash, role}], for flower_users or hashed_users().

    Raises AnsibleFilterError with the first of htpasswd_problems().
    """
    if problems := htpasswd_problems(text, "htpasswd_users"):
        raise AnsibleFilterError(problems[0])
    role = _role(role, "htpasswd_users")
    lines = _htpasswd_lines(text) if text else []
    return [{"name": name, "password_hash": stored, "role": role} for _, name, stored in lines]


class FilterModule:
    """Names of the filters for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name of each filter and its function."""
        return {
            "broker_credential_problems": broker_credential_problems,
            "broker_url": broker_url,
            "broker_url_parts": broker_url_parts,
            "broker_url_problems": broker_url_problems,
            "hashed_users": hashed_users,
            "htpasswd_problems": htpasswd_problems,
            "htpasswd_users": htpasswd_users,
            "mask_secrets": mask_secrets,
            "nginx_quote": nginx_quote,
            "python_literal": python_literal,
            "systemd_quote": systemd_quote,
            "user_problems": user_problems,
        }
