"""Self-contained pages about a recording: they need no network and no other file.

What can be heard on it is mono and at most PAGE_RATE_HZ, compressed: the files are what counts, the page
shows them.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from unplay.audio import load_mono
from unplay.comparing import BLIND_FIGURES, FIGURES, Comparison
from unplay.metrics import FORGIVING_TAPS, energy_ratio_db, reference_correlation
from unplay.removal.clock import on_recording_clock, pace
from unplay.report import charts, pictures
from unplay.report.echo import measure

if TYPE_CHECKING:
    from jinja2 import Environment

    from unplay.removal.alignment import Alignment

FloatArray = NDArray[np.floating]

PAGE_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000)
"""Sample rates of MP3, which every browser plays, that are enough to judge by."""

LONGEST_HEARD_S = 5400.0
"""Of all sounds on a page together. With more, it has pictures only: it would be too large to mail."""

COMPRESSION_LEVEL = 0.8
"""Of libsndfile: 40 kbit/s at 16 to 24 kHz, so that ten minutes of three sounds stay below 15 MB."""

MEASURED_S = 60.0
"""The path and what was taken along are measured where most was removed, on no more than this."""

LISTEN_FIRST = 5
PLAYING_DB = 30.0
"""A second counts as one in which the reference plays when what was taken from it is within this of the
loudest."""


@dataclass(frozen=True)
class Sound:
    """One of the sounds of a page. colour: recording, near_end or removed."""

    key: str
    title: str
    colour: str
    signal: FloatArray


@dataclass(frozen=True)
class Track:
    """A sound as the page shows and plays it; coded is empty where it can't be heard."""

    key: str
    title: str
    colour: str
    level_db: float
    waveform: str
    spectrogram: str
    coded: str


def clean_page(
    log: Mapping[str, Any], alignment: Alignment, reference: Path, recording: Path, near_end: Path
) -> str:
    """The page (HTML) of a run of `clean`.

    log: as `--log` writes it. alignment: at the recording's sample rate. recording, near_end: files of equal
    length; what was removed is their difference.
    """
    rate_hz = _page_rate_hz(log["inputs"]["recording"]["sample_rate_hz"])
    recorded, left = load_mono(recording, rate_hz), load_mono(near_end, rate_hz)
    n_samples = min(len(recorded), len(left))
    recorded, left = recorded[:n_samples], left[:n_samples]
    removed = recorded - left
    recording_rate_hz = log["inputs"]["recording"]["sample_rate_hz"]
    stretches = [stretch.scaled(rate_hz / recording_rate_hz) for stretch in alignment.stretches]
    most = _most_removed(removed, rate_hz)
    played = on_recording_clock(load_mono(reference, rate_hz), stretches, most.start, most.stop)
    return _render(
        "clean.html",
        recording.name,
        _verdict(log, energy_ratio_db(recorded, left), energy_ratio_db(recorded, removed)),
        [
            Sound("recording", "Recording", "recording", recorded),
            Sound("near_end", "Near end (what is left)", "near_end", left),
            Sound("removed", "What was removed", "removed", removed),
        ],
        rate_hz,
        heard_first="near_end",
        several_channels=log["inputs"]["recording"]["n_channels"] > 1,
        warnings=log["warnings"],
        log=log,
        levels=charts.levels(recorded, left, removed, rate_hz),
        clock=charts.of_clock(stretches, alignment.drift_sigma_ppm, rate_hz, n_samples / rate_hz),
        echo=charts.of_echo(measure(played, removed[most], left[most], rate_hz)),
        measured_s=(most.start / rate_hz, most.stop / rate_hz),
        listen_first=_listen_first(removed, left, rate_hz),
        chance=math.sqrt(FORGIVING_TAPS / rate_hz),
    )


def compare_page(
    comparison: Comparison, recording: Path, sounds: Mapping[str, FloatArray], sample_rate_hz: int
) -> str:
    """The page (HTML) of a run of `compare`.

    sounds: what each row of the comparison sounds like, (n_samples,), by its name; a method that failed has
    none. The recording itself is the first.
    """
    rate_hz = _page_rate_hz(sample_rate_hz)
    names = list(sounds)
    shown = [name for name in FIGURES if any(getattr(row, name) is not None for row in comparison.rows)]
    rows = [
        {
            "name": row.name,
            "reason": row.reason,
            "figures": [
                "" if (value := getattr(row, name)) is None else FIGURES[name][1].format(value)
                for name in shown
            ],
        }
        for row in comparison.rows
    ]
    return _render(
        "compare.html",
        recording.name,
        f"{len(names) - 1} methods on one recording. The reference begins {comparison.delay_s:+.3f} s into "
        f"it, its clock {pace(comparison.drift_ppm)}.",
        [
            Sound(
                f"sound{k}",
                name,
                "near_end" if k else "recording",
                soxr.resample(sounds[name], sample_rate_hz, rate_hz),
            )
            for k, name in enumerate(names)
        ],
        rate_hz,
        heard_first=f"sound{len(names) - 1}",
        several_channels=False,
        warnings=[],
        titles=[FIGURES[name][0] for name in shown],
        rows=rows,
        notes=[*([BLIND_FIGURES] if "reference_correlation" in shown else []), *comparison.notes],
    )


def environment(**filters: Callable[..., str]) -> Environment:
    """Where the templates of all pages are, with filters by their name."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("unplay.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters |= filters
    return made


def _page_rate_hz(sample_rate_hz: int) -> int:
    return max((rate for rate in PAGE_RATES_HZ if rate <= sample_rate_hz), default=PAGE_RATES_HZ[0])


def _render(
    template: str,
    name: str,
    verdict: str,
    sounds: Sequence[Sound],
    rate_hz: int,
    **more: Any,
) -> str:
    tracks = _tracks(sounds, rate_hz)
    return (
        environment(clock=charts.clock)
        .get_template(template)
        .render(
            name=name,
            verdict=verdict,
            duration_s=len(sounds[0].signal) / rate_hz,
            tracks=tracks,
            columns=pictures.COLUMNS,
            top_hz=rate_hz // 2,
            sounds=json.dumps({track.key: track.coded for track in tracks if track.coded}),
            levels_db={track.key: round(track.level_db, 2) for track in tracks},
            **more,
        )
    )


def _tracks(sounds: Sequence[Sound], rate_hz: int) -> list[Track]:
    spectra = [pictures.spectrogram_db(sound.signal, rate_hz) for sound in sounds]
    top_db = float(max(np.max(spectrum) for spectrum in spectra))
    full_scale = float(max(np.max(np.abs(sound.signal), initial=0.0) for sound in sounds)) or 1.0
    coded = [""] * len(sounds)
    if sum(len(sound.signal) for sound in sounds) <= LONGEST_HEARD_S * rate_hz:
        with ThreadPoolExecutor() as pool:
            coded = list(pool.map(lambda sound: _mp3(sound.signal, rate_hz), sounds))
    return [
        Track(
            sound.key,
            sound.title,
            sound.colour,
            10 * math.log10(float(np.mean(sound.signal.astype(np.float64) ** 2)) + 1e-12),
            pictures.waveform(sound.signal, full_scale),
            pictures.png(spectrum, top_db),
            code,
        )
        for sound, spectrum, code in zip(sounds, spectra, coded, strict=True)
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
    """What was found and done, in short."""
    clock = pace(log["drift_ppm"], log["drift_sigma_ppm"] or 0.0)
    return (
        f"The reference begins {log['delay_s']:+.3f} s into the recording, its clock {clock}. It was removed "
        f"with confidence {log['confidence']:.2f} of 1: what was taken out lies {removed_below_db:.1f} dB "
        f"below the recording, what is left {reduction_db:.1f} dB."
    )


def _most_removed(removed: FloatArray, rate_hz: int) -> slice:
    """The MEASURED_S, or all if there is less, from which most was removed."""
    length = round(MEASURED_S) * rate_hz
    if len(removed) <= length:
        return slice(0, len(removed))
    energies = 10 ** (pictures.level_per_second_db(removed, rate_hz) / 10)
    sums = np.convolve(energies, np.ones(round(MEASURED_S)), "valid")
    start = min(int(np.argmax(sums)) * rate_hz, len(removed) - length)
    return slice(start, start + length)


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
