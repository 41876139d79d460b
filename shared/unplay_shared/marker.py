"""The marker: noise that a device plays before a reference, to find out when its microphone hears it.

A maximum-length sequence (MLS) of 2^11 − 1 samples, played several times in a row. Its circular correlation
with a recording is the echo path, and a Walsh–Hadamard transform computes that with additions alone (Borish
and Angell 1983): sample n is added to the cell that the sequence's state at n numbers, the cells are
transformed, and lag l is read at the number that the transposed recursion gives. Everything here is whole
numbers that fit 32 bits.
"""

ORDER = 11
PERIOD = (1 << ORDER) - 1
FIRST_STATE = 1
TOP = 1 << (ORDER - 1)
"""The sequence is the state's top bit; the recursion is x^11 + x^9 + 1 (kernels.next_state)."""

PERIODS, END_PERIODS = 6, 2
"""How often it is played before the reference, and after it."""

LISTENING_PERIODS = 16
"""How long the recording is searched: echoes up to (16 - 6) periods late, 1.28 s at 16 kHz."""

FOLD_SHIFT = 3
"""Samples are folded with 3 bits less: 2^12 · (1 + … + 16) · 2^11 fits 32 bits."""

DIRECT_SAMPLES = 512
"""The direct sound comes at most so long before the strongest echo, and is at least half as strong."""

NEAR_SAMPLES = 3
"""Lags on either side of the strongest that tell in which period the marker began."""

LEAST_QUALITY = 40
"""Squared peak over mean square of all lags. The largest of 2047 squared normal values is about 15."""


class Arrival:
    """Where a marker was heard.

    delay_samples: recording sample at which its first sample arrives, by the strongest path. direct_samples:
    the same by the first strong path. quality: squared peak over the mean square of all lags.
    """

    def __init__(self, delay_samples, direct_samples, quality):
        self.delay_samples = delay_samples
        self.direct_samples = direct_samples
        self.quality = quality


class Listener:
    """Folds a recording, block by block, and says where a marker is in it.

    kernels: module with `words`, `forget`, `fold`, `hadamard`. Takes 16 KB.
    """

    def __init__(self, kernels):
        self.kernels = kernels
        self.cells = kernels.words(1 << ORDER)
        self.turned = kernels.words(1 << ORDER)  # weighted with the number of the period
        self.restart(PERIODS, LISTENING_PERIODS, 0)

    def restart(self, n_periods, n_listening, wait):
        """Look for n_periods in n_listening periods after `wait` samples, from which delays count."""
        self.kernels.forget(self.cells, 1 << ORDER)
        self.kernels.forget(self.turned, 1 << ORDER)
        self.n_periods = n_periods
        self.n_samples = n_listening * PERIOD
        self.wait = wait
        self.state = FIRST_STATE
        self.taken = 0

    def take(self, samples, n):
        """Fold the next n samples. Returns whether all that is needed has been heard."""
        first = min(self.wait, n)
        self.wait -= first
        while first < n and self.taken < self.n_samples:
            turn = self.taken // PERIOD
            count = min(n - first, (turn + 1) * PERIOD - self.taken)
            self.state = self.kernels.fold(
                samples, first, count, self.cells, self.turned, turn, self.state, FOLD_SHIFT
            )
            first += count
            self.taken += count
        return self.taken >= self.n_samples

    def arrival(self):
        """The `Arrival`, or None where no marker stands out. Only once: cells are transformed in place."""
        self.kernels.hadamard(self.cells, 1 << ORDER)
        self.kernels.hadamard(self.turned, 1 << ORDER)
        lag, quality = _strongest(self.cells)
        if quality < LEAST_QUALITY:
            return None
        delay = self._unfold(lag)
        return Arrival(delay, delay - _lead(self.cells, lag), quality)

    def _unfold(self, lag):
        """The delay of all candidates lag + m·PERIOD.

        Of a marker that begins at s the periods of the recording hold shares whose centre of mass is
        s/PERIOD + (n_periods − 1)/2. `turned` over `cells` is that centre; lags around the strongest count,
        too, by their power, because two clocks that are not one move the path from lag to lag.
        """
        moment = power = 0
        number = TOP
        for k in range(PERIOD):
            if (k - lag + NEAR_SAMPLES) % PERIOD <= 2 * NEAR_SAMPLES:
                cell = int(self.cells[number])
                moment += cell * int(self.turned[number])
                power += cell * cell
            number = next_number(number)
        about = (2 * moment - (self.n_periods - 1) * power) * PERIOD // (2 * power)
        return lag + (about - lag + PERIOD // 2) // PERIOD * PERIOD


def _strongest(cells):
    """Lag, squared peak over mean square."""
    number = TOP
    best = best_lag = 0
    total = 0
    for lag in range(PERIOD):
        value = abs(int(cells[number]))
        if value > best:
            best, best_lag = value, lag
        total += (value >> 4) * (value >> 4)
        number = next_number(number)
    mean = max(total // PERIOD, 1)
    return best_lag, (best >> 4) * (best >> 4) // mean


def _lead(cells, lag):
    """By how much the first path of half the strongest or more is earlier than it."""
    threshold = 0
    lead = 0
    number = TOP
    earliest = lag - DIRECT_SAMPLES
    values = [0] * DIRECT_SAMPLES
    for k in range(PERIOD):
        before = (k - earliest) % PERIOD
        if before < DIRECT_SAMPLES:
            values[before] = abs(int(cells[number]))
        elif before == DIRECT_SAMPLES:
            threshold = abs(int(cells[number])) >> 1
        number = next_number(number)
    for k in range(DIRECT_SAMPLES):
        if values[k] >= threshold:
            lead = DIRECT_SAMPLES - k
            break
    return lead


def next_number(number):
    """Number of the cell of the next lag: the transposed recursion backwards."""
    if number & TOP:
        return (((number ^ (TOP | 1 << 8)) << 1) | 1) & PERIOD
    return number << 1
