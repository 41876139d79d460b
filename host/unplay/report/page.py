"""One self-contained page about one cleaned recording: it needs no network and no other file.

What can be heard on it is mono and at most PAGE_RATE_HZ, compressed: the files are what counts, the page
shows them.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from unplay.audio import load_mono
from unplay.metrics import FORGIVING_TAPS, energy_ratio_db, reference_correlation
from unplay.report import pictures

FloatArray = NDArray[np.floating]

PAGE_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000)
"""Sample rates of MP3, which every browser plays, that are enough to judge by."""

LONGEST_HEARD_S = 1800.0
"""Longer recordings have pictures only: their sound would make the page too large to mail."""

COMPRESSION_LEVEL = 0.8
"""Of libsndfile: 40 kbit/s at 16 to 24 kHz, so that ten minutes of three sounds stay below 15 MB."""

LISTEN_FIRST = 5
PLAYING_DB = 30.0
"""A second counts as one in which the reference plays when what was taken from it is within this of the
loudest."""


@dataclass(frozen=True)
class Track:
    """One of the three sounds, as the page shows and plays it."""

    key: str
    title: str
    level_db: float
    waveform: str
    spectrogram: str
    sound: str


def clean_page(log: Mapping[str, Any], recording: Path, near_end: Path) -> str:
    """The page (HTML) of a run of `clean`.

    log: as `--log` writes it. recording, near_end: files of equal length; what was removed is their
    difference.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    file_rate_hz = log["inputs"]["recording"]["sample_rate_hz"]
    rate_hz = max((rate for rate in PAGE_RATES_HZ if rate <= file_rate_hz), default=PAGE_RATES_HZ[0])
    recorded, left = load_mono(recording, rate_hz), load_mono(near_end, rate_hz)
    n_samples = min(len(recorded), len(left))
    recorded, left = recorded[:n_samples], left[:n_samples]
    removed = recorded - left
    duration_s = n_samples / rate_hz
    environment = Environment(
        loader=PackageLoader("unplay.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["clock"] = _clock
    tracks = _tracks({"recording": recorded, "near_end": left, "removed": removed}, rate_hz)
    return environment.get_template("page.html").render(
        log=log,
        name=recording.name,
        duration_s=duration_s,
        verdict=_verdict(log, energy_ratio_db(recorded, left), energy_ratio_db(recorded, removed)),
        tracks=tracks,
        columns=pictures.COLUMNS,
        top_hz=rate_hz // 2,
        sounds=json.dumps({track.key: track.sound for track in tracks if track.sound}),
        levels_db={track.key: round(track.level_db, 2) for track in tracks},
        levels=_level_chart(recorded, left, removed, rate_hz),
        drift=_drift_chart(log["drift_track"], log["drift_sigma_ppm"], duration_s),
        listen_first=_listen_first(removed, left, rate_hz),
        chance=math.sqrt(FORGIVING_TAPS / rate_hz),
        several_channels=log["inputs"]["recording"]["n_channels"] > 1,
    )


def _tracks(sounds: Mapping[str, FloatArray], rate_hz: int) -> list[Track]:
    titles = {"recording": "Recording", "near_end": "Near end (what is left)", "removed": "What was removed"}
    spectra = {key: pictures.spectrogram_db(sound, rate_hz) for key, sound in sounds.items()}
    top_db = float(max(np.max(spectrum) for spectrum in spectra.values()))
    full_scale = float(max(np.max(np.abs(sound), initial=0.0) for sound in sounds.values())) or 1.0
    coded = dict.fromkeys(sounds, "")
    if len(sounds["recording"]) <= LONGEST_HEARD_S * rate_hz:
        with ThreadPoolExecutor() as pool:
            coded = dict(zip(sounds, pool.map(partial(_mp3, rate_hz=rate_hz), sounds.values()), strict=True))
    return [
        Track(
            key,
            titles[key],
            10 * math.log10(float(np.mean(sound.astype(np.float64) ** 2)) + 1e-12),
            pictures.waveform(sound, full_scale),
            pictures.png(spectra[key], top_db),
            coded[key],
        )
        for key, sound in sounds.items()
    ]


def _mp3(sound: FloatArray, rate_hz: int) -> str:
    """A sound as MP3 in base64."""
    file = io.BytesIO()
    soundfile.write(
        file,
        np.clip(sound, -1, 1),
        rate_hz,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=COMPRESSION_LEVEL,
        bitrate_mode="CONSTANT",
    )
    return base64.b64encode(file.getvalue()).decode()


def _verdict(log: Mapping[str, Any], reduction_db: float, removed_below_db: float) -> str:
    """One sentence."""
    drift = f"{abs(log['drift_ppm']):.2f} ± {log['drift_sigma_ppm'] or 0:.2f} ppm"
    return (
        f"The reference begins {log['delay_s']:+.3f} s into the recording, its clock {drift} "
        f"{'slow' if log['drift_ppm'] < 0 else 'fast'}. It was removed with confidence "
        f"{log['confidence']:.2f} of 1: what was taken out lies {removed_below_db:.1f} dB below the "
        f"recording, what is left {reduction_db:.1f} dB."
    )


def _level_chart(recorded: FloatArray, left: FloatArray, removed: FloatArray, rate_hz: int) -> dict[str, Any]:
    """Level of each sound in each second, as paths in a box of 900 by 120."""
    levels = {
        key: pictures.level_per_second_db(sound, rate_hz)
        for key, sound in (("recording", recorded), ("near_end", left), ("removed", removed))
    }
    top_db = 10 * math.ceil(max(float(np.max(level)) for level in levels.values()) / 10)
    bottom_db = top_db - 80
    n_seconds = len(levels["recording"])
    x = (np.arange(n_seconds) + 0.5) * (pictures.COLUMNS / n_seconds)
    return {
        "top_db": top_db,
        "bottom_db": bottom_db,
        "paths": {
            key: pictures.path(x, (top_db - level.clip(bottom_db)) * (120 / 80))
            for key, level in levels.items()
        },
    }


def _drift_chart(
    track: list[dict[str, float]], sigma_ppm: float | None, duration_s: float
) -> dict[str, Any] | None:
    """Drift over time with its uncertainty, as paths in a box of 900 by 120; None for a single value."""
    if len(track) < 2:
        return None
    time_s = np.array([point["time_s"] for point in track])
    ppm = np.array([point["drift_ppm"] for point in track])
    sigma = sigma_ppm or 0.0
    low, high = float(np.min(ppm)) - 3 * sigma - 0.1, float(np.max(ppm)) + 3 * sigma + 0.1
    x = time_s / duration_s * pictures.COLUMNS

    def height(values: FloatArray) -> FloatArray:
        return 120 * (high - values) / (high - low)

    band = pictures.path(
        np.concatenate([x, x[::-1]]), np.concatenate([height(ppm + sigma), height(ppm - sigma)[::-1]])
    )
    return {"line": pictures.path(x, height(ppm)), "band": f"{band}Z", "low_ppm": low, "high_ppm": high}


def _listen_first(removed: FloatArray, left: FloatArray, rate_hz: int) -> list[dict[str, float]]:
    """Seconds in which most of the reference may be left: what is left there can best be explained by it."""
    n_seconds = len(left) // rate_hz
    loud_db = pictures.level_per_second_db(removed, rate_hz)[:n_seconds]
    if n_seconds == 0 or float(np.max(loud_db)) < -90:
        return []
    found = []
    for second in np.flatnonzero(loud_db > np.max(loud_db) - PLAYING_DB):
        part = slice(second * rate_hz, (second + 1) * rate_hz)
        found.append(
            {
                "time_s": float(second),
                "correlation": reference_correlation(removed[part], left[part], n_lead=64),
                "removed_db": energy_ratio_db(removed[part], left[part]),
            }
        )
    return sorted(found, key=lambda second: -second["correlation"])[:LISTEN_FIRST]


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(round(time_s), 60)
    return f"{minutes}:{seconds:02}"
