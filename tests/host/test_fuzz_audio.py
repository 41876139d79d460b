"""Mangled audio files: read or refused with a sentence, never anything else."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unplay.audio import AudioReader
from unplay.errors import BadInputError

N_INPUTS = 10_000
KINDS = [
    ("WAV", "PCM_16", 6000),
    ("WAV", "FLOAT", 1000),
    ("WAVEX", "PCM_24", 1000),
    ("RF64", "PCM_16", 500),
    ("FLAC", "PCM_16", 750),
    ("OGG", "VORBIS", 250),
    ("OGG", "OPUS", 250),
    ("MP3", "MPEG_LAYER_III", 250),
]
TELLING = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFFE]


def whole(container: str, subtype: str) -> bytes:
    content = io.BytesIO()
    samples = 0.3 * np.sin(0.1 * np.arange(3000))
    soundfile.write(content, samples, 16_000, subtype, format=container)
    return content.getvalue()


def mangle(content: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes or words of the header changed, or some of the file lost or doubled."""
    mangled = bytearray(content)
    header = min(len(mangled) - 4, 120)
    for _ in range(rng.integers(1, 5)):
        position = int(rng.integers(header))
        match rng.integers(6):
            case 0 | 1:
                mangled[position] = rng.integers(256)
            case 2:
                struct.pack_into("<I", mangled, position, TELLING[rng.integers(len(TELLING))])
            case 3:
                struct.pack_into("<I", mangled, 4 * (position // 4), int(rng.integers(1 << 32)))
            case 4:
                del mangled[position : position + int(rng.integers(1, 9))]
            case 5:
                mangled[position:position] = mangled[: rng.integers(1, 9)]
        header = min(len(mangled) - 4, 120)
    if rng.random() < 0.2:
        del mangled[int(rng.integers(1, len(mangled))) :]
    return bytes(mangled)


def refusal(path: Path) -> str:
    """Read a file to its end; the sentence that refuses it, empty where all went well."""
    try:
        with AudioReader(path) as reader:
            assert len(reader.read(0, reader.format.n_samples)) == reader.format.n_samples > 0
    except BadInputError as error:
        return str(error)
    return ""


def test_the_kinds_make_up_the_number() -> None:
    assert sum(n for _, _, n in KINDS) >= N_INPUTS


@pytest.mark.parametrize(("container", "subtype", "n_inputs"), KINDS)
def test_mangled_headers(container: str, subtype: str, n_inputs: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(len(container) + 100 * len(subtype))
    content = whole(container, subtype)
    path = tmp_path / "mangled.wav"
    n_read = 0
    for _ in range(n_inputs):
        path.write_bytes(mangle(content, rng))
        sentence = refusal(path)
        assert not sentence or (sentence.startswith(str(path)) and sentence.endswith("."))
        n_read += not sentence
    assert n_read < n_inputs
    assert n_read or container == "OGG"  # whose pages have checksums
