"""A Raspberry Pi as a device: the device's own program under CPython.

What a microcontroller has and CPython has not is supplied here, as modules of the same names: `machine`,
whose I2S is ALSA or a computed room; `micropython`; the kernels in numpy; ticks.
"""
