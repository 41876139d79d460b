"""A scene whose truth is known: a loudspeaker plays music, someone talks, a microphone records both.

The music is a formula of continuous time, so a player's clock that runs fast is exact: its samples are
the formula at other times, with no interpolation in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np
import scipy.signal
import soundfile
import soxr
from numpy.typing import NDArray
from scipy.special import ndtr

Signal = NDArray[np.float64]

ATTACK_S = 0.0015
"""Width of the Gaussian that rounds every onset. It takes all that an onset spreads more than 600 Hz
from a partial below -130 dB, so partials that keep that far from half the sample rate don't alias."""

MARGIN_HZ = 600.0

DAMPED_AFTER = 5
DAMPING_S = 0.01
"""A note is damped after five decays, within about this time."""

CHUNK = 4096
"""Samples of a note computed at a time: few enough to stay in the processor's cache."""


@dataclass(frozen=True)
class Scene:
    """Signals of shape (n_samples,); all but `reference` are on the recording's clock and equally long.

    recording = true_near_end + echo + noise, and echo = played ∗ echo_path.
    """

    sample_rate_hz: int
    reference: Signal
    recording: Signal
    true_near_end: Signal
    echo: Signal
    played: Signal
    echo_path: Signal


def make_scene(
    seed: int = 0,
    *,
    sample_rate_hz: int = 16_000,
    duration_s: float = 20.0,
    reference_s: float = 20.0,
    offset_s: float = 3.7,
    drift_ppm: float = 80.0,
    talker_to_echo_db: float = -10.0,
    talker_to_noise_db: float = 40.0,
    reverberation_s: float = 0.35,
) -> Scene:
    """Record a talker over music.

    seed chooses the music, both rooms, where the talker begins and the noise. duration_s is the length
    of the recording, reference_s of the music. Recording sample n carries the played sample
    (n − offset_s·sample_rate_hz)·(1 + drift_ppm·1e-6); offset_s may be negative. Both ratios are of
    energies over the whole recording. reverberation_s is the time in which a room decays by 60 dB.
    """
    rng = np.random.default_rng(seed)
    times_s = np.arange(round(reference_s * sample_rate_hz)) / sample_rate_hz
    song = compose(rng, reference_s, sample_rate_hz)
    reference = song.at(times_s)
    level = 0.7 / np.max(np.abs(reference))
    n_samples = round(duration_s * sample_rate_hz)
    clock_s = (np.arange(n_samples) / sample_rate_hz - offset_s) * (1 + drift_ppm * 1e-6)
    played = level * song.at(clock_s)
    echo_path = room_response(rng, sample_rate_hz, reverberation_s)
    echo = scipy.signal.oaconvolve(played, echo_path)[:n_samples]
    near_end = scipy.signal.oaconvolve(
        talker(rng, sample_rate_hz, n_samples), room_response(rng, sample_rate_hz, reverberation_s)
    )[:n_samples]
    near_end *= _rms(echo) / _rms(near_end) * 10 ** (talker_to_echo_db / 20)
    noise = rng.standard_normal(n_samples)
    noise *= _rms(near_end) / _rms(noise) * 10 ** (-talker_to_noise_db / 20)
    gain = 0.7 / np.max(np.abs(near_end + echo + noise))
    return Scene(
        sample_rate_hz=sample_rate_hz,
        reference=level * reference,
        recording=gain * (near_end + echo + noise),
        true_near_end=gain * near_end,
        echo=gain * echo,
        played=played,
        echo_path=gain * echo_path,
    )


def room_response(rng: np.random.Generator, sample_rate_hz: int, reverberation_s: float) -> Signal:
    """Polack's statistical room: a direct sound after 5 ms, then decaying noise 3 dB weaker in all."""
    n_samples = round(1.1 * reverberation_s * sample_rate_hz)
    n_direct = round(0.005 * sample_rate_hz)
    times_s = np.arange(n_samples) / sample_rate_hz
    tail = rng.standard_normal(n_samples) * 10 ** (-3 * times_s / reverberation_s)
    tail *= np.sqrt(0.5 / np.dot(tail, tail))
    response = np.zeros(n_direct + n_samples)
    response[n_direct:] = tail
    response[n_direct] = 1.0
    return response


def talker(rng: np.random.Generator, sample_rate_hz: int, n_samples: int) -> Signal:
    """Speech, dry, said again as often as needed, beginning anywhere in the text."""
    with as_file(files("unplay.virtual") / "talker.flac") as path:
        speech, speech_rate_hz = soundfile.read(path)
    speech = soxr.resample(speech, speech_rate_hz, sample_rate_hz)
    return np.resize(np.roll(speech, rng.integers(len(speech))), n_samples)


@dataclass(frozen=True)
class Note:
    """Partials at multiples of `spacing_hz` that begin together at `start_s` and decay together.

    The k-th of the complex `amplitudes` (n_partials,) belongs to (lowest + k)·spacing_hz; decay_s is
    the time in which all fall by the factor e.
    """

    start_s: float
    decay_s: float
    spacing_hz: float
    lowest: int
    amplitudes: NDArray[np.complex128]

    def at(self, times_s: Signal) -> Signal:
        """An exponential decay convolved with a Gaussian (in closed form), damped, times a sum of sines."""
        elapsed = times_s - self.start_s
        ratio = ATTACK_S / self.decay_s
        envelope = np.exp(ratio**2 / 2 - elapsed / self.decay_s) * ndtr(elapsed / ATTACK_S - ratio)
        envelope *= ndtr((DAMPED_AFTER * self.decay_s - elapsed) / DAMPING_S)
        step = np.exp(2j * np.pi * self.spacing_hz * elapsed)
        tone = np.zeros_like(step)
        for amplitude in self.amplitudes[::-1]:  # Horner's rule for Σ a_k·step^k
            tone *= step
            tone += amplitude
        return envelope * np.imag(tone * step**self.lowest)


@dataclass(frozen=True)
class Song:
    """Notes in the order of their starts, faded out before `end_s`."""

    notes: tuple[Note, ...]
    end_s: float

    def at(self, times_s: Signal) -> Signal:
        """The sound at increasing times (n_samples,), zero before 0 and after end_s."""
        sound = np.zeros_like(times_s)
        for note in self.notes:
            # ndtr is 0 within rounding eight widths before its step
            begin_s = note.start_s - 8 * ATTACK_S
            end_s = note.start_s + DAMPED_AFTER * note.decay_s + 8 * DAMPING_S
            first, last = np.searchsorted(times_s, [begin_s, end_s])
            for start in range(first, last, CHUNK):
                chunk = slice(start, min(start + CHUNK, last))
                sound[chunk] += note.at(times_s[chunk])
        return sound * ndtr((self.end_s - 0.2 - times_s) / 0.03)


PROGRESSIONS = ((0, 9, 5, 7), (0, 7, 9, 5), (9, 5, 0, 7), (2, 7, 0, 9))
"""Roots of four bars, in semitones above the key."""

MINOR_ROOTS = (2, 4, 9)
SCALE = (0, 2, 4, 7, 9, 12, 14, 16)


def compose(rng: np.random.Generator, length_s: float, sample_rate_hz: int) -> Song:
    """Bass, chords, melody and drums in four-bar turns at 96 to 132 beats a minute."""
    top_hz = sample_rate_hz / 2 - MARGIN_HZ
    beat_s = 60 / rng.uniform(96, 132)
    key = rng.integers(45, 57)
    progression = PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
    notes: list[Note] = []
    for beat in range(int((length_s - 0.5) / beat_s)):
        start_s = 0.05 + beat * beat_s
        root = progression[beat // 4 % 4]
        notes.append(_string(rng, key + root - 12, start_s, 0.35, 0.30, top_hz))
        if beat % 4 == 0:
            third = 3 if root in MINOR_ROOTS else 4
            notes += [
                _string(rng, key + root + step, start_s + k * 0.012, 0.5, 0.14, top_hz)
                for k, step in enumerate((0, third, 7, 12))
            ]
        for half in range(2):
            if rng.random() < 0.7:
                pitch = key + 12 + SCALE[rng.integers(len(SCALE))]
                notes.append(_string(rng, pitch, start_s + half * beat_s / 2, 0.22, 0.2, top_hz))
            notes.append(_drum(rng, start_s + half * beat_s / 2, 0.03, 0.05, top_hz / 3, top_hz))
        if beat % 2:
            notes.append(_drum(rng, start_s, 0.09, 0.25, 180.0, min(5000.0, top_hz)))
        else:
            notes.append(_drum(rng, start_s, 0.12, 0.35, 45.0, 110.0))
    return Song(tuple(notes), length_s)


def _string(
    rng: np.random.Generator, pitch: int, start_s: float, decay_s: float, level: float, top_hz: float
) -> Note:
    """A plucked string: harmonics that fall by 1/k (pitch as in MIDI: 69 is 440 Hz)."""
    fundamental_hz = 440 * 2 ** ((pitch - 69) / 12) * rng.uniform(0.999, 1.001)
    harmonics = np.arange(1, min(16, int(top_hz / fundamental_hz)) + 1)
    return Note(start_s, decay_s, fundamental_hz, 1, level / harmonics * _phases(rng, len(harmonics)))


def _drum(
    rng: np.random.Generator, start_s: float, decay_s: float, level: float, low_hz: float, high_hz: float
) -> Note:
    """A struck skin or cymbal: partials so dense between two frequencies that no pitch is heard."""
    spacing_hz = min(4 / decay_s, (high_hz - low_hz) / 4) * rng.uniform(0.8, 1.0)
    lowest = int(np.ceil(low_hz / spacing_hz))
    n_partials = int(high_hz / spacing_hz) - lowest + 1
    return Note(start_s, decay_s, spacing_hz, lowest, level / np.sqrt(n_partials) * _phases(rng, n_partials))


def _phases(rng: np.random.Generator, n_partials: int) -> NDArray[np.complex128]:
    return np.exp(2j * np.pi * rng.random(n_partials))


def _rms(x: Signal) -> float:
    return float(np.sqrt(np.mean(x**2)))
