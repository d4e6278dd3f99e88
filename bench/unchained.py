"""The archival worker without its chain of hashes, to see what the chain costs. For benches only."""

from __future__ import annotations

import asyncio

from typing_extensions import override

from archival_worker import main
from archival_worker.__main__ import cli
from archival_worker.chain.chainer import Chainer


class _NoChain(Chainer):
    @override
    async def run(self) -> None:
        """Rest until cancelled."""
        await asyncio.Event().wait()


main.Chainer = _NoChain  # type: ignore[attr-defined]

if __name__ == "__main__":
    cli()
