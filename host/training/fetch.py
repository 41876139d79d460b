"""Fetch speech and music from Debian packages and keep them as 16 kHz samples.

    python host/training/fetch.py POOL

Needs apt-get, dpkg, ffmpeg (for G.722), soundfile ≥ 0.13, and for the synthetic talkers flite and festival
with its voices (the README has the line). Other packages are only downloaded, to POOL/packages, and unpacked
there. Ends with POOL/SPLIT/KIND/PACKAGE.npz of `samples` (n,) int16 and `lengths` (n_clips,), the clips one
after the other.
"""

from __future__ import annotations

import argparse
import shutil
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


@dataclass(frozen=True)
class Source:
    """split: train, validation or test; no talker and no music is in two of them, nor in the corpus and in
    train. pattern: of the files in the package."""

    package: str
    split: str
    kind: str
    pattern: str
    licence: str


SOURCES = (
    Source("asterisk-core-sounds-it-g722", "train", "speech", "**/*.g722", "CC-BY-SA-3.0, Carlo Flora"),
    Source("asterisk-core-sounds-ru-g722", "train", "speech", "**/*.g722", "CC-BY-3.0, Maxim (ivrvoice.ru)"),
    Source("fillets-ng-data-cs", "train", "speech", "**/cs/*.ogg", "GPL-2, ALTAR interactive"),
    Source("fillets-ng-data-nl", "train", "speech", "**/nl/*.ogg", "GPL-2, the Fish Fillets authors"),
    Source("klettres-data", "train", "speech", "**/klettres/??/**/*.ogg", "GPL-2+, the KLettres authors"),
    Source("ktuberling-data", "train", "speech", "**/sounds/??/*", "GPL-2+, the KTuberling authors"),
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

VOICES = {
    "flite": ("awb", "rms", "slt", "kal16"),
    "festival": (
        "ked_diphone",
        "cmu_us_slt_arctic_hts",
        "czech_dita",
        "czech_krb",
        "czech_machac",
        "czech_ph",
        "lp_diphone",
        "pc_diphone",
        "upc_ca_ona_hts",
        "suo_fi_lj_diphone",
        "hy_fi_mv_diphone",
    ),
}
"""Synthetic talkers, for training only. All read English, each by the rules of its own language."""
READ_ALOUD = Path("/usr/share/common-licenses/GPL-3")
N_SENTENCES = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pool", type=Path, help="folder for packages and samples, about 3 GB")
    pool = parser.parse_args().pool
    missing = [name for name in ("apt-get", "dpkg", "ffmpeg", *VOICES) if shutil.which(name) is None]
    if missing:
        raise SystemExit(
            f"Not installed: {', '.join(missing)}. host/training/README.md has the line for apt-get."
        )
    for source in SOURCES:
        target = pool / source.split / source.kind / f"{source.package}.npz"
        if not target.exists():
            keep(target, clips_of(source, unpacked(source.package, pool / "packages")))
    for program in VOICES:
        target = pool / "train" / "speech" / f"{program}.npz"
        if not target.exists():
            keep(target, phrases(read_aloud(program)))


def keep(target: Path, clips: Iterable[NDArray[np.int16]]) -> None:
    held = list(clips)
    target.parent.mkdir(parents=True, exist_ok=True)
    samples, lengths = np.concatenate(held), np.array([len(clip) for clip in held])
    np.savez(target, samples=samples, lengths=lengths)
    hours = len(samples) / RATE_HZ / 3600
    print(f"{'/'.join(target.parts[-3:]):54} {len(held):5} clips {hours:.2f} h", flush=True)


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


def clips_of(source: Source, folder: Path) -> Iterable[NDArray[np.int16]]:
    """The package's clips, int16 (n_samples,); of speech only phrases, at one level."""
    files = sorted(path for path in folder.glob(source.pattern) if path.is_file())
    decoded = decode_g722(files) if source.pattern.endswith("g722") else map(decode, files)
    return decoded if source.kind == "music" else phrases(decoded)


def phrases(clips: Iterable[NDArray[np.int16]]) -> Iterator[NDArray[np.int16]]:
    for clip in clips:
        if LEAST_S <= len(clip) / RATE_HZ <= MOST_S and np.any(clip):
            level = np.sqrt(np.mean((clip / 32768.0) ** 2))
            yield np.clip(clip * (SPEECH_LEVEL / level), -32767, 32767).astype(np.int16)


def decode(file: Path) -> NDArray[np.int16]:
    """The file in mono at 16 kHz; nothing where it is no sound: packages hold pictures, too."""
    try:
        samples, rate_hz = soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        return np.zeros(0, np.int16)
    mono = soxr.resample(samples.mean(axis=1), rate_hz, RATE_HZ)
    return np.round(np.clip(mono, -1, 1) * 32767).astype(np.int16)


def decode_g722(files: list[Path]) -> list[NDArray[np.int16]]:
    """All files by one call of ffmpeg: a byte of G.722 is two samples, so they can be told apart after."""
    packed = [file.read_bytes() for file in files]
    command = ["ffmpeg", "-v", "error", "-f", "g722", "-i", "-", "-f", "s16le", "-"]
    raw = subprocess.run(command, input=b"".join(packed), capture_output=True, check=True).stdout
    ends = np.cumsum([2 * len(data) for data in packed])
    return np.split(np.frombuffer(raw, "<i2"), ends[:-1])


def read_aloud(program: str) -> Iterator[NDArray[np.int16]]:
    """Sentence after sentence by one voice after the other."""
    words = " ".join(READ_ALOUD.read_text().split())
    sentences = [s for s in words.split(". ") if 20 < len(s) < 250][:N_SENTENCES]
    with tempfile.TemporaryDirectory() as folder:
        text, sound = Path(folder) / "text", Path(folder) / "sound.wav"
        for voice in VOICES[program]:
            for sentence in sentences:
                text.write_text(sentence + ".\n")
                if program == "flite":
                    command = ["flite", "-voice", voice, "-f", text, "-o", sound]
                else:
                    command = ["text2wave", "-eval", f"(voice_{voice})", text, "-o", sound]
                subprocess.run(command, check=True, capture_output=True)
                yield decode(sound)


if __name__ == "__main__":
    main()
