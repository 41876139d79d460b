"""From files to files: what is promised of the outputs and of the log."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import unplay
from unplay import cleaning
from unplay.audio import AudioFormat, sha256_of
from unplay.cleaning import blocks_of
from unplay.errors import BadInputError, NotConfidentError, ReferenceAbsentError
from unplay.metrics import si_sdr_db
from unplay.removal import plan
from unplay.removal.alignment import Alignment, Stretch
from unplay.virtual.scene import Scene, make_scene

RATE_HZ = 16_000


def clean(recording: str = "recording.wav", **settings) -> unplay.Result:
    return unplay.clean("reference.wav", recording, "near_end.wav", method="fir", force=True, **settings)


def read(path: str | Path) -> NDArray[np.float64]:
    return np.asarray(soundfile.read(path)[0], np.float64)


def test_takes_the_music_out(recorded: Scene) -> None:
    """One filter over eight seconds gains 20 dB on a still path; 12 leaves it a margin."""
    result = clean()
    near_end = read(result.near_end)
    before_db = si_sdr_db(recorded.true_near_end, recorded.recording)
    assert si_sdr_db(recorded.true_near_end, near_end) > before_db + 12
    assert result.alignment.drift_ppm == pytest.approx(80, abs=1)
    assert result.alignment.delay_s == pytest.approx(1.3, abs=0.03)


def test_drift_left_alone_defeats_the_filter(recorded: Scene) -> None:
    """80 ppm over seven seconds are nine samples."""
    assert clean(warp=False).alignment.drift_ppm == 0
    unwarped = read("near_end.wav")
    clean()
    warped = read("near_end.wav")
    truth = recorded.true_near_end
    assert si_sdr_db(truth, warped) > si_sdr_db(truth, unwarped) + 5


def test_strength_zero_changes_no_bit(recorded: Scene) -> None:
    clean(strength=0.0)
    np.testing.assert_array_equal(
        soundfile.read("near_end.wav", dtype="int16")[0], soundfile.read("recording.wav", dtype="int16")[0]
    )


@pytest.mark.parametrize(
    ("subtype", "n_channels", "rate_hz"),
    [("PCM_U8", 1, 16_000), ("PCM_16", 6, 16_000), ("PCM_24", 2, 96_000), ("FLOAT", 1, 44_100)],
)
def test_any_layout(subtype: str, n_channels: int, rate_hz: int, recorded: Scene) -> None:
    """Rate, channels, length and depth stay; the parts add up; every channel is cleaned."""
    channel = soxr.resample(recorded.recording, RATE_HZ, rate_hz)
    gains = np.linspace(0.4, 1.0, n_channels)
    soundfile.write("other.wav", channel[:, np.newaxis] * gains, rate_hz, subtype)
    result = clean("other.wav", removed="removed.wav")
    recording, _ = soundfile.read("other.wav", always_2d=True)
    near_end, _ = soundfile.read("near_end.wav", always_2d=True)
    removed, _ = soundfile.read("removed.wav", always_2d=True)
    kept = soundfile.info("near_end.wav")
    assert (kept.samplerate, kept.channels, kept.frames) == (rate_hz, n_channels, len(channel))
    assert kept.subtype == ("PCM_16" if subtype == "PCM_U8" else subtype)
    np.testing.assert_allclose(near_end + removed, recording, rtol=0, atol=2.0**-23)
    energies = np.sum(near_end**2, axis=0) / np.sum(recording**2, axis=0)
    assert np.all(energies < 0.5)
    assert {stage["channel"] for stage in result.stages} == set(range(n_channels))


@pytest.mark.parametrize(
    ("suffix", "container", "subtype"),
    [("flac", "FLAC", "PCM_16"), ("mp3", "MP3", None), ("ogg", "OGG", "VORBIS"), ("opus", "OGG", "OPUS")],
)
def test_any_container(suffix: str, container: str, subtype: str | None, recorded: Scene) -> None:
    soundfile.write(f"music.{suffix}", recorded.reference, RATE_HZ, subtype, format=container)
    soundfile.write(f"phone.{suffix}", recorded.recording, RATE_HZ, subtype, format=container)
    result = unplay.clean(f"music.{suffix}", f"phone.{suffix}", method="fir")
    assert str(result.near_end) == f"phone_near_end.{'flac' if suffix == 'flac' else 'wav'}"
    near_end = read(result.near_end)
    assert len(near_end) == len(recorded.recording)
    assert np.sum(near_end**2) < 0.5 * np.sum(recorded.recording**2)


def test_reference_at_another_rate(recorded: Scene) -> None:
    soundfile.write("reference.wav", soxr.resample(recorded.reference, RATE_HZ, 44_100), 44_100)
    near_end = read(clean().near_end)
    assert si_sdr_db(recorded.true_near_end, near_end) > 0


def test_same_input_same_bytes(recorded: Scene) -> None:
    settings = {"removed": "removed.wav", "log": "log.json"}
    names = ["near_end.wav", "removed.wav", "log.json"]
    clean(**settings)
    first = [sha256_of(name) for name in names]
    clean(**settings)
    assert [sha256_of(name) for name in names] == first


def test_long_recordings_are_cleaned_in_blocks(recorded: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three blocks do nearly as well as one; 6 dB are what a filter loses on a third of the data."""
    clean()
    whole = read("near_end.wav")
    monkeypatch.setattr(cleaning, "BLOCK_S", 2.5)
    result = clean()
    in_blocks = read("near_end.wav")
    assert len({stage["start_s"] for stage in result.stages}) == 3
    truth = recorded.true_near_end
    assert si_sdr_db(truth, in_blocks) > si_sdr_db(truth, whole) - 6


def test_what_was_played_before_the_recording_is_known(
    recorded: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recording begins in the middle of the music; its first tenth is as clean as the rest."""
    soundfile.write("cut.wav", recorded.recording[3 * RATE_HZ :], RATE_HZ)
    heard: list[np.ndarray] = []
    remove = plan.remove
    monkeypatch.setattr(plan, "remove", lambda x, *a, **k: heard.append(x) or remove(x, *a, **k))
    clean("cut.wav")
    n_past = round(cleaning.PAST_S * RATE_HZ)
    played = recorded.played[3 * RATE_HZ - n_past : 3 * RATE_HZ]
    lags = range(-500, 501)
    products = [np.dot(np.roll(played, lag), heard[0][:n_past]) for lag in lags]
    energies = np.dot(played, played), np.dot(heard[0][:n_past], heard[0][:n_past])
    assert max(products) > 0.95 * np.sqrt(np.prod(energies))


def test_without_reference_no_bit_changes(recorded: Scene) -> None:
    """Six seconds before the music begins."""
    quiet = 0.01 * np.random.default_rng(0).standard_normal(6 * RATE_HZ)
    soundfile.write("late.wav", np.concatenate([quiet, recorded.recording]), RATE_HZ)
    result = clean("late.wav")
    start = result.alignment.stretches[0].start - round(0.25 * RATE_HZ)
    assert start > 6 * RATE_HZ
    before, _ = soundfile.read("late.wav", stop=start, dtype="int16")
    after, _ = soundfile.read("near_end.wav", stop=start, dtype="int16")
    np.testing.assert_array_equal(after, before)


def test_reference_absent(recorded: Scene) -> None:
    other = make_scene(5, duration_s=8.0, reference_s=8.0)
    soundfile.write("reference.wav", other.reference, RATE_HZ)
    with pytest.raises(ReferenceAbsentError, match=r"reference\.wav is not in recording\.wav: ") as caught:
        clean(removed="removed.wav", log="log.json")
    assert caught.value.evidence
    assert sorted(path.name for path in Path().iterdir()) == ["log.json", "recording.wav", "reference.wav"]
    log = json.loads(Path("log.json").read_text())
    assert log["found"] is False
    assert log["error"] == str(caught.value)


def test_not_confident(recorded: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = plan.remove
    monkeypatch.setattr(plan, "remove", lambda *a, **k: replace(remove(*a, **k), confidence=0.2))
    with pytest.raises(NotConfidentError, match="could not be removed with confidence"):
        clean(log="log.json")
    assert not Path("near_end.wav").exists()
    log = json.loads(Path("log.json").read_text())
    assert log["found"] is True
    assert log["confidence"] < 0.5


def test_a_block_without_confidence_is_left_alone(recorded: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "BLOCK_S", 2.5)
    remove = plan.remove
    confidences = iter([0.9, 0.2, 0.8])
    monkeypatch.setattr(
        plan, "remove", lambda *a, **k: replace(remove(*a, **k), confidence=next(confidences))
    )
    result = clean()
    assert result.confidence == pytest.approx(0.85, abs=0.02)
    assert len(result.warnings) == 1
    assert "channel 1 was left as it is: nothing could be removed with confidence (0.20" in result.warnings[0]
    near_end, _ = soundfile.read("near_end.wav", start=5 * RATE_HZ, stop=5 * RATE_HZ + 4000, dtype="int16")
    before, _ = soundfile.read("recording.wav", start=5 * RATE_HZ, stop=5 * RATE_HZ + 4000, dtype="int16")
    np.testing.assert_array_equal(near_end, before)


def test_the_example_of_the_readme_runs(recorded: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write("song.flac", recorded.reference, RATE_HZ)
    for folder in ("recordings", "cleaned"):
        Path(folder).mkdir()
    Path("recording.wav").rename("recordings/one.wav")
    soundfile.write("recordings/two.wav", recorded.true_near_end, RATE_HZ)
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    exec(readme.split("```python\n")[1].split("```")[0], {})
    printed = capsys.readouterr().out
    assert "cleaned/one.wav: confidence " in printed
    assert "song.flac is not in recordings/two.wav: " in printed


def test_log(recorded: Scene) -> None:
    result = clean(removed="removed.wav", log="log.json")
    log = json.loads(Path("log.json").read_text())
    assert log == json.loads(json.dumps(result.log))
    assert log["schema_version"] == 1
    assert log["unplay_version"] == unplay.__version__
    assert log["command"] == (
        "unplay clean reference.wav recording.wav -o near_end.wav --removed removed.wav --log log.json "
        "--method fir --strength 1 --force"
    )
    for role, name in (("reference", "reference.wav"), ("recording", "recording.wav")):
        assert log["inputs"][role]["path"] == name
        assert log["inputs"][role]["sha256"] == sha256_of(name)
    for role, name in (("near_end", "near_end.wav"), ("removed", "removed.wav")):
        assert log["outputs"][role] == {"path": name, "sha256": sha256_of(name)}
    assert log["found"] is True
    assert log["delay_s"] == pytest.approx(1.3, abs=0.03)
    assert log["drift_ppm"] == pytest.approx(80, abs=1)
    assert log["drift_sigma_ppm"] >= 0
    assert [gap["start_s"] for gap in log["gaps"]] == [0]
    assert log["gaps"][0]["stop_s"] == pytest.approx(1.3, abs=0.05)
    assert len(log["removed_dbfs_per_s"]) == 8
    assert log["removed_dbfs_per_s"][0] is None
    assert log["removed_dbfs_per_s"][4] == pytest.approx(
        10 * np.log10(np.mean(recorded.echo[4 * RATE_HZ : 5 * RATE_HZ] ** 2)), abs=1
    )
    assert 0.5 <= log["confidence"] <= 1
    assert {"name", "used", "effect_db", "reason"} <= log["stages"][0].keys()
    assert log["warnings"] == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "magic"}, "There is no method 'magic'; choose one of auto, subtract, "),
        ({"strength": 1.5}, "The strength is 1.5, outside 0 to 1: choose one within."),
        ({"strength": float("nan")}, "The strength is nan, outside 0 to 1: choose one within."),
    ],
)
def test_settings(settings: dict, sentence: str, recorded: Scene) -> None:
    with pytest.raises(BadInputError) as caught:
        unplay.clean("reference.wav", "recording.wav", **settings)
    assert str(caught.value).startswith(sentence)


def stretch(start: int, stop: int) -> Stretch:
    ends = np.array([start, stop], float)
    return Stretch(start, stop, ends, ends - start)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 200)), min_size=1, max_size=4))
def test_blocks_cover_the_stretches_and_add_up_to_one(stretches: list[tuple[int, int]]) -> None:
    """In seconds; nothing else is touched, and every fade has its counterpart."""
    rate_hz, n_samples = 1000, 300_000
    bounds = [(1000 * start, min(n_samples, 1000 * (start + length))) for start, length in stretches]
    alignment = Alignment(True, "", tuple(stretch(*bound) for bound in bounds))
    total = np.zeros(n_samples)
    position = 0
    for block in blocks_of(alignment, AudioFormat(rate_hz, 1, n_samples, "WAV", "PCM_16"), cleaning.BLOCK_S):
        assert block.start + block.n_fade_in >= position
        assert block.stop - block.start <= (cleaning.BLOCK_S + 2 * cleaning.OVERLAP_S) * rate_hz
        total[block.start : block.stop] += block.window()[:, 0]
        position = block.stop
    for start, stop in bounds:
        np.testing.assert_allclose(total[start:stop], 1, atol=1e-12)
    assert total.max() <= 1 + 1e-12
    outside = np.ones(n_samples, bool)
    for start, stop in bounds:
        outside[max(0, start - 200) : stop + 2000] = False
    assert not total[outside].any()
