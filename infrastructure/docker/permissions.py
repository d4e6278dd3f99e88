"""Writes the files that say who may do what at the servers: ``python -m infrastructure.docker.permissions``.

The files follow from ``shared/permissions`` and are in the repository, because the servers' images have no Python. A
test fails if they are older than the lists. They have no passwords: those come from the containers' environment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shared.permissions.accounts import Account, Login
from shared.permissions.nats_users import users_of_nats
from shared.permissions.redis_on_aws import access_string_of
from shared.permissions.redis_users import access_of

FOLDER: Final = Path(__file__).parent
ON_AWS: Final = FOLDER.parent / "terraform" / "modules" / "nats" / "users.conf"
"""The same for NATS on AWS, whose start command puts the passwords in."""
REDIS_ON_AWS: Final = FOLDER.parent / "terraform" / "modules" / "redis" / "users.json"
"""Access strings of ElastiCache and MemoryDB by account, which Terraform reads."""
OWNER: Final = "bidding"
"""The user of NATS who may do everything; at Redis that is the default user."""
_HEAD: Final = "# Written by `python -m infrastructure.docker.permissions`; changes belong into shared/permissions.\n"


def password_setting(account: Account) -> str:
    """The variable of the compose file with the account's password at all servers: `GATEWAY_PASSWORD`."""
    return f"{account.value.upper()}_PASSWORD"


def files() -> dict[Path, str]:
    """The files' texts."""
    lines = [
        f"user {account.value} on @{account.value}@ {access}" for account in Account if (access := access_of(account))
    ]
    redis = "user default on @default@ ~* &* +@all\n" + "\n".join(lines) + "\n"
    on_aws = {account.value: access for account in Account if (access := access_string_of(account))}
    # Neither a file of users of Redis nor JSON has comments.
    return {
        FOLDER / "redis-users.acl": redis,
        FOLDER / "nats-users.conf": _nats("$NATS_{}", "$NATS_PASSWORD"),
        ON_AWS: _nats("@{}@", "@PASSWORD@"),
        REDIS_ON_AWS: json.dumps(on_aws, indent=2) + "\n",
    }


def _nats(password: str, owner: str) -> str:
    logins: dict[Account, Sequence[Login]] = {
        account: [Login(account.value, [password.format(password_setting(account))])] for account in Account
    }
    return _HEAD + users_of_nats(logins, open_to_all=False, owners=[Login(OWNER, [owner])])


def main() -> None:
    """Write the files."""
    for path, text in files().items():
        path.write_text(text)
        sys.stdout.write(f"{path} written\n")


if __name__ == "__main__":
    main()
