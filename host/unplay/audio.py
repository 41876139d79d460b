"""Audio files: read by the block at any length, written whole or not at all.

Samples are float64 with full scale at ±1, which is exact for every integer and float depth. Files are
only ever decoded from the beginning, because MP3 and Ogg files do not seek to the exact sample.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import math
import os
import stat
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from unplay.errors import BadInputError
from unplay.riff import RepairedFile, find_data_chunk

if TYPE_CHECKING:
    from typing_extensions import Buffer

Samples = NDArray[np.float64]

CHUNK = 8192
"""Samples decoded at a time. Where a file is damaged, up to this many before the damage are lost."""

SAMPLE_RATES_HZ = (4_000, 768_000)
MAX_CHANNELS = 64
MAX_LEVEL = 1e6
"""120 dB above full scale. Beyond it a float file does not hold sound."""

WAV_LIMIT_BYTES = 4_000_000_000
"""A WAV header counts bytes in 32 bits; RF64 takes over a little below that."""

_BITS = {
    "PCM_S8": 8,
    "PCM_U8": 8,
    "PCM_16": 16,
    "PCM_24": 24,
    "PCM_32": 32,
    "ULAW": 16,
    "ALAW": 16,
    "IMA_ADPCM": 16,
    "MS_ADPCM": 16,
    "GSM610": 16,
}


@dataclass(frozen=True)
class AudioFormat:
    """What a file holds; `container` and `subtype` as libsndfile calls them."""

    sample_rate_hz: int
    n_channels: int
    n_samples: int
    container: str
    subtype: str

    @property
    def duration_s(self) -> float:
        return self.n_samples / self.sample_rate_hz

    @property
    def output_subtype(self) -> str:
        """The depth for what is left of such a recording.

        Its own, with two exceptions. 8-bit and companded recordings give 16 bits: what is left is often
        weaker than their rounding. Lossy codecs have no depth; 24 bits are below their own noise.
        """
        if self.subtype in ("FLOAT", "DOUBLE"):
            return self.subtype
        return f"PCM_{max(16, _BITS.get(self.subtype, 24))}"


@dataclass(frozen=True)
class Survey:
    """What one pass over a file found.

    The highest magnitude, the energy of each channel (n_channels,), and how many samples lie in runs
    of two or more at full scale.
    """

    peak: float
    energies: Samples
    n_clipped: int


class AudioReader:
    """An audio file that has been read through once and found good.

    `warnings` are sentences on what the user should know. Raises BadInputError where there is nothing
    to work with: no such file, not audio, no samples, samples that are not numbers.
    """

    format: AudioFormat
    survey: Survey

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.warnings: list[str] = []
        _check_file(self.path)
        self._data_chunk = find_data_chunk(self.path)
        with self._open() as file:
            _check_header(self.path, file)
            self.format = AudioFormat(file.samplerate, file.channels, file.frames, file.format, file.subtype)
        n_promised, n_samples = self.format.n_samples, self._examine()
        self._warn_of_length(n_promised, n_samples)
        self._warn_of_clipping(n_samples)
        self.format = replace(self.format, n_samples=n_samples)
        self._restart()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._chunks.close()

    def read(self, start: int, stop: int) -> Samples:
        """Samples [start, stop) as (stop − start, n_channels); fastest when calls move forward."""
        if not 0 <= start <= stop <= self.format.n_samples:
            raise ValueError(f"[{start}, {stop}) is not within the {self.format.n_samples} samples")
        if start < self._kept_from:
            self._restart()
        pieces = [self._kept]
        n_read = self._kept_from + len(self._kept)
        while n_read < stop:
            chunk = next(self._chunks)
            if n_read <= start:
                pieces.clear()
                self._kept_from = n_read
            pieces.append(chunk)
            n_read += len(chunk)
        self._kept = np.concatenate(pieces)[max(0, start - self._kept_from) :]
        self._kept_from = max(start, self._kept_from)
        return self._kept[start - self._kept_from : stop - self._kept_from].copy()

    def mono(self, sample_rate_hz: int, channel: int | None = None) -> NDArray[np.float32]:
        """The whole file as (n_samples,) at another rate: one channel, or the mean of all."""
        resampler = soxr.ResampleStream(self.format.sample_rate_hz, sample_rate_hz, 1, "float32", "VHQ")
        n_expected = self.format.n_samples * sample_rate_hz // self.format.sample_rate_hz + 1
        out = np.zeros(n_expected + CHUNK, np.float32)
        n_out = 0
        n_channels = self.format.n_channels
        weights = np.full(n_channels, 1 / n_channels) if channel is None else np.eye(n_channels)[channel]
        for chunk in self._decode():
            resampled = resampler.resample_chunk((chunk @ weights).astype(np.float32))
            out[n_out : n_out + len(resampled)] = resampled
            n_out += len(resampled)
        resampled = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        out[n_out : n_out + len(resampled)] = resampled
        return out[: n_out + len(resampled)]

    @contextlib.contextmanager
    def _open(self) -> Generator[soundfile.SoundFile, None, None]:
        chunk = self._data_chunk
        with contextlib.ExitStack() as stack:
            source: Path | RepairedFile = self.path
            if chunk is not None and chunk.present_bytes > chunk.promised_bytes:
                source = stack.enter_context(RepairedFile(self.path, chunk))
            try:
                file = stack.enter_context(_ForwardFile(source))
            except (soundfile.LibsndfileError, TypeError) as error:
                raise BadInputError(
                    f"{self.path} is not audio that can be read; WAV, FLAC, MP3, Ogg and Opus can: "
                    "convert it to one of them."
                ) from error
            yield file

    def _decode(self) -> Generator[Samples, None, None]:
        """Chunks (n, n_channels) from the beginning to the end or to where the file is damaged."""
        with self._open() as file:
            while True:
                try:
                    chunk = np.asarray(file.read(CHUNK, always_2d=True), np.float64)
                except soundfile.LibsndfileError:
                    return
                if not len(chunk):
                    return
                yield chunk

    def _restart(self) -> None:
        self._chunks = self._decode()
        self._kept = np.zeros((0, self.format.n_channels))
        self._kept_from = 0

    def _examine(self) -> int:
        """Read the file through; returns the number of samples there are."""
        n_channels = self.format.n_channels
        bits = _BITS.get(self.format.subtype)
        top = 1.0 if bits is None else 1 - 2.0 ** (1 - bits)
        energies = np.zeros(n_channels)
        peak = 0.0
        n_samples = n_clipped = n_bad = first_bad = 0
        for chunk in self._decode():
            highest, lowest = float(chunk.max()), float(chunk.min())
            if not math.isfinite(highest - lowest):
                bad = ~np.isfinite(chunk).all(axis=1)
                first_bad = first_bad if n_bad else n_samples + int(bad.argmax())
                n_bad += int(bad.sum())
            elif highest >= top or lowest <= -1:
                n_clipped += _in_runs((chunk >= top) | (chunk <= -1))
            peak = max(peak, highest, -lowest)
            energies += np.einsum("nc,nc->c", chunk, chunk)
            n_samples += len(chunk)
        self._check_samples(n_samples, n_bad, first_bad, peak)
        self.survey = Survey(peak, energies, n_clipped)
        return n_samples

    def _check_samples(self, n_samples: int, n_bad: int, first_bad: int, peak: float) -> None:
        if n_samples == 0:
            raise BadInputError(
                f"{self.path} holds no samples; the recorder may have stopped before it began: "
                "look for another copy."
            )
        if n_bad:
            raise BadInputError(
                f"{self.path} holds samples that are not numbers (NaN or infinite), {n_bad} of them, the "
                f"first at {first_bad / self.format.sample_rate_hz:.3f} s; the program that wrote it failed "
                "there: export it again."
            )
        if peak > MAX_LEVEL:
            raise BadInputError(
                f"{self.path} reaches {peak:.3g} where full scale is 1; its header may name the wrong "
                "sample format: export it again."
            )

    def _warn_of_length(self, n_promised: int, n_samples: int) -> None:
        chunk = self._data_chunk
        rate = n_samples / (chunk.present_bytes or 1) if chunk else 1.0
        if chunk and chunk.promised_bytes != chunk.present_bytes:
            n_promised = round(chunk.promised_bytes * rate)
        # the length of an MP3 file is an estimate within a few packets
        if abs(n_promised - n_samples) > 0.1 * self.format.sample_rate_hz:
            self.warnings.append(
                f"{self.path} holds {n_samples / self.format.sample_rate_hz:.2f} s of sound where its "
                f"header promises {n_promised / self.format.sample_rate_hz:.2f} s: it was cut short or is "
                "damaged; what is there is used."
            )

    def _warn_of_clipping(self, n_samples: int) -> None:
        n_clipped = self.survey.n_clipped
        if n_clipped:
            share = 100 * n_clipped / (n_samples * self.format.n_channels)
            self.warnings.append(
                f"{self.path} is clipped: {_count(n_clipped, 'sample')} ({share:.2g} %) at full scale, "
                "where less can be removed."
            )


class AudioWriter:
    """An audio file that appears under its name when all of it is written, and not before.

    It has the sample rate, channels and depth that fit what is left of a recording of `audio_format`.
    Leaving the `with` block by an exception leaves nothing. Raises BadInputError where the file cannot
    be made or the disk is full.
    """

    def __init__(self, path: str | Path, audio_format: AudioFormat) -> None:
        path = Path(path)
        subtype = audio_format.output_subtype
        container = _output_container(path, audio_format)
        self.bits = _BITS.get(subtype)
        rate_hz, n_channels = audio_format.sample_rate_hz, audio_format.n_channels
        self.path = path
        self._sink = WholeFile(path)
        try:
            self._file = soundfile.SoundFile(self._sink, "w", rate_hz, n_channels, subtype, format=container)
        except (soundfile.LibsndfileError, ValueError) as error:
            self._sink.__exit__()
            raise BadInputError(
                f"{path}: {container} cannot hold {_count(n_channels, 'channel')} of {subtype} at {rate_hz} "
                "Hz: let the name end in .wav."
            ) from error

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._sink:
            self._file.close()
            if kind is None:
                self.finish()
                self._sink.publish()

    def write(self, samples: Samples) -> None:
        """Append samples (n, n_channels) that lie on the grid of the depth (`divide` puts them there)."""
        if self.bits is None:
            self._file.write(samples)
        else:
            self._file.write((samples * 2.0**31).astype(np.int32))
        self._sink.check()

    def finish(self) -> None:
        """Everything on the disk, the name not yet taken. Several files finish before one is published."""
        self._file.close()
        self._forget_time()
        self._sink.sync()

    @property
    def partial(self) -> Path:
        """Where the file is until it is published."""
        return self._sink.partial

    def sha256(self) -> str:
        """The SHA-256 of the finished file."""
        return sha256_of(self.partial)

    def _forget_time(self) -> None:
        """Zero the time of writing that the PEAK chunk of a float WAV file holds."""
        self._sink.seek(0)
        chunk = self._sink.read(256).find(b"PEAK")
        if chunk >= 0:
            self._sink.seek(chunk + 12)
            self._sink.write(bytes(4))


class WholeFile(io.FileIO):
    """A file beside its target that takes the target's name when it is whole.

    An exception cannot pass through libsndfile: `write` keeps it and pretends success, `check` raises it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._error: OSError | None = None
        try:
            super().__init__(self.partial, "x+")
        except OSError as error:
            raise self._failure(error) from error

    def write(self, data: Buffer) -> int:
        rest = memoryview(data)
        try:
            while rest and self._error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._error = error
        return memoryview(data).nbytes

    def check(self) -> None:
        """Raise what went wrong while writing."""
        if self._error is not None:
            raise self._failure(self._error) from self._error

    def sync(self) -> None:
        """Every byte on the disk."""
        self.check()
        try:
            os.fsync(self.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def publish(self) -> None:
        """Take the target's name."""
        self.close()
        try:
            os.replace(self.partial, self.path)
        except OSError as error:
            raise self._failure(error) from error

    def __exit__(self, *_: object) -> None:
        """Leave nothing but what was published."""
        self.close()
        self.partial.unlink(missing_ok=True)

    def _failure(self, error: OSError) -> BadInputError:
        if error.errno == errno.ENOSPC:
            advice = "make room or name another place"
        elif isinstance(error, FileNotFoundError):
            advice = "make the folder first"
        else:
            advice = "name a place where you may write"
        return BadInputError(f"{self.path} cannot be written ({error.strerror}): {advice}.")


def write_whole(path: Path, data: bytes) -> None:
    """A file that is there with all of it, or not at all. Raises BadInputError."""
    with WholeFile(path) as file:
        file.write(data)
        file.sync()
        file.publish()


def divide(recording: Samples, removed: Samples, bits: int | None) -> tuple[Samples, Samples]:
    """Near end and removed part that add up to the recording, both within full scale.

    With an integer depth the sum is exact on its grid (a recording that is not on it is rounded to
    it first). In float it is exact within the rounding of one sample. All are (n, n_channels).
    """
    if bits is None:
        near_end = (recording - removed).astype(np.float32).astype(np.float64)
        return np.where(removed == 0, recording, near_end), np.where(removed == 0, 0.0, recording - near_end)
    scale = 2.0 ** (bits - 1)
    whole = np.clip(np.rint(recording * scale), -scale, scale - 1)
    near_end = np.rint((recording - removed) * scale)
    near_end = np.clip(
        near_end, np.maximum(-scale, whole - (scale - 1)), np.minimum(scale - 1, whole + scale)
    )
    return near_end / scale, (whole - near_end) / scale


def load_mono(path: str | Path, sample_rate_hz: int) -> NDArray[np.float32]:
    """The mean of all channels of a file, (n_samples,), resampled."""
    with AudioReader(path) as reader:
        return reader.mono(sample_rate_hz)


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, or would if it existed."""
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()


class _ForwardFile(soundfile.SoundFile):
    """A file that is only read onwards: soundfile seeks after each read of a seekable one."""

    def seekable(self) -> bool:
        return False


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BadInputError(f"{path} cannot be opened ({error.strerror}): check the path.") from error
    if stat.S_ISDIR(mode):
        raise BadInputError(f"{path} is a folder: name one audio file in it.")
    if not stat.S_ISREG(mode):
        raise BadInputError(
            f"{path} is not a regular file, and it must be read more than once: save it first."
        )
    if path.stat().st_size == 0:
        raise BadInputError(f"{path} is empty (0 bytes); its copy or download may have failed: get it again.")
    if not os.access(path, os.R_OK):
        raise BadInputError(f"{path} may not be read by you: change its permissions.")


def _check_header(path: Path, file: soundfile.SoundFile) -> None:
    low_hz, high_hz = SAMPLE_RATES_HZ
    if not low_hz <= file.samplerate <= high_hz:
        raise BadInputError(
            f"{path} says its sample rate is {file.samplerate} Hz, outside {low_hz} to {high_hz} Hz; its "
            "header may be damaged: export it again."
        )
    if file.channels > MAX_CHANNELS:
        raise BadInputError(
            f"{path} says it has {file.channels} channels, more than {MAX_CHANNELS}; its header may be "
            "damaged: export it again, or fewer channels at a time."
        )


def _in_runs(full: NDArray[np.bool_]) -> int:
    """How many of (n, n_channels) are true with a true one before or after them."""
    pairs = full[1:] & full[:-1]
    in_runs = np.zeros_like(full)
    in_runs[1:] |= pairs
    in_runs[:-1] |= pairs
    return int(in_runs.sum())


def _output_container(path: Path, audio_format: AudioFormat) -> str:
    suffix = path.suffix.lower()
    if suffix == ".flac":
        return "FLAC"
    if suffix != ".wav":
        raise BadInputError(f"{path}: what is written is exact, so its name must end in .wav or .flac.")
    n_bytes = (
        audio_format.n_samples * audio_format.n_channels * _BITS.get(audio_format.output_subtype, 64) // 8
    )
    if n_bytes > WAV_LIMIT_BYTES:
        return "RF64"
    return "WAV" if audio_format.n_channels <= 2 else "WAVEX"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
