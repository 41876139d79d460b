"""Residual echo taken out by two adaptive filters and a small recurrent network that governs them.

Every 16 ms the network (`unplay/models`, trained by `host/training`) is given the log powers of a frame of
32 ms, 257 bins each: of the residual E, of what a cautious and a quick filter leave of it (S and F, see
`unplay.removal.frame_filters`), of the echo estimate, of the reference and of what a loudspeaker's curve may
have added (`unplay.removal.distortion`). For the frame LOOK_AHEAD frames before it answers with the shares s
and q of the filters and with a gain g, all from 0 to 1. The near end is

    g·(M + q·(F − M)),   M = E + s·(S − E).

It works at 16 kHz: of a recording at another sample rate what lies below 8 kHz is treated, and what lies
above stays as it is.

The network runs on ai-edge-litert, or on tflite-runtime where that is all there is; both are optional.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from unplay.errors import BadInputError
from unplay.removal.baselines import fir
from unplay.removal.canceller import FULL_SCALE, as_samples16, cancel
from unplay.removal.distortion import N_CURVES, distortion
from unplay.removal.frame_filters import FrameFilters
from unplay.removal.stft import Stft

FloatArray = NDArray[np.floating]

RATE_HZ = 16_000
N_FFT, HOP = 512, 256
LOOK_AHEAD = 2
"""Frames after a frame that are known when its gains are worked out."""

LATENCY_SAMPLES = (LOOK_AHEAD + 1) * HOP
"""What `Suppressor` holds back: 48 ms."""

POWER_FLOOR = 1e-7
"""Of a bin, relative to white noise of level 1, below which the network sees no differences."""

PLAYED_FRAMES = 32
"""Frames (0.5 s) after which an echo of what was played has died away."""

INPUTS = ("residual", "cautious", "quick", "echo", "reference", "odd", "even")
N_RECURRENT = 5
"""Of the inputs: the first ones, which the recurrent layers are given; all are given to the last stage."""
EARLIER = ("residual", "quick", "echo")
"""Inputs of which the frame that is answered for is given as well."""
OUTPUTS = ("gain", "cautious_share", "quick_share")
STATES = ("first", "second", "bins")
"""Of the network, given back as `next_` …: it has no other memory."""

MODEL = "residual_suppressor.tflite"
RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
NO_RUNTIME = (
    "The neural suppressor needs ai-edge-litert or tflite-runtime, and neither runs here: "
    "`pip install 'unplay[neural]'` brings the one for this machine."
)


def why_no_runtime() -> str | None:
    """A sentence on what is missing to run the network; None where nothing is."""
    return None if _runtime() else NO_RUNTIME


@cache
def _runtime() -> Callable[[], Any] | None:
    """What makes an interpreter. Where numpy is too new for it, importing one succeeds and only making one
    fails."""
    for name in RUNTIMES:
        try:
            module = importlib.import_module(name)
            # no delegate: it says so on stderr, and its sums differ from one processor to the next
            plain = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            runtime = partial(
                module.Interpreter, model_content=_model(), num_threads=1, experimental_op_resolver_type=plain
            )
            runtime()
        except Exception:  # whatever is wrong with it, it can't be used
            continue
        return runtime
    return None


@cache
def _model() -> bytes:
    return (files("unplay.models") / MODEL).read_bytes()


class GainNetwork:
    """The network with its memory of the frames that were. Raises BadInputError where no runtime is."""

    def __init__(self) -> None:
        runtime = _runtime()
        if runtime is None:
            raise BadInputError(NO_RUNTIME)
        self._interpreter = runtime()
        self._interpreter.allocate_tensors()
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        self._index = {detail["name"]: detail["index"] for detail in [*inputs, *outputs]}
        for detail in inputs:
            self._set(detail["name"], np.zeros(detail["shape"], np.float32))
        self._frames: deque[dict[str, NDArray[np.float32]]] = deque(maxlen=LOOK_AHEAD + 1)

    def gains(self, powers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log powers (len(INPUTS), 257) of the next frame, in the order of INPUTS → gain, cautious and quick
        filter's share (3, 257), 0 to 1, of the frame LOOK_AHEAD before; the first LOOK_AHEAD answers mean
        nothing."""
        self._frames.append(dict(zip(INPUTS, powers, strict=True)))
        for name, power in self._frames[-1].items():
            self._set(name, power[None])
        for name in EARLIER:
            self._set(f"earlier_{name}", self._frames[0][name][None])
        self._interpreter.invoke()
        for name in STATES:
            self._set(name, self._get(f"next_{name}"))
        return np.concatenate([self._get(name) for name in OUTPUTS])

    def _set(self, name: str, value: NDArray[np.float32]) -> None:
        self._interpreter.set_tensor(self._index[name], value)

    def _get(self, name: str) -> NDArray[np.float32]:
        return self._interpreter.get_tensor(self._index[name])


class Suppressor:
    """Takes residual echo out of a stream at 16 kHz, however it is cut in pieces.

    The signals are residual, echo estimate, reference and the curves' parts of the echo (`distortion`), in
    this order: (3 + N_CURVES, n_samples). Residual + echo, and reference, are to have about level 1 (root
    mean square). Where nothing has been played for PLAYED_FRAMES the residual is given back as it is.
    """

    def __init__(self) -> None:
        self._network = GainNetwork()
        self._filters = FrameFilters(1, N_FFT // 2 + 1)
        self._stft = Stft(N_FFT, HOP)
        self._pending = np.zeros((3 + N_CURVES, N_FFT - HOP))
        """What the next frame begins with."""
        self._spectra: deque[NDArray[np.complexfloating]] = deque(maxlen=LOOK_AHEAD + 1)
        """Of the residual and what the filters leave of it (3, 257)."""
        self._since_played: deque[int] = deque([PLAYED_FRAMES], maxlen=LOOK_AHEAD + 2)
        self._overlap = np.zeros(HOP)
        self._n_frames = 0

    def push(self, signals: FloatArray) -> NDArray[np.float64]:
        """The near end as far as it is known, LATENCY_SAMPLES behind and up to HOP − 1 more where no whole
        number of hops has been pushed."""
        self._pending = np.concatenate([self._pending, signals], axis=1)
        out = [np.zeros(0)]
        while self._pending.shape[1] >= N_FFT:
            out.append(self._next(self._pending[:, :N_FFT]))
            self._pending = self._pending[:, HOP:]
        return np.concatenate(out)

    def rest(self) -> NDArray[np.float64]:
        """What is held back, and up to HOP − 1 zeros after it."""
        return self.push(np.zeros((len(self._pending), LATENCY_SAMPLES + HOP - 1)))

    def _next(self, frames: FloatArray) -> NDArray[np.float64]:
        """The samples (HOP,) that this frame makes known; none for the first frames."""
        spectra = np.fft.rfft(frames * self._stft.window)
        residual, *others = spectra
        followed = self._filters.step(spectra.astype(np.complex64)[:, None])[:, 0]
        self._spectra.append(np.stack([residual, *followed]))
        silent = not frames[1:3].any()  # echo and reference; of a curve's filter rounding is left
        self._since_played.append(self._since_played[-1] + 1 if silent else 0)
        gains = self._network.gains(_log_power(np.stack([residual, *followed, *others])))
        self._n_frames += 1
        if self._n_frames <= LOOK_AHEAD:
            return np.zeros(0)
        if self._since_played[1] > PLAYED_FRAMES:
            near_end = self._spectra[0][0]
        else:
            near_end = _governed(self._spectra[0], gains)
        frame = np.fft.irfft(near_end) * self._stft.window
        known, self._overlap = self._overlap + frame[:HOP], frame[HOP:]
        return known if self._n_frames > LOOK_AHEAD + 1 else np.zeros(0)


def _governed(
    spectra: NDArray[np.complexfloating], gains: NDArray[np.floating]
) -> NDArray[np.complexfloating]:
    """Residual, cautious and quick filter's rest (3, 257) → near end (257,)."""
    kept, *followed = spectra
    gain, *shares = gains
    for share, rest in zip(shares, followed, strict=True):
        kept = kept + share * (rest - kept)
    return gain * kept


def _log_power(spectra: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    """About −2.5 to 2 for signals of level 1; as in training."""
    power = (spectra.real**2 + spectra.imag**2) * (2 / N_FFT)
    return (0.5 * np.log10(power + POWER_FLOOR) + 1).astype(np.float32)


@dataclass(frozen=True)
class Neural:
    """The suppressor as a method, after one linear stage: takes and returns what the functions of
    `baselines` do. Raises BadInputError where no runtime is.

    on_device_residual: the linear stage is the canceller that runs on a device, and not one FIR filter.
    """

    on_device_residual: bool = False

    def __call__(self, x: FloatArray, d: FloatArray, sample_rate_hz: int) -> FloatArray:
        residual = (device_residual if self.on_device_residual else fir)(x, d, sample_rate_hz)
        return suppress(residual, d - residual, x, sample_rate_hz)


def device_residual(x: FloatArray, d: FloatArray, sample_rate_hz: int) -> FloatArray:
    """What the device's canceller leaves of d (n_samples,), full scale ±1; it hears up to 8 kHz."""
    played, recorded = (as_samples16(soxr.resample(signal, sample_rate_hz, RATE_HZ)) for signal in (x, d))
    echo = (recorded.astype(np.float64) - cancel(played, recorded)) / FULL_SCALE
    return (d - _fitting(soxr.resample(echo, RATE_HZ, sample_rate_hz), len(d))).astype(d.dtype)


def _fitting(signal: FloatArray, n: int) -> FloatArray:
    """n samples: resampling there and back may have lost some at the end, or made some up."""
    return np.pad(signal, (0, max(0, n - len(signal))))[:n]


def suppress(
    residual: FloatArray, echo: FloatArray, reference: FloatArray, sample_rate_hz: int
) -> FloatArray:
    """The residual without residual echo; all (n_samples,). Raises BadInputError where no runtime is."""
    level, played_level = _level(residual + echo), _level(reference)
    levelled = (residual / level, echo / level, reference / played_level)
    low = [soxr.resample(signal, sample_rate_hz, RATE_HZ) for signal in levelled]
    suppressor = Suppressor()
    near_end = np.concatenate([suppressor.push(with_distortion(*low)), suppressor.rest()])[: len(low[0])]
    removed = soxr.resample(low[0] - near_end, RATE_HZ, sample_rate_hz)
    return (residual - level * _fitting(removed, len(residual))).astype(residual.dtype)


def with_distortion(residual: FloatArray, echo: FloatArray, reference: FloatArray) -> FloatArray:
    """What `Suppressor` takes (3 + N_CURVES, n_samples), of levelled signals (n_samples,) at RATE_HZ."""
    return np.stack([residual, echo, reference, *distortion(reference, echo, RATE_HZ)])


def _level(signal: FloatArray) -> float:
    """Root mean square; 1 for silence."""
    return float(np.sqrt(np.mean(np.asarray(signal, np.float64) ** 2))) or 1.0
