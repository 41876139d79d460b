"""What the page draws: spectrograms as PNG, curves as the points of SVG paths."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]

COLUMNS = 900
"""Points in time of a waveform or spectrogram, at most."""

ROWS = 160
"""Points in frequency of a spectrogram."""

RANGE_DB = 80.0
"""From the loudest point down to black."""

FRAME_S = 0.046


def spectrogram_db(signal: FloatArray, sample_rate_hz: int) -> NDArray[np.float32]:
    """Power (ROWS, ≤ COLUMNS) in dB of a signal (n_samples,), the highest frequency first.

    Frames are averaged until there are no more than COLUMNS of them, and bins to ROWS.
    """
    stft = Stft(1 << round(np.log2(FRAME_S * sample_rate_hz)))
    n_frames = stft.n_frames(len(signal))
    columns = min(COLUMNS, n_frames)
    total = np.zeros((columns, ROWS))
    counts = np.zeros(columns)
    row_of = np.minimum(np.arange(stft.n_bins) * ROWS // stft.n_bins, ROWS - 1)
    per_row = np.bincount(row_of, minlength=ROWS).clip(1)
    for frames, spectra in stft.forward_in_pieces(signal[None]):
        power = np.abs(spectra[0]) ** 2
        rows = np.add.reduceat(power, np.searchsorted(row_of, np.arange(ROWS)), axis=1) / per_row
        column_of = np.arange(frames.start, frames.stop) * columns // n_frames
        np.add.at(total, column_of, rows)
        counts += np.bincount(column_of, minlength=columns)
    return (10 * np.log10(total / counts[:, None] + 1e-12)).T[::-1].astype(np.float32)


def level_per_second_db(signal: FloatArray, sample_rate_hz: int) -> NDArray[np.float64]:
    """Level of each second of a signal (n_samples,), the last one perhaps shorter, in dB of full scale."""
    begins = np.arange(0, len(signal), sample_rate_hz)
    energies = np.add.reduceat(signal.astype(np.float64) ** 2, begins)
    return 10 * np.log10(energies / np.diff(np.append(begins, len(signal))) + 1e-12)


def png(levels_db: NDArray[np.floating], top_db: float) -> str:
    """A picture as a data URI: black RANGE_DB below top_db, bright at it."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(
        file,
        levels_db,
        vmin=top_db - RANGE_DB,
        vmax=top_db,
        cmap="magma",
        format="png",
        metadata={"Software": "unplay"},
    )
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def waveform(signal: FloatArray, full_scale: float) -> str:
    """The SVG path, in a box of COLUMNS by 100, around all samples of a signal (n_samples,)."""
    edges = np.linspace(0, len(signal), min(COLUMNS, len(signal)), endpoint=False).astype(int)
    top = 50 - 50 * np.maximum.reduceat(signal, edges) / full_scale
    bottom = 50 - 50 * np.minimum.reduceat(signal, edges) / full_scale
    x = np.arange(len(edges)) * (COLUMNS / len(edges))
    return path(np.concatenate([x, x[::-1]]), np.concatenate([top - 0.2, bottom[::-1] + 0.2])) + "Z"


def path(x: Sequence[float] | FloatArray, y: Sequence[float] | FloatArray) -> str:
    """An SVG path through points."""
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return f"M{points}"
