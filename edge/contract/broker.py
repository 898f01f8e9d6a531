"""How a broker's address and credentials are written in configuration, the same for edge and gateway."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


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
    client_id: str | None = Field(
        None,
        pattern=r"^[a-z0-9-]{1,64}$",
        description="Names the session that the broker keeps for this node; the node's name when absent.",
    )
    keepalive_s: int = Field(30, ge=5, le=1200, description="Silence after which the link counts as lost.")
    backoff_cap_s: float = Field(60, ge=0.1, le=3600, description="Longest wait between attempts to connect.")

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str) -> str:
        parse_url(url)
        return url

    @field_validator("ca_file", "certificate_file", "key_file")
    @classmethod
    def _has_use(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and "url" in info.data and not parse_url(info.data["url"]).tls:
            raise ValueError("is for TLS, but url begins with mqtt:// and nothing would be encrypted; write mqtts://")
        if path is not None and info.field_name == "key_file" and info.data.get("certificate_file", path) is None:
            raise ValueError("is a key without its certificate; set certificate_file too")
        return path

    @field_validator("password_file")
    @classmethod
    def _has_user(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and info.data.get("username", "") is None:
            raise ValueError("is a password without its user; set username too")
        return path


def parse_url(url: str) -> Address:
    """The address of `mqtt://host[:1883]` or `mqtts://host[:8883]`. ValueError for anything else."""
    wanted = ValueError(f"{url!r} is not mqtt://host:port or mqtts://host:port")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # a port, or an IPv6 address, that is none
        raise wanted from None
    if "@" in parts.netloc:
        raise ValueError("a user and a password do not belong in the url, which logs show; set username and password_file")
    beyond = parts.path + parts.query + parts.fragment
    if parts.scheme not in ("mqtt", "mqtts") or not host or port == 0 or beyond not in ("", "/"):
        raise wanted
    tls = parts.scheme == "mqtts"
    return Address(host, port or (8883 if tls else 1883), tls)
