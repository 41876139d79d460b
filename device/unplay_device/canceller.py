"""The canceller with the kernels that this board runs best."""

import sys

from unplay_shared.canceller import Canceller

if sys.platform == "rp2":
    from unplay_device import kernels_thumb as kernels
else:
    from unplay_device import kernels


def new_canceller(settings):
    """`Canceller` for settings by name; its `process(reference, microphone, out)` allocates nothing.

    All three: array("h") of `n_block` samples. Raises ValueError where a setting is out of range.
    """
    return Canceller(settings, kernels)
