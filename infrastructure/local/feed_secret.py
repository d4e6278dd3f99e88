"""The random secrets of a data directory: made once, in files that only their owner can read."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from infrastructure.local.errors import StackError

FEED_TOKEN_SECRET: Final = "FEED_TOKEN_SECRET"
"""The environment name of the key that signs the tokens of bidders."""

ALIAS_SECRET: Final = "ALIAS_SECRET"
"""The environment name of the key of bidders' aliases."""

_BYTES: Final = 32


def feed_token_secret(data_dir: Path) -> str:
    """The data directory's secret, made if there is none yet. It is kept, so that tokens outlive a restart.

    Raises:
        StackError: the file can be neither read nor written, or is empty.
    """
    return _secret(data_dir, "feed-token-secret")


def alias_secret(data_dir: Path) -> str:
    """The data directory's key of aliases, made if there is none yet. It is kept, so that aliases stay the same.

    Raises:
        StackError: the file can be neither read nor written, or is empty.
    """
    return _secret(data_dir, "alias-secret")


def servers_secret(data_dir: Path) -> str:
    """The secret from which the passwords of the private servers are made; made itself if there is none yet.

    Raises:
        StackError: the file can be neither read nor written, or is empty.
    """
    return _secret(data_dir, "servers-secret")


def _secret(data_dir: Path, name: str) -> str:
    path = data_dir / name
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        # First written whole under another name: if two processes do this at once, both use the file of one of them.
        scratch = data_dir / f"{name}.{os.getpid()}.tmp"
        if not path.exists():
            scratch.touch(mode=0o600)
            scratch.write_text(secrets.token_hex(_BYTES) + "\n")
            with contextlib.suppress(FileExistsError):
                os.link(scratch, path)
            scratch.unlink()
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StackError(f"Cannot use the secret in {path}: {error}.") from error
    if not secret:
        raise StackError(f"The secret in {path} is empty. Remove the file to have a new one made.")
    return secret
