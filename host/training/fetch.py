"""Fetch speech and music from Debian packages and keep them as 16 kHz samples.

    python host/training/fetch.py POOL

Needs apt-get, dpkg, ffmpeg (for G.722), soundfile ≥ 0.13, ancient (for one game's speech) and flite for the
synthetic talkers. Other packages are only downloaded, to POOL/packages, and unpacked there. Ends with
POOL/SPLIT/KIND/PACKAGE.npz of `samples` (n,) int16, the clips one after the other, and `lengths` and
`talkers` (n_clips,) int: the number, within the package, of who speaks (0 in music).
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import struct
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

RATE_HZ = 16000
LEAST_S, MOST_S = 0.4, 30.0
"""Length of a spoken clip: shorter ones are clicks, longer ones are no phrases."""
SPEECH_LEVEL = 0.05
"""Root mean square of a spoken clip, full scale being 1."""


Clip = NDArray[np.int16]
Spoken = tuple[str, Clip]
"""By whom, and (n_samples,)."""


@dataclass(frozen=True)
class Source:
    """split: train, validation or test; no talker and no music is in two of them, nor in the corpus and in
    train. pattern: of the files in the package. talker: a regular expression whose groups, in a file's path,
    tell one talker of the package from another; files that it doesn't fit are left out."""

    package: str
    split: str
    kind: str
    pattern: str
    licence: str
    talker: str = ""


SOURCES = (
    Source("asterisk-core-sounds-it-g722", "train", "speech", "**/*.g722", "CC-BY-SA-3.0, Carlo Flora"),
    Source("asterisk-core-sounds-ru-g722", "train", "speech", "**/*.g722", "CC-BY-3.0, Maxim (ivrvoice.ru)"),
    Source(
        "asterisk-prompt-it-menardi-wav",
        "train",
        "speech",
        "**/*.wav",
        "CC-BY-SA-3.0, Marco Menardi and Paola Dal Zot (http://www.voip.ammdomus.it)",
    ),
    Source("asterisk-prompt-fr-armelle", "train", "speech", "**/*.gsm", "BSD, Armelle Desjardins"),
    Source("asterisk-prompt-es-co", "train", "speech", "**/*.gsm", "GPL-2, July E. Jiménez"),
    Source("festvox-ru", "train", "speech", "**/wav/*.wav", "BSD-like, Nickolay V. Shmyrev"),
    Source(
        "flight-of-the-amazon-queen",
        "train",
        "speech",
        "**/queen.1c",
        "its own licence, free, John Passfield and Steven Stamatiadis",
        r"/(?:(\d{3})...P|.{6}J|JOE)",
    ),
    Source(
        "beneath-a-steel-sky",
        "train",
        "speech",
        "**/sky.dnr",
        "its own licence, free, Revolution Software",
        r"/(\d+)$",
    ),
    Source(
        "drascula",
        "train",
        "speech",
        "**/en/*.ALS",
        "Drascula licence, Alcachofa Soft",
        r"/([A-Z]*)\d+\.ALS",
    ),
    Source(
        "drascula-spanish",
        "train",
        "speech",
        "**/es/*.ALS",
        "Drascula licence, Alcachofa Soft",
        r"/([A-Z]*)\d+\.ALS",
    ),
    Source(
        "fillets-ng-data-cs",
        "train",
        "speech",
        "**/cs/*.ogg",
        "GPL-2, ALTAR interactive",
        "/[^/-]+-([a-z]+)-[^/]+$",
    ),
    Source(
        "fillets-ng-data-nl",
        "train",
        "speech",
        "**/nl/*.ogg",
        "GPL-2, the Fish Fillets authors",
        "/[^/-]+-([a-z]+)-[^/]+$",
    ),
    Source(
        "hedgewars-data",
        "train",
        "speech",
        "**/voices/*/*.ogg",
        "GFDL-1.3 and GPL-2, the Hedgewars Project",
        "/voices/(?!Robot)([^/]+)/",
    ),
    Source(
        "klettres-data",
        "train",
        "speech",
        "**/klettres/*/*/*.ogg",
        "GPL-2+, the KLettres authors",
        "/klettres/([^/]+)/",
    ),
    Source(
        "ktuberling-data",
        "train",
        "speech",
        "**/sounds/*/*",
        "GPL-2+, the KTuberling authors",
        "/sounds/(?!sr@)([^/]+)/",
    ),
    Source(
        "tuxpaint-stamps-default",
        "train",
        "speech",
        "**/*_desc*.ogg",
        "GPL-2, the Tux Paint authors",
        "_desc_?([a-z]*)",
    ),
    Source(
        "asterisk-core-sounds-es-g722", "validation", "speech", "**/*.g722", "CC-BY-SA-3.0, Allison Smith"
    ),
    Source("asterisk-core-sounds-en-g722", "test", "speech", "**/*.g722", "CC-BY-SA-3.0, Allison Smith"),
    Source("asterisk-core-sounds-fr-g722", "test", "speech", "**/*.g722", "CC-BY-SA-3.0, June Wallack"),
    Source("planetblupi-music-ogg", "train", "music", "**/*.ogg", "GPL-3+, Mathieu Schroeter"),
    Source("singularity-music", "train", "music", "**/*.ogg", "CC-BY-SA-3.0, Max McCracken"),
    Source("hyperrogue-music", "train", "music", "**/*.ogg", "GPL-2+, Zeno Rogue"),
    Source("asc-music", "train", "music", "**/*.mp3", "GPL-2+, Michael Kievernagel"),
    Source("ufoai-music", "train", "music", "**/*.ogg", "GPL-2+, CC-BY-3.0, CC-BY-SA-3.0, the UFO:AI team"),
    Source("drascula-music", "validation", "music", "**/*.ogg", "Drascula licence, Alcachofa Soft"),
    Source(
        "warzone2100-music", "test", "music", "**/*.opus", "GPL-2+ and CC0, Eidos and Warzone 2100 Project"
    ),
    Source("asterisk-moh-opsound-g722", "test", "music", "**/*.g722", "CC-BY-SA-3.0, Paul Shuler and others"),
)

TOOLS = ("ancient", "apt-get", "dpkg", "ffmpeg", "flite")
VOICES = ("awb", "rms", "slt", "kal16")
"""Synthetic talkers of flite, for training only."""
READ_ALOUD = Path("/usr/share/common-licenses/GPL-3")
N_SENTENCES = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pool", type=Path, help="folder for packages and samples, about 7 GB")
    pool = parser.parse_args().pool
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        raise SystemExit(
            f"Not installed: {', '.join(missing)}. host/training/README.md has the line for apt-get."
        )
    for source in SOURCES:
        target = pool / source.split / source.kind / f"{source.package}.npz"
        if not target.exists():
            keep(target, clips_of(source, unpacked(source.package, pool / "packages")))
    target = pool / "train" / "speech" / "flite.npz"
    if not target.exists():
        keep(target, phrases(read_aloud()))


def keep(target: Path, clips: Iterable[Spoken]) -> None:
    held = list(clips)
    names = sorted({talker for talker, _ in held})
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        target,
        samples=np.concatenate([clip for _, clip in held]),
        lengths=np.array([len(clip) for _, clip in held]),
        talkers=np.array([names.index(talker) for talker, _ in held]),
    )
    hours = sum(len(clip) for _, clip in held) / RATE_HZ / 3600
    print(
        f"{'/'.join(target.parts[-3:]):54} {len(names):3} talkers {len(held):5} clips {hours:.2f} h",
        flush=True,
    )


def unpacked(package: str, folder: Path) -> Path:
    """The package's files, downloaded with apt-get where they aren't there yet."""
    target = folder / package
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True)
        (archive,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", archive, target], check=True)
        for packed in target.glob("**/*.pk3"):
            zipfile.ZipFile(packed).extractall(packed.parent)
    return target


def clips_of(source: Source, folder: Path) -> Iterable[Spoken]:
    """The package's clips; of speech only phrases, at one level."""
    files = sorted(path for path in folder.glob(source.pattern) if path.is_file())
    if source.pattern.endswith("g722"):
        decoded: Iterable[tuple[str, Clip]] = zip(map(str, files), decode_g722(files), strict=True)
    elif source.pattern.endswith("queen.1c"):
        decoded = (clip for file in files for clip in packed_speech(file))
    elif source.pattern.endswith("sky.dnr"):
        decoded = (clip for file in files for clip in compressed_speech(file))
    else:
        decoded = ((str(file), decode(file)) for file in files)
    named = ((re.search(source.talker, path), clip) for path, clip in decoded)
    spoken = (("".join(filter(None, found.groups())), clip) for found, clip in named if found)
    return spoken if source.kind == "music" else phrases(spoken)


def phrases(clips: Iterable[Spoken]) -> Iterator[Spoken]:
    for talker, clip in clips:
        if LEAST_S <= len(clip) / RATE_HZ <= MOST_S and np.any(clip):
            level = np.sqrt(np.mean((clip / 32768.0) ** 2))
            yield talker, np.clip(clip * (SPEECH_LEVEL / level), -32767, 32767).astype(np.int16)


HEADLESS: dict[str, dict[str, str | int]] = {
    ".gsm": {"subtype": "GSM610", "samplerate": 8000},
    ".ALS": {"subtype": "PCM_U8", "samplerate": 11025},
}


def decode(file: Path) -> Clip:
    """The file in mono at 16 kHz; nothing where it is no sound: packages hold pictures, too."""
    bare = HEADLESS.get(file.suffix)
    return mono(file, **({"format": "RAW", "channels": 1} | bare if bare else {}))


def mono(file: Path | io.BytesIO, **form: str | int) -> Clip:
    try:
        samples, rate_hz = soundfile.read(file, dtype="float32", always_2d=True, **form)
    except soundfile.LibsndfileError:
        return np.zeros(0, np.int16)
    resampled = soxr.resample(samples.mean(axis=1), rate_hz, RATE_HZ)
    return np.round(np.clip(resampled, -1, 1) * 32767).astype(np.int16)


def packed_speech(file: Path) -> Iterator[tuple[str, Clip]]:
    """What the characters of Flight of the Amazon Queen say: path of a part of its file, and clip. After 15
    bytes, the last two of which count the parts, there are for each its name (12 bytes), a byte, offset and
    size, most significant byte first; sounds are MP3."""
    data = file.read_bytes()
    (n_parts,) = struct.unpack_from(">H", data, 13)
    for number in range(n_parts):
        name, _, offset, size = struct.unpack_from(">12sBII", data, 15 + 21 * number)
        if b".SB" in name:
            sound = io.BytesIO(data[offset : offset + size])
            yield f"{file.parent}/{name.decode('ascii').rstrip(chr(0))}", mono(sound)


def compressed_speech(index: Path) -> Iterator[tuple[str, Clip]]:
    """What is said in Beneath a Steel Sky: section of the script and clip. After the number of entries there
    are in the index for each its number (2 bytes), its place in sky.dsk (3; where the topmost bit is set, in
    sixteenths) and its size (22 bits of 3 bytes), least significant byte first. 22 bytes before the packed
    data of a sound, 8 bits a sample, aren't sound."""
    entries, data = index.read_bytes(), index.with_suffix(".dsk").read_bytes()
    for number, *rest in sorted(struct.iter_unpack("<H3s3s", entries[4:])):
        place, size = (int.from_bytes(part, "little") for part in rest)
        begin = (place & 0x7FFFFF) << (4 if place >> 23 else 0)
        packed = data[begin + 22 : begin + (size & 0x3FFFFF)]
        if number >= FIRST_LINE and packed.startswith(b"RNC"):
            with tempfile.TemporaryDirectory() as folder:
                source, sound = Path(folder) / "packed", Path(folder) / "sound.ALS"
                source.write_bytes(packed)
                subprocess.run(["ancient", "decompress", source, sound], check=True, capture_output=True)
                yield f"{index.parent}/{np.searchsorted(SECTIONS, number, 'right')}", decode(sound)


FIRST_LINE = 50000
SECTIONS = FIRST_LINE + np.cumsum([0, 600, 500, 1330, 950, 1150, 550, 150])
"""Where they begin."""


def decode_g722(files: list[Path]) -> list[Clip]:
    """All files by one call of ffmpeg: a byte of G.722 is two samples, so they can be told apart after."""
    packed = [file.read_bytes() for file in files]
    command = ["ffmpeg", "-v", "error", "-f", "g722", "-i", "-", "-f", "s16le", "-"]
    raw = subprocess.run(command, input=b"".join(packed), capture_output=True, check=True).stdout
    ends = np.cumsum([2 * len(data) for data in packed])
    return np.split(np.frombuffer(raw, "<i2"), ends[:-1])


def read_aloud() -> Iterator[Spoken]:
    """Sentence after sentence by one voice after the other."""
    words = " ".join(READ_ALOUD.read_text().split())
    sentences = [s for s in words.split(". ") if 20 < len(s) < 250][:N_SENTENCES]
    with tempfile.TemporaryDirectory() as folder:
        text, sound = Path(folder) / "text", Path(folder) / "sound.wav"
        for voice in VOICES:
            for sentence in sentences:
                text.write_text(sentence + ".\n")
                command = ["flite", "-voice", voice, "-f", text, "-o", sound]
                subprocess.run(command, check=True, capture_output=True)
                yield voice, decode(sound)


if __name__ == "__main__":
    main()
