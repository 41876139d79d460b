"""What is wrong with a device, by what a short recording looks like. Levels are of 16-bit full scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unplay_shared import marker

FULL_SCALE = 32768.0
RATE_HZ = 16_000

LOUDEST_DC = 0.01  # a converter's own offset is ten times smaller
SHIFTED_SHARE = 0.05  # of samples clipped, all upwards
QUIETEST_ECHO_DB = -50.0  # below, 16 bits and the room's noise leave too little to cancel
LOUDEST_NOISE_DB = -45.0  # a microphone alone has −70
LEAST_HUM_DB = -65.0
HUM_SHARE = 0.7  # of the noise's power in the mains' harmonics
TONE_SHARE = 0.2  # of the power while nothing plays; where a loop saturates, many tones share it
TONE_DB = 40.0  # over the median of the spectrum; the largest of 10⁴ bins of noise is 12 dB above it
LOUD_TONE_DB = LOUDEST_NOISE_DB  # a supply's whine is weaker
TONE_CHANGE_DB = 6.0  # from one half of the silence to the other: a whine stays as it is
LATE_SHARE = 0.1
FULL_LOAD_PERCENT = 95  # below, a late block is the card's doing
MOST_RATE_PPM = 1000  # a crystal has 100, a divider that doesn't divide evenly a few hundred
LEAST_DRIFT_PPM = 20  # one sample between the markers, which one shared clock never loses
MOST_DRIFT_PPM = 2000  # beyond, samples were lost
SLOWEST_WRITE_MS = 250  # what the rings of sound outlast
LEAST_RAM_BYTES = 5000

RING_OUT_SAMPLES = 6000  # after a marker
MAINS_HZ = (50, 60)
HARMONICS = 8


@dataclass(frozen=True)
class Finding:
    """A fault. code: for programs. sentence: what was seen, the likely wire or setting, what to do."""

    code: str
    sentence: str


SENTENCES = {
    "no-card": "there is no card, or none that can be read: check its wires (CLK, MOSI, MISO, CS, 3V3, GND) "
    "and that it is FAT32",
    "card-damaged": "the card does not read back what was written: change it",
    "card-errors": "the card gives errors when it is written ({reason}): push it in firmly, shorten its "
    "wires, format it as FAT32; if that does not help, change it",
    "card-full": "the card has no room for a recording of a few seconds: `unplay sync --remove` fetches what "
    "it holds and makes room",
    "card-slow": "the card pauses for {ms} ms, longer than sound can wait: erase and format it, or take a "
    "high-endurance one",
    "memory": "memory runs out (RAM left: {bytes} bytes, maybe in small pieces): `unplay device config "
    "tail_ms=64`, or block=512",
    "no-canceller": "there is no memory for the canceller, so the device records without it: `unplay device "
    "config tail_ms=64`, or block=512",
    "microphone-silent": "the microphone gives only zeros, in both slots: check its SD wire, VDD (3V3), "
    "GND, SCK and WS",
    "microphone-stuck": "the microphone's line never changes (value {value}): its SD wire touches 3V3, or is "
    "on a wrong pin",
    "wrong-slot": "the microphone answers in the {other} slot: `unplay device config slot={other}`, or move "
    "its L/R wire to {level}",
    "shifted": "every negative sample arrives as the largest positive one: the word comes one bit late (an "
    "SPH0645 on an ESP32); take an INMP441 or ICS-43434",
    "clipping": "{count} samples were clipped: lower volume_q15, move the loudspeaker away, or set "
    "microphone_shift one higher",
    "dc": "the microphone's mean is {level:.1f} % of full scale: its VDD is low, or the module is damaged",
    "hum": "mains hum of {hz} Hz at {level:.0f} dBFS: another device's audio or USB ground; feed board and "
    "amplifier from one supply, shorten the microphone's wires",
    "noise": "noise of {level:.0f} dBFS while nothing plays: a loose wire, a bad supply, or a loud room",
    "feedback": "a tone of {hz:.0f} Hz {how}: what the microphone hears comes out of the loudspeaker again; "
    "switch off the sound card's or mixer's monitoring of the microphone, keep the amplifier's DIN off the "
    "microphone's SD wire",
    "amplifier-silent": "the microphone hears the room, but not the loudspeaker: check the amplifier's "
    "DIN, BCLK, LRC and VIN, the loudspeaker, and volume_q15",
    "too-quiet": "the loudspeaker arrives with {level:.0f} dBFS: raise volume_q15, or set microphone_shift "
    "one or two lower",
    "slip": "{count} samples were lost while it recorded: the card paused too long, or wires are bad",
    "wrong-rate": "sound runs at {hz:.0f} Hz instead of {wanted} by the processor's clock: the I2S clock is "
    "set up wrongly; update the firmware, check the board's frequency and rate_hz",
    "two-clocks": "the recording's clock is {ppm:+.0f} ppm off the player's: one board must drive the clocks "
    "of both microphone and amplifier",
    "late": "the processor is too slow for these settings (load {load} %, {count} of {blocks} blocks late): "
    "`unplay device config tail_ms=64`",
    "card-pauses": "{count} of {blocks} blocks came too late for the canceller, at a load of only {load} %: "
    "the card pauses; erase and format it, or take a high-endurance one",
}


def finding(code: str, **values: Any) -> Finding:
    return Finding(code, SENTENCES[code].format(**values))


def diagnose(
    microphone: NDArray[np.int16], session: dict[str, Any], block: int, slot: str, other_slot_lives: bool
) -> list[Finding]:
    """Faults by a recording (n_samples,) of the probe and its sidecar; none where all is well.

    block: samples. slot: the setting. other_slot_lives: whether a silent microphone answers in the other one.
    A fault that hides others stands alone.
    """
    dead = _dead(microphone, slot, other_slot_lives)
    if dead is not None:
        return [dead]
    x = microphone.astype(float) / FULL_SCALE
    clipped = session["clipped_samples"]
    if clipped > SHIFTED_SHARE * len(x) and microphone.min() >= -1:
        return [finding("shifted")]
    quiet = _quiet(x - x.mean(), session)
    howl = _feedback(quiet)
    if howl is not None:
        return [howl]
    found = []
    if clipped:
        found.append(finding("clipping", count=clipped))
    elif abs(x.mean()) > LOUDEST_DC:
        found.append(finding("dc", level=100 * abs(x.mean())))
    timing = _timing(session, len(x) // block)
    if not any(entry.code in ("slip", "late") for entry in timing):  # else nobody knows where silence is
        found += _noise(quiet)
    return found + _heard(x - x.mean(), session) + timing


def is_dead(microphone: NDArray[np.int16]) -> bool:
    """Whether no two samples differ."""
    return not len(microphone) or bool(np.ptp(microphone) == 0)


def _dead(microphone: NDArray[np.int16], slot: str, other_slot_lives: bool) -> Finding | None:
    if not is_dead(microphone):
        return None
    if other_slot_lives:
        other, level = ("right", "GND") if slot == "left" else ("left", "3V3")
        return finding("wrong-slot", other=other, level=level)
    value = int(microphone[0])
    return finding("microphone-stuck", value=value) if value else finding("microphone-silent")


def _quiet(x: NDArray[np.float64], session: dict[str, Any]) -> NDArray[np.float64]:
    """The samples in which nothing plays, between marker and reference; without a marker, the first."""
    offset = session["start_offset_samples"]
    if offset is None:
        return x[: 2 * RATE_HZ]
    after = offset + marker.PERIODS * marker.PERIOD + RING_OUT_SAMPLES
    return x[after : session["reference_delay_samples"]]


def _feedback(quiet: NDArray[np.float64]) -> Finding | None:
    """A loop from microphone to loudspeaker: one narrow tone that grows, rings on, or is loud."""
    if not len(quiet):
        return None
    power = np.abs(np.fft.rfft(quiet * np.hanning(len(quiet)))) ** 2
    peak = int(np.argmax(power))
    tone = slice(max(peak - 2, 0), peak + 3)
    hz = peak * RATE_HZ / len(quiet)
    stands_out = power[peak] > 10 ** (TONE_DB / 10) * np.median(power)
    is_most = power[tone].sum() > TONE_SHARE * power.sum()
    if not (stands_out and is_most) or any(_near_harmonic(hz, mains) for mains in MAINS_HZ):
        return None
    before, after = (_db(half) for half in np.array_split(quiet, 2))
    level = max(before, after)
    if level > LOUD_TONE_DB:
        return finding("feedback", hz=hz, how=f"is there with {level:.0f} dBFS while nothing plays")
    if abs(after - before) > TONE_CHANGE_DB:
        return finding("feedback", hz=hz, how="grows while nothing plays" if after > before else "rings on")
    return None


def _near_harmonic(hz: float, mains_hz: int) -> bool:
    """Whether a frequency may be one of the mains' harmonics that are looked at."""
    number = round(hz / mains_hz)
    return number <= HARMONICS and abs(hz - number * mains_hz) < 3


def _heard(x: NDArray[np.float64], session: dict[str, Any]) -> list[Finding]:
    """The loudspeaker's level."""
    if session["start_offset_samples"] is None:
        return [finding("amplifier-silent")]
    begin = session["reference_delay_samples"]
    level = _db(x[begin : begin + session["reference_played_samples"]])
    return [finding("too-quiet", level=level)] if level < QUIETEST_ECHO_DB else []


def _noise(quiet: NDArray[np.float64]) -> list[Finding]:
    if not len(quiet):
        return []
    level = _db(quiet)
    for hz in MAINS_HZ:
        share = _hum_share(quiet, hz)
        hum = level + 10 * np.log10(max(share, 1e-9))
        if share > HUM_SHARE and hum > LEAST_HUM_DB:
            return [finding("hum", hz=hz, level=hum)]
    return [finding("noise", level=level)] if level > LOUDEST_NOISE_DB else []


def _hum_share(quiet: NDArray[np.float64], hz: int) -> float:
    """Part of the power within two bins of a Hann window of the mains' harmonics."""
    power = np.abs(np.fft.rfft(quiet * np.hanning(len(quiet)))) ** 2
    at = np.round(np.arange(1, HARMONICS + 1) * hz * len(quiet) / RATE_HZ).astype(int)
    bins = np.unique(at[:, None] + np.arange(-2, 3))
    return float(power[bins].sum() / max(power.sum(), 1e-20))


def _timing(session: dict[str, Any], n_blocks: int) -> list[Finding]:
    rate_ppm = session.get("rate_ppm", 0)
    if abs(rate_ppm) > MOST_RATE_PPM and not session.get("slip_samples"):
        return [finding("wrong-rate", hz=RATE_HZ * (1 + 1e-6 * rate_ppm), wanted=RATE_HZ)]
    late, load = session["late_blocks"], session.get("load_percent", 0)  # older devices do not say
    lost = abs(session.get("slip_samples") or 0) or session.get("dropped_frames", 0)
    comes_late = late > LATE_SHARE * n_blocks
    delayed = {"count": late, "blocks": n_blocks, "load": load}
    if load >= FULL_LOAD_PERCENT and (comes_late or lost):
        return [finding("late", **delayed)]
    drift_ppm = _drift_ppm(session)
    if not session["slips"] and LEAST_DRIFT_PPM <= abs(drift_ppm) <= MOST_DRIFT_PPM:
        return [finding("two-clocks", ppm=drift_ppm)]
    if session["slips"] or lost:
        return [finding("slip", count=lost or "some")]
    return [finding("card-pauses", **delayed)] if comes_late else []


def _drift_ppm(session: dict[str, Any]) -> float:
    """By how much the recording's clock is faster: the second marker comes later, in its samples."""
    between = session.get("end_marker_at_samples")
    return 1e6 * (session.get("slip_samples") or 0) / between if between else 0.0


def _db(x: NDArray[np.float64]) -> float:
    return float(10 * np.log10(max(np.mean(x * x) if len(x) else 0.0, 1e-20)))
