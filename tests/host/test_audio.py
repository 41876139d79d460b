"""Audio files: exact in and out, at any depth, in any order."""

from __future__ import annotations

from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from unplay import audio
from unplay.audio import AudioFormat, AudioReader, AudioWriter, divide, load_mono, sha256_of
from unplay.metrics import energy_ratio_db

EXACT = [
    ("wav", "WAV", "PCM_U8"),
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "PCM_24"),
    ("wav", "WAV", "PCM_32"),
    ("wav", "WAV", "FLOAT"),
    ("wav", "WAV", "DOUBLE"),
    ("wav", "WAV", "ULAW"),
    ("wav", "WAVEX", "PCM_24"),
    ("wav", "RF64", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("flac", "FLAC", "PCM_24"),
    ("aiff", "AIFF", "PCM_24"),
]
LOSSY = [("mp3", "MP3", "MPEG_LAYER_III"), ("ogg", "OGG", "VORBIS"), ("opus", "OGG", "OPUS")]


def noise(n_samples: int, n_channels: int = 1, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((n_samples, n_channels))


def test_reads_what_was_written(tmp_path: Path) -> None:
    for n_channels in (1, 2, 6):
        for suffix, container, subtype in EXACT:
            path = tmp_path / f"sound.{suffix}"
            soundfile.write(path, noise(30_000, n_channels), 44_100, subtype, format=container)
            expected, _ = soundfile.read(path, always_2d=True)
            with AudioReader(path) as reader:
                assert reader.format == AudioFormat(44_100, n_channels, 30_000, container, subtype)
                np.testing.assert_array_equal(reader.read(0, 30_000), expected)
                assert reader.warnings == []


@pytest.mark.parametrize(("suffix", "container", "subtype"), LOSSY)
def test_lossy_files_read_alike_in_any_order(
    suffix: str, container: str, subtype: str, tmp_path: Path
) -> None:
    """Seeking in MP3 and Ogg files lands elsewhere, by as much as the signal."""
    path = tmp_path / f"sound.{suffix}"
    tone = 0.3 * np.sin(0.05 * np.arange(100_000))[:, np.newaxis]
    soundfile.write(path, tone, 48_000, subtype, format=container)
    with AudioReader(path) as reader:
        assert reader.format.n_samples == 100_000
        whole = reader.read(0, 100_000)
        assert energy_ratio_db(tone[:, 0], whole[:, 0] - tone[:, 0]) > 20
        for start, stop in [(0, 10), (5_000, 40_000), (39_000, 39_500), (90_000, 100_000), (1, 20_000)]:
            np.testing.assert_array_equal(reader.read(start, stop), whole[start:stop])


@pytest.fixture(scope="module")
def stereo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "stereo.wav"
    soundfile.write(path, noise(30_000, 2), 16_000)
    return path


@given(pieces=st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 30_000)), min_size=1, max_size=6))
def test_reading_in_pieces(pieces: list[tuple[int, int]], stereo_file: Path) -> None:
    whole, _ = soundfile.read(stereo_file)
    with AudioReader(stereo_file) as reader:
        for piece in pieces:
            start, stop = sorted(piece)
            np.testing.assert_array_equal(reader.read(start, stop), whole[start:stop])


def test_reading_beyond_the_end(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(100), 16_000)
    with AudioReader(tmp_path / "a.wav") as reader, pytest.raises(ValueError, match="not within the 100"):
        reader.read(0, 101)


def test_output_depths() -> None:
    """Every depth is kept but 8 bits and companding (to 16) and lossy codecs (to 24)."""
    kept = ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]
    assert [AudioFormat(16_000, 1, 1, "WAV", subtype).output_subtype for subtype in kept] == kept
    for subtype in ("PCM_U8", "ULAW", "ALAW", "IMA_ADPCM"):
        assert AudioFormat(16_000, 1, 1, "WAV", subtype).output_subtype == "PCM_16"
    for _, container, subtype in LOSSY:
        assert AudioFormat(16_000, 1, 1, container, subtype).output_subtype == "PCM_24"


@pytest.mark.parametrize("n_channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("name", "subtype"),
    [("out.wav", subtype) for subtype in ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")]
    + [("out.flac", subtype) for subtype in ("PCM_16", "PCM_24")],
)
def test_parts_add_up_on_disk(name: str, n_channels: int, subtype: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", noise(20_000, n_channels), 44_100, subtype)
    removed = noise(20_000, n_channels, seed=1)
    with AudioReader(tmp_path / "in.wav") as reader:
        recording = reader.read(0, 20_000)
        with (
            AudioWriter(tmp_path / name, reader.format) as near_end,
            AudioWriter(tmp_path / f"removed_{name}", reader.format) as rest,
        ):
            for writer, part in zip((near_end, rest), divide(recording, removed, near_end.bits), strict=True):
                writer.write(part)
    parts = [soundfile.read(tmp_path / file, always_2d=True)[0] for file in (name, f"removed_{name}")]
    assert soundfile.info(tmp_path / name).subtype == subtype
    if subtype.startswith("PCM"):
        np.testing.assert_array_equal(sum(parts), recording)
    else:
        rounding = 2.0**-23 if subtype == "FLOAT" else 2.0**-50
        np.testing.assert_allclose(sum(parts), recording, rtol=0, atol=rounding)
    np.testing.assert_allclose(parts[1], removed, rtol=0, atol=2.0**-15)


WILD = st.floats(-2, 2, width=32)


@given(
    hnp.arrays(np.float64, (40, 2), elements=WILD),
    hnp.arrays(np.float64, (40, 2), elements=WILD),
    st.sampled_from([16, 24, 32]),
)
def test_integer_parts_add_up_and_never_wrap(recording: np.ndarray, removed: np.ndarray, bits: int) -> None:
    """Even where the removed part is louder than full scale."""
    scale = 2.0 ** (bits - 1)
    on_grid = np.clip(np.rint(recording * scale), -scale, scale - 1) / scale
    near_end, taken = divide(recording, removed, bits)
    np.testing.assert_array_equal(near_end + taken, on_grid)
    for part in (near_end, taken):
        np.testing.assert_array_equal(part * scale, np.rint(part * scale))
        assert part.min() >= -1
        assert part.max() <= 1 - 1 / scale


@pytest.mark.parametrize("bits", [16, 24, 32, None])
def test_nothing_removed_changes_no_bit(bits: int | None) -> None:
    scale = 2.0 ** ((bits or 40) - 1)
    recording = np.rint(noise(1000) * scale) / scale
    near_end, taken = divide(recording, np.zeros_like(recording), bits)
    np.testing.assert_array_equal(near_end, recording)
    assert not taken.any()


def test_float_files_are_the_same_bytes_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libsndfile puts the time of writing into the PEAK chunk."""
    with AudioWriter(tmp_path / "a.wav", AudioFormat(16_000, 1, 100, "WAV", "FLOAT")) as writer:
        writer.write(noise(100).astype(np.float32).astype(np.float64))
    content = (tmp_path / "a.wav").read_bytes()
    peak = content.find(b"PEAK")
    assert peak > 0
    assert content[peak + 12 : peak + 16] == bytes(4)
    assert sha256_of(tmp_path / "a.wav") == sha256_of(tmp_path / "a.wav")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("what was there before")

    def write_and_fail() -> None:
        with AudioWriter(tmp_path / "a.wav", AudioFormat(16_000, 1, 100, "WAV", "PCM_16")) as writer:
            writer.write(np.zeros((50, 1)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    assert (tmp_path / "a.wav").read_text() == "what was there before"


def test_large_wav_files_are_rf64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "WAV_LIMIT_BYTES", 1000)
    with AudioWriter(tmp_path / "a.wav", AudioFormat(16_000, 1, 501, "WAV", "PCM_16")) as writer:
        writer.write(np.zeros((501, 1)))
    assert soundfile.info(tmp_path / "a.wav").format == "RF64"
    assert soundfile.info(tmp_path / "a.wav").frames == 501


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44_100, 48_000), (48_000, 16_000), (8_000, 44_100)])
def test_resampled_mono(from_hz: int, to_hz: int, tmp_path: Path) -> None:
    """A tone keeps its phase: no delay comes in. 75 dB is what soxr reaches, less 4."""

    def tone(rate_hz: int) -> np.ndarray:
        seconds = np.arange(2 * rate_hz) / rate_hz
        return 0.5 * np.sin(2 * np.pi * 1000 * seconds) * np.hanning(len(seconds))

    soundfile.write(tmp_path / "a.wav", np.stack([tone(from_hz), tone(from_hz)], axis=1), from_hz, "FLOAT")
    resampled = load_mono(tmp_path / "a.wav", to_hz)
    assert resampled.shape == (2 * to_hz,)
    assert energy_ratio_db(tone(to_hz), resampled - tone(to_hz)) > 75


def test_clipped_samples_are_counted(tmp_path: Path) -> None:
    """Runs of two or more; a single sample at full scale is no clipping."""
    samples = noise(20_000, 2)
    samples[100, 0] = 1
    samples[200:205, 0] = 1
    samples[300:302, 1] = -1
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    with AudioReader(tmp_path / "a.wav") as reader:
        assert reader.survey.n_clipped == 7


def test_damaged_flac_is_used_up_to_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(100_000), 16_000)
    whole, _ = soundfile.read(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with AudioReader(path) as reader:
        n_samples = reader.format.n_samples
        assert 30_000 < n_samples < 55_000
        assert "6.25 s" in reader.warnings[0]
        np.testing.assert_array_equal(reader.read(0, n_samples)[:, 0], whole[:n_samples])


def test_a_wav_of_unknown_size_is_no_lie(tmp_path: Path) -> None:
    """Programs that write to a pipe put the largest size there is."""
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(10_000), 16_000)
    content = bytearray(path.read_bytes())
    content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with AudioReader(path) as reader:
        assert (reader.format.n_samples, reader.warnings) == (10_000, [])


@pytest.mark.parametrize("trailer", [b"LIST\x04\0\0\0abcd", b"TAG" + b"x" * 125, bytes(64)])
def test_what_follows_the_samples_is_no_sound(trailer: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(10_000), 16_000)
    path.write_bytes(path.read_bytes() + trailer)
    with AudioReader(path) as reader:
        assert (reader.format.n_samples, reader.warnings) == (10_000, [])
