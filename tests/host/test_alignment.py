"""Alignment: where the reference plays, on which clock, and when it is not there at all."""

from __future__ import annotations

import itertools
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import Playback, Take, even, record

from unplay.removal.alignment import Alignment, align, aligned_reference, to_the_ends, with_ringing
from unplay.removal.clock import Stretch, on_recording_clock
from unplay.removal.finding import FOUND_SCORE, find
from unplay.removal.warp import HALF_WIDTH
from unplay.virtual.scene import make_scene

RATE_HZ = 16_000
DIRECT_S = 0.005
"""Delay of the direct sound in the rooms of the scenes."""

# borders are exact to a few milliseconds where the echo is louder than the talker
BORDER_S = 0.02


def aligned(take: Take) -> Alignment:
    return align(take.reference, take.recording, take.sample_rate_hz)


def clock_errors(alignment: Alignment, playbacks: list[Playback]) -> list[np.ndarray]:
    """By stretch: position in the reference minus the truth, in samples, ten times a second."""
    assert len(alignment.stretches) == len(playbacks)
    errors = []
    for stretch, playback in zip(alignment.stretches, playbacks, strict=True):
        n = np.arange(stretch.start, stretch.stop, RATE_HZ // 10, dtype=float)
        n = n[(n >= playback.start_s * RATE_HZ) & (n < playback.stop_s * RATE_HZ)]
        errors.append(stretch.position_at(n) - playback.clock_s(n / RATE_HZ) * RATE_HZ)
    return errors


def assert_borders(alignment: Alignment, playbacks: list[Playback]) -> None:
    for stretch, playback in zip(alignment.stretches, playbacks, strict=True):
        assert stretch.start / RATE_HZ == pytest.approx(playback.start_s + DIRECT_S, abs=BORDER_S)
        assert stretch.stop / RATE_HZ == pytest.approx(playback.stop_s + DIRECT_S, abs=BORDER_S)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    offset_s=st.floats(-4, 4),
    drift_ppm=st.floats(-450, 450),
    reference_s=st.floats(8, 12),
    duration_s=st.floats(8, 12),
)
def test_any_offset_drift_and_length(
    seed: int, offset_s: float, drift_ppm: float, reference_s: float, duration_s: float
) -> None:
    rate = 1 + drift_ppm * 1e-6
    playback = Playback(0, duration_s, lambda t: (t - offset_s) * rate)
    take = record([playback], reference_s=reference_s, duration_s=duration_s, seed=seed)
    alignment = aligned(take)
    assert alignment.found
    # the direct sound to a millisecond, the drift to a part of a sample over the file
    assert alignment.delay_s == pytest.approx(offset_s + DIRECT_S, abs=1e-3)
    assert alignment.drift_ppm == pytest.approx(drift_ppm, abs=max(0.2, 4 * alignment.drift_sigma_ppm))


def test_the_aligned_reference_is_what_was_played() -> None:
    playback = even(1.0, 9.0, 0.5, 120.0)
    take = record([playback], reference_s=10, duration_s=10)
    alignment = aligned(take)
    heard = aligned_reference(take.reference, alignment, 0, len(take.recording))
    truth = record([playback], reference_s=10, duration_s=10, reverberation_s=1e-3).echo
    inside = slice(2 * RATE_HZ, 8 * RATE_HZ)
    correlation = np.corrcoef(heard[inside], truth[inside])[0, 1]
    # nothing but a whole sample of delay and the first reflections lie between them
    assert correlation > 0.95
    assert not np.any(heard[: round(0.9 * RATE_HZ)])
    assert not np.any(heard[round(9.1 * RATE_HZ) :])


def test_pieces_of_the_aligned_reference_equal_the_whole() -> None:
    take = record([even(1.0, 7.0, 0.0, 120.0)], reference_s=8, duration_s=8)
    alignment = aligned(take)
    whole = aligned_reference(take.reference, alignment, 0, len(take.recording))
    edges = [0, 100, 17_000, 64_001, len(take.recording)]
    pieces = [aligned_reference(take.reference, alignment, a, b) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-9)


def test_playback_starts_late_and_ends_early() -> None:
    playbacks = [even(3.2, 9.7)]
    alignment = aligned(record(playbacks, reference_s=12, duration_s=14))
    assert_borders(alignment, playbacks)
    assert alignment.drift_ppm == 0.0


def test_a_recording_that_starts_before_the_reference_and_ends_before_it() -> None:
    alignment = aligned(record([even(0, 8, 5.2, -200.0)], reference_s=16, duration_s=8))
    assert alignment.delay_s == pytest.approx(-5.2 / (1 - 200e-6) + DIRECT_S, abs=1e-3)
    assert alignment.drift_ppm == pytest.approx(-200, abs=0.1)


SEVERAL = {
    "pause": [even(1.0, 8.0, 0.0, 30.0), even(10.5, 18.0, 7.0 * (1 + 30e-6), 30.0)],
    "short pause": [even(1.0, 8.0), even(8.7, 17.0, 7.0)],
    "seek": [even(1.0, 9.0, 0.0, 100.0), even(9.0, 19.0, 2.0, 100.0)],
    "two parts": [even(1.0, 7.0, 5.0), even(11.0, 18.0, 0.5)],
}


@pytest.mark.parametrize("name", SEVERAL)
def test_stretches_share_one_path(name: str) -> None:
    playbacks = SEVERAL[name]
    alignment = aligned(record(playbacks, reference_s=16, duration_s=20))
    assert_borders(alignment, playbacks)
    errors = np.concatenate(clock_errors(alignment, playbacks))
    # from one stretch to the next the delay may differ by a fiftieth of a sample
    assert np.ptp(errors) < 0.02
    assert np.median(errors) == pytest.approx(-DIRECT_S * RATE_HZ, abs=10)


def test_a_loop_is_found_turn_by_turn() -> None:
    playbacks = [even(1 + 5 * k, min(6 + 5 * k, 19.5)) for k in range(4)]
    alignment = aligned(record(playbacks, reference_s=5, duration_s=20))
    assert_borders(alignment, playbacks)
    assert np.ptp(np.concatenate(clock_errors(alignment, playbacks))) < 0.02


def test_a_silent_part_of_the_reference_does_not_break_the_stretch() -> None:
    take = record([even(0.5, 12.5)], reference_s=12, duration_s=13)
    quiet = slice(4 * RATE_HZ, 8 * RATE_HZ)
    reference = take.reference.copy()
    reference[quiet] = 0
    later = round((0.5 + DIRECT_S) * RATE_HZ)
    recording = take.recording.copy()
    recording[quiet.start + later : quiet.stop + later] = take.near_end[
        quiet.start + later : quiet.stop + later
    ]
    assert len(align(reference, recording, RATE_HZ).stretches) == 1


def test_twenty_decibels_below_the_talker_it_is_found() -> None:
    playback = even(0.8, 12)
    for seed in range(3):
        take = record([playback], reference_s=12, duration_s=12, talker_to_echo_db=20, seed=seed)
        alignment = aligned(take)
        assert alignment.found
        assert alignment.delay_s == pytest.approx(0.8 + DIRECT_S, abs=0.01)


def test_another_master_of_the_recording_is_found() -> None:
    take = record([even(0.8, 12)], reference_s=12, duration_s=12)
    louder = np.tanh(3 * take.reference / np.max(np.abs(take.reference)))
    brighter = np.append(louder[0], louder[1:] - 0.6 * louder[:-1])
    assert align(brighter, take.recording, RATE_HZ).delay_s == pytest.approx(0.8 + DIRECT_S, abs=1e-3)


def test_another_song_is_absent() -> None:
    take = record([even(0.5, 10)], reference_s=10, duration_s=10, seed=1)
    other = record([even(0, 1)], reference_s=10, duration_s=1, seed=2).reference
    alignment = align(other, take.recording, RATE_HZ)
    assert not alignment.found
    assert f"{alignment.evidence['score']:.1f} times chance" in alignment.reason
    assert alignment.stretches == ()


def test_the_song_played_again_by_hand_is_absent() -> None:
    # the same notes one per cent faster: no two performances keep time to 500 ppm
    faster = Playback(0.5, 10, lambda t: (t - 0.5) * 1.01)
    take = record([faster], reference_s=10, duration_s=10, seed=1)
    assert not aligned(take).found


@pytest.mark.parametrize(
    ("reference", "recording", "reason"),
    [
        (np.zeros(0), np.ones(32_000), "the reference lasts 0.00 s, under 0.5 s"),
        (np.ones(32_000), np.ones(4800), "the recording lasts 0.30 s, under 0.5 s"),
        (np.zeros(32_000), np.ones(32_000), "the reference is silent: all of its 2.0 s are zero"),
        (np.ones(32_000), np.zeros(32_000), "the recording is silent: all of its 2.0 s are zero"),
    ],
)
def test_too_little_to_search_is_absent(reference: np.ndarray, recording: np.ndarray, reason: str) -> None:
    alignment = align(reference, recording, RATE_HZ)
    assert not alignment.found
    assert alignment.reason == reason


@pytest.mark.parametrize("sample_rate_hz", [4000, 8000, 44_100, 48_000, 96_000])
def test_every_sample_rate(sample_rate_hz: int) -> None:
    rng = np.random.default_rng(0)
    reference = rng.standard_normal(4 * sample_rate_hz).astype(np.float32)
    recording = np.roll(reference, round(0.1 * sample_rate_hz))
    alignment = align(reference, recording, sample_rate_hz)
    assert alignment.delay_s == pytest.approx(0.1, abs=5e-4)
    assert alignment.drift_ppm == 0.0


ODD: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "constant": (np.ones(80_000), np.ones(80_000)),
    "sine": (np.sin(0.1 * np.arange(80_000)), np.sin(0.1 * np.arange(80_000) + 1)),
    "impulse": (np.eye(1, 80_000, 5000)[0], np.eye(1, 80_000, 9000)[0]),
    "minute": (np.full(80_000, 1e-30), np.full(80_000, 1e-30)),
    "half a second": (np.eye(1, 8000, 5)[0], np.eye(1, 8000, 7)[0]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_signals_end_in_an_answer(name: str) -> None:
    reference, recording = ODD[name]
    alignment = align(reference, recording, RATE_HZ)
    assert alignment.reason
    assert aligned_reference(reference, alignment, 0, len(recording)).shape == recording.shape


def test_inputs_are_untouched_and_answers_repeat() -> None:
    take = record([even(0.5, 6)], reference_s=6, duration_s=6)
    reference, recording = take.reference.copy(), take.recording.copy()
    first, second = aligned(take), aligned(take)
    np.testing.assert_array_equal(take.reference, reference)
    np.testing.assert_array_equal(take.recording, recording)
    np.testing.assert_array_equal(first.stretches[0].positions, second.stretches[0].positions)


# ---- recorded cases


@cache
def _loaded(case: Path) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Facts, reference and recording of a case, at 8 kHz."""
    signals = []
    for name in ("reference.wav", "mic.wav"):
        signal, rate_hz = soundfile.read(case / name, dtype="float32")
        signals.append(soxr.resample(signal, rate_hz, 8000))
    return json.loads((case / "case.json").read_text()), signals[0], signals[1]


def _cases(corpus: Path) -> list[Path]:
    return sorted(p.parent for p in corpus.glob("*/*/case.json"))


def _song(case: Path) -> str:
    """What cases with the same played material have in common."""
    sources = _loaded(case)[0].get("sources") or [{}]
    return sources[0].get("reference") or case.name.split("_")[1]


def test_unrelated_pairs_are_absent(corpus: Path) -> None:
    """Every 25th recording-reference pair; all of them where UNPLAY_ALL_PAIRS is set."""
    pairs = [(a, b) for a, b in itertools.permutations(_cases(corpus), 2) if _song(a) != _song(b)]
    chosen = pairs if "UNPLAY_ALL_PAIRS" in os.environ else pairs[::25]
    assert len(pairs) > 1000
    scores = {}
    for recorded, played in chosen:
        finding = find(_loaded(played)[1], _loaded(recorded)[2], 8000.0)
        scores[recorded.name, played.name] = finding.best.score
    found = {pair: score for pair, score in scores.items() if score >= FOUND_SCORE}
    print(f"{len(scores)} unrelated pairs, highest score {max(scores.values()):.2f}")
    assert not found


def test_every_case_is_judged_right(corpus: Path) -> None:
    wrong = []
    for case in _cases(corpus):
        facts, reference, recording = _loaded(case)
        finding = find(reference, recording, 8000.0)
        if bool(finding.stretches) != facts["reference_audible"]:
            wrong.append((case.name, finding.best.score))
    assert not wrong


def _aligned_case(case: Path) -> tuple[dict[str, Any], Alignment]:
    """Facts of a case and its alignment, at its own sample rate."""
    reference, rate_hz = soundfile.read(case / "reference.wav", dtype="float32")
    recording, _ = soundfile.read(case / "mic.wav", dtype="float32")
    facts = json.loads((case / "case.json").read_text())
    return facts, align(np.asarray(reference, np.float32), np.asarray(recording, np.float32), rate_hz)


FIXED = [
    "drift_m120",
    "drift_p300",
    "drift_p50",
    "everything",
    "fullband_48k_drift_p60",
    "long_tail",
    "lti_speech_reference",
    "mp3_128k",
    "nonlinear",
    "offset_drift_p80",
]


@pytest.mark.parametrize("name", FIXED)
def test_clock_of_a_fixed_path(corpus: Path, name: str) -> None:
    facts, alignment = _aligned_case(corpus / "semisynthetic" / name)
    assert alignment.drift_ppm == pytest.approx(facts["drift_ppm"], abs=0.05)
    if facts["drift_ppm"] == 0:
        assert alignment.drift_ppm == 0.0
    # reverberant rooms: the first arrival is within a few milliseconds of the response's onset
    onset_s = facts["playback_offset_s"] + facts["rir_onset_s"]
    assert alignment.delay_s == pytest.approx(onset_s, abs=5e-3)


def test_four_seconds_of_an_mp3_under_a_talker(corpus: Path) -> None:
    _, alignment = _aligned_case(corpus / "semisynthetic" / "mp3_offset_drift_m40")
    assert abs(alignment.drift_ppm + 40) < 3 * alignment.drift_sigma_ppm
    # 0.5 ppm over these four seconds is a hundredth of a sample at either end
    assert alignment.drift_ppm == pytest.approx(-40, abs=0.5)


@pytest.mark.parametrize("name", ["move_continuous", "move_crossfade", "agc"])
def test_no_drift_while_the_path_moves(corpus: Path, name: str) -> None:
    _, alignment = _aligned_case(corpus / "semisynthetic" / name)
    assert abs(alignment.drift_ppm) < 1.0


@pytest.mark.parametrize("seed", range(3))
def test_a_reflection_stronger_than_the_direct_sound_does_not_shorten_the_stretch(seed: int) -> None:
    """The reflection is found first; its lag was taken off the end of what plays to the end."""
    scene = make_scene(seed, duration_s=8.0, reference_s=12.0, offset_s=0.1, drift_ppm=0.0)
    reflection = np.concatenate([np.zeros(288), scene.echo])[: len(scene.echo)]
    recording = scene.true_near_end + 0.3 * scene.echo + reflection
    alignment = align(scene.reference, recording, RATE_HZ)
    assert alignment.stretches[-1].stop == len(recording)


def on_a_clock(start: int, stop: int, delay_samples: float) -> Stretch:
    knots = np.array([0.0, 100_000.0])
    return Stretch(start, stop, knots, knots - delay_samples)


def test_what_the_grid_of_the_analysis_leaves_out_is_played_too() -> None:
    """At 48 kHz a stretch begins and stops at every sixth sample only."""
    n_reference, n_recording, rate_hz = 40_000, 60_000, 48_000
    found = on_a_clock(5004, 44_994, 4999.4)
    (whole,) = to_the_ends([found], n_reference, n_recording, rate_hz)
    assert (whole.start, whole.stop) == (5000, 45_000)
    # a player that was stopped or started in the middle of the music did so
    paused = on_a_clock(15_000, 30_000, 4999.4)
    assert to_the_ends([paused], n_reference, n_recording, rate_hz) == (paused,)
    # up to the recording's end, where the reference goes on beyond it
    (to_the_end,) = to_the_ends([found], n_reference, 44_996, rate_hz)
    assert to_the_end.stop == 44_996


def test_part_of_a_sample_later_is_the_same_sound_up_to_its_ends() -> None:
    """A filter undoes a delay of part of a sample only where what rings around the ends is there, too."""
    rng = np.random.default_rng(1)
    x = np.zeros(2000) + 1.0  # begins and ends with a step
    x += 0.1 * rng.standard_normal(2000)
    cut = on_a_clock(500, 2500, 499.5)
    (ringing,) = with_ringing([cut], len(x), 4000)
    assert (ringing.start, ringing.stop) == (500 - HALF_WIDTH, 2500 + HALF_WIDTH)
    frequencies = np.fft.rfftfreq(4096)
    undone = np.exp(-2j * np.pi * frequencies * 0.5)
    in_band = frequencies < 0.4
    truth = np.fft.rfft(np.concatenate([np.zeros(500), x, np.zeros(1500)]), 4096)
    error = {}
    for name, stretch in (("cut", cut), ("ringing", ringing)):
        spectrum = np.fft.rfft(on_recording_clock(x, [stretch], 0, 4000), 4096) * undone
        error[name] = np.sum(np.abs((spectrum - truth)[in_band]) ** 2) / np.sum(np.abs(truth[in_band]) ** 2)
    assert error["ringing"] < 1e-9 < 1e-5 < error["cut"]
