"""A service that traces nothing loads nothing for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_layout import ROOT, imported

PROGRAM = """
import json, sys

if "without" in sys.argv:
    class Missing:
        def find_spec(name, *rest):
            if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto")):
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Missing)
import archival_worker.main, broadcast_service.main, api_gateway.main
from api_gateway.settings import Settings
api_gateway.application.build_app(Settings())
print(json.dumps(list(sys.modules)))
"""


def test_one_module_imports_opentelemetry_and_it_is_imported_where_a_tracer_is_opened() -> None:
    packages = ("api_gateway", "archival_worker", "broadcast_service", "cache_node", "infrastructure", "shared")
    files = {
        str(path.relative_to(ROOT)): set(imported(path))
        for package in packages
        for path in (ROOT / package).rglob("*.py")
    }
    users = [name for name, names in files.items() if any(each.startswith("opentelemetry") for each in names)]
    assert users == ["shared/tracing/otlp.py"]
    assert [name for name, names in files.items() if "shared.tracing.otlp" in names] == ["shared/tracing/opening.py"]


@pytest.mark.parametrize("extra", ["with", "without"])
def test_services_without_an_endpoint_load_no_tracer_and_need_none(tmp_path: Path, extra: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", PROGRAM, extra]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    # FastAPI imports the interfaces itself, and redis-py the SDK's metrics where they are installed.
    ours = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.proto", "shared.tracing.otlp")
    assert [name for name in loaded if name.startswith(ours)] == []
    assert "shared.tracing.opening" in loaded
