"""The doctor on virtual devices with one fault each, and on healthy ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unplay.board.diagnosis import SENTENCES, diagnose
from unplay.board.doctor import PROBE, examine
from unplay.board.link import DeviceLink
from unplay.virtual.device import VirtualDevice, fill
from unplay.virtual.setup import (
    CardSetup,
    DeviceSetup,
    NoiseSetup,
    RoomSetup,
    Setup,
    TalkerSetup,
    make_room,
)
from unplay.virtual.wiring import FaultSetup, make_wiring

NewDevice = Callable[..., VirtualDevice]

ROOM = Setup(talker=TalkerSetup(level_db=None), card=CardSetup(mb=16))
HEALTHY = 20

FAULTS: dict[str, dict[str, Any]] = {
    "microphone-silent": {"fault": FaultSetup(microphone="silent")},
    "microphone-stuck": {"fault": FaultSetup(microphone="high")},
    "shifted": {"fault": FaultSetup(microphone="late")},
    "wrong-slot": {"fault": FaultSetup(slot="right")},
    "dc": {"fault": FaultSetup(dc=0.01)},
    "hum": {"fault": FaultSetup(hum_db=-65.0)},
    "amplifier-silent": {"fault": FaultSetup(amplifier="silent")},
    "clipping": {"room": RoomSetup(echo_db=6.0)},
    "too-quiet": {"room": RoomSetup(echo_db=-60.0)},
    "wrong-rate": {"fault": FaultSetup(rate=0.98)},
    "two-clocks": {"fault": FaultSetup(player_ppm=-100.0)},
    "noise": {"noise": NoiseSetup(level_db=-50.0)},
    "feedback": {"fault": FaultSetup(feedback=0.5)},
}

SCENES = {
    "no-card": replace(ROOM, card=None),
    "card-slow": replace(ROOM, card=CardSetup(mb=16, pause_ms=400)),
    "card-errors": replace(ROOM, card=CardSetup(mb=16, fails_kb=60)),
    "card-damaged": replace(ROOM, card=CardSetup(mb=16, keeps_kb=60)),
    "card-pauses": replace(ROOM, card=CardSetup(mb=16, stalls=[[1 + k / 2, 230] for k in range(12)])),
    "slip": replace(ROOM, card=CardSetup(mb=16, stalls=[[2.0, 700]])),
    "late": replace(ROOM, device=DeviceSetup(compute_ms=64)),
    "no-canceller": replace(ROOM, device=DeviceSetup(heap_kb=220)),
}
"""Of what a device is switched on with, or without."""


SESSION = {
    "clipped_samples": 0,
    "start_offset_samples": None,
    "slips": 0,
    "late_blocks": 0,
    "slip_samples": None,
}
"""Of a recording in which no marker was heard."""


@pytest.fixture(scope="module")
def patient(images: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[str]]]:
    """Examines one device in whatever room it is put; the codes of what was found."""
    storage = tmp_path_factory.mktemp("patient") / "device"
    shutil.copytree(images, storage)
    with VirtualDevice(storage, ROOM) as device, DeviceLink(device.port) as link:

        def examined(**changes: Any) -> list[str]:
            scene = replace(ROOM, **changes)
            device.streams.room = make_room(scene)
            device.streams.wiring = make_wiring(scene.fault)
            device.streams.rate = scene.fault.rate
            findings = [entry.code for entry in examine(link).findings]
            assert not [name for name in link.ls() if PROBE in name or name.startswith("sessions/")]
            assert link.config_get()["slot"] == "left"
            return findings

        yield examined


def codes(device: VirtualDevice) -> list[str]:
    with device, DeviceLink(device.port) as link:
        return [entry.code for entry in examine(link).findings]


@pytest.mark.parametrize("code", SCENES)
def test_each_scene_is_named(new_device: NewDevice, code: str):
    assert codes(new_device(SCENES[code])) == [code]


@pytest.mark.parametrize("kb", [200, 400])
def test_a_card_that_fails_later(new_device: NewDevice, kb: int):
    """While the recording begins, or goes on; the device itself goes on, too."""
    with (
        new_device(replace(ROOM, card=CardSetup(mb=16, fails_kb=kb))) as device,
        DeviceLink(device.port) as link,
    ):
        assert [entry.code for entry in examine(link).findings] == ["card-errors"]
        assert link.info()["board"] == "esp32"


@pytest.mark.parametrize("kb", [100, 200])
def test_a_counterfeit_card(new_device: NewDevice, kb: int):
    """What is not kept is the probe, or the recording."""
    assert codes(new_device(replace(ROOM, card=CardSetup(mb=16, keeps_kb=kb)))) == ["card-damaged"]


def test_a_full_card(new_device: NewDevice, tmp_path: Path):
    device = new_device(ROOM)
    old = tmp_path / "old" / "references"
    old.mkdir(parents=True)
    (old / "long.pcm").write_bytes(bytes(16_400_000))
    fill("fat", device.storage / "card.img", 16 << 20, old.parent)
    assert codes(device) == ["card-full"]


def test_too_little_memory_to_record(new_device: NewDevice):
    """Files cannot be opened; the canceller was given up before."""
    assert codes(new_device(replace(ROOM, device=DeviceSetup(heap_kb=180)))) == ["no-canceller", "memory"]


@pytest.mark.parametrize("echo_db", [-30.0, -16.0])
@pytest.mark.parametrize("feedback", [0.4, 1.5])
def test_feedback_howls(patient: Callable[..., list[str]], feedback: float, echo_db: float):
    """From where it just grows to where it is overloaded at once; other findings would mislead."""
    assert patient(room=RoomSetup(echo_db=echo_db), fault=FaultSetup(feedback=feedback)) == ["feedback"]


@pytest.mark.parametrize("feedback", [0.1, 0.25])
def test_a_loop_that_dies_away_is_an_echo_path(patient: Callable[..., list[str]], feedback: float):
    """The canceller follows it."""
    assert patient(fault=FaultSetup(feedback=feedback)) == []


@pytest.mark.parametrize(("level_db", "code"), [(-55.0, None), (-35.0, "feedback")])
def test_a_whine_is_no_feedback(level_db: float, code: str | None):
    """A supply's tone that stays as it is and is weak; a strong one can be told from a howl by nobody."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(40_000) / 16_000) * 2**0.5 * 10 ** (level_db / 20) * 32_768
    noise = np.random.default_rng(0).standard_normal(40_000)
    found = diagnose(np.round(tone + noise).astype(np.int16), SESSION, 1024, "left", False)
    assert [entry.code for entry in found if entry.code == "feedback"] == ([code] if code else [])


def test_every_sentence_has_a_scene():
    assert {*FAULTS, *SCENES, "card-full", "memory"} == set(SENTENCES)


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_is_named(patient: Callable[..., list[str]], code: str):
    assert patient(**FAULTS[code]) == [code]


def test_hum_of_60_hz(patient: Callable[..., list[str]]):
    assert patient(fault=FaultSetup(hum_db=-60.0, hum_hz=60)) == ["hum"]


def test_two_faults_at_once(patient: Callable[..., list[str]]):
    assert patient(fault=FaultSetup(amplifier="silent", hum_db=-55.0)) == ["hum", "amplifier-silent"]


def test_healthy_devices(patient: Callable[..., list[str]]):
    """Rooms, levels and start offsets that a device should work with."""
    rng = np.random.default_rng(7)
    for seed in range(HEALTHY):
        room = RoomSetup(
            echo_db=float(rng.uniform(-35, -12)),
            reverberation_s=float(rng.uniform(0.1, 0.6)),
            drive=float(rng.choice([0.0, 2.0])),
        )
        noise = NoiseSetup(level_db=float(rng.uniform(-90, -65)))
        device = replace(ROOM.device, start_offset_samples=int(rng.integers(4000)))
        found = patient(seed=seed, room=room, noise=noise, device=device)
        assert found == [], (seed, room, noise)


def test_the_diagnosis_leaves_its_input_alone():
    microphone = np.random.default_rng(0).integers(-50, 50, 40_000).astype(np.int16)
    before = microphone.copy()
    diagnose(microphone, SESSION, 1024, "left", False)
    assert np.array_equal(microphone, before)


def test_a_recording_that_was_ended_early():
    """Somebody pressed the button: there is no silence to judge, and nothing fails."""
    microphone = np.random.default_rng(0).integers(-5000, 5000, 14_000).astype(np.int16)
    heard = {"start_offset_samples": 500, "reference_delay_samples": 37_500, "reference_played_samples": 0}
    assert {entry.code for entry in diagnose(microphone, {**SESSION, **heard}, 1024, "left", False)} == {
        "too-quiet"
    }


def test_blocks_that_come_late():
    """By the load it is the processor or the card."""
    microphone = np.random.default_rng(0).integers(-50, 50, 40_960).astype(np.int16)

    def said(late: int, load_percent: int) -> set[str]:
        session = {**SESSION, "late_blocks": late, "load_percent": load_percent}
        return {entry.code for entry in diagnose(microphone, session, 1024, "left", False)}

    assert said(4, 99) & {"late", "card-pauses"} == said(4, 50) & {"late", "card-pauses"} == set()
    assert "late" in said(5, 99)
    assert "card-pauses" in said(5, 50)
