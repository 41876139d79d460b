"""The doctor on virtual devices with one fault each, and on healthy ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from unplay.board.diagnosis import SENTENCES, diagnose
from unplay.board.doctor import PROBE, examine
from unplay.board.link import DeviceLink
from unplay.virtual.device import VirtualDevice
from unplay.virtual.setup import CardSetup, NoiseSetup, RoomSetup, Setup, TalkerSetup, make_room
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
}


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


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_is_named(patient: Callable[..., list[str]], code: str):
    assert patient(**FAULTS[code]) == [code]


def test_hum_of_60_hz(patient: Callable[..., list[str]]):
    assert patient(fault=FaultSetup(hum_db=-60.0, hum_hz=60)) == ["hum"]


def test_two_faults_at_once(patient: Callable[..., list[str]]):
    assert patient(fault=FaultSetup(amplifier="silent", hum_db=-55.0)) == ["hum", "amplifier-silent"]


def test_no_card(new_device: NewDevice):
    with new_device(replace(ROOM, card=None)) as device, DeviceLink(device.port) as link:
        assert [entry.code for entry in examine(link).findings] == ["no-card"]


def test_card_that_pauses_too_long(new_device: NewDevice):
    card = CardSetup(mb=16, stalls=[[2.0, 700]])
    with new_device(replace(ROOM, card=card)) as device, DeviceLink(device.port) as link:
        assert [entry.code for entry in examine(link).findings] == ["slip"]


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


def test_every_sentence_can_be_said():
    """What no scene reaches is at least complete."""
    values = dict.fromkeys(("ms", "bytes", "value", "hz", "count", "blocks", "wanted", "ppm"), 1)
    values = {**values, "other": "", "level": 1.0}
    for code, sentence in SENTENCES.items():
        assert len(sentence.format(**{**values, "level": "GND" if code == "wrong-slot" else 1.0})) > 40


def test_the_diagnosis_leaves_its_input_alone():
    microphone = np.random.default_rng(0).integers(-50, 50, 40_000).astype(np.int16)
    before = microphone.copy()
    diagnose(microphone, SESSION, 1024, "left", False)
    assert np.array_equal(microphone, before)


def test_blocks_that_come_late():
    """A slow processor, which no scene has: the virtual device's spends the same time on every block."""
    microphone = np.random.default_rng(0).integers(-50, 50, 40_960).astype(np.int16)
    few, many = ({**SESSION, "late_blocks": late} for late in (4, 5))
    assert "late" not in [entry.code for entry in diagnose(microphone, few, 1024, "left", False)]
    assert "late" in [entry.code for entry in diagnose(microphone, many, 1024, "left", False)]
