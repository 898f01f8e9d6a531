"""How a broker's address and credentials are written in configuration, the same for edge and gateway."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Address(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int
    tls: bool


class BrokerConfig(BaseModel):
    """Where the broker is. `mqtts://` for TLS; secrets stand in files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="mqtt://host:1883 or mqtts://host:8883.")
    username: str | None = Field(None, description="User name, where the broker wants one.")
    password_file: Path | None = Field(None, description="File that holds the password.")
    ca_file: Path | None = Field(None, description="Certificates of the broker's authority; the system's when absent.")
    certificate_file: Path | None = Field(None, description="This node's certificate.")
    key_file: Path | None = Field(None, description="The key of that certificate.")
    keepalive_s: int = Field(30, ge=5, le=1200, description="Silence after which the link counts as lost.")
    backoff_cap_s: float = Field(60, ge=0.1, le=3600, description="Longest wait between attempts to connect.")

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str) -> str:
        parse_url(url)
        return url


def parse_url(url: str) -> Address:
    """The address of `mqtt://host[:1883]` or `mqtts://host[:8883]`. ValueError for anything else."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or port == -1 or parts.path not in ("", "/"):
        raise ValueError(f"{url!r} is not mqtt://host:port or mqtts://host:port")
    tls = parts.scheme == "mqtts"
    return Address(parts.hostname, port or (8883 if tls else 1883), tls)
