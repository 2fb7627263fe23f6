"""Whether an ID token is what the provider says of somebody who is signing in here, now (OpenID Connect Core 3.1.3.7).

Signatures and dates are joserfc's work.  Only asymmetric algorithms count: with HS256 anybody who knows the client
secret could sign, and with `none` anybody at all.  Reasons never hold anything of the token but its algorithm.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import ClaimError, JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
#: RFC 7518, section 3.3
MIN_RSA_BITS = 2048
#: how far the provider's clock and ours may be apart
LEEWAY_SECONDS = 60
#: some providers put whole certificates into the header; joserfc's own limit is 512 bytes
MAX_HEADER_BYTES = 16384

Key = RSAKey | ECKey | OKPKey


class TokenError(ValueError):
    """The token is not to be believed; the text is the reason and holds nothing of the token's claims."""


class UnknownKeyError(TokenError):
    """The token names a key that is not among those known; the provider may have a new one."""


def public_keys(document: dict[str, Any]) -> list[Key]:
    """The keys for signatures in a JWK set; those of other kinds are left out (RFC 7517, section 5).

    Raises TokenError for what is no JWK set, or one without such a key.
    """
    items = document.get("keys")
    keys = [key for item in items if (key := _public_key(item))] if isinstance(items, list) else []
    if not keys:
        raise TokenError("there is no public key for signatures among the provider's keys")
    return keys


def _public_key(item: Any) -> Key | None:
    if not isinstance(item, dict) or item.get("use", "sig") != "sig" or item.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    try:
        key = JWKRegistry.import_key(item)
        # malformed numbers are found only when the key is made of them
        if not isinstance(key, (RSAKey, ECKey, OKPKey)) or not key.public_key:
            return None
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return None if isinstance(key, RSAKey) and key.public_key.key_size < MIN_RSA_BITS else key


def verified_claims(
    token: str,
    keys: Sequence[Key],
    algorithms: Sequence[str],
    *,
    issuer: str,
    client_id: str,
    nonce: str,
    access_token: str | None = None,
) -> dict[str, Any]:
    """The claims of a good ID token; TokenError says what is wrong with another, UnknownKeyError that its key is."""
    allowed = [name for name in algorithms if name in ALGORITHMS]
    # an empty list would mean joserfc's own choice, which has HS256 in it
    if not allowed:
        raise TokenError("the provider offers no algorithm for signatures that counts here")
    registry = jws.JWSRegistry(algorithms=allowed, strict_check_header=False)
    registry.max_header_length = MAX_HEADER_BYTES
    try:
        header = jws.extract_compact(token.encode(), registry=registry).headers()
    except (JoseError, ValueError, TypeError):
        raise TokenError("the ID token is not a signed token") from None
    algorithm = header.get("alg")
    if algorithm not in allowed:
        raise TokenError(f"the ID token is signed with {str(algorithm)[:16]!r}, which does not count here")
    key = _key(keys, header.get("kid"), algorithm)
    try:
        claims = jwt.decode(token, key, registry=registry).claims
    except (JoseError, ValueError, TypeError):
        raise TokenError("the ID token's signature is wrong") from None
    _check(claims, issuer, client_id, nonce)
    if access_token is not None and "at_hash" in claims:
        expected = access_token_hash(access_token, algorithm)
        if not _same(claims["at_hash"], expected):
            raise TokenError("the ID token belongs to another access token (at_hash)")
    return claims


def _key(keys: Sequence[Key], kid: Any, algorithm: str) -> Key:
    """The key that a token names; without a name, the only one of the algorithm's kind."""
    fitting = [key for key in keys if kid in (None, key.kid) and _fits(key, algorithm)]
    if not fitting and kid is not None:
        raise UnknownKeyError("the ID token is signed by a key that the provider does not publish")
    if len(fitting) != 1:
        raise TokenError("the ID token does not say which of the provider's keys signed it")
    return fitting[0]


def _fits(key: Key, algorithm: str) -> bool:
    try:
        jws.JWSRegistry.algorithms[algorithm].check_key(key)
    except JoseError:
        return False
    return key.alg in (None, algorithm)


def _check(claims: dict[str, Any], issuer: str, client_id: str, nonce: str) -> None:
    registry = jwt.JWTClaimsRegistry(
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": issuer},
        sub={"essential": True},
        aud={"essential": True, "value": client_id},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        registry.validate(claims)
    except ClaimError as error:
        raise TokenError(f"the ID token is refused: {error.description}") from None
    # several audiences, and none of them said to be the one that asked
    if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and "azp" not in claims:
        raise TokenError("the ID token is refused: it is for several clients, and says of none that it asked (azp)")
    if "azp" in claims and claims["azp"] != client_id:
        raise TokenError("the ID token is refused: another client asked for it (azp)")
    if not _same(claims.get("nonce"), nonce):
        raise TokenError("the ID token is refused: its nonce is not the one of this sign-in")


def access_token_hash(access_token: str, algorithm: str) -> str:
    """The claim at_hash: the left half of a hash, of the size that the algorithm's name ends with; Ed25519's is 512."""
    size = "512" if algorithm.startswith("Ed") else algorithm[-3:]
    digest = hashlib.new(f"sha{size}", access_token.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).decode().rstrip("=")


def _same(value: Any, expected: str) -> bool:
    return isinstance(value, str) and hmac.compare_digest(value.encode(), expected.encode())
