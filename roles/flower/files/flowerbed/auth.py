"""Who may sign in: password hashes, sessions, and what one attempt costs.

A session is Tornado's signed cookie `user`.  Its value is `u:<fingerprint>:<name>`, where the fingerprint is an HMAC of
the user's stored hash: a changed password or a removed user ends the session at the next request after the restart
that brings the change.  For somebody from a sign-in service it is `s:<fingerprint>:<profile>`, where the fingerprint is
one of that service and the profile what it said, as JSON in base64; what they may do is read from the rules each time.
The doctor's own session is `d:<fingerprint>`: no user name can take that form, and it may only read.  A session that
was copied out of a browser stays good until it expires; signing out only removes it there.
"""

# ruff: noqa: PLC0415  # late imports: Flower and Celery act when imported, and not every command needs them
from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import math
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tornado.web import create_signed_value, decode_signed_value

from flowerbed.identity import VIEWER, Doctor, Person, Profile, role_of, without_the_rest
from flowerbed.settings import Credentials, Settings, SettingsError, User, rules
from flowerbed.throttle import Client, Throttle

COOKIE = "user"
DOCTOR = "doctor"
#: hashes that `verify` reads; argon2 only where its library is installed
SCHEMES = (
    "bcrypt", "argon2", "sha512_crypt", "sha256_crypt", "pbkdf2_sha256", "pbkdf2_sha512", "scrypt", "apr_md5_crypt",
)  # fmt: skip
MAX_NAME, MAX_PASSWORD, MAX_CACHED = 256, 1024, 1024
#: of one lane: attempts in progress (those whose answer is held back included), of them from one address, and passwords
#: that wait to be hashed; a waiting one takes half a second at bcrypt's cost 12
MAX_IN_PROGRESS, MAX_FROM_ADDRESS, MAX_WAITING = 100, 20, 16
#: how long a browser stays a known device after a good sign-in there
DEVICE_DAYS = 180
#: what a client is told to wait when too many are signing in
BUSY_SECONDS = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What came of an attempt: signed in, or an HTTP status and the seconds after which to try again."""

    status: int
    retry_after: int = 0

    @property
    def signed_in(self) -> bool:
        """Whether name and password were right."""
        return self.status == 200


def verify(users: Sequence[User], name: str, password: str) -> bool:
    """Whether `password` is that of the user `name`; costs the same time for a name that is not there."""
    known = next((user for user in users if user.name == name), None)
    if known is None and not users:
        return False
    # the stand-in for an unknown name is always the same user, so that its cost says nothing
    number = int.from_bytes(hashlib.sha256(name.encode("utf-8", "replace")).digest()[:4], "big") % len(users)
    fits = _password_fits(password, (known or users[number]).hash)
    return fits and known is not None and len(password) <= MAX_PASSWORD


def hash_for_memory(password: str) -> str:
    """A cheap hash for a password that is in this process's environment anyway."""
    from passlib.hash import pbkdf2_sha256

    return str(pbkdf2_sha256.using(rounds=29000).hash(password))


def unreadable_users(users: Sequence[User]) -> list[str]:
    """Names of the users whose hash no installed scheme reads."""
    return [user.name for user in users if _context().identify(user.hash) is None]


def session_cookie(settings: Settings, credentials: Credentials, name: str = DOCTOR) -> str:
    """The signed value of the cookie `user`: for `doctor` the doctor's session, which may only read, else a user's.

    Raises SettingsError without a cookie secret or for an unknown user.  Good for `settings.session_seconds`.
    """
    if name != DOCTOR:
        return user_cookie(credentials, name)
    return _signed(credentials, f"d:{_fingerprint(_secret(credentials), 'doctor')}")


def user_cookie(credentials: Credentials, name: str) -> str:
    """The signed value of the cookie `user` for a user in the credentials, also for one who is called doctor."""
    user = next((user for user in credentials.users if user.name == name), None)
    if user is None:
        raise SettingsError("A session can only be made for a user in the credentials.")
    return _signed(credentials, f"u:{_fingerprint(_secret(credentials), 'user', name, user.hash)}:{name}")


def device_cookie_name(credentials: Credentials, name: str) -> str:
    """The name of a user's device cookie: of its own for each user of a browser, and it does not say who they are."""
    return "flower_device_" + _fingerprint(_secret(credentials), "device name", name)[:12]


def device_cookie(credentials: Credentials, name: str) -> str:
    """The signed value of a new device cookie for a user in the credentials; good for DEVICE_DAYS.

    It lets nobody in: it only says that its browser is known (see throttle.py).  A changed password ends it.
    """
    stored = next(user.hash for user in credentials.users if user.name == name)
    mark = _fingerprint(_secret(credentials), "device", name, stored)
    value = f"{secrets.token_urlsafe(12)}:{mark}"
    return create_signed_value(_secret(credentials), device_cookie_name(credentials, name), value).decode("ascii")


def device_number(credentials: Credentials, name: str, cookie: str) -> str:
    """The random number in a user's device cookie; empty when the cookie is no good, too old or not theirs."""
    stored = next((user.hash for user in credentials.users if user.name == name), None)
    if stored is None or not cookie:
        return ""
    secret, key = _secret(credentials), device_cookie_name(credentials, name)
    raw = decode_signed_value(secret, key, cookie, max_age_days=DEVICE_DAYS)
    number, _, mark = (raw or b"").decode("utf-8", "replace").partition(":")
    expected = _fingerprint(secret, "device", name, stored)
    return number if hmac.compare_digest(mark.encode(), expected.encode()) else ""


def profile_cookie(settings: Settings, credentials: Credentials, profile: Profile) -> str:
    """The signed value of the cookie `user` for somebody from a sign-in service."""
    kept = without_the_rest(rules(settings), profile)
    data = json.dumps([kept.name, kept.email, kept.groups, kept.claims], separators=(",", ":"))
    code = base64.urlsafe_b64encode(data.encode()).decode("ascii")
    return _signed(credentials, f"s:{_service(settings, credentials)}:{code}")


def session_person(settings: Settings, credentials: Credentials, cookie: str) -> Person | None:
    """The person, or Doctor, whose session a cookie's value is; None when it is no good, too old, or no rule fits."""
    if not credentials.cookie_secret:
        return None
    days = settings.session_seconds / 86400
    raw = decode_signed_value(credentials.cookie_secret, COOKIE, cookie, max_age_days=days)
    if raw is None:
        return None
    kind, _, rest = raw.decode("utf-8", "replace").partition(":")
    fingerprint, _, value = rest.partition(":")
    if kind == "d":
        expected = _fingerprint(credentials.cookie_secret, "doctor")
        return Doctor(DOCTOR, VIEWER) if not value and hmac.compare_digest(fingerprint, expected) else None
    if kind == "s":
        fits = hmac.compare_digest(fingerprint.encode(), _service(settings, credentials).encode())
        return profile_person(settings, _profile(value)) if fits else None
    user = next((user for user in credentials.users if user.name == value), None)
    if kind != "u" or user is None:
        return None
    expected = _fingerprint(credentials.cookie_secret, "user", value, user.hash)
    return Person(user.name, user.role) if hmac.compare_digest(fingerprint.encode(), expected.encode()) else None


def profile_person(settings: Settings, profile: Profile, via: str = "session") -> Person | None:
    """The person with the role that the rules give them; None when no rule fits."""
    role = role_of(rules(settings), profile)
    return None if role is None else Person(profile.name, role, via)


def _profile(code: str) -> Profile:
    name, email, groups, claims = json.loads(base64.urlsafe_b64decode(code))
    return Profile(name, email, tuple(groups), {key: tuple(values) for key, values in claims.items()})


def _service(settings: Settings, credentials: Credentials) -> str:
    """A fingerprint of the sign-in service: another one, or another client of it, ends all sessions."""
    parts = (settings.auth, settings.oidc.issuer, settings.provider.handler, settings.client_id or "")
    return _fingerprint(_secret(credentials), "service", *parts)


class Lane:
    """Where passwords are hashed, one at a time, and how many attempts are in progress there.

    With `rests` a wrong password is followed by a pause as long as its hashing worked: guessing then costs half a
    processor at most, and the unit's CPUQuota leaves the rest to pages.  (A lower priority would be better, but
    the unit's sandbox allows no setpriority.)  Only for the event loop's thread, but for `_hash`.
    """

    def __init__(self, name: str, rests: bool) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"flowerbed-{name}")
        self._turn = asyncio.Lock()
        self._rests = rests
        self._rest_until = 0.0
        self._in_progress: dict[str, int] = {}
        self._waiting = 0

    def is_full(self, network: str) -> bool:
        """Whether one more attempt from there is one too many."""
        progress = self._in_progress
        return progress.get(network, 0) >= MAX_FROM_ADDRESS or sum(progress.values()) >= MAX_IN_PROGRESS

    def has_room(self) -> bool:
        """Whether one more password may wait to be hashed."""
        return self._waiting < MAX_WAITING

    def take_place(self) -> None:
        """Counts a password as waiting until `verify` is through with it; at once, since a task begins later."""
        self._waiting += 1

    @contextmanager
    def attempt(self, network: str) -> Iterator[None]:
        """Counts an attempt as in progress for as long as it lasts."""
        self._in_progress[network] = self._in_progress.get(network, 0) + 1
        try:
            yield
        finally:
            self._in_progress[network] -= 1
            if not self._in_progress[network]:
                del self._in_progress[network]

    async def verify(self, users: Sequence[User], name: str, password: str) -> bool:
        """As `verify`, when it is this password's turn; `take_place` comes first."""
        try:
            # waiting here and not in the pool, which would work off its queue before the process may end
            async with self._turn:
                return await asyncio.get_running_loop().run_in_executor(self._pool, self._hash, users, name, password)
        finally:
            self._waiting -= 1

    def _hash(self, users: Sequence[User], name: str, password: str) -> bool:
        time.sleep(max(self._rest_until - time.monotonic(), 0.0))
        # this thread's own time, which a busy machine does not stretch
        began = time.thread_time()
        fits = verify(users, name, password)
        rest = time.thread_time() - began if self._rests and not fits else 0.0
        self._rest_until = time.monotonic() + rest
        return fits


class SignIn:
    """Checks names and passwords off the event loop, remembers good ones for a while and slows bad ones down.

    Known devices and addresses have a lane of their own, which strangers cannot fill.
    Only for the event loop's thread.  What is remembered is an HMAC under a key of this process, never a password, and
    counts for one address only: otherwise a locked-out guesser could try passwords against what others have proved.
    """

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self.settings = settings
        self.credentials = credentials
        self.throttle = Throttle(settings.login_attempts, settings.login_window_seconds)
        self._key = secrets.token_bytes(32)
        self._good: dict[bytes, float] = {}
        self._running: dict[bytes, asyncio.Task[Answer]] = {}
        self._known, self._strangers = Lane("known", rests=False), Lane("strangers", rests=True)

    async def attempt(self, name: str, password: str, address: str, device_cookie: str = "") -> Answer:
        """One sign-in; a wrong one takes longer each time, and too many give 429, too many at once 503."""
        name = name[:MAX_NAME]
        client = self.throttle.client(name, address, device_number(self.credentials, name, device_cookie))
        # the lock comes before the memory, or a locked guesser would still be told when a guess is right
        if wait := self.throttle.own_wait(client):
            return Answer(429, math.ceil(wait))
        key = self._digest(name, password, address, client.device)
        if self._good.get(key, 0.0) > time.monotonic():
            return Answer(200)
        if wait := self.throttle.wait(client):
            return Answer(429, math.ceil(wait))
        lane = self._known if client.known else self._strangers
        # one verification for any number of equal requests: a script's parallel calls are one attempt
        task = self._running.get(key)
        if lane.is_full(client.network) or (task is None and not lane.has_room()):
            return Answer(503, BUSY_SECONDS)
        with lane.attempt(client.network):
            if task is None:
                # counted before anything is awaited, or parallel guesses would all come before the first count
                began = self.throttle.begin(client)
                lane.take_place()
                task = asyncio.ensure_future(self._check(lane, key, client, password, address, began))
                self._running[key] = task
                task.add_done_callback(lambda _: self._running.pop(key, None))
            return await asyncio.shield(task)

    async def _check(self, lane: Lane, key: bytes, client: Client, password: str, address: str, began: float) -> Answer:
        if await lane.verify(self.credentials.users, client.name, password):
            self.throttle.succeeded(client, began)
            self._remember(key)
            return Answer(200)
        locked = self.throttle.wait(client)
        # repr() escapes line breaks and control characters: a name cannot write log lines of its own
        lock = f"; locked for {math.ceil(locked)} s" if locked else ""
        logger.warning("Sign-in failed for user %r from %s%s", client.name[:64], address, lock)
        await asyncio.sleep(self.throttle.delay(client))
        return Answer(401)

    def _remember(self, key: bytes) -> None:
        if not self.settings.verify_cache_seconds:
            return
        now = time.monotonic()
        if len(self._good) >= MAX_CACHED:
            self._good = {old: until for old, until in self._good.items() if until > now}
        if len(self._good) >= MAX_CACHED:
            self._good.clear()
        self._good[key] = now + self.settings.verify_cache_seconds

    def _digest(self, *parts: str) -> bytes:
        return _mac(self._key, *parts).digest()


def _secret(credentials: Credentials) -> str:
    if not credentials.cookie_secret:
        raise SettingsError("The credentials hold no cookie_secret, so no session can be made.")
    return credentials.cookie_secret


def _signed(credentials: Credentials, value: str) -> str:
    return create_signed_value(_secret(credentials), COOKIE, value).decode("ascii")


def _fingerprint(cookie_secret: str, *parts: str) -> str:
    return _mac(cookie_secret.encode(), "flowerbed session", *parts).hexdigest()[:32]


def _mac(key: bytes, *parts: str) -> hmac.HMAC:
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        # the length first: no two lists of parts give the same bytes
        mac.update(len(data).to_bytes(8, "big") + data)
    return mac


def _password_fits(password: str, stored: str) -> bool:
    try:
        return bool(_context().verify(password[:MAX_PASSWORD], stored))
    except (ValueError, TypeError, RuntimeError):
        # a password that the scheme refuses (a NUL, say), a hash that nobody reads: wrong, and never a crash
        return False


@lru_cache(maxsize=1)
def _context() -> Any:
    from passlib.context import CryptContext

    return CryptContext(schemes=[scheme for scheme in SCHEMES if _installed(scheme)])


def _installed(scheme: str) -> bool:
    from passlib import hash as hashes

    try:
        return bool(getattr(hashes, scheme).has_backend())
    except AttributeError:
        # only schemes with several implementations have has_backend()
        return hasattr(hashes, scheme)
