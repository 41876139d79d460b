"""Constants of the kernels, made with whole numbers so that every machine has the same bits."""

PI_Q64 = 57952155664616982739  # π·2^64, rounded
ONE_Q64 = 1 << 64


def fill_twiddles(words, n):
    """words(k) = exp(iπk/n) in Q14 as complex word, k = 0 … n."""
    sine, cosine = _sine_cosine_q64(PI_Q64 // n)
    re, im = ONE_Q64, 0
    half = 1 << 49
    for k in range(n + 1):
        words[k] = (((im + half) >> 50) << 16) | (((re + half) >> 50) & 0xFFFF)
        re, im = (re * cosine - im * sine) >> 64, (im * cosine + re * sine) >> 64


def _sine_cosine_q64(angle):
    """Taylor's series, for a small angle in Q64."""
    parts = [0, 0]
    term, k = ONE_Q64, 0
    while term:
        parts[k & 1] += -term if k & 2 else term
        k += 1
        term = term * angle // (k << 64)
    return parts[1], parts[0]


def fill_order(order, n):
    """Where the first butterflies of an FFT of n points begin: the base-4 digits of i, reversed.

    order: n/4 entries where n is a power of four, else n/2.
    """
    n_digits = 0
    while 1 << (2 * n_digits) < len(order):
        n_digits += 1
    for i in range(len(order)):
        reverse = 0
        for digit in range(n_digits):
            reverse = reverse << 2 | ((i >> (2 * digit)) & 3)
        order[i] = reverse


def fill_reciprocals(table):
    """table(i) = 2^23 / (256 + i), rounded down: 16416 … 32768."""
    for i in range(256):
        table[i] = (1 << 23) // (256 + i)
