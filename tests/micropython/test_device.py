"""The device's application on a real MicroPython: plays, records, cancels, stores; and what can go wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from unplay.board.faults import RefusedError
from unplay.board.link import DeviceLink
from unplay.board.references import Reference, make_reference, push
from unplay.metrics import si_sdr_db
from unplay.removal.canceller import cancel
from unplay.virtual.device import VirtualDevice
from unplay.virtual.scene import make_scene
from unplay.virtual.setup import CardSetup, DeviceSetup, NoiseSetup, Setup, TalkerSetup
from unplay_shared import faults

NewDevice = Callable[..., VirtualDevice]

CARD = CardSetup(mb=16)
DIRECT_SAMPLES = 80
"""The direct sound of `room_response` comes after 5 ms."""

PREFILL_SAMPLES = 5120
"""Silence that the player's ring holds when recording begins: I2SAudio.lead_blocks."""


@pytest.fixture(scope="session")
def song(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Six seconds of music."""
    import soundfile

    path = tmp_path_factory.mktemp("song") / "song.wav"
    soundfile.write(path, make_scene(1, reference_s=6.0, duration_s=6.0).reference, 16_000)
    return make_reference(path)


def wait(link: DeviceLink) -> None:
    for status in link.status():
        if status["state"] == "idle":
            return


def pull(link: DeviceLink, name: str, folder: Path) -> tuple[dict[str, Any], NDArray, NDArray]:
    """Sidecar, microphone and residual of a session."""
    held = link.ls()
    for file in ("session.json", "mic.pcm", "residual.pcm"):
        if f"sessions/{name}/{file}" in held:
            link.get(f"sessions/{name}/{file}", folder / file)
    residual = folder / "residual.pcm"
    return (
        json.loads((folder / "session.json").read_text()),
        np.fromfile(folder / "mic.pcm", "<i2"),
        np.fromfile(residual, "<i2") if residual.exists() else np.zeros(0, np.int16),
    )


def expected_residual(session: dict[str, Any], microphone: NDArray, reference: Reference) -> NDArray:
    """What the host's twin of the canceller leaves."""
    played = reference.pcm[: session["reference_played_samples"]]
    delayed = np.concatenate([np.zeros(session["canceller_delay_samples"], np.int16), played])
    return cancel(delayed, microphone, session["canceller"], late=session["late"])


def test_a_session_by_the_button(new_device: NewDevice, song: Reference, tmp_path: Path):
    """The song is played and recorded; what the canceller left is, bit for bit, what the host would leave."""
    with new_device() as device, DeviceLink(device.port) as link:
        push(link, song, select=False)
        link.config_set({"reference": "song"})
        device.press()
        while link.call("status")["state"] == "idle":
            time.sleep(0.01)
        device.press(False)
        wait(link)
        (name,) = {file.split("/")[1] for file in link.ls() if file.startswith("sessions/")}
        session, microphone, residual = pull(link, name, tmp_path)
    assert session["ended"] == "length"
    assert session["frames"] == len(microphone) == len(residual)
    assert session["reference"]["sha256"] == song.sha256
    assert session["start_offset_samples"] == 500 + DIRECT_SAMPLES + PREFILL_SAMPLES
    assert (session["slip_samples"], session["slips"], session["late_blocks"]) == (0, 0, 0)
    assert np.array_equal(residual, expected_residual(session, microphone, song))
    truth = device.streams.truth(len(microphone))
    heard = slice(
        session["reference_delay_samples"] + 32_000, session["reference_delay_samples"] + song.samples
    )
    # A canceller that has two seconds to learn and a talker to learn beside: 6 dB is half of what it reached.
    assert (
        si_sdr_db(truth[heard], residual[heard].astype(float))
        > si_sdr_db(truth[heard], microphone[heard].astype(float)) + 6
    )


def test_a_hundred_start_offsets(new_device: NewDevice, song: Reference, tmp_path: Path):
    """Ports start where they like; the marker tells where, to the sample, while someone talks."""
    setup = Setup(
        card=CARD,
        device=DeviceSetup(start_offset_samples="random"),
        talker=TalkerSetup(level_db=-40.0, start_s=0.0),
    )
    with new_device(setup) as device, DeviceLink(device.port) as link:
        push(link, song, select=False)
        found, true = [], []
        for _ in range(100):
            name = link.record({"reference": "song", "seconds": 3})["id"]
            wait(link)
            link.get(f"sessions/{name}/session.json", tmp_path / "session.json")
            found.append(json.loads((tmp_path / "session.json").read_text())["start_offset_samples"])
            true.append(device.streams.room.offset_samples + DIRECT_SAMPLES + PREFILL_SAMPLES)
            link.rm(f"sessions/{name}")
    assert len(set(true)) > 90
    assert found == true


def test_stalls_cost_the_canceller_not_the_recording(new_device: NewDevice, song: Reference, tmp_path: Path):
    """A card that is busy for 250 ms: blocks come late, none is lost."""
    setup = Setup(card=replace(CARD, stalls=[[3.0, 250], [4.5, 250], [7.0, 250]]))
    with new_device(setup) as device, DeviceLink(device.port) as link:
        push(link, song, select=False)
        name = link.record({"reference": "song"})["id"]
        wait(link)
        session, microphone, residual = pull(link, name, tmp_path)
    assert device.streams.dropped_frames == device.streams.underrun_frames == 0
    assert (session["slip_samples"], session["slips"], session["dropped_frames"]) == (0, 0, 0)
    assert session["late_blocks"] == len(session["late"]) > 0
    assert np.array_equal(residual, expected_residual(session, microphone, song))


def test_lost_samples_are_noticed(new_device: NewDevice, song: Reference, tmp_path: Path):
    """A stall that no ring survives: how many samples are missing, how far sound and recording are apart."""
    setup = Setup(card=replace(CARD, stalls=[[4.0, 600]]))
    with new_device(setup) as device, DeviceLink(device.port) as link:
        push(link, song, select=False)
        name = link.record({"reference": "song"})["id"]
        wait(link)
        session, microphone, residual = pull(link, name, tmp_path)
    streams = device.streams
    assert streams.dropped_frames > 0
    assert session["slips"] == 1
    assert session["dropped_frames"] == pytest.approx(streams.dropped_frames, abs=16)  # ticks are rounded
    assert session["slip_samples"] == streams.underrun_frames - streams.dropped_frames
    assert np.array_equal(residual, expected_residual(session, microphone, song))


def test_only_the_near_end(new_device: NewDevice, tmp_path: Path):
    """Without a reference nothing is played, no residual written; the recording is the room, to the bit."""
    setup = Setup(
        card=CARD, talker=TalkerSetup(level_db=-30.0, start_s=0.5), noise=NoiseSetup(level_db=-200.0)
    )
    with new_device(setup) as device, DeviceLink(device.port) as link:
        name = link.record({"reference": "", "seconds": 4})["id"]
        wait(link)
        session, microphone, residual = pull(link, name, tmp_path)
    assert (session["ended"], session["reference"], len(residual)) == ("length", None, 0)
    assert len(microphone) == 63 * 1024  # 4 s in whole blocks
    assert not any(played.any() for played in device.streams.played)
    truth = device.streams.truth(len(microphone)) * 2.0**17  # 32 bits, 14 less
    clipped = np.abs(truth) > 32_768
    assert session["clipped_samples"] == np.count_nonzero(clipped) > 0
    assert np.max(np.abs(truth - microphone)[~clipped]) <= 1.0


def test_stopped_in_the_middle(new_device: NewDevice, song: Reference, tmp_path: Path):
    """The second marker comes after a cut reference, too; the sidecar says how much was played."""
    with new_device() as device, DeviceLink(device.port) as link:
        push(link, song, select=False)
        name = link.record({"reference": "song"})["id"]
        while link.call("status")["samples"] < 80_000:
            time.sleep(0.01)
        link.stop()
        wait(link)
        session, microphone, residual = pull(link, name, tmp_path)
    assert session["ended"] == "link"
    assert 0 < session["reference_played_samples"] < song.samples
    assert session["slip_samples"] == 0
    assert np.array_equal(residual, expected_residual(session, microphone, song))


def test_refusals(new_device: NewDevice, song: Reference, tmp_path: Path):
    """Each with its number, and the device goes on."""
    with new_device(Setup(card=CardSetup(mb=16))) as device, DeviceLink(device.port) as link:
        for call, code in (
            (lambda: link.record({"reference": "song"}), faults.NOT_FOUND),
            (lambda: link.record({"reference": "", "seconds": 3000}), faults.FULL),
            (lambda: link.record({"reference": "", "seconds": -1}), faults.BAD_ARGUMENT),
            (lambda: link.record({"reference": "", "seconds": "long"}), faults.BAD_ARGUMENT),
            (lambda: link.config_set({"block": 100}), faults.BAD_ARGUMENT),
            (lambda: link.config_set({"volume": 1}), faults.BAD_ARGUMENT),
            (link.stop, faults.NOT_RECORDING),
        ):
            with pytest.raises(RefusedError) as refused:
                call()
            assert refused.value.code == code
        push(link, song, select=False)
        link.record({"reference": "song"})
        for call in (
            lambda: link.record({"reference": "song"}),
            lambda: link.config_set({"seconds": 5}),
            link.selftest,
            lambda: push(link, song, select=False),
        ):
            with pytest.raises(RefusedError) as refused:
                call()
            assert refused.value.code == faults.BUSY
        wait(link)
        assert link.selftest()["storage"]["reads_back"]


def test_no_card(new_device: NewDevice):
    with new_device(Setup(card=None)) as device, DeviceLink(device.port) as link:
        with pytest.raises(RefusedError) as refused:
            link.record({"reference": "", "seconds": 1})
        assert refused.value.code == faults.NO_CARD
        assert (link.info()["storage"], link.info()["free_bytes"]) == (None, 0)
        link.config_set({"storage": "flash"})
        link.record({"reference": "", "seconds": 1})
        wait(link)
        assert any(name.endswith("mic.pcm") for name in link.ls())


def test_damaged_settings_are_put_aside(new_device: NewDevice, images: Path):
    with new_device() as device, DeviceLink(device.port) as link:
        link.config_set({"volume_q15": 1234})
    with new_device() as device, DeviceLink(device.port) as link:
        assert link.config_get()["volume_q15"] == 1234
