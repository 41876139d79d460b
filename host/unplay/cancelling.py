"""The device's canceller from files to files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unplay.audio import AudioFormat, AudioReader, AudioWriter, WholeFile, is_same_file
from unplay.errors import BadInputError
from unplay.metrics import echo_reduction_db
from unplay.removal.canceller import FULL_SCALE, Samples16, as_samples16, cancel, cancel_with_trace
from unplay_shared.settings import complete, partitions, ram_bytes

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Cancelling:
    """What was done. reduction_db: recording over residual, of which a talker is part.

    exact: both files were mono at the canceller's rate, so that it saw their very samples (16 bits).
    """

    reference: str
    recording: str
    residual: str
    trace: str | None
    settings: dict[str, Any]
    n_partitions: int
    ram_bytes: int
    n_samples: int
    reduction_db: float | None
    exact: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def cancel_files(
    reference: Path,
    recording: Path,
    residual: Path,
    *,
    settings: Mapping[str, Any],
    delay_s: float = 0.0,
    trace: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Cancelling:
    """Run the canceller of a device over two files and write what is left: mono, 16 bits, at its rate.

    delay_s: when the recording hears the reference begin, less than the tail early; a device knows it.
    trace: an .npz file for what the canceller knew over time. Raises BadInputError.
    """
    try:
        complete_settings = complete(dict(settings))
    except ValueError as error:
        raise BadInputError(f"{error}.") from error
    outputs = [path for path in (residual, trace) if path is not None]
    _check_outputs(outputs, [reference, recording], force)
    rate_hz = complete_settings["rate_hz"]
    played, reference_exact = _read(reference, rate_hz)
    recorded, recording_exact = _read(recording, rate_hz)
    played = _delayed(played, round(delay_s * rate_hz))
    with contextlib.ExitStack() as stack:
        audio_format = AudioFormat(rate_hz, 1, len(recorded), "WAV", "PCM_16")
        writer = stack.enter_context(AudioWriter(residual, audio_format))
        if trace is None:
            left = cancel(played, recorded, settings, progress=progress)
        else:
            sink = stack.enter_context(WholeFile(trace))
            left, known = cancel_with_trace(played, recorded, settings, progress=progress)
            np.savez_compressed(sink, **asdict(known))
            sink.sync()
            sink.publish()
        writer.write(left[:, None] / FULL_SCALE)
    heard = bool(recorded.any() and left.any())
    return Cancelling(
        reference=str(reference),
        recording=str(recording),
        residual=str(residual),
        trace=None if trace is None else str(trace),
        settings=complete_settings,
        n_partitions=partitions(complete_settings),
        ram_bytes=ram_bytes(complete_settings),
        n_samples=len(recorded),
        reduction_db=echo_reduction_db(recorded.astype(float), left.astype(float)) if heard else None,
        exact=reference_exact and recording_exact,
    )


def _check_outputs(outputs: list[Path], inputs: list[Path], force: bool) -> None:
    for k, output in enumerate(outputs):
        if any(is_same_file(output, path) for path in inputs):
            raise BadInputError(f"{output} would be written over an input: name another output.")
        if any(is_same_file(output, other) for other in outputs[:k]):
            raise BadInputError(f"{output} is named for two outputs: name one for each.")
        if output.is_dir():
            raise BadInputError(f"{output} is a folder: name a file in it.")
        if output.exists() and not force:
            raise BadInputError(f"{output} exists already: name another output, or add --force.")


def _read(path: Path, rate_hz: int) -> tuple[Samples16, bool]:
    """A file as a device would have it, and whether those are its very samples."""
    with AudioReader(path) as reader:
        samples = reader.mono(rate_hz).astype(np.float64)
        exact = reader.format.sample_rate_hz == rate_hz and reader.format.n_channels == 1
    rounded = as_samples16(samples)
    return rounded, exact and bool(np.all(rounded == samples * FULL_SCALE))


def _delayed(x: Samples16, n_samples: int) -> Samples16:
    return np.concatenate([np.zeros(n_samples, np.int16), x]) if n_samples >= 0 else x[-n_samples:]
