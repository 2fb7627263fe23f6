"""OpenID Connect: finding the provider, sending somebody there, and what it says of them when they come back.

The authorization code flow with PKCE (OpenID Connect Core 1.0, RFC 7636, RFC 9207), for any provider that has a
discovery document.  Everything is asked over HTTPS, follows no redirect, and is bounded in time and size.  Nothing here
logs: whoever calls writes down a SignInError's reason, which holds no secret.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit

from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.httputil import url_concat
from tornado.simple_httpclient import HTTPTimeoutError, SimpleAsyncHTTPClient

from flowerbed.id_token import ALGORITHMS, Key, TokenError, UnknownKeyError, public_keys, verified_claims
from flowerbed.identity import Profile, texts
from flowerbed.settings import Credentials, Settings, rules

_Value = TypeVar("_Value")
DISCOVERY = "/.well-known/openid-configuration"
TIMEOUT_SECONDS = 10
MAX_ANSWER_BYTES = 1024 * 1024
#: requests to the provider at the same time
MAX_REQUESTS = 20
#: how long its discovery document and its keys are remembered, and how soon it is asked again about an unknown key
CACHE_SECONDS, KEYS_AGAIN_SECONDS = 3600, 60
#: from leaving for the provider to coming back
ATTEMPT_SECONDS = 600
MAX_NAME = 256

STALE = "This sign-in was begun in another browser, was used already, or took longer than ten minutes."
DOWN = "The sign-in service cannot be reached."
RUBBISH = "The sign-in service gave an answer that this Flower cannot accept; its log says why."
CANCELLED = "The sign-in service did not sign you in."


class SignInError(Exception):
    """Nobody is signed in: an HTTP status, a sentence for the person, and the reason for the audit log.

    Neither sentence holds a secret.  `name` is whom the provider named, where it came so far.
    """

    def __init__(self, status: int, text: str, reason: str, name: str | None = None) -> None:
        super().__init__(reason)
        self.status, self.text, self.reason, self.name = status, text, reason, name


@dataclass(frozen=True)
class Metadata:
    """What of the provider's discovery document counts here."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    end_session_endpoint: str | None
    #: those for ID tokens that are asymmetric
    algorithms: tuple[str, ...]
    #: how we prove who we are: client_secret_basic or client_secret_post
    client_authentication: str
    #: whether its answers name their issuer (RFC 9207)
    names_issuer: bool


@dataclass(frozen=True)
class Attempt:
    """One sign-in that has begun.  The browser keeps `seed` in a signed cookie that is found by `state`."""

    state: str
    seed: str
    next_page: str

    @classmethod
    def begin(cls, next_page: str) -> Attempt:
        """A new one with random values."""
        return cls(secrets.token_urlsafe(24), secrets.token_urlsafe(32), next_page)

    @property
    def nonce(self) -> str:
        """What the ID token must repeat."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """PKCE's secret: only who began this sign-in can turn its code into tokens."""
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        """PKCE's S256 of the verifier."""
        return _base64(hashlib.sha256(self.verifier.encode()).digest())

    def _derived(self, purpose: str) -> str:
        # one secret for both keeps the cookie small; neither tells the other
        return _base64(hmac.new(self.seed.encode(), purpose.encode(), hashlib.sha256).digest())


class Client:
    """Us as a client of the provider, with what it remembers of it; for the event loop's thread only."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self.settings, self.oidc = settings, settings.oidc
        self._client_id, self._redirect_uri = settings.client_id or "", settings.redirect_uri or ""
        self._secret = credentials.client_secret or ""
        self._rules = rules(settings)
        self._http = SimpleAsyncHTTPClient(
            force_instance=True,
            max_clients=MAX_REQUESTS,
            max_body_size=MAX_ANSWER_BYTES,
            max_buffer_size=MAX_ANSWER_BYTES,
        )
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, list[Key]] | None = None
        self._running: dict[str, asyncio.Future[Any]] = {}
        self._used: dict[str, float] = {}

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.oidc.ca_bundle)
        except (OSError, ssl.SSLError):
            reason = f"oidc.ca_bundle: {self.oidc.ca_bundle} cannot be read as PEM certificates"
            raise SignInError(503, DOWN, reason) from None
        if self.oidc.ca_bundle:
            # a company's own authority may be an intermediate one, or older than 3.13's strictness
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    # ---- leaving, coming back, signing out

    async def authorization_url(self, attempt: Attempt, another: bool = False) -> str:
        """Where to send somebody who signs in; `another` has the provider ask who it is even if it knows."""
        metadata = await self.metadata()
        return url_concat(
            metadata.authorization_endpoint,
            {
                "response_type": "code",
                "client_id": self._client_id,
                "redirect_uri": self._redirect_uri,
                "scope": " ".join(dict.fromkeys(["openid", *self.oidc.scopes])),
                "state": attempt.state,
                "nonce": attempt.nonce,
                "code_challenge": attempt.challenge,
                "code_challenge_method": "S256",
                **({"prompt": "login"} if another else {}),
            },
        )

    def use_up(self, attempt: Attempt) -> None:
        """Lets each attempt come back once, whatever copies of its cookie there are."""
        now = time.monotonic()
        self._used = {state: until for state, until in self._used.items() if until > now}
        if attempt.state in self._used:
            raise SignInError(400, STALE, "the state was used before")
        self._used[attempt.state] = now + ATTEMPT_SECONDS

    async def code_of(self, answer: dict[str, str]) -> str:
        """The code in the provider's answer; `answer` are the parameters of the request that came back."""
        metadata = await self.metadata()
        issuer = answer.get("iss")
        if issuer != self.oidc.issuer if issuer is not None else metadata.names_issuer:
            raise SignInError(400, STALE, "the answer is from another provider (iss)")
        if error := answer.get("error"):
            status = {"access_denied": 403, "temporarily_unavailable": 503}.get(error, 502)
            raise SignInError(status, CANCELLED, f"the provider answers with the error {_code(error)}")
        if not (code := answer.get("code")):
            raise SignInError(400, STALE, "the answer holds no code")
        return code

    async def profile(self, attempt: Attempt, code: str) -> Profile:
        """Whom the provider has signed in; raises SignInError when that is not beyond doubt."""
        metadata = await self.metadata()
        tokens = await self._tokens(metadata, attempt, code)
        access_token = tokens.get("access_token")
        claims = await self._claims(metadata, tokens, attempt, access_token)
        if metadata.userinfo_endpoint and isinstance(access_token, str) and self._lacks_something(claims):
            claims = _merged(claims, await self._userinfo(metadata.userinfo_endpoint, access_token, claims["sub"]))
        return self._profile(claims)

    async def logout_url(self, back: str, state: str) -> str | None:
        """Where somebody signs out of the provider, which then sends them `back`; None: not offered."""
        endpoint = (await self.metadata()).end_session_endpoint if self.oidc.logout else None
        parameters = {"client_id": self._client_id, "post_logout_redirect_uri": back, "state": state}
        return url_concat(endpoint, parameters) if endpoint else None

    # ---- the provider's own documents

    async def metadata(self) -> Metadata:
        """The provider's discovery document; a failure is not remembered."""
        if self._metadata is None or time.monotonic() - self._metadata[0] > CACHE_SECONDS:
            self._metadata = time.monotonic(), await self._once("discovery", self._discover)
        return self._metadata[1]

    async def _discover(self) -> Metadata:
        document = await self._get_json(self.oidc.issuer.rstrip("/") + DISCOVERY, "discovery")
        if document.get("issuer") != self.oidc.issuer:
            named = str(document.get("issuer"))[:200]
            raise SignInError(502, RUBBISH, f"discovery: the provider calls itself {named!r}, not as oidc.issuer says")

        def endpoint(name: str, required: bool = True) -> str | None:
            value = document.get(name)
            if value is None and not required:
                return None
            if not is_https(value):
                raise SignInError(502, RUBBISH, f"discovery: {name} is not an https:// address")
            return str(value)

        offered = document.get("id_token_signing_alg_values_supported", ["RS256"])
        algorithms = tuple(name for name in ALGORITHMS if isinstance(offered, list) and name in offered)
        if not algorithms:
            raise SignInError(502, RUBBISH, "discovery: no algorithm for ID tokens that counts here")
        return Metadata(
            authorization_endpoint=endpoint("authorization_endpoint") or "",
            token_endpoint=endpoint("token_endpoint") or "",
            jwks_uri=endpoint("jwks_uri") or "",
            userinfo_endpoint=endpoint("userinfo_endpoint", required=False),
            end_session_endpoint=endpoint("end_session_endpoint", required=False),
            algorithms=algorithms,
            client_authentication=_client_authentication(document.get("token_endpoint_auth_methods_supported")),
            names_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        )

    async def _public_keys(self, metadata: Metadata, unknown: bool = False) -> list[Key]:
        """The provider's keys; asked for again when they are old, or a minute old and one is unknown."""
        age = KEYS_AGAIN_SECONDS if unknown else CACHE_SECONDS
        if self._keys is None or time.monotonic() - self._keys[0] > age:
            document = await self._once("keys", lambda: self._get_json(metadata.jwks_uri, "keys"))
            try:
                self._keys = time.monotonic(), public_keys(document)
            except TokenError as error:
                raise SignInError(502, RUBBISH, f"keys: {error}") from None
        return self._keys[1]

    # ---- one sign-in

    async def _tokens(self, metadata: Metadata, attempt: Attempt, code: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": attempt.verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if metadata.client_authentication == "client_secret_basic":
            # both are form-encoded first (RFC 6749, section 2.3.1)
            pair = f"{quote_plus(self._client_id)}:{quote_plus(self._secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            form |= {"client_id": self._client_id, "client_secret": self._secret}
        url = metadata.token_endpoint
        response = await self._ask("token", url, method="POST", headers=headers, body=urlencode(form))
        if response.code in (400, 401):
            error = _code(_object(response, "token").get("error"))
            if error == "invalid_grant":
                raise SignInError(400, STALE, "token: the provider does not take the code (invalid_grant)")
            raise SignInError(502, RUBBISH, f"token: the provider refuses this Flower's request ({error})")
        tokens = _object(_good(response, "token"), "token")
        if not isinstance(tokens.get("id_token"), str):
            raise SignInError(502, RUBBISH, "token: the answer holds no ID token")
        return tokens

    async def _claims(
        self, metadata: Metadata, tokens: dict[str, Any], attempt: Attempt, access_token: Any
    ) -> dict[str, Any]:
        def check(keys: list[Key]) -> dict[str, Any]:
            return verified_claims(
                tokens["id_token"],
                keys,
                metadata.algorithms,
                issuer=self.oidc.issuer,
                client_id=self._client_id,
                nonce=attempt.nonce,
                access_token=access_token if isinstance(access_token, str) else None,
            )

        try:
            try:
                return check(await self._public_keys(metadata))
            except UnknownKeyError:
                return check(await self._public_keys(metadata, unknown=True))
        except TokenError as error:
            raise SignInError(502, RUBBISH, str(error)) from None

    def _lacks_something(self, claims: dict[str, Any]) -> bool:
        """Whether the userinfo endpoint must be asked too."""
        names = {"email", self.oidc.username_claim, *(name for rule in self._rules for name in rule.claims)}
        if any(rule.groups for rule in self._rules):
            names.add(self.oidc.groups_claim)
        if self.oidc.require_verified_email:
            names.add("email_verified")
        return any(claim_at(claims, name) is None for name in names)

    async def _userinfo(self, url: str, access_token: str, subject: str) -> dict[str, Any]:
        answer = await self._get_json(url, "userinfo", {"Authorization": f"Bearer {access_token}"})
        if answer.get("sub") != subject:
            raise SignInError(502, RUBBISH, "userinfo: it is about somebody else than the ID token (sub)")
        return answer

    def _profile(self, claims: dict[str, Any]) -> Profile:
        address = claims.get("email")
        verified = not self.oidc.require_verified_email or claims.get("email_verified") in (True, "true")
        email = address if isinstance(address, str) and verified else ""
        name = claim_at(claims, self.oidc.username_claim)
        if self.oidc.username_claim == "email" and address and not verified:
            text = "The sign-in service does not call your e-mail address verified. Verify it there, and sign in again."
            raise SignInError(403, text, "the e-mail address is not verified", str(address)[:MAX_NAME])
        if not (isinstance(name, str) and name and name.isprintable() and len(name) <= MAX_NAME):
            claim = self.oidc.username_claim
            text = f"The sign-in service does not say who you are: the claim {claim} is missing."
            raise SignInError(403, text, f"the claim {claim}, which should hold the name, is missing or no name")
        asked = {claim for rule in self._rules for claim in rule.claims}
        return Profile(
            name,
            email,
            texts(claim_at(claims, self.oidc.groups_claim)),
            {claim: texts(claim_at(claims, claim)) for claim in asked},
        )

    # ---- HTTP

    async def _get_json(self, url: str, what: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
        return _object(_good(await self._ask(what, url, headers=headers or {}), what), what)

    async def _ask(self, what: str, url: str, **request: Any) -> HTTPResponse:
        """One request; any status is an answer. Raises SignInError with 503 when there is none."""
        if not is_https(url):
            raise SignInError(502, RUBBISH, f"{what}: its address is not https://")
        request["headers"] = {"Accept": "application/json", **request["headers"]}
        try:
            return await self._http.fetch(
                HTTPRequest(
                    url,
                    connect_timeout=TIMEOUT_SECONDS,
                    request_timeout=TIMEOUT_SECONDS,
                    follow_redirects=False,
                    # what is small on the wire could be large in memory
                    decompress_response=False,
                    ssl_options=self._tls,
                    user_agent="flowerbed",
                    **request,
                ),
                raise_error=False,
            )
        except SignInError:
            raise
        except HTTPTimeoutError:
            raise SignInError(503, DOWN, f"{what}: no answer within {TIMEOUT_SECONDS} s") from None
        except ssl.SSLCertVerificationError as error:
            raise SignInError(
                503, DOWN, f"{what}: the certificate is not trusted ({error.verify_message}); see oidc.ca_bundle"
            ) from None
        except Exception as error:  # noqa: BLE001 - Tornado passes on whatever went wrong below it
            why = getattr(error, "strerror", None) or type(error).__name__
            raise SignInError(503, DOWN, f"{what}: no answer, or one that is too long ({why})") from None

    async def _once(self, name: str, fetch: Callable[[], Awaitable[_Value]]) -> _Value:
        """One fetch for all who want the same at the same time."""
        running = self._running.get(name)
        if running is None:
            running = self._running[name] = asyncio.ensure_future(fetch())
            running.add_done_callback(lambda _: self._running.pop(name, None))
        value: _Value = await asyncio.shield(running)
        return value


def claim_at(claims: Any, path: str) -> Any:
    """The claim of that name, else the one at that dotted path, such as Keycloak's realm_access.roles; else None."""
    if not isinstance(claims, dict):
        return None
    if path in claims:
        return claims[path]
    # names may hold dots themselves: Auth0's are URLs
    dots = [place for place, letter in enumerate(path) if letter == "."]
    found = (claim_at(claims.get(path[:dot]), path[dot + 1 :]) for dot in dots)
    return next((value for value in found if value is not None), None)


def is_https(url: Any) -> bool:
    """Whether something is an https:// address with a host, and without a user in it."""
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc


def _merged(claims: dict[str, Any], userinfo: dict[str, Any]) -> dict[str, Any]:
    """Both, the signed ones first; address and whether it is verified always come from the same place."""
    merged = {**userinfo, **claims}
    if "email" in userinfo and not ("email" in claims and "email_verified" in claims):
        merged["email"], merged["email_verified"] = userinfo["email"], userinfo.get("email_verified")
    return merged


def _client_authentication(offered: Any) -> str:
    methods = offered if isinstance(offered, list) else ["client_secret_basic"]
    for method in ("client_secret_basic", "client_secret_post"):
        if method in methods:
            return method
    raise SignInError(502, RUBBISH, "discovery: the provider takes neither client_secret_basic nor client_secret_post")


def _good(response: HTTPResponse, what: str) -> HTTPResponse:
    if response.code >= 500:
        raise SignInError(503, DOWN, f"{what}: the provider answers {response.code}")
    if response.code != 200:
        raise SignInError(502, RUBBISH, f"{what}: the provider answers {response.code}")
    return response


def _object(response: HTTPResponse, what: str) -> dict[str, Any]:
    try:
        value = json.loads(response.body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise SignInError(502, RUBBISH, f"{what}: the answer is not a JSON object")
    return value


def _code(error: Any) -> str:
    """An OAuth error code, for a log: nothing but such a word."""
    return error if isinstance(error, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", error) else "unnamed"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
