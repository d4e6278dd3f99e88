"""Whether bids are traced: OpenTelemetry's own variables, of which the SDK reads the others itself."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from pydantic import model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from typing_extensions import override

from shared.server_urls import password_of
from shared.settings import EnvironmentSettings

_PACKAGES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_PROTOCOL: Final = "http/protobuf"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_HEADERS: Final = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")


class TracingSettings(EnvironmentSettings):
    """Read from the environment alone, as the SDK does; never from a ``.env``.

    Attributes:
        otel_exporter_otlp_endpoint, otel_exporter_otlp_traces_endpoint: where the collector is; bids are traced where
            one of them is set. The first has ``/v1/traces`` added to it.
        otel_exporter_otlp_protocol, otel_exporter_otlp_traces_protocol: only ``http/protobuf`` is supported.
        otel_traces_exporter: ``otlp``, or ``none`` to trace nothing. otel_sdk_disabled: ``true`` to trace nothing.
    """

    otel_exporter_otlp_endpoint: str = ""
    otel_exporter_otlp_traces_endpoint: str = ""
    otel_exporter_otlp_protocol: str = ""
    otel_exporter_otlp_traces_protocol: str = ""
    otel_traces_exporter: str = ""
    otel_sdk_disabled: str = ""

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings

    @property
    def endpoint(self) -> str:
        """Where the collector is; empty where none is named."""
        return self.otel_exporter_otlp_traces_endpoint or self.otel_exporter_otlp_endpoint

    @property
    def is_on(self) -> bool:
        """Whether bids are traced."""
        is_off = self.otel_sdk_disabled.strip().lower() == "true" or self.otel_traces_exporter.strip() == "none"
        return bool(self.endpoint) and not is_off

    @model_validator(mode="after")
    def _can_be_exported(self) -> Self:
        if not self.is_on:
            return self
        name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
        if not self.otel_exporter_otlp_traces_endpoint:
            name = "OTEL_EXPORTER_OTLP_ENDPOINT"
        try:
            address = urlsplit(self.endpoint)
            is_address = address.scheme in ("http", "https") and bool(address.hostname)
        except ValueError:
            is_address = False
        if not is_address:
            raise ValueError(f"{name} must be an address such as http://127.0.0.1:4318")
        if self.otel_traces_exporter.strip() not in ("", "otlp"):
            raise ValueError("OTEL_TRACES_EXPORTER must be otlp or none")
        protocol = self.otel_exporter_otlp_traces_protocol or self.otel_exporter_otlp_protocol or _PROTOCOL
        if protocol.strip() != _PROTOCOL:
            raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL must be {_PROTOCOL}; most collectors take it at port 4318")
        if not all(map(_is_installed, _PACKAGES)):
            raise ValueError(
                f"{name} is set, and the packages for traces are missing: install the extra `tracing` "
                "(pip install 'bidding-platform[tracing]'), or leave the variable out"
            )
        return self


def collector_secrets(environment: Mapping[str, str]) -> list[str]:
    """The keys that may be sent to a collector, by header or in its address, in all forms that an error may show; the
    longest first."""
    found: set[str] = set()
    for name in _HEADERS:
        for header in environment.get(name, "").split(","):
            _, is_named, value = header.partition("=")
            found |= {header.strip(), value.strip()} if is_named else {header.strip()}
    for name in _ENDPOINTS:
        before, _, query = environment.get(name, "").partition("?")
        found.add(query)
        # Of the two addresses, the one that is not used may be anything.
        with contextlib.suppress(ValueError):
            found.add(password_of(before))
    return sorted({form for each in found for form in (each, unquote(each)) if form}, key=len, reverse=True)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
