"""The settings of who is believed, and what follows from them."""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple, Self

from jwt.algorithms import has_crypto
from pydantic import Field, SecretStr, field_validator, model_validator

from shared.identity.fetch import BYTES_MAX, FetchFailed, checked_url, fetch
from shared.identity.jwks import NO_CRYPTO, JwksInvalid, parse_jwks
from shared.identity.keys import FetchedKeys, FixedKeys, Keys, Secret
from shared.identity.principals import Principals
from shared.identity.revocations import Revocations
from shared.identity.signing import Signer, SigningKey, SigningKeyInvalid, WithOwnKey
from shared.identity.tokens import Tokens
from shared.secret_pairs import LongSecret, SecretPair, pair_of
from shared.settings import EnvironmentSettings


class IdentitySettings(EnvironmentSettings):
    """Who is believed to be whom.

    Attributes:
        auth_mode: ``open``: whoever calls may do anything as anybody; for one's own machine. ``jwt``: a token says who
            calls.
        auth_issuer, auth_audience: what ``iss`` and ``aud`` of a token must be.
        auth_jwks_url, auth_jwks_file, auth_jwks: where the issuer's public keys are: at an address, in a file, or the
            JSON itself.
        auth_hs256_secret: the secret with which the issuer signs, instead of those, at least 32 bytes.
        auth_hs256_secret_also, auth_hs256_secret_since: the one that it replaces, and when (decision 0074).
        auth_signing_key, auth_signing_key_file: the key with which the platform signs tokens for API keys, on P-256 in
            PEM: itself, or the file that holds it. With ``auth_hs256_secret`` that secret signs.
        auth_leeway_s: by how much the issuer's clock may differ, for ``exp``, ``nbf`` and ``iat``.
    """

    auth_mode: Literal["open", "jwt"] = "open"
    auth_issuer: str = ""
    auth_audience: str = ""
    auth_jwks_url: str = ""
    auth_jwks_file: str = ""
    auth_jwks: str = ""
    auth_hs256_secret: LongSecret = SecretStr("")
    auth_hs256_secret_also: LongSecret = SecretStr("")
    auth_hs256_secret_since: str = ""
    auth_signing_key: SecretStr = SecretStr("")
    auth_signing_key_file: str = ""
    auth_leeway_s: int = Field(default=30, ge=0, le=300)

    @cached_property
    def auth_hs256_secrets(self) -> SecretPair:
        """Both secrets of the issuer, with a count of how often the one that is being replaced was needed."""
        return pair_of(self, "auth_hs256_secret")

    @field_validator("auth_jwks_url")
    @classmethod
    def _url_is_safe(cls, url: str) -> str:
        return checked_url(url) if url else url

    @field_validator("auth_jwks")
    @classmethod
    def _keys_can_be_read(cls, document: str) -> str:
        if document:
            parse_jwks(document.encode())
        return document

    @field_validator("auth_jwks_file")
    @classmethod
    def _file_can_be_read(cls, path: str) -> str:
        if path:
            try:
                parse_jwks(read_file(path))
            except (OSError, FetchFailed) as error:
                raise ValueError(f"cannot be read: {error}") from None
            except JwksInvalid as error:
                raise ValueError(f"names a file that {error}") from None
        return path

    @field_validator("auth_signing_key")
    @classmethod
    def _key_can_sign(cls, pem: SecretStr) -> SecretStr:
        # In some files of environment variables a line break is written as the two characters backslash and n.
        text = pem.get_secret_value().replace("\\n", "\n")
        if text:
            SigningKey(text.encode())
        return SecretStr(text)

    @field_validator("auth_signing_key_file")
    @classmethod
    def _file_can_sign(cls, path: str) -> str:
        if path:
            try:
                SigningKey(read_file(path))
            except (OSError, FetchFailed) as error:
                raise ValueError(f"cannot be read: {error}") from None
            except SigningKeyInvalid as error:
                raise ValueError(f"names a file that {error}") from None
        return path

    @model_validator(mode="after")
    def _combination_makes_sense(self) -> Self:
        pair_of(self, "auth_hs256_secret")
        keys = {
            "AUTH_JWKS_URL": self.auth_jwks_url,
            "AUTH_JWKS_FILE": self.auth_jwks_file,
            "AUTH_JWKS": self.auth_jwks,
            "AUTH_HS256_SECRET": self.auth_hs256_secret.get_secret_value(),
        }
        signing = {
            "AUTH_SIGNING_KEY": self.auth_signing_key.get_secret_value(),
            "AUTH_SIGNING_KEY_FILE": self.auth_signing_key_file,
        }
        whom = {"AUTH_ISSUER": self.auth_issuer, "AUTH_AUDIENCE": self.auth_audience}
        given = [name for name, value in (keys | whom | signing).items() if value]
        if self.auth_mode == "open":
            if given:
                # Whoever has set this means to protect something.
                raise ValueError(f"{given[0]} is set, and AUTH_MODE is open: set AUTH_MODE=jwt too, or remove it")
            return self
        missing = [name for name, value in whom.items() if not value]
        if missing:
            raise ValueError(f"AUTH_MODE=jwt needs {' and '.join(missing)}")
        sources = [name for name in keys if name in given]
        if len(sources) != 1:
            found = " and ".join(sources) or "none"
            raise ValueError(f"AUTH_MODE=jwt needs one of {', '.join(keys)}; set is {found}")
        signers = [name for name in (*signing, "AUTH_HS256_SECRET") if name in given]
        if len(signers) > 1:
            raise ValueError(f"{' and '.join(signers)} sign tokens: set one of them")
        if not self.auth_hs256_secret.get_secret_value() and not has_crypto:
            raise ValueError(f"{sources[0]} {NO_CRYPTO}")
        return self


class Identity(NamedTuple):
    """Who calls; the keys that must be fetched for that, None where there are none to fetch; what signs tokens of the
    platform's own, None where nothing does."""

    principals: Principals
    fetched: FetchedKeys | None
    signer: Signer | None = None


def identity_of(settings: IdentitySettings, revocations: Revocations | None = None) -> Identity | None:
    """What tells who calls; None with ``AUTH_MODE=open``. ``revocations``: None where none can be revoked."""
    if settings.auth_mode == "open":
        return None
    fetched: FetchedKeys | None = None
    keys: Keys
    if secrets := settings.auth_hs256_secrets:
        keys = Secret(secrets)
    elif settings.auth_jwks:
        keys = FixedKeys(parse_jwks(settings.auth_jwks.encode()))
    else:
        url, path = settings.auth_jwks_url, settings.auth_jwks_file
        keys = fetched = FetchedKeys(partial(fetch, url) if url else partial(read_file, path))
    issuer, audience = settings.auth_issuer, settings.auth_audience
    signer: Signer | None = None
    if secrets:
        signer = Signer(secrets.now, "HS256", None, issuer=issuer, audience=audience)
    elif (own := _signing_key(settings)) is not None:
        signer = own.signer(issuer=issuer, audience=audience)
        keys = WithOwnKey(own.public, keys)
    tokens = Tokens(keys, issuer=issuer, audience=audience, leeway_s=settings.auth_leeway_s)
    return Identity(Principals(tokens, keys, revocations=revocations), fetched, signer)


def _signing_key(settings: IdentitySettings) -> SigningKey | None:
    if pem := settings.auth_signing_key.get_secret_value():
        return SigningKey(pem.encode())
    return SigningKey(read_file(settings.auth_signing_key_file)) if settings.auth_signing_key_file else None


def read_file(path: str) -> bytes:
    """The whole of a file that holds keys.

    Raises:
        OSError: it cannot be read.
        FetchFailed: it is larger than any such file.
    """
    with Path(path).open("rb") as file:
        document = file.read(BYTES_MAX + 1)
    if len(document) > BYTES_MAX:
        raise FetchFailed(f"it has more than {BYTES_MAX} bytes")
    return document
