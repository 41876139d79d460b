"""The canceller: a block NLMS in the frequency domain whose step follows from how much it knows.

Partitioned-block overlap-save filter; for each bin and partition the normalised step is the Kalman gain of a
state-space model of the echo path (Enzner and Vary 2006; Kuech, Mabande and Enzner 2014): no double-talk
detector. We differ in this: whole numbers of 16 and 32 bits; the near end's power is smoothed over five
bins; uncertainty falls more slowly than the diagonal model says, because neighbouring bins and partitions do
not learn independently; the recording is scaled to the reference, so that the prior fits any loudness; and
the output is the *posterior* residual (1 − G)·E: what a block taught about the echo path is used on that
same block, which costs one FFT, since nobody waits for the output.

Exponents: a spectrum of words X(k) stands for X(k)·2^exponent. Kernels come from outside: `kernels` beside
this file, viper and assembler on a device, numpy on a computer; all give the same bits.
"""

from unplay_shared import tables
from unplay_shared.settings import complete, partitions

PRIOR_ONE = 1 << 27
PRIOR = 4 * PRIOR_ONE
"""Uncertainties are Q27 of the squared weight."""

PRIOR_STEPS, PRIOR_STEP_Q16 = 240, 64600
"""The prior falls by 15 dB over the tail: by this factor in each of so many steps."""

ACTIVE_LOG2 = 5
"""Learning begins when the pre-emphasised reference has a mean magnitude of 2^4 or more."""

LEAST_SCALE, MOST_SCALE = -8, 12
HEADROOM_LOG2 = 1
"""The loudest bins of a path are above its mean: rooms and loudspeakers favour low frequencies."""

LOUDER_LOG2 = 2
"""While settling, a block of the reference louder by 2^2 than all before it begins everything anew."""

LEAST_EXPONENT = -20

SETTLING_MS = 2000
"""How long after that the scale may still follow a louder recording."""


class Canceller:
    """Takes the echo of a reference out of a recording, block by block.

    given: settings by name (`unplay_shared.settings`). kernels: the module that computes. Raises ValueError
    where a setting is out of range. Nothing is allocated after construction.

    Word lengths: spectra of the reference have 14 − log2(M) bits so that the sum over partitions fits; W is
    Q25 of which the filter uses Q11; P is Q27.
    """

    def __init__(self, given, kernels):
        settings = complete(given)
        self.settings = settings
        self.kernels = kernels
        n = settings["block"]
        m = partitions(settings)
        self.n_block, self.n_bins, self.n_parts = n, n + 1, m
        self.log2_n = _log2_up(n)
        self.x_bits = 14 - _log2_up(m)
        self.power_shift = 2 * self.x_bits - 14
        k = n + 1
        self.a, self.b = kernels.words(k), kernels.words(k)
        self.x = kernels.words(k * m)
        self.w = kernels.words(2 * k * m)
        self.p = kernels.words(k * m)
        self.s, self.psi = kernels.words(k), kernels.words(k)
        self.p_shift, self.x2_bits = kernels.octets(k), kernels.octets(k)
        self.past = kernels.words(n >> 1)  # the last block, pre-emphasised
        self.radix4 = n & 0x5555 != 0
        self.order = kernels.samples(n >> 2 if self.radix4 else n >> 1)
        self.twiddles = kernels.words(k)
        self.reciprocals = kernels.words(256)
        tables.fill_order(self.order, n)
        tables.fill_twiddles(self.twiddles, n)
        tables.fill_reciprocals(self.reciprocals)
        self.sums, self.states = kernels.words(3), kernels.words(2)
        self.needs = kernels.words(m)  # exponent that each partition's spectrum needs
        self._set_up_learning()
        self.restart()

    def _set_up_learning(self):
        settings, kernels, m = self.settings, self.kernels, self.n_parts
        block_log2 = _log2_up(self.n_block * 1000 // settings["rate_hz"]) - 4  # of 16 ms
        kalman = settings["method"] == "kalman"
        self.constants = kernels.words(10)
        fade = max(settings["forgetting"] - block_log2, 6)
        constants = self.constants
        constants[4] = (1 << 30) >> _log2_up(m)
        constants[5] = settings["step_q15"]
        constants[6] = 1 if kalman else 0
        constants[7] = settings["caution"]
        constants[8] = fade
        constants[9] = fade - 6  # |W|² is Q21
        self.prior, self.half_prior, self.refill = (kernels.words(m) for _ in range(3))
        shares = []
        for q in range(m):
            share = 1 << 20
            for _ in range(PRIOR_STEPS * q // m):
                share = share * PRIOR_STEP_Q16 >> 16
            shares.append(share)
        total = sum(shares)
        for q in range(m):
            share = PRIOR * shares[q] // total if kalman else PRIOR_ONE // m
            self.prior[q] = share
            self.half_prior[q] = share >> 1
            self.refill[q] = share >> (fade + 8)
        self.watch_smoothing = max(4 - block_log2, 0)
        self.smoothing = settings["smoothing"]
        self.recovers = kalman and settings["recovery"] == 1
        self.settling = SETTLING_MS * settings["rate_hz"] // (1000 * self.n_block)

    def restart(self):
        """Forget everything, for another recording."""
        kernels, k, m = self.kernels, self.n_bins, self.n_parts
        kernels.forget(self.x, k * m)
        kernels.forget(self.w, 2 * k * m)
        kernels.forget(self.p, k * m)
        kernels.forget(self.psi, k)
        kernels.forget(self.past, self.n_block >> 1)
        kernels.forget(self.states, 2)
        kernels.doubt(self.p, self.p_shift, k, m, self.prior)
        self.x_exponent = LEAST_EXPONENT
        self.psi_exponent = 0
        self.psi_bits = 0
        self.fresh = True
        self.scale = 0
        self.loudest_heard = self.loudest_left = -99
        self.age = 0  # blocks with a loud reference since learning began
        self.before = 0
        self.past_bits = self.past_shift = 0
        self.heard = self.left = 0
        self.bits = 0
        self.e_before = 0
        self.turn = 0
        self.countdown = self.settings["constraint"]
        self.d_mean = self.e_mean = self.y_mean = 0
        for q in range(m):
            self.needs[q] = LEAST_EXPONENT

    def process(self, reference, microphone, out):
        """Cancel one block: three arrays of N samples of 16 bits; `out` may not be one of the others.

        No step builds an object: MicroPython allocates tuples of four, and integers from 2^30 on.
        """
        kernels, n = self.kernels, self.n_block
        self._take_in(reference)
        self._begin_anew()
        shift = self._estimate()
        sums = self.sums
        kernels.restore(self.a, n, shift, microphone, out, n >> 1, self.states, 0)
        kernels.loudness(microphone, n, out, sums)
        self._watch(sums[0], sums[1], sums[2])
        exponent = self._error_spectrum(out)
        if not self._ready():
            return
        self._listen(exponent + self.scale)
        self._learn(exponent + self.scale)
        shift = self._to_q4(self._inverse(self.b, self.a, exponent))
        kernels.restore(self.b, n, shift, out, out, n >> 1, self.states, 1)
        self._constrain()

    def skip(self, reference):
        """Take a block's reference in and leave its recording alone: there was no time for more."""
        self._take_in(reference)

    # Transforms. A spectrum's words are below 2^13.3, so that the next transform has room.

    def _forward(self, src, dst, low, bits):
        """Spectrum of the samples in src, by way of dst, back into src. Returns its exponent over theirs."""
        shifts = self._transform(src, dst, low, bits)
        shift = max(self.bits - 11, 0)
        self.bits = self.kernels.split(dst, self.n_block, shift, src, self.twiddles, 1)
        return shifts + shift - 1

    def _inverse(self, spectrum, other, exponent):
        """Conjugate samples of a conjugate spectrum, in its place. Returns their exponent."""
        shift = max(self.bits - 11, 0)
        bits = self.kernels.split(spectrum, self.n_block, shift, other, self.twiddles, 0)
        return exponent + shift - 1 - self.log2_n + self._transform(other, spectrum, -1, bits)

    def _transform(self, src, dst, low, bits):
        """FFT of N complex words from src to dst, scaled so that nothing overflows. Returns by how much."""
        kernels, n = self.kernels, self.n_block
        if self.radix4:
            total = max(bits - 13, 0)
            bits = kernels.first4(src, n, total, low, dst, self.order)
            length = 4
        else:
            total = max(bits - 14, 0)
            bits = kernels.first2(src, n, total, low, dst, self.order)
            length = 2
        while length < n:
            shift = max(bits - 12, 0)
            bits = kernels.stage(dst, n, shift, length, self.twiddles)
            total += shift
            length *= 4
        self.bits = bits
        return total

    def _to_q4(self, exponent):
        return _shift(-4 - exponent, 10)

    # The steps of a block

    def _take_in(self, reference):
        """The reference's newest spectrum into partition 0; how loud the block is into `heard`."""
        kernels, half, a = self.kernels, self.n_block >> 1, self.a
        bits = kernels.peak(reference, self.n_block, self.before)
        shift = max(bits, self.past_bits) - 14
        kernels.move(self.past, half, _shift(shift - self.past_shift), a, 0)
        total = kernels.emphasise(reference, self.n_block, self.before, a, half, shift)
        kernels.move(a, half, 0, self.past, half)
        self.past_bits = bits
        self.past_shift = shift
        self.before = reference[self.n_block - 1]
        self.heard = kernels.bit_count(total) + shift - 5
        exponent = shift - 5 + self._forward(a, self.b, -1, 14)
        need = LEAST_EXPONENT
        if self.bits:
            need = max(exponent + self.bits - self.x_bits, LEAST_EXPONENT)
        self._insert(exponent, need)

    def _insert(self, exponent, need):
        """Bring all partitions to one exponent with room for the loudest; it falls by two or more."""
        needs, m = self.needs, self.n_parts
        most = need
        for q in range(m - 1, 0, -1):
            needs[q] = needs[q - 1]
            most = max(most, needs[q])
        needs[0] = need
        old = self.x_exponent
        if most > old or most < old - 1:
            self.x_exponent = most
        self.kernels.insert(
            self.x, self.n_bins, m, self.a, _shift(self.x_exponent - exponent), _shift(self.x_exponent - old)
        )

    def _begin_anew(self):
        """Forget what was learnt from a reference much weaker than what comes now, such as its noise."""
        if 0 < self.age < self.settling and self.heard >= self.loudest_heard + LOUDER_LOG2:
            self.kernels.forget(self.w, 2 * self.n_bins * self.n_parts)
            self.kernels.doubt(self.p, self.p_shift, self.n_bins, self.n_parts, self.prior)

    def _estimate(self):
        """The echo's samples, into a. Returns the shift that takes them to Q4."""
        kernels, k = self.kernels, self.n_bins
        bits = kernels.estimate(
            self.w, k, self.n_parts, self.x, self.p, self.p_shift, self.power_shift,
            self.a, self.b, self.s, self.x2_bits,
        )  # fmt: skip
        shift = bits - 14
        self.bits = kernels.gather(self.a, k, shift, self.b, self.a, 0, 0, 1)
        return self._to_q4(self._inverse(self.a, self.b, self.x_exponent - 11 + shift - self.scale))

    def _error_spectrum(self, e):
        """E of zeros and the block, into b. Returns its exponent; how loud it is into `left`."""
        kernels, n = self.kernels, self.n_block
        shift = kernels.peak(e, n, self.e_before) - 14
        total = kernels.emphasise(e, n, self.e_before, self.b, n >> 1, shift)
        self.e_before = e[n - 1]
        self.left = kernels.bit_count(total) + shift - 5
        return shift - 5 + self._forward(self.b, self.a, 0, 14)

    def _watch(self, d_sum, e_sum, y_sum):
        """Learn anew when the residual is louder than the recording while the estimate is loud, too."""
        smoothing = self.watch_smoothing
        self.d_mean += (d_sum - self.d_mean) >> smoothing
        self.e_mean += (e_sum - self.e_mean) >> smoothing
        self.y_mean += (y_sum - self.y_mean) >> smoothing
        if (
            self.recovers
            and self.age > self.settling >> 2
            and self.e_mean > self.d_mean
            and self.y_mean > self.d_mean >> 1
        ):
            self.kernels.doubt(self.p, self.p_shift, self.n_bins, self.n_parts, self.half_prior)

    def _ready(self):
        """Whether the reference has begun. Scales the recording to it, so that |W| is about 1.

        Both loudest blocks count, until the reference has been loud for a while; the recording may hold
        a talker as well, or begin later than the reference.
        """
        if self.age == 0 and self.heard < self.log2_n + ACTIVE_LOG2:
            return False
        if self.age < self.settling:
            self.loudest_heard = max(self.loudest_heard, self.heard)
            self.loudest_left = max(self.loudest_left, self.left)
            wanted = min(max(self.loudest_heard - self.loudest_left - HEADROOM_LOG2, LEAST_SCALE), MOST_SCALE)
            if self.age == 0:
                self.scale = wanted
            while self.scale > wanted:
                self._rescale(-1)
            while self.scale < wanted - 1:
                self._rescale(1)
        if self.heard > self.loudest_heard - 4:
            self.age = min(self.age + 1, 1 << 20)
        return True

    def _rescale(self, step):
        """Double or halve the recording, for the filter only. The uncertainty stays: it was a guess."""
        self.kernels.rescale(self.w, 2 * self.n_bins * self.n_parts, -step)
        self.scale += step
        self.psi_exponent += step

    def _listen(self, exponent):
        """The near end's power, with an exponent that has room for old and new."""
        new = exponent + self.bits - 14
        smoothing = self.smoothing
        if self.fresh:
            self.psi_exponent = new
            self.psi_bits = smoothing = 0
            self.fresh = False
        old = self.psi_exponent
        self.psi_exponent = max(new, old + ((self.psi_bits - 28) >> 1))
        self.psi_bits = self.kernels.listen(
            self.b, self.n_bins, _shift(2 * (self.psi_exponent - exponent), 28),
            self.psi, _shift(2 * (self.psi_exponent - old), 28), smoothing,
        )  # fmt: skip

    def _learn(self, exponent):
        """Exponents of this block into `constants`, for the kernel to add those of each bin."""
        constants, x_exponent = self.constants, self.x_exponent
        psi_exponent = 2 * self.psi_exponent
        constants[0] = psi_exponent - (self.power_shift + 2 * x_exponent - 27)
        constants[1] = psi_exponent
        constants[2] = 10 - x_exponent - exponent
        constants[3] = 21 - 2 * x_exponent
        self.kernels.learn(
            self.w, self.n_bins, self.n_parts, self.x, self.p, self.b, self.s, self.psi, self.p_shift,
            self.x2_bits, self.refill, self.reciprocals, constants,
        )  # fmt: skip

    def _constrain(self):
        """Now and then, and in turn, make a partition's response as short as the partition."""
        self.countdown -= 1
        if self.countdown:
            return
        self.countdown = self.settings["constraint"]
        kernels, k = self.kernels, self.n_bins
        m, part = self.n_parts, self.turn
        self.turn = part + 1 if part + 1 < m else 0
        bits = kernels.largest(self.w, part, k, m)
        if bits > 28 and self.scale > LEAST_SCALE:
            self._rescale(-1)
            bits -= 1
        if not bits:
            return
        shift = bits - 14
        self.bits = kernels.gather(self.w, k, shift, self.w, self.a, 1, 2 * part, 2 * m)
        exponent = self._inverse(self.a, self.b, shift)
        exponent += self._forward(self.a, self.b, 0, self.bits)
        kernels.constrain(self.w, self.a, part, k, m, _shift(-exponent, 29 - self.bits))


def _shift(shift, most_left=14):
    """Within what all machines do alike and the numbers have room for."""
    return max(min(shift, 31), -most_left)


def _log2_up(value):
    """The least n for which 2^n ≥ value."""
    n = 0
    while 1 << n < value:
        n += 1
    return n
