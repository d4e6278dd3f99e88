"""Writes what tells the servers of the compose stack who may do what: ``python -m infrastructure.docker.permissions``.

The files follow from ``shared/permissions`` and are in the repository, because the servers' images have no Python. A
test fails where they are older than the lists. They have no passwords: those come from the containers' environment.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shared.permissions.accounts import Account, Login
from shared.permissions.nats_users import users_of_nats
from shared.permissions.redis_users import access_of

FOLDER: Final = Path(__file__).parent
OWNER: Final = "bidding"
"""At NATS, who may do everything; at Redis that is the default user."""
_HEAD: Final = "# Written by `python -m infrastructure.docker.permissions`; changes belong into shared/permissions.\n"


def password_setting(account: Account) -> str:
    """The variable of the compose file with the account's password at all servers: `GATEWAY_PASSWORD`."""
    return f"{account.value.upper()}_PASSWORD"


def files() -> dict[str, str]:
    """The files' texts by their names."""
    lines = [
        f"user {account.value} on @{account.value}@ {access}" for account in Account if (access := access_of(account))
    ]
    redis = "user default on @default@ ~* &* +@all\n" + "\n".join(lines) + "\n"
    logins: dict[Account, Sequence[Login]] = {
        account: [Login(account.value, [f"$NATS_{password_setting(account)}"])] for account in Account
    }
    nats = users_of_nats(logins, open_to_all=False, owners=[Login(OWNER, ["$NATS_PASSWORD"])])
    # A file of users has no comments.
    return {"redis-users.acl": redis, "nats-users.conf": _HEAD + nats}


def main() -> None:
    """Write them."""
    for name, text in files().items():
        (FOLDER / name).write_text(text)
        sys.stdout.write(f"{FOLDER / name} written\n")


if __name__ == "__main__":
    main()
