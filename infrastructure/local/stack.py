"""The embedded stack as an object: private servers and the platform's services, to start, stop and kill.

    async with Stack(Path("data"), ports=Ports.free()) as stack:
        ... stack.urls.gateway_url ...
        stack.kill("api_gateway", signal.SIGKILL)
        await stack.start_process("api_gateway")

`bidding up`, the tests and the benches all use this class. It is not tied to an event loop: it may be started in one
and stopped in another, as test fixtures do.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from infrastructure.local.cache_nodes import cache_specs, wanted_ports
from infrastructure.local.errors import StackError
from infrastructure.local.processes import Launcher, ManagedProcess, ProcessSpec, all_or_error, launch
from infrastructure.local.remote import require_reachable, without_password
from infrastructure.local.reporting import Reporter
from infrastructure.local.servers.migration import migrate
from infrastructure.local.servers.ports import HOST, Ports, Wanted, free_ports, require_free
from infrastructure.local.servers.postgres import is_initialised
from infrastructure.local.servers.private import PrivateServers, are_closed
from infrastructure.local.servers.redis_and_nats import AppendFsync, RedisAccess
from infrastructure.local.servers.valkey_cluster import cluster_for
from infrastructure.local.services import (
    ACCOUNTS,
    ALL_SERVICES,
    API_GATEWAY,
    BROADCAST_SERVICE,
    PORTS_OF,
    PURPOSES,
    SHARING,
    Urls,
    http_url,
    inherited_settings,
    process_names,
    reachable_host,
    service_environment,
    service_spec,
)
from infrastructure.local.state import (
    DataDirLock,
    Phase,
    ProcessRecord,
    RunRecord,
    end_leftovers,
    own_record,
    run_path,
)
from shared.permissions.accounts import Account


class Stack:
    """Redis, NATS, PostgreSQL and some of the services on 127.0.0.1, with all their files under `data_dir`.

    `services` names the services to run; `()` runs the servers alone. `env` is added to the environment of
    every service. `migrate`: bring the schema up to date in `start`; by default if there are services. If the URL
    of a server is given, that server is used and none is started. `redis_appendfsync`: `always` (the default
    of every deployment), `everysec` or `no`. `gateways`, `broadcasters`: how many share the port of the API, and
    that of the live feed.
    `cache_nodes`: how many nodes of the read cache run, with a front end; the gateway reads through them.
    `valkey_nodes`: of how many nodes Redis is a cluster; 1: it is a single server.
    `launcher`: how a process is started.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        ports: Ports | None = None,
        services: Sequence[str] = ALL_SERVICES,
        env: Mapping[str, str] | None = None,
        migrate: bool | None = None,
        redis_appendfsync: AppendFsync = "always",
        redis_url: str | None = None,
        nats_url: str | None = None,
        postgres_url: str | None = None,
        reporter: Reporter | None = None,
        gateways: int = 1,
        broadcasters: int = 1,
        cache_nodes: int = 0,
        valkey_nodes: int = 1,
        launcher: Launcher = launch,
    ) -> None:
        self.data_dir = data_dir.absolute()
        if valkey_nodes > 1 and redis_url is not None:
            raise StackError(
                "--valkey-nodes starts nodes of Redis here, and REDIS_URL names others: leave one of them out."
            )
        self.ports = ports or Ports()
        self.reporter = reporter or Reporter()
        self.services = tuple(services)
        self._counts = {API_GATEWAY: gateways, BROADCAST_SERVICE: broadcasters}
        self._cache_nodes = cache_nodes
        self._launcher = launcher
        self.server_env: dict[str, dict[str, str]] = {}
        """Per private server, the variables that are added to its environment from its next start on."""
        self._more_servers: set[str] = set()
        self._migrates = bool(services) if migrate is None else migrate
        self._external = {"redis": redis_url, "nats": nats_url, "postgres": postgres_url}
        self._env = dict(env or {})
        self._cluster = None if redis_url is not None else cluster_for(self.data_dir, ports or Ports(), valkey_nodes)
        is_closed = are_closed(os.environ | self._env)
        self._private = PrivateServers(self.data_dir, self.ports, self._cluster, redis_appendfsync, closed=is_closed)
        self._lock = DataDirLock(self.data_dir)
        self._processes: dict[str, ManagedProcess] = {}
        self._phase: Phase = "starting"
        self._in_a_hurry = False
        self.urls = self._make_urls()

    def _make_urls(self) -> Urls:
        return Urls(
            redis_url=self._external["redis"] or self._private.url("redis"),
            nats_url=self._external["nats"] or self._private.url("nats"),
            postgres_url=self._external["postgres"] or self._private.url("postgres"),
            gateway_url=self._service_url("gateway"),
            broadcast_url=self._service_url("broadcast"),
            archiver_url=self._service_url("archiver"),
        )

    def _service_url(self, port_name: str) -> str:
        return http_url(self._service_host(port_name), getattr(self.ports, port_name))

    def _service_host(self, port_name: str) -> str:
        return reachable_host(port_name, os.environ | self._env)

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers that this stack runs itself."""
        own = [name for name, url in self._external.items() if url is None]
        if self._cluster is not None:
            own[own.index("redis") : own.index("redis") + 1] = self._cluster.names
        return tuple(own)

    @property
    def processes(self) -> Mapping[str, ManagedProcess]:
        """Every process that was started, by name."""
        return self._processes

    @property
    def service_env(self) -> dict[str, str]:
        """The environment of the services, in which they would reach the servers as the servers' owner."""
        inherited = inherited_settings(self.data_dir, os.environ, self._env)
        if self._cache_nodes and not inherited.get("READ_CACHE"):
            inherited["READ_CACHE"] = "cluster"
        return service_environment(self.urls, self.ports, inherited, self._env)

    def env_of(self, account: Account | None) -> dict[str, str]:
        """The same for a service that uses this account: with its logins at the servers that this stack runs."""
        if account is None:
            return self.service_env
        own = [server for server, url in self._external.items() if url is None]
        urls = {f"{server.upper()}_URL": self._private.url_of(server, account) for server in own}
        return self.service_env | {name: url for name, url in urls.items() if name not in self._env}

    @property
    def redis_access(self) -> RedisAccess:
        """Who gets into the Redis of this stack: for one more node of it."""
        return self._private.redis_access

    def log_path(self, name: str) -> Path:
        """Where a process writes its log."""
        return self.data_dir / "logs" / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """The process id, or None while the process does not run. KeyError for a name never started."""
        return self._processes[name].pid

    # ------------------------------------------------------------------ start and stop

    async def start(self, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Start the servers together, migrate, start the services together; return when all are ready.

        ``on_ready`` is called before the record of the run says `ready`: `up --detach` waits for that record, and shows
        what was said until then.

        Raises AlreadyRunning, PortInUse, BinaryMissing or ProcessFailed (all StackError), after stopping
        whatever had been started; StackError as well where the data directory cannot be written.
        """
        self._lock.acquire()
        try:
            await self._end_leftovers()
            self._processes.clear()
            require_free(self._wanted_ports())
            self._set_phase("starting")
            await self._require_external()
            await all_or_error([self._start_server(name) for name in self.servers])
            if self._cluster is not None:
                with self.reporter.step("cluster", self._cluster.url):
                    await self._cluster.form(self.urls.redis_url)
            if self._migrates:
                await self.migrate()
            if self._external["postgres"] is None:
                await self._private.let_in()
            specs = [spec for name in self.services for spec in self._service_specs(name)]
            await self._start_together([*specs, *self._cache_specs()])
            on_ready()
            self._set_phase("ready")
        except BaseException as error:
            await asyncio.shield(self.stop())
            if isinstance(error, OSError):
                raise StackError(f"Could not start with the data directory {self.data_dir}: {error}") from error
            raise

    async def stop(self) -> None:
        """End every process, services before servers: first by asking, then by force.

        Does nothing if none runs.
        """
        if not self._lock.is_held:
            return
        self._set_phase("stopping")
        names = {*self.servers, *self._more_servers}
        servers = [process for name, process in self._processes.items() if name in names]
        services = [process for name, process in self._processes.items() if name not in names]
        try:
            for batch in (services, servers):
                await asyncio.gather(*(self._stop_one(process) for process in batch))
        finally:
            if not any(process.is_running for process in self._processes.values()):
                with contextlib.suppress(OSError):
                    run_path(self.data_dir).unlink()
            self._lock.release()

    def hurry(self) -> None:
        """Make the current or next stop end everything by force, without waiting."""
        self._in_a_hurry = True

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def migrate(self) -> None:
        """Bring the schema up to date. Raises ProcessFailed."""
        with self.reporter.step("schema"):
            await migrate(self.service_env, self.log_path("migrate"))

    # ------------------------------------------------------------------ one process

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one process, such as SIGKILL, SIGSTOP or SIGCONT, and return at once."""
        self._processes[name].send(number)

    async def wait_ended(self, name: str, timeout_s: float = 10.0) -> bool:
        """Wait until a process that was killed is gone; False when it is still there after `timeout_s`."""
        return await self._processes[name].wait(timeout_s)

    async def stop_process(self, name: str) -> None:
        """End one process in order and wait for it. KeyError for a name never started."""
        await self._stop_one(self._processes[name])
        self.save()

    async def start_process(self, name: str) -> None:
        """Start one process that has ended, on its old port and data, and wait until it is ready.

        Nothing happens when it runs. Raises ProcessFailed when it does not come up, KeyError for an unknown
        name.
        """
        process = self._processes[name]
        if process.is_running:
            return
        if name in self.servers:
            # Prepare it again, since its folder may have been deleted, or hold leftovers of a killed server.
            process.spec = await self._server_spec(name)
        await self._bring_up(process)

    async def restart(self, name: str) -> None:
        """`stop_process`, then `start_process`."""
        await self.stop_process(name)
        await self.start_process(name)

    async def add_service(self, name: str, module: str, port: int, env: Mapping[str, str] | None = None) -> None:
        """Start one more instance, say a second gateway: `python -m <module>` with `env` on top of the usual
        one.

        `port` is the one whose /ready tells that it is up; `env` must make the service listen there.
        """
        self._require_new(name)
        spec = service_spec(
            name, module, HOST, port, self.data_dir, self.env_of(ACCOUNTS.get(module)) | dict(env or {})
        )
        await self._start_together([spec])

    async def add_server(self, spec: ProcessSpec) -> None:
        """Start one more server, say a replica; it ends after the services. StackError where the name is taken."""
        self._require_new(spec.name)
        self._more_servers.add(spec.name)
        await self._start_together([spec])

    # ------------------------------------------------------------------ inside

    def _require_new(self, name: str) -> None:
        if name in self._processes:
            raise StackError(f"There is a process named {name} already.")

    def _wanted_ports(self) -> list[Wanted]:
        own = [name for name in self.servers if self._cluster is None or name not in self._cluster.names]
        names = [name for process in (*self.services, *own) for name in PORTS_OF[process]]
        wanted = [Wanted(name, PURPOSES[name], getattr(self.ports, name), self._service_host(name)) for name in names]
        if self._cluster is not None:
            wanted += self._cluster.wanted
        return [*wanted, *wanted_ports(self._cache_nodes, self.ports, os.environ | self._env)]

    def _cache_specs(self) -> list[ProcessSpec]:
        return cache_specs(self._cache_nodes, self.ports, self.data_dir, self.env_of(Account.CACHE))

    def _service_specs(self, name: str) -> list[ProcessSpec]:
        """The processes of a service: one, or several on one port, each with its own port for probes."""
        (port,) = PORTS_OF[name]
        host, number = self._service_host(port), getattr(self.ports, port)
        count = self._counts.get(name, 1)
        env = self.env_of(ACCOUNTS[name])
        if count == 1:
            return [service_spec(name, name, host, number, self.data_dir, env)]
        begin = SHARING[name]
        shared = env | {f"{begin}_REUSE_PORT": "true"}
        return [
            service_spec(each, name, host, own, self.data_dir, shared | {f"{begin}_OWN_PORT": str(own)})
            for each, own in zip(process_names(name, count), free_ports(count), strict=True)
        ]

    async def _end_leftovers(self) -> None:
        record = RunRecord.read(run_path(self.data_dir))
        if record is None:
            return
        ended = await end_leftovers(record)
        if ended:
            self.reporter.notice(f"ended what an earlier run had left behind: {', '.join(ended)}")
        run_path(self.data_dir).unlink(missing_ok=True)

    async def _require_external(self) -> None:
        for name, url in self._external.items():
            if url is not None:
                with self.reporter.step(name, f"used where it is: {without_password(url)}"):
                    await require_reachable(f"{name.upper()}_URL", url)

    async def _start_server(self, name: str) -> None:
        # The first call makes the files of the database, which takes a second or so.
        is_new = name == "postgres" and not is_initialised(self.data_dir)
        with self.reporter.step("new database") if is_new else contextlib.nullcontext():
            spec = await self._server_spec(name)
        await self._start_together([spec])

    async def _server_spec(self, name: str) -> ProcessSpec:
        """How to run a server. Makes missing folders and files; in a thread, as that may take long."""
        work = asyncio.ensure_future(asyncio.to_thread(self._private.spec, name))
        try:
            spec = await asyncio.shield(work)
            return dataclasses.replace(spec, env={**spec.env, **self.server_env.get(name, {})})
        except asyncio.CancelledError:
            # The thread cannot be interrupted, and must have ended before the next start.
            await asyncio.wait([work])
            raise

    async def _start_together(self, specs: list[ProcessSpec]) -> None:
        self._processes |= {spec.name: ManagedProcess(spec, self._launcher) for spec in specs}
        await all_or_error([self._bring_up(self._processes[spec.name]) for spec in specs])

    async def _bring_up(self, process: ManagedProcess) -> None:
        with self.reporter.step(process.spec.name, process.spec.address):
            process.spawn()
            self.save()
            await process.wait_ready()
        self.save()

    async def _stop_one(self, process: ManagedProcess) -> None:
        process.wanted = False
        if process.is_running:
            with self.reporter.step(f"stop {process.spec.name}"):
                await process.stop(lambda: self._in_a_hurry)

    def _set_phase(self, phase: Phase) -> None:
        self._phase = phase
        self.save()

    def save(self) -> None:
        """Write run.json: for `bidding status`, and for the next start in case this process is killed.

        If it cannot be written, say on a full disk, there is a notice, and the caller goes on: it would be worse not to
        stop a process because its end cannot be recorded.
        """
        try:
            self._record().write(run_path(self.data_dir))
        except OSError as error:
            self.reporter.notice(f"could not write {run_path(self.data_dir)}: {error.strerror}")

    def _record(self) -> RunRecord:
        return RunRecord(
            phase=self._phase,
            supervisor=own_record(),
            urls=self.urls.as_dict(),
            ports={name: getattr(self.ports, name) for name in self.ports.__slots__},
            processes={
                name: ProcessRecord(
                    pid=process.pid,
                    create_time=process.create_time or 0.0,
                    address=process.spec.address,
                    ready_at=process.ready_at,
                    restarts=process.restarts,
                )
                # Always in the same order, whichever server was ready first.
                for name in dict.fromkeys((*self.servers, *self._processes))
                if (process := self._processes.get(name)) is not None and process.pid is not None
            },
        )
