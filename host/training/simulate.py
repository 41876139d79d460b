"""Simulate recordings and run unplay's own linear stages on them.

    python host/training/simulate.py POOL DATA --split train --shards 75
    python host/training/simulate.py POOL DATA --split train --shards 75 --first 75     (on another core)

POOL is what fetch.py made. Each shard is DATA/SPLIT/NUMBER.npz with N_CLIPS scenes of CLIP_S seconds, all
signals int16 (n_clips, n_samples): `reference` x; `echo` y with the noise; `near_end` v; `echo_left` and
`near_end_left`, what the plain FIR stage leaves of either (it is linear: it leaves their sum of their sum);
`mixture` y + noise + v at the scene's level; `device_left` and `kalman_left`, what the device's canceller and
the causal Kalman filter leave of it.
A shard depends on its split and number only; those that exist are left alone.

Rooms are shoe boxes (image sources, pyroomacoustics). In training Praat makes other voices of the talkers.
Needs `pip install pyroomacoustics==0.10.1 praat-parselmouth==0.4.7`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import parselmouth
import pyroomacoustics
import soxr
from kalman import left_by_kalman
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, uniform_filter1d
from scipy.signal import butter, fftconvolve, sosfilt

from unplay.removal.baselines import fir
from unplay.removal.canceller import cancel
from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]
Rng = np.random.Generator
Clip = NDArray[np.int16]
Scene = tuple[FloatArray, FloatArray, FloatArray]
"""Reference, echo with noise, near end: (n_samples,) each."""

RATE_HZ = 16000
CLIP_S = 12.0
N_CLIPS = 16
SPLITS = {"train": 1, "validation": 2, "test": 3}
"""Seeds."""

SPEECH_SHARE = 0.45
"""Of the references; the rest is music."""
CHANGED_SHARE = 0.8
"""Of the talkers in training, who get another voice: few talkers there are."""
FORMANT_RATIO, PITCH_HZ, PITCH_RANGE_RATIO, DURATION_RATIO = (0.82, 1.22), (85, 300), (0.6, 1.5), (0.85, 1.2)
"""Of such a voice, from least to most; the pitch is its median."""
PITCH_SOUGHT_HZ = (75, 500)
COLOUR_HZ = (100, 250, 600, 1500, 3500, 8000)
COLOUR_DB = 4.0
"""Spread, at these frequencies, of the curve that colours a talker in training."""
NEAR_END_TO_ECHO_DB = (-20.0, 8.0)
NOISE_TO_ECHO_DB = (-55.0, -15.0)
STRENGTH = (0.02, 0.63)
"""Of a loudspeaker's curve: one over the level, relative to the reference's, at which it bends."""
PLAIN_SPEECH_SHARE, PLAIN_SILENT_SHARE = 0.35, 0.1
PLAIN_NEAR_END_TO_ECHO_DB, PLAIN_NOISE_TO_ECHO_DB, PLAIN_STRENGTH = (-15.0, 8.0), (-45.0, -20.0), (0.02, 0.25)
"""Of a plain scene."""
RT60_S = (0.12, 0.7)
MOST_REFLECTIONS = 18
TAIL_BEGINS_S = 0.06
"""Where noise that decays takes over from the image sources."""
PEAK = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--shards", type=int, default=1, help=f"of {N_CLIPS} clips, {CLIP_S:g} s each")
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--plain", action="store_true", help="still paths, weak curves, mere noise")
    arguments = parser.parse_args()
    sounds = Sounds(arguments.pool / arguments.split, arguments.split == "train")
    folder = arguments.data / arguments.split
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.first, arguments.first + arguments.shards):
        target = folder / f"{number:04}.npz"
        if not target.exists():
            rng = np.random.default_rng([SPLITS[arguments.split], number])
            write_whole(target, shard(sounds, rng, plain_scene if arguments.plain else scene))
            print(target, flush=True)


def write_whole(target: Path, arrays: dict[str, FloatArray]) -> None:
    """A training run may look for new shards at any time: it must not find half of one."""
    unfinished = target.with_suffix(".part.npz")
    np.savez(unfinished, **{name: np.round(x * 32767).astype(np.int16) for name, x in arrays.items()})
    os.replace(unfinished, target)


def shard(sounds: Sounds, rng: Rng, make: Callable[[Sounds, Rng], Scene]) -> dict[str, FloatArray]:
    clips = [left_by_linear_stages(*make(sounds, rng)) for _ in range(N_CLIPS)]
    stacked = {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}
    return stacked | {"kalman_left": left_by_kalman(stacked["reference"], stacked["mixture"])}


class Sounds:
    """The pool of one split."""

    def __init__(self, folder: Path, vary_talkers: bool) -> None:
        packages = [read_talkers(path) for path in sorted((folder / "speech").glob("*.npz"))]
        self.speech = [talkers for talkers in packages for _ in range(round(len(talkers) ** 0.5))]
        """A package of n talkers stands in it √n times."""
        self.music = [read_clips(path) for path in sorted((folder / "music").glob("*.npz"))]
        self.vary_talkers = vary_talkers

    def talk(self, rng: Rng, n: int, start_s: float) -> FloatArray:
        """Phrases of one talker with pauses between them (n,), silent until start_s."""
        clips = talker_of(self.speech[rng.integers(len(self.speech))], rng)
        out, at, longest_pause_s = np.zeros(n), int(start_s * RATE_HZ), rng.choice([0.3, 0.8, 3.0])
        number = int(rng.integers(len(clips)))
        while at < n:
            phrase = clips[number % len(clips)][: n - at] / 32768.0
            out[at : at + len(phrase)] = phrase * 10 ** (rng.normal(0, 2) / 20)
            at += len(phrase) + int(rng.uniform(0.05, longest_pause_s) * RATE_HZ)
            number += 1
        return coloured(rng, with_other_voice(rng, out)) if self.vary_talkers else out

    def song(self, rng: Rng, n: int) -> FloatArray:
        clips = self.music[rng.integers(len(self.music))]
        for _ in range(20):
            clip = clips[rng.integers(len(clips))]
            start = rng.integers(max(1, len(clip) - n))
            part = clip[start : start + n] / 32768.0
            if len(part) == n and np.mean(part**2) > 1e-5:
                return part
        return np.resize(clip / 32768.0 + 1e-4 * rng.standard_normal(len(clip)), n)


def read_clips(path: Path) -> list[Clip]:
    held = np.load(path)
    return np.split(held["samples"], np.cumsum(held["lengths"])[:-1])


def read_talkers(path: Path) -> list[list[Clip]]:
    """The clips of one talker of the package after the other."""
    clips, talkers = read_clips(path), np.load(path)["talkers"]
    return [[clips[k] for k in np.flatnonzero(talkers == talker)] for talker in range(talkers.max() + 1)]


def talker_of(talkers: list[list[Clip]], rng: Rng) -> list[Clip]:
    """Clips of one of them, with a chance that grows with the root of how long he talks."""
    if len(talkers) == 1:
        return talkers[0]
    weights = np.array([sum(map(len, clips)) for clips in talkers]) ** 0.5
    return talkers[rng.choice(len(talkers), p=weights / weights.sum())]


def with_other_voice(rng: Rng, x: FloatArray) -> FloatArray:
    """Talk of someone larger or smaller, higher or lower, livelier or slower; now and then as it is."""
    formants, pitch_hz, pitch_range, duration = (
        rng.uniform(*FORMANT_RATIO),
        np.exp(rng.uniform(*np.log(PITCH_HZ))),
        rng.uniform(*PITCH_RANGE_RATIO),
        rng.uniform(*DURATION_RATIO),
    )
    if rng.random() > CHANGED_SHARE:
        return x
    sound = parselmouth.Sound(x, RATE_HZ)
    how = (*PITCH_SOUGHT_HZ, formants, pitch_hz, pitch_range, duration)
    (changed,) = parselmouth.praat.call(sound, "Change gender", *how).values
    return np.pad(changed, (0, max(0, len(x) - len(changed))))[: len(x)]


def coloured(rng: Rng, x: FloatArray) -> FloatArray:
    """A voice that is brighter or darker, another microphone."""
    spectrum = np.fft.rfft(x)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(x), 1 / RATE_HZ), COLOUR_HZ[0]))
    gain_db = np.interp(octaves, np.log2(COLOUR_HZ), rng.normal(0, COLOUR_DB, len(COLOUR_HZ)))
    return np.fft.irfft(spectrum * 10 ** (gain_db / 20), len(x))


def scene(sounds: Sounds, rng: Rng) -> Scene:
    """Reference, echo with noise, near end: (n_samples,) each, on one scale."""
    n = int(CLIP_S * RATE_HZ)
    played = sounds.talk(rng, n, 0.0) if rng.random() < SPEECH_SHARE else sounds.song(rng, n)
    played *= 0.1 / (np.sqrt(np.mean(played**2)) + 1e-9)
    echo_paths, near_path = responses(rng)
    echo = through_room(rng, drifting(rng, loudspeaker(rng, played)), echo_paths)
    if rng.random() < 0.06:
        echo *= 10 ** (-rng.uniform(20, 60) / 20)  # a player that is all but mute
    near_end = np.zeros(n)
    if rng.random() > 0.12:
        near_end = fftconvolve(sounds.talk(rng, n, rng.uniform(0, 3)), near_path)[:n]
        near_end *= level(echo) / (level(near_end) + 1e-9) * 10 ** (rng.uniform(*NEAR_END_TO_ECHO_DB) / 20)
    noise = coloured_noise(rng, n)
    noise *= level(echo) / level(noise) * 10 ** (rng.uniform(*NOISE_TO_ECHO_DB) / 20)
    echo, near_end = processed(rng, echo + noise, near_end)
    reference = coded(rng, played) if rng.random() < 0.3 else played
    if rng.random() < 0.2:
        low_pass = butter(8, rng.choice([3600, 5000, 7000]), fs=RATE_HZ, output="sos")
        echo, near_end = sosfilt(low_pass, echo), sosfilt(low_pass, near_end)
    scale = PEAK * 10 ** (-rng.uniform(0, 15) / 20) / (np.max(np.abs(echo + near_end)) + 1e-9)
    reference = reference * (PEAK / (np.max(np.abs(reference)) + 1e-9))
    return reference, scale * echo, scale * near_end


def plain_scene(sounds: Sounds, rng: Rng) -> Scene:
    """As `scene`, and as the scenes are on which others measure: nothing moves, drifts or processes, the
    loudspeaker's curve is weak if there is any, and the noise is no more than that."""
    n = int(CLIP_S * RATE_HZ)
    played = sounds.talk(rng, n, 0.0) if rng.random() < PLAIN_SPEECH_SHARE else sounds.song(rng, n)
    (path, _), near_path = responses(rng)
    kind = rng.choice(["linear", "tanh", "clip", "polynomial"])
    high_pass = butter(2, rng.uniform(60, 400), "high", fs=RATE_HZ, output="sos")
    echo = fftconvolve(sosfilt(high_pass, curve(rng, kind, played, PLAIN_STRENGTH)), path)[:n]
    near_end = fftconvolve(sounds.talk(rng, n, rng.uniform(0, 1.5)), near_path)[:n]
    near_end *= (
        10 ** (rng.uniform(*PLAIN_NEAR_END_TO_ECHO_DB) / 20) * np.std(echo) / (np.std(near_end) + 1e-9)
    )
    if rng.random() < PLAIN_SILENT_SHARE:
        near_end *= 0
    noise = sosfilt(butter(1, rng.uniform(200, 6000), fs=RATE_HZ, output="sos"), rng.standard_normal(n))
    noise *= 10 ** (rng.uniform(*PLAIN_NOISE_TO_ECHO_DB) / 20) * np.std(echo) / np.std(noise)
    scale, played_scale = (PEAK / (np.max(np.abs(x)) + 1e-9) for x in (echo + noise + near_end, played))
    return played_scale * played, scale * (echo + noise), scale * near_end


def level(x: FloatArray) -> float:
    """Root mean square of the louder half of the 20 ms frames."""
    power = np.mean(x[: len(x) // 320 * 320].reshape(-1, 320) ** 2, axis=1)
    return float(np.sqrt(np.mean(power[power >= np.median(power)])) + 1e-9)


def responses(rng: Rng) -> tuple[list[FloatArray], FloatArray]:
    """Two echo paths of one room, a few centimetres to metres apart, and the talker's path, energy 1 each;
    the direct sound of the first comes within 30 ms."""
    size = rng.uniform([2.4, 2.2, 2.2], [8.0, 6.5, 3.4])
    rt60_s = rng.uniform(*RT60_S)
    try:
        absorption, order = pyroomacoustics.inverse_sabine(rt60_s, size)
    except ValueError:  # a room of this size is never so dry
        absorption, order = 0.6, 10
    wall = pyroomacoustics.Material(min(absorption, 0.95))
    room = pyroomacoustics.ShoeBox(size, fs=RATE_HZ, materials=wall, max_order=min(order, MOST_REFLECTIONS))
    microphone = rng.uniform([0.4, 0.4, 0.5], [*(size[:2] - 0.4), 1.5])
    loudspeaker_at = beside(rng, microphone, size, rng.choice([0.08, 0.3, 1.5]))
    room.add_source(loudspeaker_at)
    room.add_source(beside(rng, loudspeaker_at, size, rng.choice([0.05, 0.3, 1.0])))
    room.add_source(beside(rng, microphone, size, rng.uniform(0.3, 2.0)))
    room.add_microphone(microphone)
    room.compute_rir()
    paths = [diffuse_tail(rng, np.asarray(path), rt60_s) for path in room.rir[0]]
    arrival = max(0, int(np.argmax(np.abs(paths[0]))) - 40)
    lead = np.zeros(rng.integers(int(0.03 * RATE_HZ)))
    moved = [np.concatenate([lead, path[arrival:]]) for path in paths]
    *echo_paths, near_path = (path / np.sqrt(np.sum(path**2)) for path in moved)
    return echo_paths, near_path


def beside(rng: Rng, point: FloatArray, size: FloatArray, distance_m: float) -> FloatArray:
    """A point in the room about that far away."""
    direction = rng.standard_normal(3) * [1, 1, 0.3]
    return np.clip(point + direction / np.linalg.norm(direction) * distance_m, 0.2, size - 0.2)


def diffuse_tail(rng: Rng, path: FloatArray, rt60_s: float) -> FloatArray:
    """Noise that decays in the place of the reflections of high order, which image sources leave out."""
    t = np.arange(int(1.2 * rt60_s * RATE_HZ)) / RATE_HZ
    begin_s = TAIL_BEGINS_S
    early = path[int((begin_s - 0.02) * RATE_HZ) : int((begin_s + 0.02) * RATE_HZ)]
    reverberant = np.sqrt(np.mean(early**2)) if len(early) else 0.0
    tail = reverberant * rng.standard_normal(len(t)) * 10 ** (-3 * (t - begin_s) / rt60_s)
    fade = np.clip((t - begin_s) / 0.02, 0, 1)
    dry = np.zeros(len(t))
    dry[: len(path)] = path[: len(t)]
    return np.sqrt(1 - fade**2) * dry + fade * tail


def loudspeaker(rng: Rng, x: FloatArray) -> FloatArray:
    """A small loudspeaker's band and, as a rule, its curve."""
    low_hz, high_hz = rng.uniform(50, 500), rng.uniform(5000, 7900)
    band = butter(2, [low_hz, high_hz], "band", fs=RATE_HZ, output="sos")
    kind = rng.choice(["linear", "tanh", "clip", "polynomial", "asymmetric"])
    if rng.random() < 0.5:
        return sosfilt(band, curve(rng, kind, x))
    return curve(rng, kind, sosfilt(band, x))


def curve(rng: Rng, kind: str, x: FloatArray, strength: tuple[float, float] = STRENGTH) -> FloatArray:
    """A memoryless curve, slope 1 at the origin, at four times the sample rate: no aliases."""
    if kind == "linear":
        return x
    u = soxr.resample(x, RATE_HZ, 4 * RATE_HZ) / (np.sqrt(np.mean(x**2)) + 1e-9)
    s = np.exp(rng.uniform(*np.log(strength)))
    if kind == "tanh":
        u = np.tanh(s * u) / s
    elif kind == "clip":
        u = np.clip(u, -1 / s, 1 / s * rng.uniform(0.6, 1.0))
    elif kind == "polynomial":
        u = np.clip(u, -1.5 / s, 1.5 / s)
        u = u + rng.uniform(-0.4, 0.4) * s * u**2 - 0.14 * s**2 * u**3
    else:
        up, down = s * rng.uniform(0.3, 1.0, 2)
        u = np.where(u > 0, np.tanh(up * u) / up, np.tanh(down * u) / down)
    return soxr.resample(u, 4 * RATE_HZ, RATE_HZ)[: len(x)] * np.sqrt(np.mean(x**2))


def drifting(rng: Rng, x: FloatArray) -> FloatArray:
    """What the estimate of a clock leaves: a few ppm, a wandering delay."""
    if rng.random() < 0.7:
        return x
    t = np.arange(len(x)) / RATE_HZ
    wander = rng.uniform(0, 0.6) * np.sin(2 * np.pi * (rng.uniform(0.03, 0.5) * t + rng.random()))
    delay = wander + rng.uniform(-6e-6, 6e-6) * np.arange(len(x))
    return map_coordinates(x, [np.arange(len(x)) - delay], order=5, mode="nearest")


def through_room(rng: Rng, x: FloatArray, paths: list[FloatArray]) -> FloatArray:
    """The first path, or a cross-fade from it to the second, once or to and fro."""
    here, there = (fftconvolve(x, path)[: len(x)] for path in paths)
    kind = rng.choice(["still", "once", "periodic"], p=[0.65, 0.2, 0.15])
    if kind == "still":
        return here
    t = np.arange(len(x)) / RATE_HZ
    if kind == "once":
        begin_s, lasts_s = rng.uniform(1, CLIP_S - 1), rng.uniform(0.05, 4)
        share = 0.5 - 0.5 * np.cos(np.pi * np.clip((t - begin_s) / lasts_s, 0, 1))
    else:
        share = 0.5 - 0.5 * np.cos(2 * np.pi * (t / rng.uniform(1.5, 10) + rng.random()))
    share *= rng.uniform(0.2, 1.0)
    return (1 - share) * here + share * there


def coloured_noise(rng: Rng, n: int) -> FloatArray:
    """Power falling by 0 to 6 dB an octave, now and then with hum."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    spectrum *= np.maximum(np.arange(len(spectrum)) * RATE_HZ / n, 40.0) ** -rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, n)
    noise /= np.sqrt(np.mean(noise**2))
    if rng.random() < 0.15:
        noise += np.sin(2 * np.pi * rng.choice([50, 60, 100, 120]) * np.arange(n) / RATE_HZ)
    return noise


def processed(rng: Rng, echo: FloatArray, near_end: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What telephones do to their recording: a gain that follows the level; weak bins gated."""
    recording = echo + near_end
    if rng.random() < 0.12:
        slow = np.sqrt(uniform_filter1d(recording**2, int(rng.uniform(0.1, 1.0) * RATE_HZ)) + 1e-8)
        gain = np.clip((level(recording) / slow) ** rng.uniform(0.2, 0.7), 0.3, 4.0)
        echo, near_end = gain * echo, gain * near_end
    if rng.random() < 0.1:
        stft = Stft(512, 256)
        power = np.abs(stft.forward(echo + near_end)) ** 2
        noise = np.quantile(power, 0.1, axis=0) * rng.uniform(2, 8)
        gain = np.clip(1 - noise / (power + 1e-12), rng.uniform(0.05, 0.3), 1)
        echo, near_end = (stft.inverse(gain * stft.forward(x), len(x)) for x in (echo, near_end))
    return echo, near_end


def coded(rng: Rng, x: FloatArray) -> FloatArray:
    """The reference with a coder's noise, which follows the spectrum from below, and its low pass."""
    stft = Stft(1024, 256)
    spectrum = stft.forward(x)
    under = uniform_filter1d(np.abs(spectrum), 15, axis=1) * 10 ** (-rng.uniform(8, 30) / 20)
    noise = rng.standard_normal((2, *spectrum.shape))
    spectrum = spectrum + under * (noise[0] + 1j * noise[1]) / np.sqrt(2)
    spectrum[:, int(rng.uniform(350, 513)) :] = 0
    return stft.inverse(spectrum, len(x))


def left_by_linear_stages(
    reference: FloatArray, echo: FloatArray, near_end: FloatArray
) -> dict[str, FloatArray]:
    def of_int16(x: FloatArray) -> NDArray[np.int16]:
        return np.round(np.clip(x, -1, 1) * 32767).astype(np.int16)

    mixture = echo + near_end
    return {
        "reference": reference,
        "echo": echo,
        "near_end": near_end,
        "echo_left": fir(reference, echo, RATE_HZ),
        "near_end_left": fir(reference, near_end, RATE_HZ) if near_end.any() else near_end,
        "mixture": mixture,
        "device_left": cancel(of_int16(reference), of_int16(mixture)) / 32767.0,
    }


if __name__ == "__main__":
    main()
