"""The canceller's model: runs on CPython and, the same file, on MicroPython (tests/micropython)."""

from unplay_shared import kernels, settings, tables
from unplay_shared.canceller import Canceller

SMALL = {"block": 256, "tail_ms": 32}


def noise(n, level, seed):
    """n samples of a linear congruential generator, up to ±level."""
    out = kernels.samples(n)
    for i in range(n):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        out[i] = (seed >> 15) * (2 * level) // 65536 - level
    return out


def run(canceller, reference, recording):
    n = canceller.n_block
    out = kernels.samples(len(recording))
    here, played, recorded = (kernels.samples(n) for _ in range(3))
    for start in range(0, len(recording), n):
        for i in range(n):
            played[i], recorded[i] = reference[start + i], recording[start + i]
        canceller.process(played, recorded, here)
        for i in range(n):
            out[start + i] = here[i]
    return out


def power(x):
    return sum(v * v for v in x)


def test_a_silent_reference_leaves_the_recording_as_it_is():
    recording = noise(1024, 30000, 1)
    assert run(Canceller(SMALL, kernels), kernels.samples(1024), recording) == recording


def test_a_delayed_copy_is_cancelled():
    n = 8 * 1024
    reference = noise(n, 8000, 2)
    recording = kernels.samples(n)
    for i in range(100, n):
        recording[i] = reference[i - 100] // 2
    left = run(Canceller(SMALL, kernels), reference, recording)
    # 30 dB: white noise through one tap, near the rounding of 8000 / 2 to whole samples
    assert power(left[n // 2 :]) * 1000 < power(recording[n // 2 :])


def test_twiddles_lie_on_the_circle():
    n = 256
    twiddles = kernels.words(n + 1)
    tables.fill_twiddles(twiddles, n)
    for k in range(n + 1):
        c, s = kernels.real(twiddles[k]), kernels.imag(twiddles[k])
        # each is rounded by at most half a unit of 2^-14
        assert abs(c * c + s * s - (1 << 28)) <= 1 << 15
    assert (kernels.real(twiddles[n]), kernels.imag(twiddles[n])) == (-16384, 0)
    assert (kernels.real(twiddles[n // 2]), kernels.imag(twiddles[n // 2])) == (0, 16384)


def test_the_first_butterflies_reach_every_sample_once():
    for n, radix in ((256, 4), (512, 2), (1024, 4)):
        order = kernels.samples(n // radix)
        tables.fill_order(order, n)
        assert sorted(order) == list(range(n // radix))


def test_settings():
    assert settings.complete({})["block"] == 1024
    assert settings.partitions(settings.complete({})) == 2
    assert settings.partitions(settings.complete({"block": 256, "tail_ms": 256})) == 16
    # what a board must have, 60 KB
    assert settings.ram_bytes(settings.complete({})) <= 60 * 1024
    for wrong in ({"block": 300}, {"tail_ms": 31}, {"tail_ms": 64.0}, {"bloc": 256}, {"step_q15": 0}):
        try:
            settings.complete(wrong)
        except ValueError as error:
            assert next(iter(wrong)) in str(error)
        else:
            raise AssertionError(wrong)


def test_ram_is_what_the_buffers_take():
    for given in ({}, {"block": 512}, SMALL):
        canceller = Canceller(given, kernels)
        n_bytes = 0
        for value in vars_of(canceller):
            if isinstance(value, bytearray):
                n_bytes += len(value)
            elif isinstance(value, type(kernels.words(1))):
                n_bytes += len(bytes(value))
        small = n_bytes - settings.ram_bytes(canceller.settings)
        assert 0 <= small <= 400, small


def vars_of(thing):
    return [getattr(thing, name) for name in dir(thing)]
