"""Passwords and secrets: how they are kept, so that whoever reads the database cannot use them.

A password is kept as scrypt (RFC 7914) with a salt of its own; a random secret of a cookie or an
invitation, which cannot be guessed, as SHA-256.
"""

import hashlib
import hmac
import secrets

from tutelage.errors import ConfigError

__all__ = ["DUMMY", "fingerprint", "hash_password", "new_secret", "verify_password"]

SHORTEST = 10
_COST = {"n": 1 << 14, "r": 8, "p": 1}
"""16 MiB and some 50 ms for a guess."""
_LONGEST = 1000


def hash_password(password: str) -> str:
    """`scrypt$<salt>$<hash>`.

    Raises:
        ConfigError: the password is too short or absurdly long.
    """
    if not SHORTEST <= len(password) <= _LONGEST:
        raise ConfigError(
            f"the password has {len(password)} characters, expected {SHORTEST} or more: a few "
            "words that have nothing to do with each other are easy to remember"
        )
    salt = secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${_scrypt(password, salt).hex()}"


def verify_password(password: str, kept: str) -> bool:
    """Whether the password is the one that was hashed; takes as long either way."""
    _, salt, digest = kept.split("$")
    found = _scrypt(password[:_LONGEST], bytes.fromhex(salt))
    return hmac.compare_digest(found, bytes.fromhex(digest))


def new_secret() -> str:
    """256 random bits, for a cookie or a link."""
    return secrets.token_urlsafe(32)


def fingerprint(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "replace"), salt=salt, dklen=32, **_COST)


DUMMY = f"scrypt${'00' * 16}${'00' * 32}"
"""What the password of somebody unknown is compared with, so that it takes as long."""
