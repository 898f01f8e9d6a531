"""The microcontrollers' firmware: its frames by the Python side's vectors, what it remembers, and its files by ESPHome itself."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.decoders.beam_counter import CounterFrame, decode_frame
from edge.decoders.trap_frame import ReceivedFrame, parse_line
from tests.services import REQUIRE, require_binary

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "firmware_configs" / "esphome"
ESPHOME = ROOT / "build" / "esphome" / "bin" / "esphome"
VECTORS = json.loads((ROOT / "tests/edge/decoders/trap_frame_vectors.json").read_text(encoding="utf-8"))
WHY = ("heartbeat", "set", "sprung", "vibration", "tilt", "tamper", "bait_level")
STRICT = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
WAIT_S = 120


class Firmware:
    """The header's code as a program on this machine, which answers one line for each line."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def answers(self, *commands: str) -> list[str]:
        """From power-on: nothing is remembered from an earlier call."""
        done = subprocess.run(
            [self._program], input="\n".join(commands) + "\n", capture_output=True, text=True, check=False, timeout=WAIT_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    program = tmp_path_factory.mktemp("firmware") / "frames"
    source = Path(__file__).with_name("frames_driver.cpp")
    done = subprocess.run(
        [require_binary("g++"), *STRICT, "-I", FOLDER, "-o", program, source],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    return Firmware(program)


# --- The frames -------------------------------------------------------------------------------------


@pytest.mark.services
def test_the_mac_is_that_of_rfc_4493(firmware: Firmware) -> None:
    """Section 4 of the RFC: 0, 16, 40 and 64 bytes."""
    key = "2b7e151628aed2a6abf7158809cf4f3c"
    message = (
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    assert firmware.answers(*(f"cmac {key} {message[: 2 * length] or '-'}" for length in (0, 16, 40, 64))) == [
        "bb1d6929e95937287fa37d129b756746",
        "070a16b46b4d4144f79bdd9dd04a287c",
        "dfa66747de9ae63030ca32611497c827",
        "51f0bebf7e3b9d92fc49741779363cfe",
    ]


@pytest.mark.services
@pytest.mark.parametrize("vector", VECTORS, ids=lambda one: one["name"])
def test_the_transmitter_makes_the_frame_and_the_receiver_its_line(vector: dict[str, Any], firmware: Firmware) -> None:
    def known(name: str, absent: int) -> int:
        return absent if vector[name] is None else int(vector[name])

    tilt = -128 if vector["tilt_deg"] is None else vector["tilt_deg"] // 2
    said = f"{WHY.index(vector['why'])} {vector['sprung']:d} {vector['tamper_open']:d} {vector['address']} {vector['counter']}"
    measured = f"{known('battery_mv', 0)} {tilt} {known('bait_percent', 255)} {known('bump', 65535)} {known('pir_count', 65535)}"
    frame, line = firmware.answers(
        f"frame {vector['key_hex']} {said} {measured}",
        f"line {vector['rssi_dbm']} {vector['snr_db']} {vector['frame_hex']}",
    )
    assert frame == vector["frame_hex"]
    assert line == vector["line"]


@pytest.mark.services
def test_the_agent_reads_every_line_that_the_receiver_prints(firmware: Firmware) -> None:
    rng = random.Random(4493)
    heard = [(rng.randrange(-300, 40) / 2, rng.randrange(-80, 80) / 4, rng.randbytes(rng.randint(1, 240))) for _ in range(200)]
    lines = firmware.answers(*(f"line {rssi} {snr} {payload.hex()}" for rssi, snr, payload in heard))
    assert [parse_line(line.encode()) for line in lines] == [ReceivedFrame(*one) for one in heard]
    assert max(map(len, lines)) <= 520


@pytest.mark.services
def test_a_key_is_32_hexadecimal_digits_and_nothing_else(firmware: Firmware) -> None:
    keys = ["2b7e151628aed2a6abf7158809cf4f3c", "2B7E151628AED2A6ABF7158809CF4F3C", "2b7e", "2b7e151628aed2a6abf7158809cf4f3g"]
    assert firmware.answers(*(f"key {key}" for key in keys)) == ["1", "1", "0", "0"]


@pytest.mark.services
def test_the_agent_reads_what_the_beam_counter_says(firmware: Firmware) -> None:
    said = [(0, 0, 0), (1, 2, 3700), (2**32 - 1, 70000, 65535)]
    frames = firmware.answers(*(f"count {inwards} {outwards} {battery}" for inwards, outwards, battery in said))
    assert [decode_frame(bytes.fromhex(frame)) for frame in frames] == [
        CounterFrame(inwards, outwards, battery or None) for inwards, outwards, battery in said
    ]


# --- What a trap says, and when ---------------------------------------------------------------------

FIRST = "wake 0 0 0 0 0"


def wake(*, sprung: bool = False, tamper: bool = False, shaken: bool = False, timer: bool = False, now_s: int = 0) -> str:
    return f"wake {sprung:d} {tamper:d} {shaken:d} {timer:d} {now_s}"


def spoken(answer: str) -> tuple[str, int] | None:
    """(why, how often), or None where it was quiet."""
    if answer == "quiet":
        return None
    why, times = answer.split()[:2]
    return WHY[int(why)], int(times)


@pytest.mark.services
def test_a_trap_says_what_changed_and_says_it_more_than_once(firmware: Firmware) -> None:
    answers = firmware.answers(
        wake(),
        wake(timer=True),
        wake(sprung=True),
        wake(sprung=True),
        wake(sprung=True, tamper=True),
        wake(tamper=True),
        wake(tamper=True, timer=True),
    )
    assert [spoken(one) for one in answers] == [
        ("heartbeat", 3),  # after a change of batteries it can't know what is news; the state is in the frame
        ("heartbeat", 1),
        ("sprung", 4),
        None,
        ("tamper", 3),
        ("set", 4),
        ("heartbeat", 1),
    ]


@pytest.mark.services
def test_a_trap_that_is_shaken_all_night_does_not_empty_its_battery(firmware: Firmware) -> None:
    answers = firmware.answers(FIRST, *(wake(shaken=True, now_s=1000 + second) for second in range(0, 900, 10)))
    told = [answer for answer in answers[1:] if answer != "quiet"]
    assert [spoken(one) for one in told] == [("vibration", 3)] * 3
    assert [int(one.split()[3]) for one in told] == [1, 31, 61]  # shocks felt, those that were not told too


@pytest.mark.services
def test_no_number_comes_twice_however_often_the_batteries_are_changed(firmware: Firmware) -> None:
    rng = random.Random(7)
    commands = [rng.choice(["batteries", *["wake 0 0 0 1 0"] * 20]) for _ in range(3000)]
    answers = firmware.answers(*commands)
    numbers = [int(answer.split()[2]) for answer in answers if answer]
    writes = sum(int(answer.split()[4]) for answer in answers if answer)
    assert len(numbers) > 2000
    assert numbers == sorted(set(numbers)), "each is greater than all before"
    assert numbers[0] == 1
    assert writes <= len(numbers) / 64 + commands.count("batteries") + 1, "flash is written for every 64th number only"


@pytest.mark.services
def test_a_number_is_written_down_before_the_first_frame_ever(firmware: Firmware) -> None:
    first, *_ = firmware.answers(FIRST)
    assert first.split()[4] == "1"


# --- Two beams --------------------------------------------------------------------------------------

OUTER, BOTH, INNER, CLEAR = (True, False), (True, True), (False, True), (False, False)
INWARDS = [OUTER, BOTH, INNER, CLEAR]
OUTWARDS = [INNER, BOTH, OUTER, CLEAR]


def counted(firmware: Firmware, *looks: tuple[bool, bool], step_ms: int = 200) -> tuple[int, int]:
    lines = firmware.answers(*(f"beams {outer:d} {inner:d} {at * step_ms}" for at, (outer, inner) in enumerate(looks)))
    inwards, outwards = map(int, lines[-1].split())
    return inwards, outwards


@pytest.mark.services
def test_who_passes_is_counted_once_and_in_their_direction(firmware: Firmware) -> None:
    assert counted(firmware, *INWARDS) == (1, 0)
    assert counted(firmware, *OUTWARDS) == (0, 1)
    assert counted(firmware, *INWARDS, *OUTWARDS, *INWARDS) == (2, 1)
    assert counted(firmware, OUTER, BOTH, OUTER, BOTH, INNER, CLEAR) == (1, 0), "who hesitates"


@pytest.mark.services
def test_who_turns_back_or_stands_in_the_way_is_not_counted(firmware: Firmware) -> None:
    assert counted(firmware, OUTER, BOTH, OUTER, CLEAR) == (0, 0)
    assert counted(firmware, OUTER, CLEAR, INNER, CLEAR) == (0, 0), "a bird, and another"
    assert counted(firmware, *INWARDS, step_ms=3000) == (0, 0), "a parcel"
    assert counted(firmware, BOTH, INNER, CLEAR) == (0, 0), "nobody saw which was first"


@pytest.mark.services
@given(steps=st.lists(st.sampled_from([OUTER, BOTH, INNER, CLEAR]), min_size=1, max_size=60))
@settings(max_examples=30, deadline=None)
def test_no_more_people_than_times_that_the_way_was_free_again(firmware: Firmware, steps: list[tuple[bool, bool]]) -> None:
    assert sum(counted(firmware, *steps)) <= steps.count(CLEAR)


# --- ESPHome's own check ----------------------------------------------------------------------------

CONFIGS = sorted(path.name for path in FOLDER.glob("*.yaml") if not path.name.startswith("secrets"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder as somebody has it who has put a key in."""
    if not ESPHOME.exists():
        lacking = "ESPHome is not installed, so its configurations are NOT CHECKED: run `sh .ci/esphome`"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{lacking} ({REQUIRE}=1)", pytrace=False)
        pytest.skip(lacking)
    folder = tmp_path / "esphome"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns(".esphome", "secrets.yaml"))
    shutil.copy(folder / "secrets.example.yaml", folder / "secrets.yaml")
    return folder


def esphome(*argv: str | Path, folder: Path) -> tuple[int, str]:
    """Without a network: every proxy is a closed port."""
    closed = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [ESPHOME, *argv], cwd=folder, env=os.environ | closed, capture_output=True, text=True, check=False, timeout=WAIT_S
    )
    return done.returncode, done.stdout + done.stderr


def test_there_is_a_trap_a_receiver_and_a_counter() -> None:
    assert CONFIGS == ["beam-counter.yaml", "receiver-heltec.yaml", "receiver-lora32.yaml", "trap-heltec.yaml"]


@pytest.mark.parametrize("config", CONFIGS)
def test_esphome_takes_the_configuration_and_makes_code_of_it(config: str, project: Path) -> None:
    code, said = esphome("config", config, folder=project)
    assert code == 0, said
    assert "Configuration is valid!" in said
    code, said = esphome("compile", "--only-generate", config, folder=project)
    assert code == 0, said
    (made,) = project.rglob("main.cpp")
    before, _, after = made.read_text(encoding="utf-8").partition('#include "satomori_frames.h"')
    assert "satomori::" not in before, "ESPHome would use a type before it knows it"
    assert "satomori::" in after


def test_esphomes_check_would_see_a_mistake(project: Path) -> None:
    """So that the test above is worth something."""
    file = project / "packages" / "heltec_v3.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("hw_version: sx1262", "hw_version: sx1267"), encoding="utf-8")
    code, said = esphome("config", "trap-heltec.yaml", folder=project)
    assert code != 0
    assert "hw_version" in said


def test_traps_and_receivers_agree_on_everything_on_the_air(project: Path) -> None:
    """By what ESPHome makes of them, for both kinds of radio."""

    def air(config: str) -> dict[str, str]:
        text = esphome("config", config, folder=project)[1].splitlines()
        wanted = ("frequency", "bandwidth", "spreading_factor", "coding_rate", "preamble_size", "crc_enable", "modulation")
        found = [line.strip().partition(": ") for line in text]
        return {key: value for key, _, value in found if key in wanted}

    trap = air("trap-heltec.yaml")
    assert len(trap) == 7
    assert trap == air("receiver-heltec.yaml") == air("receiver-lora32.yaml")


STUBS = {
    "esp_attr.h": "#define RTC_DATA_ATTR\n",
    "esp_sleep.h": "enum esp_sleep_wakeup_cause_t { ESP_SLEEP_WAKEUP_EXT1, ESP_SLEEP_WAKEUP_TIMER };\n"
    "esp_sleep_wakeup_cause_t esp_sleep_get_wakeup_cause();\n",
    "esphome/core/preferences.h": "#pragma once\n#include <cstdint>\nnamespace esphome {\n"
    "struct ESPPreferenceObject { template<typename T> bool save(const T *); template<typename T> bool load(T *); };\n"
    "struct ESPPreferences { template<typename T> ESPPreferenceObject make_preference(uint32_t, bool); bool sync(); };\n"
    "extern ESPPreferences *global_preferences;\n}\n",
}
"""What trap_wake.h calls of ESP-IDF and ESPHome, as declarations: the compilers for the chip are not here."""


@pytest.mark.services
def test_the_chips_part_of_the_trap_is_cpp_without_a_warning(tmp_path: Path) -> None:
    for name, text in STUBS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    (tmp_path / "main.cpp").write_text(
        '#include "trap_wake.h"\nbool said() { return satomori::something_to_say("k", 1, true, false, 3.3f); }\n',
        encoding="ascii",
    )
    argv: list[str | Path] = [
        require_binary("g++"),
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsyntax-only",
        "-I",
        FOLDER,
        "-I",
        tmp_path,
    ]
    done = subprocess.run([*argv, tmp_path / "main.cpp"], capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
