"""What else one would use: measured in the same run as unplay, never remembered.

Both peers are given what they can't find by themselves, the delay, from the case's truth: the reference
starts to sound at the first arrival, to the whole sample. Neither can undo drift.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
from cases import Case, Signal
from numpy.typing import NDArray

from unplay.removal.baselines import fir

SPEEX_LIBRARY = "libspeexdsp.so.1"
SPEEX_FRAME_S = 0.016
SPEEX_TAIL_S = 0.256
"""256 and 4096 samples at 16 kHz; at 48 kHz the canceller runs at 48 kHz with 768 and 12288."""

# speex_echo.h and speex_preprocess.h of SpeexDSP 1.2
SPEEX_ECHO_SET_SAMPLING_RATE = 24
SPEEX_PREPROCESS_SET_ECHO_STATE = 24


def least_squares_fir(case: Case) -> Signal:
    """One FIR filter of 0.256 s over the whole file."""
    near_end = fir(case.reference_from(case.first_arrival_s), case.recording, case.sample_rate_hz)
    return near_end.astype(np.float64)


def speexdsp(case: Case) -> Signal:
    """SpeexDSP's canceller (Soo and Pang's MDF) and its residual echo and noise suppressor, as they come.

    The suppressor delays by one frame, which is undone here.
    """
    sample_rate_hz = case.sample_rate_hz
    frame = round(SPEEX_FRAME_S * sample_rate_hz)
    n_samples = len(case.recording)
    padding = np.zeros(frame + -n_samples % frame)
    played = _as_int16(np.append(case.reference_from(case.first_arrival_s), padding))
    recorded = _as_int16(np.append(case.recording, padding))
    out = _run_speex(played, recorded, frame, round(SPEEX_TAIL_S * sample_rate_hz), sample_rate_hz)
    return out[frame : frame + n_samples] / 32768.0


def speexdsp_canceller(
    played: NDArray[np.int16], recorded: NDArray[np.int16], sample_rate_hz: int, n_taps: int
) -> NDArray[np.int16]:
    """SpeexDSP's canceller alone, without the suppressor behind it; no delay."""
    frame = round(SPEEX_FRAME_S * sample_rate_hz)
    padding = np.zeros(-len(recorded) % frame, np.int16)
    played, recorded = np.append(played, padding), np.append(recorded, padding)
    out = _run_speex(played, recorded, frame, n_taps, sample_rate_hz, suppress=False)
    return out[: len(out) - len(padding)]


PEERS: dict[str, Callable[[Case], Signal]] = {"SpeexDSP": speexdsp, "FIR": least_squares_fir}


def why_no_speexdsp() -> str | None:
    """What to install, if anything."""
    try:
        ctypes.CDLL(SPEEX_LIBRARY)
    except OSError:
        return (
            f"{SPEEX_LIBRARY} is not installed, so SpeexDSP can't run beside unplay; "
            "on Debian or Ubuntu `apt-get install libspeexdsp1` brings it."
        )
    return None


def _run_speex(
    played: NDArray[np.int16],
    recorded: NDArray[np.int16],
    frame: int,
    n_taps: int,
    sample_rate_hz: int,
    *,
    suppress: bool = True,
) -> NDArray[np.int16]:
    library = ctypes.CDLL(SPEEX_LIBRARY)
    library.speex_echo_state_init.restype = ctypes.c_void_p
    library.speex_preprocess_state_init.restype = ctypes.c_void_p
    echo_state = ctypes.c_void_p(library.speex_echo_state_init(frame, n_taps))
    suppressor = ctypes.c_void_p(library.speex_preprocess_state_init(frame, sample_rate_hz))
    rate = ctypes.c_int(sample_rate_hz)
    library.speex_echo_ctl(echo_state, SPEEX_ECHO_SET_SAMPLING_RATE, ctypes.byref(rate))
    library.speex_preprocess_ctl(suppressor, SPEEX_PREPROCESS_SET_ECHO_STATE, echo_state)
    out = np.zeros_like(recorded)
    for start in range(0, len(recorded), frame):
        here = slice(start, start + frame)
        library.speex_echo_cancellation(
            echo_state, _pointer(recorded[here]), _pointer(played[here]), _pointer(out[here])
        )
        if suppress:
            library.speex_preprocess_run(suppressor, _pointer(out[here]))
    library.speex_preprocess_state_destroy(suppressor)
    library.speex_echo_state_destroy(echo_state)
    return out


def _pointer(samples: NDArray[np.int16]) -> ctypes.c_void_p:
    return ctypes.c_void_p(samples.ctypes.data)


def _as_int16(x: Signal) -> NDArray[np.int16]:
    return np.clip(np.round(x * 32768), -32768, 32767).astype(np.int16)
