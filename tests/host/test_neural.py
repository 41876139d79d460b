"""The neural suppressor: the shipped file on its runtimes, and what must hold whatever the network says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from unplay.errors import BadInputError
from unplay.metrics import energy_ratio_db, si_sdr_db
from unplay.removal import neural
from unplay.removal.baselines import fir
from unplay.removal.methods import method_named
from unplay.virtual.scene import Scene, make_scene

RATE_HZ = 16_000
GOLDEN = Path(__file__).parent / "golden" / "residual_suppressor.npz"


@pytest.fixture
def use_runtimes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Let only the runtimes named be tried."""

    def use(*names: str) -> None:
        monkeypatch.setattr(neural, "RUNTIMES", names)
        neural._runtime.cache_clear()

    yield use
    neural._runtime.cache_clear()


@pytest.fixture
def runtime() -> None:
    """Skips where no runtime is, fails where CI is set."""
    sentence = neural.why_no_runtime()
    if sentence and "CI" in os.environ:
        pytest.fail(sentence)
    if sentence:
        pytest.skip(sentence)


@pytest.fixture(scope="module")
def distorted() -> tuple[Scene, np.ndarray]:
    """A scene, and its recording had the loudspeaker been overloaded."""
    scene = make_scene(5, duration_s=8.0, reference_s=8.0, offset_s=0.0, drift_ppm=0.0)
    curved = np.tanh(2 * scene.played / np.std(scene.played)) * np.std(scene.played)
    echo = np.convolve(curved, scene.echo_path)[: len(curved)]
    return scene, scene.recording - scene.echo + echo


def noises(n: int, seed: int = 0) -> np.ndarray:
    """Residual, echo, reference: (3, n)."""
    return 0.5 * np.random.default_rng(seed).standard_normal((3, n))


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("name", neural.RUNTIMES)
def test_the_shipped_file_computes_what_torch_computed(name: str, use_runtimes: Callable[..., None]) -> None:
    use_runtimes(name)
    if neural.why_no_runtime():  # not for this machine, or of numpy 1's time
        pytest.skip(f"{name} does not run here")
    with np.load(GOLDEN) as golden:
        powers, expected = golden["powers"], golden["gains"]
    network = neural.GainNetwork()
    gains = np.stack([network.gains(frame) for frame in powers.swapaxes(0, 1)], axis=1)
    # sums of a few hundred products in single precision; int8 that went wrong was off by 0.17
    np.testing.assert_allclose(gains[:, neural.LOOK_AHEAD :], expected, atol=1e-5)
    # a network that always says the same would show nothing
    assert np.all(np.ptp(expected, axis=(1, 2)) > 0.05)


@pytest.mark.usefixtures("runtime")
def test_pieces_give_what_the_whole_gives() -> None:
    signals = neural.with_distortion(*noises(RATE_HZ))
    whole = neural.Suppressor()
    expected = np.concatenate([whole.push(signals), whole.rest()])
    rng, pieces, at = np.random.default_rng(1), neural.Suppressor(), 0
    got = []
    while at < signals.shape[1]:
        n = int(rng.integers(0, 1500))
        got.append(pieces.push(signals[:, at : at + n]))
        at += n
        pushed = min(at, signals.shape[1])
        known = sum(map(len, got))
        assert pushed - neural.LATENCY_SAMPLES - neural.HOP < known <= pushed - neural.LATENCY_SAMPLES or (
            known == 0 and pushed < neural.LATENCY_SAMPLES + neural.HOP
        )
    np.testing.assert_array_equal(np.concatenate([*got, pieces.rest()]), expected)
    assert len(expected) >= signals.shape[1]


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("level", [1e-6, 1e-2, 1.0, 1e3])
def test_no_gain_is_above_one(level: float) -> None:
    rng, network = np.random.default_rng(2), neural.GainNetwork()
    for _ in range(50):
        real, imaginary = rng.standard_normal((2, len(neural.INPUTS), 257))
        spectra = level * (real + 1j * imaginary)
        gains = network.gains(neural._log_power(spectra))
        assert np.all((gains >= 0) & (gains <= 1))


@pytest.mark.usefixtures("runtime")
def test_silence_stays_silence() -> None:
    _, echo, reference = noises(RATE_HZ)
    silence = np.zeros(RATE_HZ)
    np.testing.assert_array_equal(neural.suppress(silence, echo, reference, RATE_HZ), silence)
    np.testing.assert_array_equal(neural.suppress(silence, silence, silence, RATE_HZ), silence)


@pytest.mark.usefixtures("runtime")
def test_nothing_is_taken_where_nothing_was_played() -> None:
    residual, echo, reference = noises(3 * RATE_HZ)
    stops = RATE_HZ
    echo[stops:], reference[stops:] = 0, 0
    near_end = neural.suppress(residual, echo, reference, RATE_HZ)
    # half a second later, and the frames that overlap
    after = stops + (neural.PLAYED_FRAMES + 3) * neural.HOP
    np.testing.assert_allclose(near_end[after:], residual[after:], atol=1e-12)
    # a stream that begins with silence is given back from its first sample on
    np.testing.assert_allclose(
        neural.suppress(residual, 0 * echo, 0 * reference, RATE_HZ), residual, atol=1e-12
    )


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
def test_other_sample_rates_keep_length_and_what_lies_above_8_khz(rate_hz: int) -> None:
    n = 2 * rate_hz + 1
    t = np.arange(n) / rate_hz
    residual, echo, reference = noises(n)
    whistle = np.sin(2 * np.pi * 0.45 * rate_hz * t)
    inputs = [signal.copy() for signal in (residual, echo, reference)]
    near_end = neural.suppress(residual + whistle, echo, reference, rate_hz)
    assert len(near_end) == n
    for signal, before in zip((residual, echo, reference), inputs, strict=True):
        np.testing.assert_array_equal(signal, before)
    if 0.45 * rate_hz > 9_000:
        inner = slice(n // 4, -n // 4)
        kept = np.dot(near_end[inner], whistle[inner]) / np.dot(whistle[inner], whistle[inner])
        assert kept == pytest.approx(1, abs=0.05)  # the noise at that frequency adds its chance share


@pytest.mark.usefixtures("runtime")
def test_echo_alone_is_taken_down_far(distorted: tuple[Scene, np.ndarray]) -> None:
    scene, recording = distorted
    echo = recording - scene.true_near_end
    plain = fir(scene.played, echo, RATE_HZ)
    near_end, _ = method_named("neural").take_out(scene.played, echo, RATE_HZ)
    # measured 12.0 dB; 2 dB are far more than another rounding or runtime could change
    assert energy_ratio_db(plain, near_end) > 10


@pytest.mark.usefixtures("runtime")
def test_a_talker_alone_stays(distorted: tuple[Scene, np.ndarray]) -> None:
    scene, _ = distorted
    talker = scene.true_near_end
    near_end = neural.suppress(talker, scene.echo, scene.played, RATE_HZ)
    # measured 21.2 dB: what it takes for echo that isn't there; on talkers that it knows less it is more
    assert si_sdr_db(talker, near_end) > 18


def test_without_a_runtime_one_sentence_says_what_to_do(use_runtimes: Callable[..., None]) -> None:
    use_runtimes("a_runtime_that_is_not_there")
    assert "pip install 'unplay[neural]'" in (neural.why_no_runtime() or "")
    with pytest.raises(BadInputError, match="neither runs here"):
        method_named("neural").take_out(np.ones(1000), np.ones(1000), RATE_HZ)
