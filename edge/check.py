"""What a person at the box needs to know before leaving: everything this node needs, looked at once.

A running agent is not disturbed: it is asked (`edge.status`). Without one, devices are read, and the gateway is asked for an
answer over the node's own link. What is found is `edge.screen`'s to show.
"""

import asyncio
import logging
import os
import queue
import random
import secrets
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, aclosing, closing
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from edge import status
from edge.agent import VERSION, Driver, born
from edge.care import children
from edge.clock import SystemClock, boot_id, machine_id
from edge.config import CLOCK, EdgeConfig
from edge.contract.broker import BrokerConfig, parse_url
from edge.contract.messages import Ack, Applied, Birth, BornDevice, State, encode
from edge.contract.topics import Channel, Topic, down_filter, topic_for
from edge.drivers import make_driver
from edge.durable import hand_over
from edge.errors import DeviceError, OutboxError
from edge.hardware import machine
from edge.identity import certificate
from edge.media import RESERVE_BYTES, MediaFolder
from edge.outbox import LEAST_BYTES, Outbox
from edge.records import Site
from edge.screen import Finding, Text
from edge.timekeeper import Timekeeper
from edge.tls import client_context
from edge.twin import Twin, merged
from edge.uplink import LinkWords, MqttLink, make_client

log = logging.getLogger(__name__)

READ_S = 15.0
CONNECT_S = 15.0
ANSWER_S = 10.0
TRIES = 10
SIGNAL_EVERY_S = 0.3
WEAK_DBM = -75
"""Wi-Fi weaker than this works today and not in the rain."""

HANGS_UP_S = 2.0
"""A broker that doesn't want a certificate says so within this after the handshake (RFC 8446, 4.4.2.4 and 6.2)."""


class Tries(NamedTuple):
    """What became of asking the gateway some times."""

    answers_s: list[float]
    signals: list[float | None]
    tries: int
    trouble: str


async def findings(base: EdgeConfig) -> list[Finding]:
    """Looks at everything; `base` is edge.toml. ConfigError when a file that the settings name can't be used."""
    state = base.node.state
    twin = Twin(state / "twin.json")
    applied = twin.memory.applied
    config = merged(base, applied.statement) if applied and base.remote else base
    make_client(config.broker, config.node.name)
    try:
        running = status.ask(state)
    except OSError as error:
        agent = Finding("agent", "bad", Text(f"動いていますが、返事がありません: {error}", f"runs, but does not answer: {error}"),
                        Text("再起動してください: sudo systemctl restart satomori-edge",
                             "restart it: sudo systemctl restart satomori-edge"))  # fmt: skip
        return [agent, _disk(state), *_certificate(config, "unsync", 0)]
    keeper = Timekeeper(state, boot_id())
    # A running agent may know the time from the gateway, which the machine's own clock does not.
    clock, now_us = (running["clock"], running["now_us"]) if running else (keeper.clock_state(), keeper.now().utc_us)
    found = [_agent(running), *_configuration(running, applied.revision if applied and base.remote else 0)]
    drivers: dict[str, tuple[str, Driver]] = {}
    found += _told_devices(config, running) if running else await _read_devices(config, drivers)
    found += [_clock(clock), _disk(state)]
    found += _certificate(config, clock, now_us / 1e6)
    if running:
        link = _told_link(running)
        if link is None:
            link = await asyncio.to_thread(_no_link, config.broker, keeper.machine_state(), "the agent's log says more")
        found += [_outbox(running["waiting"]), link, _signal(await _signals())]
    else:
        devices = [*born(drivers), *children(config, drivers)] if drivers.keys() == config.device.keys() else born(drivers)
        found += await asyncio.to_thread(_link, config, keeper.machine_state(), devices, twin.applied)
    return found


# The agent, and its devices


def _agent(running: Mapping[str, Any] | None) -> Finding:
    if running is None:
        return Finding("agent", "ok", Text("止まっています。ここから調べます", "does not run; looked at from here"))
    return Finding("agent", "ok", Text("動いています。邪魔をせず様子を聞きました", "runs; asked, not disturbed"))


def _configuration(running: Mapping[str, Any] | None, applied: int) -> list[Finding]:
    """Which one runs, where it is not edge.toml: whoever edits that file would wait for ever."""
    revision = running["revision"] if running else applied
    if not revision:
        return []
    said = Text(
        f"サーバーからの設定 第{revision}版。edge.toml の [device] は使いません",
        f"revision {revision} from the gateway; [device] of edge.toml is not used",
    )
    back = Text("edge.toml に戻すには、止めてから: satomori-edge own edge.toml",
                "to come back to edge.toml, stop the agent, then: satomori-edge own edge.toml")  # fmt: skip
    return [Finding("configuration", "ok", said, back)]


def _told_devices(config: EdgeConfig, running: Mapping[str, Any]) -> list[Finding]:
    # The clock is one of the agent's devices, and has a line of its own.
    told = (device for device in running["devices"] if device != CLOCK)
    return [_device(device, running["failing"].get(device), settings=config.device.get(device)) for device in told] + [
        Finding(f"device.{device}", "unknown", Text("動いている設定にはありません", "is not in the configuration that runs"))
        for device in config.device
        if device not in running["devices"]
    ]


async def _read_devices(config: EdgeConfig, drivers: dict[str, tuple[str, Driver]]) -> list[Finding]:
    """One record of each, side by side. Adds the drivers that could be made."""
    with tempfile.TemporaryDirectory(prefix="satomori-edge-check-") as state:
        media = MediaFolder(Path(state) / "media", reserve_bytes=0)
        found: dict[str, Finding] = {}
        for device, settings in config.device.items():
            folder = Path(state) / device
            folder.mkdir()
            try:
                drivers[device] = (
                    settings.type.replace("_", "-"),
                    make_driver(device, settings, Site(SystemClock(), media, folder)),
                )
            except (ValueError, OSError) as error:
                found[device] = _device(device, str(error), settings=settings)
            else:
                if (missing := _missing(settings)) is not None:
                    setting = _setting(settings, missing) or ""
                    said = Text(f"{missing} がありません", f"{missing} is not there")
                    do = _FOLDER if setting == "folder" else _PLUG
                    found[device] = Finding(f"device.{device}.{setting}", "bad", said, do, setting=True)
        reading = [device for device in drivers if device not in found]
        patient = {device for device in reading if getattr(config.device[device], "children", {})}
        found |= zip(
            reading,
            await asyncio.gather(*(_read(one, config.device[one], drivers[one][1], one in patient) for one in reading)),
            strict=True,
        )
        return [found[device] for device in config.device]


_PLUG = Text("差し込み口とケーブルを確かめてください: ls -l /dev/serial/by-id", "check plug and cable: ls -l /dev/serial/by-id")
_FOLDER = Text("カードが入っているか、そこにマウントされているか、FTPの置き場所なら作ってあるかを確かめてください: findmnt",
               "is the card in and mounted there (findmnt)? If the camera sends by FTP: was this folder made?")  # fmt: skip

_HINTS = {
    "port": "差し込み口とケーブルを確かめてください",
    "pin": "ピンの番号と配線を確かめてください",
    "folder": "カードとマウントを確かめてください",
    "adapter": "Bluetoothの受信機を確かめてください",
    "camera": "カメラのケーブルを確かめてください",
    "file": "ファイルの名前と中身を確かめてください",
    "zone": "時間帯の名前を確かめてください",
}
"""What to look at, by the last word but a letter of the setting's name (`key_file`, `pin_a`), or of the device's type."""


def _missing(settings: BaseModel) -> object:
    """A port or folder of the settings that is not there."""
    paths = (getattr(settings, field, None) for field in ("port", "port_a", "port_b", "folder"))
    return next((path for path in paths if path is not None and not Path(path).exists()), None)


def _setting(settings: BaseModel, named: object) -> str | None:
    """The setting, as it stands in edge.toml, whose value this is; None where it is the value of none."""
    for field in type(settings).model_fields:
        value = getattr(settings, field)
        inner = value if isinstance(value, Mapping) else {"": value}
        if value == named:
            return field
        for key, one in inner.items():
            if isinstance(one, BaseModel) and (found := _setting(one, named)) is not None:
                return ".".join(part for part in (field, key, found) if part)
    return None


async def _read(device: str, settings: BaseModel, driver: Driver, patient: bool) -> Finding:
    try:
        async with asyncio.timeout(READ_S), aclosing(driver.records()) as records:  # type: ignore[type-var]  # generators all
            async for _ in records:
                return _device(device, None)
        return _device(device, "ended without a word", settings=settings)
    except TimeoutError:
        silent = Text(f"{READ_S:g}秒待っても何も言いません", f"said nothing for {READ_S:g} s")
        if patient:  # those behind it speak when they have something to say
            return Finding(
                f"device.{device}", "unknown", silent, Text("子機を1台動かして、もう一度", "trigger one behind it, then again")
            )
        wired = Text("電源と配線を確かめてください", "is it switched on and wired to this port?")
        return Finding(f"device.{device}", "bad", silent, wired)
    except OSError as error:
        named = error.named if isinstance(error, DeviceError) else None
        setting = _setting(settings, named) if named is not None else None
        return _device(device, str(error) or type(error).__name__, setting, settings)
    except Exception as error:
        log.exception("a driver failed")
        return _device(device, f"its driver failed: {error!r}")


def _hint(setting: str | None, settings: BaseModel | None) -> str:
    """In Japanese, what to look at: what is named, else everything that a device of these settings hangs on."""
    names = (*type(settings).model_fields, str(getattr(settings, "type", ""))) if settings is not None and setting is None else ()
    told = [setting.rpartition(".")[2]] if setting is not None else [name for name in names if not name.endswith("_file")]
    kinds = (kind for kind in _HINTS if any(kind in name.split("_") for name in told))
    return "。".join(_HINTS[kind] for kind in kinds) or "担当者に知らせてください"


def _device(device: str, fault: str | None, setting: str | None = None, settings: BaseModel | None = None) -> Finding:
    if fault is None:
        return Finding(f"device.{device}", "ok", Text("読めました", "was read"))
    # Whoever wrote the reason said what to do, in English; the shop talk of a wire is the same everywhere.
    what = ".".join(("device", device, *([setting] if setting else ())))
    do = Text(f"{_hint(setting, settings)}。くわしくは: {fault}", fault)
    return Finding(what, "bad", Text("読めません", "can't be read"), do, setting=setting is not None)


# The machine


def _clock(clock: str) -> Finding:
    if clock != "unsync":
        return Finding("clock", "ok", Text("合っています", "is right"))
    return Finding("clock", "weak", Text("まだ合っていません", "was never set since the start"),
                   Text("ネットにつなぐと合います。それまでの記録の時刻は、あとで直ります",
                        "a network sets it; records made before get their time later"))  # fmt: skip


def _disk(state: Path) -> Finding:
    folder = next(path for path in (state, *state.absolute().parents) if path.exists())
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return Finding("disk", "bad", Text(f"読めません: {error}", f"can't be read: {error}"),
                       Text("SDカードを替えてください", "replace the card"))  # fmt: skip
    if found.f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK):
        mend = Text("書ける場所にするか、SDカードを替えてください", "make it writable by this user, or replace the card")
        return Finding("disk", "bad", Text(f"{folder} に書けません", f"{folder} can't be written"), mend)
    free = found.f_bavail * found.f_frsize
    said = Text(f"空き {free // 2**20} MiB", f"{free // 2**20} MiB free")
    if free < RESERVE_BYTES:
        return Finding("disk", "bad" if free < LEAST_BYTES else "weak", said,
                       Text("要らないファイルを消してください。写真はカメラに残ります",
                            "delete what is not needed; pictures wait on the camera"))  # fmt: skip
    return Finding("disk", "ok", said)


def _outbox(waiting: int) -> Finding:
    return Finding(
        "outbox", "ok", Text(f"未送信 {waiting}件。この端末に保存しています", f"{waiting} records wait, saved on this machine")
    )


def _certificate(config: EdgeConfig, clock: str, now_s: float) -> list[Finding]:
    """That it can be read and fits its key is known by now: `make_client` said nothing."""
    path = config.broker.certificate_file
    if path is None or not parse_url(config.broker.url).tls:
        return []
    pem = path.read_bytes()
    if config.broker.ca_file is not None and not _is_of(pem, config.broker.ca_file.read_bytes()):
        other = Text("broker.ca_file の認証局のものではありません", "is not of the authority in broker.ca_file")
        return [
            Finding(
                "certificate",
                "weak",
                other,
                Text("つながらなければ、登録をやり直してください", "claim this node anew if there is no link"),
            )
        ]
    said = certificate(pem)
    days = int((said.ends_s - now_s) // 86_400)
    left = Text(f"あと{days}日", f"good for {days} days")
    renew = Text(
        "satomori-edge renew edge.toml（動いていれば自動です）", "satomori-edge renew edge.toml (a running agent does so itself)"
    )
    if clock == "unsync":
        return [
            Finding(
                "certificate",
                "unknown",
                Text("時計が合うまで期限は分かりません", "its dates can't be told until the clock is right"),
            )
        ]
    if not said.begins_s <= now_s < said.ends_s:
        return [Finding("certificate", "bad", Text("期限が切れています", "has expired or is not valid yet"), renew)]
    return [Finding("certificate", "weak" if said.is_due(now_s) else "ok", left, renew if said.is_due(now_s) else None)]


def _is_of(pem: bytes, authorities: bytes) -> bool:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    own = x509.load_pem_x509_certificate(pem)
    for authority in x509.load_pem_x509_certificates(authorities):
        try:
            own.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


# The link


def _told_link(running: Mapping[str, Any]) -> Finding | None:
    """None while it has no link."""
    if not running["up"]:
        return None
    answered = running["answered_s"]
    if answered is None:
        silent = Text("つながっていますが、まだ返事がありません", "connected, but the gateway has not answered yet")
        return Finding("gateway", "unknown", silent, Text("1分待って、もう一度", "wait a minute, then again"))
    return Finding(
        "gateway",
        "ok",
        Text(f"つながっています。{answered:.0f}秒前に返事がありました", f"connected; answered {answered:.0f} s ago"),
    )


def _link(config: EdgeConfig, clock: str, devices: list[BornDevice], applied: Applied | None) -> list[Finding]:
    """With the real outbox, whose number the gateway knows this node by: another would be another life of it."""
    boot, state = boot_id(), config.node.state
    fresh = not (state / "outbox.db").exists()
    if fresh and (closed := _closed(config.broker, clock)) is not None:  # nothing is made for a gateway out of reach
        return [_outbox(0), closed, _signal([_dbm()])]
    try:
        with closing(Outbox(state / "outbox.db", machine=machine_id(), boot=boot,
                            max_records=config.outbox.max_records)) as outbox:  # fmt: skip
            birth = Birth(
                epoch=outbox.epoch, session=secrets.token_hex(8), boot=boot, agent=f"satomori-edge {VERSION}",
                sent=SystemClock().now().utc_us, first=outbox.first_seq, oldest=outbox.oldest_seq, next=outbox.next_seq,
                devices=devices, config=applied,
            )  # fmt: skip
            for path in state.glob("outbox.db*") if fresh else ():
                hand_over(path, state)
            tries = _ask(config, clock, birth)
            gateway = _answers(tries) if tries.tries else _no_link(config.broker, clock, tries.trouble)
            return [_outbox(outbox.waiting), gateway, _signal(tries.signals or [_dbm()])]
    except OutboxError as error:
        return [Finding("outbox", "bad", Text("開けません", "can't be opened"), Text(str(error), str(error)))]


class _Ear:
    """What the link tells, for `_ask` to wait for."""

    def __init__(self) -> None:
        self.heard: queue.Queue[tuple[str, str, bytes]] = queue.Queue()

    def link_up(self) -> None:
        self.heard.put(("up", "", b""))

    def link_down(self, reason: str) -> None:
        self.heard.put(("down", reason, b""))

    def received(self, topic: str, payload: bytes) -> None:
        self.heard.put(("message", topic, payload))


def _ask(config: EdgeConfig, clock: str, birth: Birth) -> Tries:
    """Connects as the node, and says birth until the gateway has answered often enough, or not twice."""
    node, ear = config.node.name, _Ear()
    topics = {channel: topic_for(Topic(node, channel)) for channel in (Channel.BIRTH, Channel.STATE)}
    ack = down_filter(node, Channel.ACK)
    gone = encode(State(session=birth.session, online=False, reason="clean"))
    words = LinkWords(node, (ack,), topics[Channel.STATE], gone)
    link = MqttLink(config.broker, words, ear, random.SystemRandom(), lambda: clock)
    tries = Tries([], [], 0, "")
    missed = 0
    link.start()
    try:
        if (fault := _await(ear, "up", CONNECT_S)) is not None:
            return tries._replace(trouble=fault)
        while tries.tries < TRIES and missed < 2:
            while not ear.heard.empty():  # a late answer to the last try is none to this one
                ear.heard.get()
            began = time.monotonic()
            link.publish(topics[Channel.BIRTH], encode(birth), retain=True)
            fault = _await(ear, "message", ANSWER_S, (ack, birth.epoch))
            tries.signals.append(_dbm())
            if fault is None:
                tries.answers_s.append(time.monotonic() - began)
            else:
                missed += 1
            tries = tries._replace(tries=tries.tries + 1, trouble=fault or tries.trouble)
        link.publish(topics[Channel.STATE], gone, retain=True)
        return tries
    finally:
        link.stop()


def _await(ear: _Ear, what: str, within_s: float, answer: tuple[str, str] | None = None) -> str | None:
    """None when it came in time; otherwise what the link said last, or nothing. Two failures to connect are enough."""
    end, reason, failures = time.monotonic() + within_s, "", 0
    while (left := end - time.monotonic()) > 0:
        try:
            said, text, payload = ear.heard.get(timeout=left)
        except queue.Empty:
            break
        if said == "down":
            reason, failures = text, failures + 1
            if failures == 2:
                break
        elif said == what and (answer is None or (text == answer[0] and _is_ack(payload, answer[1]))):
            return None
    return reason


def _is_ack(payload: bytes, epoch: str) -> bool:
    try:
        return Ack.model_validate_json(payload).epoch == epoch
    except ValueError:
        return False


def _answers(tries: Tries) -> Finding:
    good = len(tries.answers_s)
    count = Text(f"{tries.tries}回中{good}回成功", f"{good} of {tries.tries} tries answered")
    if good == 0:
        silent = Text("つながりますが、サーバーの返事がありません", "the broker is there, the gateway does not answer")
        ask = Text("サーバーが動いているか、担当者に聞いてください", "ask the office whether the gateway runs")
        return Finding("gateway", "bad", silent, ask)
    if good < tries.tries:
        return Finding("gateway", "weak", Text(f"通信テスト：不安定（{count.ja}）", f"unsteady ({count.en})"), _HIGHER)
    middle = statistics.median(tries.answers_s)
    return Finding("gateway", "ok", Text(f"通信テスト：良好（{count.ja}・{middle:.1f}秒）", f"good ({count.en}, {middle:.1f} s)"))


_HIGHER = Text("2〜3m高い場所で試してください", "try a place 2 to 3 m higher")


def _no_link(broker: BrokerConfig, clock: str, told: str) -> Finding:
    """Why there is none; `told` is what the link said, if anything."""
    host, port, _ = parse_url(broker.url)
    return _closed(broker, clock) or (_hung_up(told) if told else _silent(f"{host}:{port}"))


def _closed(broker: BrokerConfig, clock: str) -> Finding | None:
    """Which step of the way to the broker fails, by a look of its own at each; None where it is open, but for MQTT itself."""
    host, port, tls = parse_url(broker.url)
    at = f"{host}:{port}"
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((host, port), CONNECT_S))
            if tls:
                context = client_context("broker", broker.ca_file, broker.certificate_file, broker.key_file, clock=clock)
                connection = stack.enter_context(context.wrap_socket(connection, server_hostname=host))
            return _hung_up("") if _hangs_up(connection) else None
    except socket.gaierror as error:
        return _unlinked(f"{host} という名前が見つかりません", f"the name {host} is not found",
                         "電波とアンテナ、broker.url の名前を確かめてください",
                         "check signal and aerial, and the name in broker.url", error)  # fmt: skip
    except ConnectionRefusedError as error:
        return _unlinked(f"{at} に断られました", f"{at} refuses connections",
                         "ネットには届いています。ブローカーが動いているか、担当者に聞いてください",
                         "the network is there; ask the office whether the broker runs on this port", error)  # fmt: skip
    except ssl.SSLCertVerificationError as error:
        return _unlinked("ブローカーの証明書を信用できません", "the broker's certificate can't be believed",
                         "時計と broker.ca_file を確かめるか、登録をやり直してください",
                         "check the clock and broker.ca_file, or claim this node anew", error)  # fmt: skip
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError) as error:
        return _hung_up(str(error))
    except TimeoutError:
        return _silent(at)
    except OSError as error:
        return _unlinked("ネットワークに届きません", "no network", "電波とアンテナ、ケーブルを確かめてください",
                         "check signal and aerial, or the cable", error)  # fmt: skip


def _hangs_up(connection: socket.socket) -> bool:
    """Whether the other side ends a connection on which nothing was said yet. OSError as it ends it."""
    connection.settimeout(HANGS_UP_S)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False


def _hung_up(reason: str) -> Finding:
    return _unlinked("ブローカーがすぐに切断します", "the broker hangs up at once",
                     "この機器の登録が取り消されたのかもしれません。satomori-edge renew edge.toml で分かります",
                     "was this node revoked, or is it unknown there? satomori-edge renew edge.toml tells", reason)  # fmt: skip


def _silent(at: str) -> Finding:
    return _unlinked(f"{at} から返事がありません", f"{at} does not answer",
                     "電波とアンテナを確かめてください。よければ、ブローカーが動いているか担当者に聞いてください",
                     "check signal and aerial; if they are good, ask the office whether the broker runs", "")  # fmt: skip


def _unlinked(ja: str, en: str, do_ja: str, do_en: str, reason: object) -> Finding:
    detail = str(reason)
    do = Text(f"{do_ja}: {detail}", f"{do_en}: {detail}") if detail else Text(do_ja, do_en)
    return Finding("gateway", "bad", Text(f"つながりません。{ja}", f"no connection: {en}"), do)


def _dbm() -> float | None:
    return machine.wifi_rssi_dbm()


async def _signals() -> list[float | None]:
    """As often as the gateway would be asked, over some seconds: two looks at once are one."""
    samples = [_dbm()]
    while samples[0] is not None and len(samples) < TRIES:
        await asyncio.sleep(SIGNAL_EVERY_S)
        samples.append(_dbm())
    return samples


def _signal(samples: Iterable[float | None]) -> Finding:
    known = [sample for sample in samples if sample is not None]
    if not known:
        return Finding("signal", "unknown", Text("Wi-Fiではないので測れません", "can't be measured: not over Wi-Fi"))
    dbm = statistics.median(known)
    if dbm < WEAK_DBM:
        return Finding("signal", "weak", Text(f"電波が弱いです（{dbm:.0f}dBm）", f"weak ({dbm:.0f} dBm)"), _HIGHER)
    return Finding("signal", "ok", Text(f"良好（{dbm:.0f}dBm）", f"good ({dbm:.0f} dBm)"))
