"""Settings of the canceller: unit, range, default, meaning. The device's settings file holds these names."""

CANCELLER = (
    # name, unit, allowed values or (least, greatest), default, meaning
    ("rate_hz", "Hz", [8000, 16000], 16000, "sample rate"),
    ("block", "samples", [256, 512, 1024], 1024, "block N: long ones cost least and answer latest"),
    ("tail_ms", "ms", (32, 256), 128, "latest echo followed, rounded up to whole blocks"),
    ("method", "", ["kalman", "nlms"], "kalman", "step by state-space model, or fixed"),
    ("step_q15", "1/32768", (1, 32768), 32768, "factor on every step; nlms wants about 8192"),
    ("forgetting", "2^-n per 16 ms", (6, 14), 9, "how fast the echo path is expected to change"),
    (
        "caution",
        "2^-n",
        (0, 4),
        2,
        "how little one block teaches: uncertainty falls by 2^-n of what theory says",
    ),
    ("smoothing", "2^-n per block", (0, 4), 1, "weight of one block in the near end's power"),
    ("constraint", "blocks", (1, 64), 8, "blocks between gradient constraints, one partition each"),
    ("recovery", "", [0, 1], 1, "start learning anew when the echo path has moved"),
)


def defaults() -> dict:
    return {entry[0]: entry[3] for entry in CANCELLER}


def complete(given: dict) -> dict:
    """All settings: those given, checked, and the defaults of the others. Raises ValueError."""
    settings = defaults()
    for name in given:
        if name not in settings:
            raise ValueError(
                "there is no setting %s; choose from %s" % (name, ", ".join(e[0] for e in CANCELLER))
            )
        settings[name] = given[name]
    for name, _, allowed, _, _ in CANCELLER:
        value = settings[name]
        if isinstance(allowed, list):
            if value not in allowed:
                choices = ", ".join(str(v) for v in allowed)
                raise ValueError("%s is %r; it can be %s" % (name, value, choices))
        elif not isinstance(value, int) or not allowed[0] <= value <= allowed[1]:
            raise ValueError(
                "%s is %r; it must be a whole number from %d to %d" % (name, value, allowed[0], allowed[1])
            )
    return settings


def partitions(settings):
    """Partitions M that the tail needs."""
    return -(-settings["tail_ms"] * settings["rate_hz"] // (1000 * settings["block"]))


def ram_bytes(settings):
    """Bytes of all buffers of `Canceller`, without the few hundred of its objects."""
    n, m = settings["block"], partitions(settings)
    k = n + 1
    per_partition = 16 * k  # spectrum 4, weight 8, uncertainty 4
    per_bin = 4 * 5 + 2  # two transforms, near end, S, twiddles; two exponents
    order = n // 2 if n & 0x5555 else n
    return m * per_partition + per_bin * k + 2 * n + order + 4 * 256
