"""The small parts alone: throttle, hashes, sessions, settings, options of the broker."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
import ssl
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from addon_support import Redis
from celery import Celery
from passlib.hash import apr_md5_crypt, bcrypt, pbkdf2_sha256, scrypt, sha256_crypt, sha512_crypt
from redis.exceptions import ConnectionError as RedisConnectionError

from flowerbed import broker
from flowerbed.auth import (
    DEVICE_DAYS,
    DOCTOR,
    MAX_WAITING,
    Lane,
    SignIn,
    device_cookie,
    device_cookie_name,
    device_number,
    session_cookie,
    session_person,
    user_cookie,
    verify,
)
from flowerbed.identity import Doctor
from flowerbed.settings import Credentials, Settings, SettingsError, User, load, load_credentials
from flowerbed.throttle import DRAWERS, KNOWN_SECONDS, MAX_COUNTS, MAX_KNOWN, Client, Throttle, network
from flowerbed.web.guard import basic_pair
from flowerbed.web.login import is_own_path


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def stranger(throttle: Throttle, name: str, address: str) -> Client:
    client = throttle.client(name, address)
    assert not client.known
    return client


class TestThrottle:
    def test_locks_a_pair_until_the_oldest_failure_is_out_of_the_window(self, clock: Clock) -> None:
        throttle = Throttle(3, 60, clock)
        pair = stranger(throttle, "a", "192.0.2.1")
        for _ in range(3):
            assert throttle.wait(pair) == 0
            throttle.begin(pair)
            clock.now += 10
        assert throttle.wait(pair) == throttle.own_wait(pair) == 30
        assert throttle.wait(stranger(throttle, "a", "192.0.2.2")) == 0
        assert throttle.wait(stranger(throttle, "b", "192.0.2.1")) == 0
        clock.now += 30
        assert throttle.wait(pair) == 0

    def test_locks_an_address_that_tries_many_names(self, clock: Clock) -> None:
        throttle = Throttle(3, 60, clock)
        for number in range(12):
            client = stranger(throttle, f"user{number}", "192.0.2.1")
            assert throttle.wait(client) == 0
            throttle.begin(client)
        another = stranger(throttle, "another", "192.0.2.1")
        assert (throttle.wait(another), throttle.own_wait(another)) == (60, 0)
        assert throttle.wait(stranger(throttle, "another", "192.0.2.2")) == 0

    def test_locks_a_name_that_many_addresses_try_until_the_window_slides(self, clock: Clock) -> None:
        throttle = Throttle(3, 60, clock)
        allowed = 0
        for number in range(200):
            client = stranger(throttle, "a", f"192.0.2.{number}")
            if not throttle.wait(client):
                throttle.begin(client)
                allowed += 1
        assert allowed == 12
        elsewhere = stranger(throttle, "a", "198.51.100.1")
        assert (throttle.wait(elsewhere), throttle.own_wait(elsewhere)) == (60, 0)
        assert throttle.wait(stranger(throttle, "b", "198.51.100.1")) == 0
        clock.now += 60
        assert throttle.wait(elsewhere) == 0

    def test_a_known_address_and_a_known_device_are_not_locked_with_the_name(self, clock: Clock) -> None:
        throttle = Throttle(3, 60, clock)
        script = throttle.client("a", "198.51.100.1")
        throttle.succeeded(script, throttle.begin(script))
        for number in range(12):
            throttle.begin(stranger(throttle, "a", f"192.0.2.{number}"))
        # for this name only
        assert throttle.client("a", "198.51.100.1").known and not throttle.client("b", "198.51.100.1").known
        assert throttle.wait(throttle.client("a", "198.51.100.1")) == 0
        assert throttle.wait(throttle.client("a", "192.0.2.1", "device")) == 0
        assert throttle.wait(stranger(throttle, "a", "192.0.2.1")) == 60

    def test_known_clients_have_a_limit_of_their_own_and_do_not_close_the_name(self, clock: Clock) -> None:
        throttle = Throttle(3, 60, clock)
        script = throttle.client("a", "198.51.100.1")
        throttle.succeeded(script, throttle.begin(script))
        device, script = throttle.client("a", "192.0.2.1", "device"), throttle.client("a", "198.51.100.1")
        for client in (device, script):
            for _ in range(3):
                assert throttle.wait(client) == 0
                throttle.begin(client)
            assert throttle.wait(client) == 60
        assert throttle.wait(throttle.client("a", "192.0.2.1", "another device")) == 0
        assert throttle.wait(stranger(throttle, "a", "192.0.2.1")) == 0

    def test_a_device_is_not_locked_by_its_neighbours_at_the_same_address(self, clock: Clock) -> None:
        throttle = Throttle(3, 60, clock)
        for number in range(20):
            throttle.begin(throttle.client(("a", "b", "c")[number % 3], "192.0.2.1"))
        assert throttle.wait(throttle.client("a", "192.0.2.1")) == 60
        assert throttle.wait(throttle.client("a", "192.0.2.1", "device")) == 0

    def test_an_address_is_known_for_a_week(self, clock: Clock) -> None:
        throttle = Throttle(3, 60, clock)
        client = throttle.client("a", "192.0.2.1")
        throttle.succeeded(client, throttle.begin(client))
        clock.now += KNOWN_SECONDS - 1
        assert throttle.client("a", "192.0.2.1").known
        clock.now += 1
        assert not throttle.client("a", "192.0.2.1").known

    def test_names_that_exist_and_others_are_counted_alike(self, clock: Clock) -> None:
        # the throttle is not even told which names there are; a name of any length and kind has its count
        throttle = Throttle(1, 60, clock)
        for name in ("", "alice", "\ud800", "x" * 256):
            for number in range(4):
                assert throttle.wait(stranger(throttle, name, f"192.0.2.{number}")) == 0
                throttle.begin(stranger(throttle, name, f"192.0.2.{number}"))
            assert throttle.wait(stranger(throttle, name, "198.51.100.1")) == 60
            clock.now += 60

    def test_a_success_clears_its_own_count_only(self, clock: Clock) -> None:
        throttle = Throttle(2, 60, clock)
        guessed, own = throttle.client("guessed", "192.0.2.1"), throttle.client("own", "192.0.2.1")
        for _ in range(7):
            throttle.begin(guessed)
            clock.now += 0.1
            throttle.succeeded(own, throttle.begin(own))
        throttle.begin(guessed)
        assert throttle.own_wait(own) == 0
        assert throttle.wait(own) > 0
        # nor does it open the name for others
        assert throttle.wait(stranger(throttle, "guessed", "192.0.2.2")) > 0

    def test_delays_grow_to_a_limit(self, clock: Clock) -> None:
        throttle = Throttle(100, 60, clock)
        delays = []
        for _ in range(7):
            throttle.begin(throttle.client("a", "192.0.2.1"))
            delays.append(throttle.delay(throttle.client("a", "192.0.2.1")))
        assert delays == [0.25, 0.5, 1, 2, 4, 4, 4]

    def test_memory_is_bounded(self, clock: Clock) -> None:
        throttle = Throttle(5, 60, clock)
        for number in range(MAX_COUNTS + 500):
            client = throttle.client(f"u{number}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
            throttle.begin(client)
            throttle.succeeded(throttle.client("a", client.network), 0.0)
        assert len(throttle._pairs) == len(throttle._addresses) == MAX_COUNTS
        assert len(throttle._names) <= DRAWERS
        assert len(throttle._known["a"]) == MAX_KNOWN

    def test_what_one_client_is(self) -> None:
        assert network("2001:db8::1") == network("2001:db8::ffff") != network("2001:db8:0:1::1")
        assert network("::ffff:192.0.2.1") == "192.0.2.1"
        assert network("the unix socket") == "the unix socket"


class TestPasswords:
    @pytest.mark.parametrize(
        "scheme",
        [
            bcrypt.using(rounds=5),
            sha512_crypt.using(rounds=5000),
            pbkdf2_sha256.using(rounds=9),
            scrypt.using(rounds=8),
            sha256_crypt.using(rounds=5000),
            apr_md5_crypt,
        ],
    )
    def test_schemes(self, scheme: Any) -> None:
        users = [User("alice", scheme.hash("pä:ss,wörd %"))]
        assert verify(users, "alice", "pä:ss,wörd %")
        assert not verify(users, "alice", "pä:ss,wörd")
        assert not verify(users, "bob", "pä:ss,wörd %")
        assert not verify(users, "Alice", "pä:ss,wörd %")

    def test_the_nginx_form_of_bcrypt(self) -> None:
        assert verify([User("a", bcrypt.using(rounds=5, ident="2y").hash("word"))], "a", "word")

    @pytest.mark.parametrize("password", ["", "\0", "a\0b", "x" * 5000, "\ud800", "ü" * 100])
    def test_odd_passwords_are_wrong_and_no_error(self, password: str) -> None:
        for scheme in (bcrypt.using(rounds=5), sha512_crypt.using(rounds=5000)):
            assert not verify([User("alice", scheme.hash("word"))], "alice", password)

    def test_nobody_and_broken_hashes(self) -> None:
        assert not verify([], "alice", "")
        for broken in ("word", "", "*", "$2b$12$short"):
            assert not verify([User("alice", broken)], "alice", broken)

    def test_an_unknown_name_takes_as_long(self) -> None:
        users = [User("alice", bcrypt.using(rounds=9).hash("word"))]

        def seconds(name: str) -> float:
            times = []
            for _ in range(7):
                started = time.perf_counter()
                verify(users, name, "wrong")
                times.append(time.perf_counter() - started)
            return statistics.median(times)

        assert 0.5 < seconds("nobody") / seconds("alice") < 2


class TestSessions:
    settings = Settings(session_seconds=3600)

    @pytest.fixture
    def credentials(self) -> Credentials:
        users = (User("alice", "$5$one"), User("doctor", "$5$two"), User("d:x", "$5$x"))
        return Credentials(secrets.token_hex(32), users)

    def test_names_come_back(self, credentials: Credentials) -> None:
        for name in ("alice", "d:x"):
            assert session_person(self.settings, credentials, session_cookie(self.settings, credentials, name)) == name

    def test_the_doctor_is_not_the_user_of_that_name(self, credentials: Credentials) -> None:
        doctor = session_person(self.settings, credentials, session_cookie(self.settings, credentials, DOCTOR))
        user = session_person(self.settings, credentials, user_cookie(credentials, "doctor"))
        assert isinstance(doctor, Doctor)
        assert user == "doctor" and not isinstance(user, Doctor)

    def test_a_new_hash_or_no_user_ends_it(self, credentials: Credentials) -> None:
        cookie = session_cookie(self.settings, credentials, "alice")
        changed = dataclasses.replace(credentials, users=(User("alice", "$5$other"),))
        removed = dataclasses.replace(credentials, users=(User("bob", "$5$one"),))
        assert session_person(self.settings, changed, cookie) is None
        assert session_person(self.settings, removed, cookie) is None

    def test_it_expires(self, credentials: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
        cookie = session_cookie(self.settings, credentials, "alice")
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3590)
        assert session_person(self.settings, credentials, cookie) == "alice"
        monkeypatch.setattr(time, "time", lambda: now + 3610)
        assert session_person(self.settings, credentials, cookie) is None

    def test_errors(self, credentials: Credentials) -> None:
        with pytest.raises(SettingsError):
            session_cookie(self.settings, credentials, "nobody")
        with pytest.raises(SettingsError):
            session_cookie(self.settings, Credentials(), DOCTOR)


class TestDevices:
    credentials = Credentials(secrets.token_hex(32), (User("alice", "$5$one"), User("bob", "$5$one")))

    def test_each_sign_in_makes_another_number(self) -> None:
        first, second = (device_cookie(self.credentials, "alice") for _ in range(2))
        numbers = {device_number(self.credentials, "alice", cookie) for cookie in (first, second)}
        assert len(numbers) == 2 and "" not in numbers

    def test_it_is_of_one_user_and_does_not_say_of_whom(self) -> None:
        cookie = device_cookie(self.credentials, "alice")
        assert device_number(self.credentials, "bob", cookie) == ""
        assert device_number(self.credentials, "nobody", cookie) == ""
        names = {device_cookie_name(self.credentials, name) for name in ("alice", "bob")}
        assert len(names) == 2 and not any("alice" in text for text in (cookie, *names))

    def test_a_new_password_ends_it(self) -> None:
        cookie = device_cookie(self.credentials, "alice")
        changed = dataclasses.replace(self.credentials, users=(User("alice", "$5$other"),))
        removed = dataclasses.replace(self.credentials, users=())
        assert device_number(changed, "alice", cookie) == device_number(removed, "alice", cookie) == ""

    def test_it_expires(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cookie = device_cookie(self.credentials, "alice")
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + DEVICE_DAYS * 86400 - 60)
        assert device_number(self.credentials, "alice", cookie)
        monkeypatch.setattr(time, "time", lambda: now + DEVICE_DAYS * 86400 + 60)
        assert device_number(self.credentials, "alice", cookie) == ""

    def test_a_forged_one_and_a_session_are_none(self) -> None:
        cookie = device_cookie(self.credentials, "alice")
        forged = cookie[:-1] + ("0" if cookie[-1] != "0" else "1")
        for value in ("", forged, "x" * 40, "2|1:0|", user_cookie(self.credentials, "alice")):
            assert device_number(self.credentials, "alice", value) == ""
        # and it is no session
        assert session_person(Settings(), self.credentials, cookie) is None


class TestLanes:
    word = secrets.token_urlsafe(12)
    users = (User("alice", bcrypt.using(rounds=9).hash(word)),)

    def hashing(self, lane: Lane, passwords: list[str]) -> tuple[float, float]:
        """Wall time and this process's own time for these passwords, all asked for at once."""

        async def check() -> None:
            for _ in passwords:
                lane.take_place()
            found = await asyncio.gather(*(lane.verify(self.users, "alice", password) for password in passwords))
            assert found == [password == self.word for password in passwords]

        began = time.monotonic(), time.process_time()
        asyncio.run(check())
        return time.monotonic() - began[0], time.process_time() - began[1]

    def test_wrong_passwords_of_strangers_take_half_a_processor_at_most(self) -> None:
        verify(self.users, "alice", "loads the libraries")
        wall, own = self.hashing(Lane("strangers", rests=True), ["no"] * 8)
        # the last pause is not waited for
        assert own / wall < 0.65

    def test_right_ones_and_known_clients_do_not_rest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # what is asked of sleep() and not what the clock says: a busy machine makes everything take longer
        sleep, rests = time.sleep, [0.0]

        def counted(seconds: float) -> None:
            rests.append(seconds)
            sleep(seconds)

        monkeypatch.setattr(time, "sleep", counted)
        self.hashing(Lane("strangers", rests=True), [self.word] * 4)
        self.hashing(Lane("known", rests=False), ["no"] * 4)
        assert max(rests) == 0
        self.hashing(Lane("strangers", rests=True), ["no"] * 4)
        assert sum(seconds > 0.001 for seconds in rests) == 3

    def test_too_many_strangers_are_told_at_once_and_known_clients_get_through(self) -> None:
        credentials = Credentials(secrets.token_hex(32), self.users)
        sign_in = SignIn(Settings(login_attempts=1000), credentials)
        cookie = device_cookie(credentials, "alice")

        async def attempts() -> None:
            flood = [
                asyncio.ensure_future(sign_in.attempt("alice", "no", f"192.0.2.{number}"))
                for number in range(3 * MAX_WAITING)
            ]
            await asyncio.sleep(0)
            refused = [task.result() for task in flood if task.done()]
            assert len(refused) == 2 * MAX_WAITING
            assert {answer.status for answer in refused} == {503} and refused[0].retry_after > 0
            began = time.monotonic()
            assert (await sign_in.attempt("alice", self.word, "198.51.100.1", cookie)).status == 200
            assert (await sign_in.attempt("alice", self.word, "198.51.100.1")).status == 200
            assert time.monotonic() - began < 1
            assert sum(not task.done() for task in flood) > MAX_WAITING / 2
            for task in flood:
                task.cancel()

        asyncio.run(attempts())

    def test_nothing_is_left_of_attempts_that_are_over(self) -> None:
        sign_in = SignIn(Settings(), Credentials(secrets.token_hex(32), self.users))

        async def attempts() -> None:
            answers = await asyncio.gather(
                *(sign_in.attempt("alice", "no", f"192.0.2.{number}") for number in range(4))
            )
            assert [answer.status for answer in answers] == [401] * 4

        asyncio.run(attempts())
        assert not sign_in._running and not sign_in._strangers._in_progress and not sign_in._strangers._waiting


def test_what_is_remembered_holds_no_password() -> None:
    sign_in = SignIn(Settings(), Credentials("x", (User("alice", "$5$x"),)))
    key = sign_in._digest("alice", "word", "192.0.2.1")
    assert b"word" not in key and key != sign_in._digest("alicew", "ord", "192.0.2.1")


@pytest.mark.parametrize(
    ("header", "pair"),
    [("Basic YTpi", ("a", "b")), ("basic  YTpiOmM=", ("a", "b:c")), ("Basic YQ==", None), ("Basic ?", None)],
)
def test_basic_header(header: str, pair: tuple[str, str] | None) -> None:
    assert basic_pair(header) == pair


@pytest.mark.parametrize("path", ["/", "/tasks?x=1&y=%2F%2Fevil", "/flower/"])
def test_own_paths(path: str) -> None:
    assert is_own_path(path)


@pytest.mark.parametrize(
    "path", ["", "tasks", "//evil", "/\\evil", "\\/evil", "https:/evil", "/\r\nSet-X:y", "/ /evil"]
)
def test_other_paths(path: str) -> None:
    assert not is_own_path(path)


class TestSettings:
    def write(self, path: Path, data: Any) -> Path:
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path

    def test_defaults(self, tmp_path: Path) -> None:
        assert load(self.write(tmp_path / "a", {})) == Settings()

    @pytest.mark.parametrize(
        ("data", "sentence"),
        [
            ({"prot": 1}, "prot is not a setting of flowerbed: did you mean port?"),
            ({"port": "5555"}, "port must be int, not str."),
            ({"port": True}, "port must be int, not bool."),
            ({"url": 3}, "url must be str or null, not int."),
            ({"port": 70000}, "port must be from 1 to 65535."),
            (
                {"auth": "open"},
                "auth must be one of password, google, github, gitlab, okta, custom, oidc, header, none, flower.",
            ),
            ({"login_attempts": 0}, "login_attempts must be 1 or more."),
            ([], "must hold a JSON object."),
            ("{", "is not JSON: line 1, column 2."),
        ],
    )
    def test_mistakes(self, tmp_path: Path, data: Any, sentence: str) -> None:
        with pytest.raises(SettingsError) as caught:
            load(self.write(tmp_path / "a.json", data))
        assert str(caught.value).endswith(sentence)

    @pytest.mark.parametrize(
        "data",
        [
            '{"cookie_secret": "hidden", }',
            {"cookie_secret": ["hidden"]},
            {"users": [{"name": "a", "hash": "hidden"}, {"name": "a", "hash": "hidden"}]},
            {"users": [{"name": "a:b", "hash": "hidden"}]},
            {"users": [{"password": "hidden"}]},
            {"users": "hidden"},
            {"celery": {"broker": "hidden"}},
            {"options": "hidden"},
            {"password": "hidden"},
        ],
    )
    def test_no_sentence_holds_a_secret(self, tmp_path: Path, data: Any) -> None:
        path = self.write(tmp_path / "flower.json", data)
        with pytest.raises(SettingsError) as caught:
            load_credentials(Settings(credentials=str(path)))
        assert "hidden" not in str(caught.value)

    def test_nothing_secret_is_shown(self) -> None:
        users = (User("alice", "hidden"),)
        shown = repr(Credentials("hidden", users, {"broker_url": "hidden"}, {"broker_api": "hidden"}))
        assert "hidden" not in shown and "alice" in shown

    def test_systemd_goes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write(tmp_path / "flower.json", {"cookie_secret": "handed over"})
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        assert load_credentials(Settings(credentials="/nowhere")).cookie_secret == "handed over"

    def test_a_laptop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FLOWER_BASIC_AUTH", "alice:a:b,bob:c")
        monkeypatch.setenv("FLOWER_PORT", "6666")
        monkeypatch.setenv("CELERY_BROKER_URL", "redis://localhost/3")
        settings = load()
        credentials = load_credentials(settings)
        assert (settings.auth, settings.port, settings.address) == ("password", 6666, "127.0.0.1")
        assert verify(credentials.users, "alice", "a:b") and verify(credentials.users, "bob", "c")
        assert credentials.celery == {"broker_url": "redis://localhost/3"}

    @pytest.mark.parametrize(
        ("environment", "word"),
        [
            ({"FLOWER_PORT": "http"}, "FLOWER_PORT"),
            ({"FLOWER_BASIC_AUTH": "alice"}, "user:password"),
            ({"FLOWER_BASIC_AUTH": "a:b", "FLOWER_AUTH": "a@b.c"}, "both"),
            ({"FLOWER_OAUTH2_KEY": "x"}, "FLOWER_AUTH"),
            ({"FLOWER_AUTH": "a@b.c"}, "FLOWER_AUTH_PROVIDER"),
        ],
    )
    def test_a_laptops_mistakes(self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], word: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SettingsError, match=word):
            settings = load()
            load_credentials(settings)


class TestBroker:
    def configured(self, app: Celery, **celery: Any) -> Celery:
        broker.configure(app, celery)
        return app

    def test_failover_over_an_apps_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CELERY_BROKER_URL", "redis://environment/0")
        app = Celery(broker="redis://own/0", set_as_current=False)
        app.conf.broker_write_url = "redis://own-write/0"
        self.configured(app, broker_url=["redis://:pw@one:1/0", "redis://:pw@two:2/0"])
        with app.connection() as connection:
            assert connection.alt == ["redis://:pw@one:1/0", "redis://:pw@two:2/0"]
            assert "pw" not in connection.as_uri()

    def test_an_apps_own_broker_stays(self) -> None:
        app = self.configured(Celery(broker="redis://own:1/0", set_as_current=False))
        assert app.connection().hostname == "own"

    def test_old_names_and_prefixes(self) -> None:
        old = Celery(set_as_current=False)
        old.config_from_object({"BROKER_URL": "redis://own/0", "CELERY_DEFAULT_QUEUE": "mine"})
        prefixed = Celery(set_as_current=False)
        own = {"CELERY_BROKER_URL": "redis://own/0", "CELERY_TASK_DEFAULT_QUEUE": "mine"}
        prefixed.config_from_object(own, namespace="CELERY")
        for app in (old, prefixed):
            self.configured(app, broker_url="redis://ours:7/2", broker_transport_options={"priority_steps": [0, 5]})
            assert (app.connection().hostname, app.connection().port) == ("ours", 7)
            assert app.conf.task_default_queue == "mine"
            assert app.connection().transport_options["priority_steps"] == [0, 5]

    def test_tls_verifies(self) -> None:
        app = self.configured(Celery(set_as_current=False), broker_url="rediss://:pw@h:6380/0")
        assert app.connection().ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}

    def test_a_real_redis_over_tls(self, tmp_path: Path) -> None:
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        names = ["-addext", "subjectAltName=DNS:localhost"]
        subprocess.run([*make.split(), *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        tls = f"port 0\ntls-port %d\ntls-cert-file {certificate}\ntls-key-file {key}\ntls-auth-clients no\n"
        redis = Redis(tls)
        try:
            url = f"rediss://:{redis.password}@localhost:{redis.port}/0"
            trusting = self.configured(Celery(set_as_current=False), broker_url=f"{url}?ssl_ca_certs={certificate}")
            with trusting.connection() as connection:
                assert connection.default_channel.client.ping()
            strict = self.configured(Celery(set_as_current=False), broker_url=url)
            refused = pytest.raises(RedisConnectionError, match="CERTIFICATE_VERIFY_FAILED")
            with strict.connection() as connection, refused:
                connection.connect()
        finally:
            redis.kill()

    def test_tls_of_the_url_is_kept(self) -> None:
        url = "rediss://h:6380/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=none"
        app = self.configured(Celery(set_as_current=False), broker_url=url)
        assert app.conf.broker_use_ssl == {"ssl_ca_certs": "/ca.pem", "ssl_cert_reqs": ssl.CERT_NONE}

    def test_tls_names_in_json(self) -> None:
        app = self.configured(
            Celery(set_as_current=False),
            broker_url="amqps://h//",
            broker_use_ssl={"cert_reqs": "CERT_REQUIRED", "ca_certs": "/ca.pem"},
        )
        assert app.connection().ssl == {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": "/ca.pem"}

    def test_amqps_checks_the_name(self) -> None:
        assert broker.default_tls(["amqps://h//"]) == {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}
        assert broker.default_tls(["amqp://h//"]) is None

    def test_result_backend(self) -> None:
        settings = broker.celery_settings({"result_backend": "rediss://h/1"})
        assert settings["result_backend"] == "rediss://h/1?ssl_cert_reqs=CERT_REQUIRED"

    def test_keepalive_only_for_redis(self) -> None:
        assert broker.keepalive(["redis://h/0"])["socket_keepalive"] is True
        assert broker.keepalive(["amqp://h//"]) == broker.keepalive(["sentinel://h"]) == broker.keepalive([]) == {}
