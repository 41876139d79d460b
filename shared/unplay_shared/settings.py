"""Settings of device and canceller: unit, range, default, meaning. The settings file holds these names."""

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

DEVICE = (
    ("board", "", None, "", "file of the board's wires; empty: found out"),
    ("name", "", None, "", "of the device, for people; empty: its number"),
    ("reference", "", None, "", "what the button plays; empty: it records without playing"),
    ("seconds", "s", (0, 86400), 0, "longest recording; 0: to the reference's end, or till it is stopped"),
    ("storage", "", ["sd", "flash"], "sd", "where references and sessions are"),
    (
        "audio",
        "",
        ["best", "i2s"],
        "best",
        "i2s: two ids of machine.I2S even where the board has a better way",
    ),
    ("slot", "", ["left", "right"], "left", "which half of a frame the microphone answers in"),
    ("microphone_shift", "bits", (8, 16), 14, "32-bit samples are shifted down by; one less is 6 dB louder"),
    ("volume_q15", "1/32768", (0, 32767), 16384, "of all that is played"),
    ("marker_q15", "1/32768", (256, 32767), 8192, "level of the markers, before the volume"),
    ("settle_ms", "ms", (0, 5000), 300, "of the microphone's beginning that is thrown away"),
    ("cancel", "", [0, 1], 1, "run the canceller while recording"),
)


def defaults(table=CANCELLER) -> dict:
    return {entry[0]: entry[3] for entry in table}


def complete(given: dict, table=CANCELLER) -> dict:
    """All settings: those given, checked, and the defaults of the others. Raises ValueError."""
    settings = defaults(table)
    for name in given:
        if name not in settings:
            raise ValueError(
                "there is no setting %s; choose from %s" % (name, ", ".join(e[0] for e in table))
            )
        settings[name] = given[name]
    for name, _, allowed, _, _ in table:
        value = settings[name]
        if allowed is None:
            if not isinstance(value, str):
                raise ValueError("%s is %r; it must be a text" % (name, value))
        elif isinstance(allowed, list):
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
