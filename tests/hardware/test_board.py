"""What holds of every device, virtual or on a desk: `pytest tests/hardware --unplay-device PORT -n 0`.

The room should be quiet.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unplay.board import markers
from unplay.board.references import Reference
from unplay.hil.devices import Device
from unplay.hil.takes import Take, expected_residual
from unplay.hil.validation import LEARNING_S, music_part
from unplay.metrics import echo_reduction_db

LARGEST_SPREAD_SAMPLES = 8000
"""Of start offsets on two I2S ids that begin apart; a Pico's is 0."""

LEAST_REDUCTION_DB = 6.0
"""With two seconds to learn. A virtual device's talker leaves 8 dB, a quiet room 30."""


@pytest.fixture
def take(device: Device, song: Reference) -> Take:
    return device.record(song)


def test_a_recording_is_whole(take: Take) -> None:
    """No sample is lost, and player and recorder share a clock.

    The markers are 9 s apart: 0.2 ppm are a 40th of a sample, what noise 20 dB below them leaves.
    """
    facts = take.facts
    assert facts["ended"] == "length"
    assert take.residual is not None
    assert facts["frames"] == len(take.microphone) == len(take.residual)
    assert 0 < facts["load_percent"] < 100
    assert (facts["slips"], facts["dropped_frames"], facts["slip_samples"]) == (0, 0, 0)
    offset, end_at = facts["start_offset_samples"], facts["end_marker_at_samples"]
    assert abs(markers.drift_ppm(take.microphone, offset, end_at)) < 0.2


def test_echo_is_taken_out(take: Take, song: Reference) -> None:
    """As the host would take it out, bit for bit."""
    heard = music_part(take, LEARNING_S)
    assert heard is not None
    assert take.residual is not None
    assert np.array_equal(take.residual, expected_residual(take, song.pcm))
    before, after = (sound[heard].astype(np.float64) for sound in (take.microphone, take.residual))
    assert echo_reduction_db(before, after) > LEAST_REDUCTION_DB
    if take.true_near_end is not None:  # only a virtual device knows what was said
        truth = take.true_near_end[heard]
        likeness = [np.corrcoef(sound, truth)[0, 1] for sound in (before, after)]
        assert likeness[1] > 0.9 > likeness[0]


def test_every_start_is_found(device: Device, song: Reference) -> None:
    """Device and host find the same offset, and the reference is always as far behind it."""
    takes = [device.record(song, seconds=3) for _ in range(3)]
    offsets = [take.facts["start_offset_samples"] for take in takes]
    assert offsets == [markers.start_offset(take.microphone) for take in takes]
    assert max(offsets) - min(offsets) <= LARGEST_SPREAD_SAMPLES
    behind = {take.facts["reference_delay_samples"] - take.facts["start_offset_samples"] for take in takes}
    assert behind == {takes[0].facts["reference_at_samples"]}


def test_without_a_reference_nothing_is_played(device: Device) -> None:
    take = device.record(seconds=2)
    assert take.facts["reference"] is None
    assert take.residual is None
    assert len(take.microphone) >= 2 * take.facts["rate_hz"]


def test_a_file_comes_back_as_it_was(device: Device, tmp_path: Path) -> None:
    sent, came = tmp_path / "sent", tmp_path / "came"
    sent.write_bytes(np.random.default_rng(1).bytes(20_000))
    device.link.put(sent, "references/there-and-back.bin")
    device.link.get("references/there-and-back.bin", came)
    device.link.rm("references/there-and-back.bin")
    assert came.read_bytes() == sent.read_bytes()


def test_settings_outlive_a_restart(device: Device) -> None:
    before = device.link.config_get()["seconds"]
    device.link.config_set({"seconds": before + 7})
    device.restart()
    assert device.link.config_get()["seconds"] == before + 7
    device.link.config_set({"seconds": before})
    assert device.link.config_get()["seconds"] == before


@pytest.mark.virtual_only
def test_a_start_is_when_the_room_heard_it(device: Device, song: Reference) -> None:
    """To the sample: the port's offset, the ring's silence, and 5 ms from loudspeaker to microphone."""
    take = device.record(song, seconds=3)
    room = device.virtual.streams.room
    assert take.facts["start_offset_samples"] == room.offset_samples + 5120 + 80
