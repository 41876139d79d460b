"""The marker: found to the sample, or said to be absent. Plain asserts, as they run on MicroPython, too."""

from unplay_shared import kernels, marker


def noise(n, level, seed):
    """n samples of a linear congruential generator, up to ±level."""
    out = kernels.samples(n)
    for i in range(n):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        out[i] = (seed >> 15) * (2 * level) // 65536 - level
    return out


def recording(n, delay, level, noise_level, seed, echoes=((0, 1),)):
    """A marker that begins at `delay`, each echo (samples late, divisor) added, in noise."""
    played = kernels.samples(marker.PERIODS * marker.PERIOD)
    kernels.chips(played, 0, len(played), marker.FIRST_STATE, level)
    out = noise(n, noise_level, seed)
    for late, divisor in echoes:
        for i in range(len(played)):
            k = delay + late + i
            if k < n:
                out[k] += played[i] // divisor
    return out


def heard(sound, piece=1000):
    listener = marker.Listener(kernels)
    for start in range(0, len(sound), piece):
        block = sound[start : start + piece]
        if listener.take(block, len(block)):
            break
    return listener.arrival()


N = marker.LISTENING_PERIODS * marker.PERIOD


def test_the_sequence_has_full_length():
    state, seen = marker.FIRST_STATE, set()
    while state not in seen:
        seen.add(state)
        state = kernels.next_state(state)
    assert len(seen) == marker.PERIOD


def test_delays_to_the_sample():
    for delay in (0, 1, 2046, 2047, 2048, 7000, 12281, 20000):
        arrival = heard(recording(N, delay, 2000, 2000, delay + 1))
        assert arrival is not None
        assert arrival.delay_samples == arrival.direct_samples == delay


def test_the_direct_sound_before_a_stronger_echo():
    arrival = heard(recording(N, 5000, 2000, 500, 3, ((0, 4), (90, 3))))
    assert arrival is not None
    assert (arrival.delay_samples, arrival.direct_samples) == (5090, 5000)


def test_an_inverted_loudspeaker():
    arrival = heard(recording(N, 3000, -2000, 500, 4))
    assert arrival is not None
    assert arrival.delay_samples == 3000


def test_no_marker_is_no_arrival():
    for seed in range(20):
        assert heard(noise(N, 8000, seed)) is None
    assert heard(kernels.samples(N)) is None


def test_full_scale_fits_words():
    loud = kernels.samples(N)
    kernels.chips(loud, 0, N, marker.FIRST_STATE, 32767)
    listener = marker.Listener(kernels)
    listener.take(loud, N)
    listener.arrival()
    for cells in (listener.cells, listener.turned):
        assert max(cells) < 1 << 31
        assert min(cells) >= -(1 << 31)


def test_pieces_of_any_size_are_one_recording():
    sound = recording(N, 4321, 2000, 3000, 9)
    first = heard(sound, 999)
    second = heard(sound, 4096)
    assert first is not None
    assert second is not None
    assert (first.delay_samples, first.quality) == (second.delay_samples, second.quality)


def test_waiting_is_not_counted():
    sound = recording(N, 4321, 2000, 1000, 9)
    listener = marker.Listener(kernels)
    listener.restart(marker.PERIODS, 12, 4000)
    listener.take(sound, len(sound))
    arrival = listener.arrival()
    assert arrival is not None
    assert arrival.delay_samples == 321


def test_two_clocks_that_are_not_one():
    """The marker gets longer by a sample every other period (244 ppm): still found in the right period."""
    played = kernels.samples(marker.PERIODS * marker.PERIOD)
    kernels.chips(played, 0, len(played), marker.FIRST_STATE, 2000)
    for delay in (2047, 5000, 6141):
        sound = noise(N, 1000, delay)
        for i in range(len(played)):
            sound[delay + i + i // (2 * marker.PERIOD)] += played[i]
        arrival = heard(sound)
        assert arrival is not None
        assert 0 <= arrival.delay_samples - delay <= 2
