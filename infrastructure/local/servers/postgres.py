"""PostgreSQL as a private server.

Who may connect. The server listens only on 127.0.0.1 and has no Unix socket. It lets in the role `bidding`, without a
password unless the servers are closed: like the Redis and NATS beside it, it is for one person's machine. That role
owns the database `bidding` and may create others (tests do) and roles, but is no superuser, so another user of the same
machine who connects can neither read files nor run programs through it. All other roles, those of the services among
them, need their passwords; the superuser cannot connect over the network.

PostgreSQL refuses to run as root. If root starts it, as in most containers, it runs as a system user of its own.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

from infrastructure.local.errors import StackError
from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers import binaries, probes
from infrastructure.local.servers.logins import SCRAM_ITERATIONS
from infrastructure.local.servers.ports import HOST, Ports
from infrastructure.local.servers.redis_and_nats import plain_environment
from shared.permissions.accounts import digest
from shared.permissions.postgres_roles import scram_verifier
from shared.server_urls import with_credentials

ROLE = "bidding"
DATABASE = "bidding"
# When root needs a user to run PostgreSQL as, these are tried in order; the first one is created if possible.
_SYSTEM_USERS = ("pgserver", "nobody")
_READY_MARKER = "bidding-ready"
_INIT_TIMEOUT_S = 120

_HBA = """\
# Written at every start by `bidding up`; changes here are lost.
# TYPE  DATABASE  USER      ADDRESS        METHOD
host    all       postgres  127.0.0.1/32   reject
host    all       bidding   127.0.0.1/32   {owner}
host    all       all       127.0.0.1/32   scram-sha-256
"""

# CREATE DATABASE cannot run in a transaction: single-user mode takes one statement per line.
_FIRST_STATEMENTS = f"""\
CREATE ROLE {ROLE} LOGIN CREATEDB IN ROLE pg_monitor
CREATE DATABASE {DATABASE} OWNER {ROLE}
"""
# A file of the data directory that notes the owner's rights and password. If others are wanted, the owner is changed
# before the server starts.
_OWNER_MARKER = "bidding-owner"

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def postgres_url(port: int) -> str:
    return f"postgresql://{ROLE}@{HOST}:{port}/{DATABASE}"


def postgres_spec(data_dir: Path, ports: Ports, environment: Mapping[str, str], *, password: str = "") -> ProcessSpec:
    """PostgreSQL with its files in `<data_dir>/postgres`. The first call makes them, and blocks for a second or two.

    ``password``: of the owner; if it is empty, the owner gets in without one.

    Raises BinaryMissing without PostgreSQL, StackError if the database cannot be made.
    """
    folder = data_dir / "postgres"
    bin_dir = binaries.find_postgres(environment)
    account = _account_for_root(bin_dir, folder) if os.geteuid() == 0 else None
    env = plain_environment(environment) | {"LC_ALL": "C"}
    if not is_initialised(data_dir):
        _initialise(bin_dir, folder, env, account)
    remove_stale_pid_file(folder)
    (folder / "pg_hba.conf").write_text(_HBA.format(owner="scram-sha-256" if password else "trust"))
    _make_owner(bin_dir, folder, env, account, password)
    url = postgres_url(ports.postgres)
    settings = _SETTINGS | {"port": str(ports.postgres)}
    return ProcessSpec(
        name="postgres",
        argv=(
            str(bin_dir / "postgres"),
            "-D",
            str(folder),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        ),
        env=env,
        log=data_dir / "logs" / "postgres.log",
        ready=probes.postgres_ready(with_credentials(url, password=password) if password else url),
        address=f"{HOST}:{ports.postgres}",
        cwd=folder,
        # "Fast": connections are cut, transactions rolled back, and a checkpoint makes the next start quick.
        stop_signal=signal.SIGINT,
        stop_timeout_s=20.0,
        ready_timeout_s=120.0,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
    )


def is_initialised(data_dir: Path) -> bool:
    """Was the database made completely?"""
    return (data_dir / "postgres" / _READY_MARKER).exists()


def _initialise(bin_dir: Path, folder: Path, env: Mapping[str, str], account: pwd.struct_passwd | None) -> None:
    """Make the database cluster, its role and its database. An interrupted earlier attempt is deleted.

    The marker file is written last: without it no data was ever stored there.
    """
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, mode=0o700)
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)

    # Sorting by bytes, the same on every machine; texts are UTF-8.
    locale = ["--encoding=UTF8", "--locale=C"]
    files = ["-D", str(folder)]
    initdb = [str(bin_dir / "initdb"), *files, "-U", "postgres", "--auth=reject", "--no-instructions", *locale]
    _run(initdb, folder, env, account)
    statements = _FIRST_STATEMENTS + _owner_statement("")
    _run([str(bin_dir / "postgres"), "--single", *files, "template1"], folder, env, account, statements)
    (folder / _OWNER_MARKER).write_text(_owner_mark(""))
    (folder / _READY_MARKER).touch()


def _make_owner(
    bin_dir: Path, folder: Path, env: Mapping[str, str], account: pwd.struct_passwd | None, password: str
) -> None:
    """Let the owner make roles, which it could not in databases of earlier versions, and give it its password."""
    marker = folder / _OWNER_MARKER
    if marker.exists() and marker.read_text() == _owner_mark(password):
        return
    single = [str(bin_dir / "postgres"), "--single", "-D", str(folder), "template1"]
    _run(single, folder, env, account, _owner_statement(password))
    marker.write_text(_owner_mark(password))


def _owner_statement(password: str) -> str:
    verifier = f"'{scram_verifier(password, iterations=SCRAM_ITERATIONS)}'" if password else "NULL"
    return f"ALTER ROLE {ROLE} CREATEROLE PASSWORD {verifier}\nGRANT pg_signal_backend TO {ROLE}\n"


def _owner_mark(password: str) -> str:
    return f"createrole signals {digest(password)}\n"


def _run(
    arguments: list[str],
    folder: Path,
    env: Mapping[str, str],
    account: pwd.struct_passwd | None,
    statements: str = "",
) -> None:
    """Run a program of PostgreSQL on a folder whose server is down."""
    try:
        done = subprocess.run(
            arguments,
            input=statements,
            capture_output=True,
            text=True,
            env=dict(env),
            cwd=folder,
            timeout=_INIT_TIMEOUT_S,
            check=False,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StackError(f"Could not make the PostgreSQL database in {folder}: {error}") from error
    # Single-user mode reports a failed statement only in its output.
    if done.returncode != 0 or "ERROR:" in done.stderr:
        raise StackError(f"Could not make the PostgreSQL database in {folder}:\n{done.stderr.strip()}")


def remove_stale_pid_file(folder: Path) -> None:
    """Remove the pid file of a killed server if another program has that pid by now.

    PostgreSQL would take that program for a running server, and refuse to start. The caller holds the lock of the
    data directory, and has ended leftovers of an earlier run.
    """
    pid_file = folder / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.name().startswith("postgres"):
            return
    pid_file.unlink(missing_ok=True)


def _account_for_root(bin_dir: Path, folder: Path) -> pwd.struct_passwd:
    """The user that PostgreSQL runs as if we are root. It is given access to the programs and the data."""
    account = _find_account()
    for path in (bin_dir, folder):
        _let_pass(path)
    for path in (bin_dir, bin_dir.parent / "lib", bin_dir.parent / "share"):
        _let_read(path)
    return account


def _find_account() -> pwd.struct_passwd:
    for name in _SYSTEM_USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
        if name == _SYSTEM_USERS[0] and (useradd := shutil.which("useradd")):
            subprocess.run([useradd, "--system", "--no-create-home", name], capture_output=True, check=False)
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name)
    raise StackError(
        "PostgreSQL does not run as root, and there is no other user to run it as.\n"
        "Start as a normal user, or make one (useradd --system pgserver), or set POSTGRES_URL."
    )


def _let_pass(path: Path) -> None:
    """Let other users pass through (not list) the folders above `path`, where they may not yet."""
    for parent in path.absolute().parents:
        if parent.exists() and not parent.stat().st_mode & stat.S_IXOTH:
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH)


def _let_read(path: Path) -> None:
    """Let other users read a folder of the PostgreSQL installation: root's umask may have kept them out."""
    for entry in (path, *path.rglob("*")):
        mode = entry.stat().st_mode
        wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
        if mode != wanted and not entry.is_symlink():
            entry.chmod(wanted)
