"""The kernels in debug mode (CPython): every intermediate must fit 32 bits, every stored value its array.

`Canceller(settings, checked)` computes the same bits as with `kernels`, much more slowly, and raises
OverflowError where a board would wrap.
"""

from unplay_shared import kernels


def __getattr__(name):
    return getattr(kernels, name)


class Word(int):
    """A whole number of 32 bits with sign; what is computed with it is one again."""

    def __new__(cls, value):
        if not -(1 << 31) <= value < 1 << 31:
            raise OverflowError("%d does not fit 32 bits" % value)
        return int.__new__(cls, value)

    def __neg__(self):
        return Word(int.__neg__(self))


def _closed(name):
    of_int = getattr(int, name)

    def operation(*operands):
        return Word(of_int(*operands))

    return operation


for _name in ("add", "sub", "mul", "lshift", "rshift", "and", "or", "xor"):
    setattr(Word, "__%s__" % _name, _closed("__%s__" % _name))
    setattr(Word, "__r%s__" % _name, _closed("__r%s__" % _name))


class Numbers(list):
    """n numbers from least to most."""

    def __init__(self, n, least, most):
        list.__init__(self, [Word(0)] * n)
        self.least, self.most = least, most

    def __setitem__(self, k, value):
        if not self.least <= value <= self.most:
            raise OverflowError("%d is stored where %d to %d fit" % (value, self.least, self.most))
        list.__setitem__(self, k, Word(value))


def words(n):
    return Numbers(n, -(1 << 31), (1 << 31) - 1)


def samples(n):
    return Numbers(n, -32768, 32767)


def octets(n):
    return Numbers(n, 0, 255)
