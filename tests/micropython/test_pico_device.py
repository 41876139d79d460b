"""The application as a Pico, whose state machine and DMA are simulated: one counter for both directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from test_device import DIRECT_SAMPLES, expected_residual, pull, song, wait

from unplay.board.link import DeviceLink
from unplay.board.references import Reference, push
from unplay.metrics import si_sdr_db
from unplay.virtual.device import VirtualDevice
from unplay.virtual.setup import CardSetup, DeviceSetup, Setup

__all__ = ["song"]

LEAD = 7 * 1024
"""PIOAudio.lead_blocks of 1024; the microphone's settling shifts both directions alike."""


def test_a_session_on_a_pico(micropython: str, song: Reference, tmp_path: Path) -> None:
    """With card stalls of 250 ms nothing slips, and the canceller leaves what the host would leave."""
    card = CardSetup(mb=16, stalls=[[4.0, 250], [6.0, 250]])
    setup = Setup(device=DeviceSetup(board="pico", start_offset_samples=0, heap_kb=512), card=card)
    with VirtualDevice(tmp_path / "pico", setup) as device, DeviceLink(device.port) as link:
        assert link.call("info")["board"] == "pico"
        push(link, song)
        link.record({"reference": "song"})
        wait(link)
        (name,) = {file.split("/")[1] for file in link.ls() if file.startswith("sessions/")}
        session, microphone, residual = pull(link, name, tmp_path)
        truth = device.streams.truth(len(microphone))
    assert session["board"] == "pico"
    assert session["start_offset_samples"] == DIRECT_SAMPLES + LEAD
    assert (session["slip_samples"], session["slips"]) == (0, 0)
    assert session["late_blocks"] > 0  # what the stalls cost: the canceller, not the recording
    assert np.array_equal(residual, expected_residual(session, microphone, song))
    heard = slice(
        session["reference_delay_samples"] + 32_000, session["reference_delay_samples"] + song.samples
    )
    # Half of what two seconds of learning beside a talker reach.
    before, after = (
        si_sdr_db(truth[heard], signal[heard].astype(float)) for signal in (microphone, residual)
    )
    assert after > before + 6
