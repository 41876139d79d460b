"""The plan chooses what the scene has, and leaves alone what it doesn't."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from unplay.metrics import si_sdr_db
from unplay.removal import choosing, plan
from unplay.removal.plan import Removal, remove
from unplay.removal.stft import Stft
from unplay.virtual.scene import Scene, make_scene, room_response, talker

RATE_HZ = 8_000
STAGES = {"loudspeaker curve", "gain track", "movement"}


def eight_seconds(seed: int) -> Scene:
    return make_scene(
        seed, sample_rate_hz=RATE_HZ, duration_s=8.0, reference_s=8.0, offset_s=0.1, drift_ppm=0.0
    )


@pytest.fixture(scope="module")
def scene() -> Scene:
    return eight_seconds(11)


def used(removal: Removal) -> set[str]:
    return {stage.name for stage in removal.stages if stage.used}


def gain_db(scene: Scene, d: NDArray[np.floating], near_end: NDArray[np.floating], removal: Removal) -> float:
    return si_sdr_db(near_end, removal.near_end.astype(float)) - si_sdr_db(near_end, d)


def test_a_still_path_needs_nothing_else(scene: Scene) -> None:
    removal = remove(scene.played, scene.recording, RATE_HZ)
    assert used(removal) & STAGES == set()
    assert "echo path" in used(removal)
    assert removal.confidence > 0.9
    # measured 38.7 dB, of which the mask gives 4; the noise 40 dB under the talker sets the limit at 50
    assert gain_db(scene, scene.recording, scene.true_near_end, removal) > 34


def test_a_loudspeaker_curve_is_chosen(scene: Scene) -> None:
    x = scene.played
    oversampled = scipy.signal.resample_poly(x, 4, 1)
    curved = scipy.signal.resample_poly(np.where(oversampled > 0, oversampled, 0.4 * oversampled), 1, 4)
    echo = scipy.signal.oaconvolve(curved, scene.echo_path)[: len(x)]
    d = scene.true_near_end + echo * np.std(scene.echo) / np.std(echo)
    removal = remove(x, d, RATE_HZ)
    assert used(removal) & STAGES == {"loudspeaker curve"}
    assert gain_db(scene, d, scene.true_near_end, removal) > 25


def test_a_gain_track_is_chosen(scene: Scene) -> None:
    gain = 1 + 0.6 * np.sin(2 * np.pi * 0.4 * np.arange(len(scene.echo)) / RATE_HZ)
    removal = remove(scene.played, gain * scene.recording, RATE_HZ)
    # two paths with gains contain one path with a gain
    assert used(removal) & STAGES in ({"gain track"}, {"movement"})
    # what became of the gain within frames is told where there is one
    assert ("fine gain" in {stage.name for stage in removal.stages}) == ("gain track" in used(removal))
    assert gain_db(scene, gain * scene.recording, gain * scene.true_near_end, removal) > 20


def test_a_path_that_moves_over_is_chosen(scene: Scene) -> None:
    other = room_response(np.random.default_rng(99), RATE_HZ, 0.35)
    elsewhere = scipy.signal.oaconvolve(scene.played, other)[: len(scene.played)]
    elsewhere *= np.std(scene.echo) / np.std(elsewhere)
    share = np.clip((np.arange(len(elsewhere)) / RATE_HZ - 3.0) / 2.0, 0, 1)
    d = scene.true_near_end + (1 - share) * scene.echo + share * elsewhere
    removal = remove(scene.played, d, RATE_HZ)
    assert "movement" in used(removal)
    assert "switch" not in used(removal)
    assert gain_db(scene, d, scene.true_near_end, removal) > 15


def test_a_path_that_changes_at_once_is_switched(scene: Scene) -> None:
    other = room_response(np.random.default_rng(98), RATE_HZ, 0.35)
    elsewhere = scipy.signal.oaconvolve(scene.played, other)[: len(scene.played)]
    elsewhere *= np.std(scene.echo) / np.std(elsewhere)
    noise = scene.recording - scene.true_near_end - scene.echo
    echo = np.where(np.arange(len(elsewhere)) < 30_617, scene.echo, elsewhere)
    d = scene.true_near_end + noise + echo
    removal = remove(scene.played, d, RATE_HZ)
    assert {"movement", "switch"} <= used(removal)
    # measured 29.8 dB
    assert gain_db(scene, d, scene.true_near_end, removal) > 27


@pytest.mark.parametrize("part", [0.2, 0.4])
def test_a_path_that_changes_a_little_for_the_last_third_is_found_out(part: float) -> None:
    """It stands still for two thirds, where a moving one loses more decibels than it gains in the rest, and a
    changing gain makes up for a little of the change."""
    scene = make_scene(
        11, sample_rate_hz=RATE_HZ, duration_s=12.0, reference_s=12.0, offset_s=0.1, drift_ppm=0.0
    )
    other = scipy.signal.oaconvolve(scene.played, room_response(np.random.default_rng(99), RATE_HZ, 0.35))
    other = part * np.std(scene.echo) / np.std(other) * other[: len(scene.played)]
    d = scene.true_near_end + scene.echo + np.where(np.arange(len(other)) > 8 * RATE_HZ, other, 0)
    removal = remove(scene.played, d, RATE_HZ)
    assert {"movement", "2 paths"} <= used(removal)
    # measured 30.1 and 35.0 dB; 23.4 and 18.3 with a changing gain
    assert gain_db(scene, d, scene.true_near_end, removal) > 26


@pytest.mark.filterwarnings("error")
def test_a_short_recording_has_fewer_knots_than_paths_are_tried(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing._Trial, "_loud_or_clear", lambda *_: True)
    short = slice(3 * RATE_HZ, 3 * RATE_HZ + round(0.6 * RATE_HZ))
    removal = remove(scene.played[short], scene.recording[short], RATE_HZ)
    assert np.sum(removal.near_end**2) < np.sum(scene.recording[short] ** 2)


def test_a_recording_clipped_in_most_frames_is_cleaned_all_the_same(scene: Scene) -> None:
    limit = np.quantile(np.abs(scene.recording), 0.92)
    d = np.clip(scene.recording, -limit, limit)
    removal = remove(scene.played, d, RATE_HZ)
    assert removal.confidence > 0.5
    # measured 14.5 dB; what clipping adds can't be removed
    assert gain_db(scene, d, scene.true_near_end, removal) > 10


def test_residual_echo_of_a_telephone_is_masked(scene: Scene) -> None:
    """Every frame of the echo gets phases of its own, as from a codec or a noise suppressor."""
    stft = Stft(256, 64)
    spectrogram = stft.forward(scene.echo)
    phases = np.random.default_rng(1).uniform(-1.7, 1.7, spectrogram.shape)
    d = scene.true_near_end + stft.inverse(spectrogram * np.exp(1j * phases), len(scene.echo))
    removal = remove(scene.played, d, RATE_HZ)
    assert "residual echo" in used(removal)
    # measured 9.6 dB, of which the path alone takes half
    assert gain_db(scene, d, scene.true_near_end, removal) > 7


def test_a_fit_that_leaves_more_than_there_was_is_put_aside(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        plan, "_fitted", lambda chosen, reference, recording, rate_hz, trust: (2 * recording, ())
    )
    d = scene.recording[: 4 * RATE_HZ]
    removal = remove(scene.played[: 4 * RATE_HZ], d, RATE_HZ)
    np.testing.assert_array_equal(removal.near_end, d.astype(np.float32))
    assert removal.confidence == 0


def test_an_unrelated_reference_is_not_trusted(scene: Scene) -> None:
    assert remove(eight_seconds(12).played, scene.recording, RATE_HZ).confidence < 0.5


def test_strength_mixes_with_the_recording(scene: Scene) -> None:
    d = scene.recording[: 4 * RATE_HZ]
    x = scene.played[: 4 * RATE_HZ]
    full = remove(x, d, RATE_HZ, strength=1.0).near_end
    half = remove(x, d, RATE_HZ, strength=0.5).near_end
    none = remove(x, d, RATE_HZ, strength=0.0).near_end
    np.testing.assert_array_equal(none, d.astype(np.float32))
    np.testing.assert_allclose(half, 0.5 * (full + d), atol=1e-6)


def test_level_does_not_matter_and_inputs_stay(scene: Scene) -> None:
    d, x = scene.recording[: 4 * RATE_HZ], scene.played[: 4 * RATE_HZ]
    before = (x.copy(), d.copy())
    loud = remove(x, d, RATE_HZ).near_end
    quiet = remove(2.0**10 * x, 2.0**-10 * d, RATE_HZ).near_end
    np.testing.assert_array_equal(loud, 2.0**10 * quiet)
    np.testing.assert_array_equal(before, (x, d))


def test_what_was_played_before_the_recording_counts(scene: Scene) -> None:
    start = 2 * RATE_HZ
    d, near_end = scene.recording[start:], scene.true_near_end[start:]
    with_past = remove(scene.played[RATE_HZ:], d, RATE_HZ, n_past=RATE_HZ)
    without = remove(scene.played[start:], d, RATE_HZ)
    head = slice(0, RATE_HZ // 4)
    error_with = np.std(with_past.near_end[head] - near_end[head])
    assert error_with < 0.3 * np.std(without.near_end[head] - near_end[head])


def test_the_recording_may_end_in_the_middle_of_loud_bass() -> None:
    """The path begins 5 ms before the direct sound, so that what plays next is heard in its last samples; and
    bass and talker break off there."""
    rate_hz, n_samples = 16_000, 8 * 16_000
    rng = np.random.default_rng(1)
    time_s = np.arange(n_samples + rate_hz) / rate_hz
    beats_db = np.repeat(rng.uniform(-30, 0, 4 * 10), rate_hz // 4)[: len(time_s)]
    hiss = scipy.signal.lfilter([1], [1, -0.95], rng.standard_normal(len(time_s)) * 10 ** (beats_db / 20))
    bass = sum(
        np.sin(2 * np.pi * pitch_hz * time_s) * (0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.3, 2) * time_s))
        for pitch_hz in (55, 82.5, 110)
    )
    x = np.concatenate([np.zeros(rate_hz), 0.1 * hiss / np.std(hiss) + bass])
    early = round(0.01 * rate_hz)  # the room holds the direct sound back by 5 ms
    echo = scipy.signal.oaconvolve(x, room_response(rng, rate_hz, 0.3))[early : early + n_samples]
    near_end = talker(rng, rate_hz, n_samples)
    near_end *= 0.56 * np.std(echo) / np.std(near_end)
    d = echo + near_end + 1e-4 * np.std(near_end) * rng.standard_normal(n_samples)
    ratio_db = {
        n_next: si_sdr_db(near_end, remove(x[: n_samples + n_next], d, rate_hz).near_end.astype(float))
        for n_next in (0, rate_hz // 20)
    }
    # measured 48.7 and 38.2 dB; 29.1 dB when frames that reach beyond the end count
    assert ratio_db[rate_hz // 20] > 44
    assert 34 < ratio_db[0] < ratio_db[rate_hz // 20] - 6


@pytest.mark.parametrize("method", ["subtract", "spectral", "match", "fir"])
def test_methods_by_name(scene: Scene, method: str) -> None:
    removal = remove(scene.played, scene.recording, RATE_HZ, method=method)
    assert used(removal) == {method}
    assert len(removal.near_end) == len(scene.recording)


def network_of(removal: Removal) -> plan.StageDecision:
    (decision,) = (stage for stage in removal.stages if stage.name == "network")
    return decision


@pytest.mark.parametrize(
    ("share", "share_told", "share_by_chance", "heeded"),
    # −6 dB, then −12 dB and 3 above chance are asked for; a share s is 20·log10(s/(1 − s)) dB beside the rest
    [
        (0.5, 0.5, 0.1, True),
        (0.5, 0.3, 0.1, True),
        (0.5, 0.5, 0.45, False),
        (0.5, 0.15, 0.001, False),
        (0.5, 0.3, 0.25, False),
        (0.3, 0.3, 0.001, False),
        (0.0, 0.0, 0.0, False),
    ],
)
def test_the_network_is_heeded_where_it_takes_much_and_more_than_by_chance(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    share_told: float,
    share_by_chance: float,
    heeded: bool,
) -> None:
    x, d = scene.played[: 4 * RATE_HZ], scene.recording[: 4 * RATE_HZ]
    asked = []

    def suppress(residual, echo, reference, rate_hz):
        asked.append((residual, echo))
        return residual * (1 - (share, share_told, share_by_chance)[len(asked) - 1])

    monkeypatch.setattr(plan, "why_no_runtime", lambda: None)
    monkeypatch.setattr(plan, "suppress", lambda residual, *_: residual)
    without = remove(x, d, RATE_HZ).near_end
    monkeypatch.setattr(plan, "suppress", suppress)
    removal = remove(x, d, RATE_HZ)
    assert network_of(removal).used == heeded
    np.testing.assert_allclose(removal.near_end, without * (1 - share * heeded), atol=1e-6)
    # where it takes much it is asked again, of an echo no louder than the residual, and of another time's
    assert len(asked) == (3 if share == 0.5 else 1)
    for (residual, echo), another_time in zip(asked[1:], (False, True), strict=False):
        np.testing.assert_array_equal(residual, asked[0][0])
        assert np.std(echo) < 1.001 * min(np.std(residual), np.std(asked[0][1]))
        assert (np.corrcoef(echo, asked[0][1])[0, 1] < 0.5) == another_time


def test_without_a_runtime_the_plan_goes_on_and_says_so(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, d = scene.played[: 4 * RATE_HZ], scene.recording[: 4 * RATE_HZ]
    monkeypatch.setattr(plan, "why_no_runtime", lambda: "No runtime.")
    removal = remove(x, d, RATE_HZ)
    assert (network_of(removal).used, network_of(removal).reason) == (False, "No runtime.")
    assert gain_db(scene, d, scene.true_near_end[: 4 * RATE_HZ], removal) > 20


def test_what_is_left_out_follows_no_beat():
    """An eighth of a second of every half, somewhere in it, and the same when asked again."""
    hop_s = 0.004
    time_s = np.arange(round(60 / hop_s)) * hop_s
    left_out = choosing._left_out(time_s)
    halves = left_out.reshape(-1, round(choosing.HELD_OUT_PERIOD_S / hop_s))
    np.testing.assert_allclose(halves.sum(axis=1) * hop_s, choosing.HELD_OUT_S, atol=1.5 * hop_s)
    # every part of a half second is left out in a fair share of the 120: 1 in 3 on average, but for the rims
    inner = halves[:, 20:-20].mean(axis=0)
    assert 0.15 < inner.min() < inner.max() < 0.55
    assert np.array_equal(left_out, choosing._left_out(time_s))
