"""`satomori-gateway check`: opens each thing the configuration names, and says of each what is wrong."""

import time
from collections.abc import Callable
from zoneinfo import ZoneInfo

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from edge.contract.broker import parse_url
from gateway.api.tokens import read_tokens
from gateway.config import GatewayConfig, NodesConfig
from gateway.errors import ConfigError, StoreDown, StoreRefused
from gateway.ingest import credentials
from gateway.media import MediaShelf
from gateway.nodes.authority import BROKER, CRL, GATEWAY, LISTENER, SIGNING_KEY, Authority, ends_us
from gateway.nodes.brokers import NATS_NODES, running_broker
from gateway.nodes.signing import Signer
from gateway.notify.channels import build_channels
from gateway.notify.line import LineConfig, read_secret
from gateway.notify.quota import Quota
from gateway.own import Own
from gateway.state import open_state
from gateway.store import open_store

TIMEOUT_S = 10
WARN_DAYS = 30


def check(config: GatewayConfig) -> dict[str, str | None]:
    """Each part's fault, or None where it is fine."""
    parts: dict[str, Callable[[], None]] = {
        "state": lambda: open_state(config.state.url).close(),
        "store": lambda: open_store(config.store).close(),
        "media": lambda: _media(config),
        "api.tokens_file": lambda: _tokens(config),
        "broker": lambda: _broker(config),
    }
    if config.channel.any:
        parts["channel"] = lambda: _channels(config)
    if config.nodes is not None:
        nodes = config.nodes
        parts["nodes"] = lambda: _nodes(nodes)
    return {name: _fault(name, part) for name, part in parts.items()}


def _fault(name: str, part: Callable[[], None]) -> str | None:
    """What is wrong with a part. Who shows it names the part, so that the text need not begin with it too."""
    try:
        part()
    except (ConfigError, StoreDown, StoreRefused, OSError, ValueError) as error:
        return str(error).removeprefix(f"{name}: ")
    return None


def _media(config: GatewayConfig) -> None:
    try:
        state = open_state(config.state.url)
    except ConfigError:
        raise ConfigError("can't be tried until the state database opens, which lists what is there") from None
    try:
        MediaShelf(config.media.folder, state, lambda: 0)
    finally:
        state.close()


def _channels(config: GatewayConfig) -> None:
    """Keys, passwords and secrets; nothing is sent. Whether people can be reached is what tests and the canary show."""
    state = open_state(config.state.url)
    try:
        zone = ZoneInfo(config.time_zone)

        def quota(line: LineConfig) -> Quota:
            return Quota(state, "line", zone, line.reserve, Own().condition)  # what it would warn of is heard by nobody

        channels = build_channels(config.channel, config.contact, config.people, lambda: time.time_ns() // 1000, quota)
        for channel in channels.by_key.values():
            channel.close()
        if config.channel.line is not None:
            read_secret(config.channel.line.channel_secret_file, "channel_secret_file")
    finally:
        state.close()


def _tokens(config: GatewayConfig) -> None:
    read_tokens(config.api.tokens_file)


def _nodes(nodes: NodesConfig) -> None:
    """The authority and its files; the listener's port is not tried, for a running gateway has it."""
    folder = nodes.folder
    Authority.read(folder)
    Signer.read(folder / SIGNING_KEY)
    now_us = time.time_ns() // 1000
    for name in ("ca", BROKER, LISTENER, GATEWAY):
        if (days := (ends_us(folder / f"{name}.pem") - now_us) / 86_400e6) < WARN_DAYS:
            raise ConfigError(
                f"nodes.folder: {folder / name}.pem ends in {days:.0f} days. "
                + ("Nodes go by it: all must be claimed anew before" if name == "ca" else "Run: satomori-gateway authority init")
            )
    for name in (CRL, NATS_NODES):
        if not (folder / name).exists():
            raise ConfigError(f"nodes.folder: {folder / name} is missing. Run: satomori-gateway authority init")
    if nodes.broker_pid_file is not None and running_broker(nodes.broker_pid_file) is None:
        raise ConfigError(f"nodes.broker_pid_file: {nodes.broker_pid_file} names no running process: nobody tells the broker")


def _broker(config: GatewayConfig) -> None:
    """Connects under another client id, so that a running gateway keeps its session."""
    host, port, tls = parse_url(config.broker.url)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, f"{config.broker.client_id[:25]}-check")
    credentials(client, config.broker, tls=tls)
    answers: list[str] = []
    client.on_connect = lambda _c, _d, _f, code, _p: answers.append(str(code) if code.is_failure else "")
    try:
        client.connect(host, port)
    except OSError as error:
        raise ConfigError(f"broker.url: {host}:{port} can't be reached: {error}") from error
    until = time.monotonic() + TIMEOUT_S
    while not answers and time.monotonic() < until:
        if client.loop(0.2) != MQTTErrorCode.MQTT_ERR_SUCCESS:
            break
    client.disconnect()
    if not answers:
        raise ConfigError(f"broker.url: {host}:{port} accepts connections but does not answer in MQTT")
    if answers[0]:
        raise ConfigError(f"broker: {host}:{port} refused: {answers[0]}. Check username, password_file and certificates.")
