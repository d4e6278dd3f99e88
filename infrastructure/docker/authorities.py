"""``POSTGRES_CA``: certificates of the authority that must have issued PostgreSQL's certificate, as text in PEM.

A task gets it as a variable, like its other settings; the driver needs a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

FOLDER: Final = Path("/tmp")
"""A folder where containers of the image may write. Its files end with the container."""
_FILE: Final = "postgres-authorities.pem"


def with_authority(environment: Mapping[str, str], folder: Path = FOLDER) -> dict[str, str]:
    """The environment with a POSTGRES_URL that makes the driver verify the server's certificate and name.

    The certificates are written to a file, which the URL names. Without ``POSTGRES_CA`` nothing changes.

    Raises:
        ValueError: there is no POSTGRES_URL, or the text is no certificate.
        OSError: the file cannot be written.
    """
    result = dict(environment)
    text = result.pop("POSTGRES_CA", "").strip()
    if not text:
        return result
    url = result.get("POSTGRES_URL", "")
    if not url:
        raise ValueError("POSTGRES_CA is set, but POSTGRES_URL is not")
    if not text.startswith("-----BEGIN CERTIFICATE-----"):
        raise ValueError("POSTGRES_CA is no certificate in PEM")
    file = folder / _FILE
    file.write_text(text + "\n")
    parts = urlsplit(url)
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in ("sslmode", "sslrootcert")]
    query += [("sslmode", "verify-full"), ("sslrootcert", str(file))]
    result["POSTGRES_URL"] = parts._replace(query=urlencode(query, safe="/")).geturl()
    return result
