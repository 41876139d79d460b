"""`unplay device`: one device, over its serial port."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unplay.cli import device_setup, printing
from unplay.errors import BadInputError

if TYPE_CHECKING:
    from unplay.board.link import DeviceLink

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="A device that plays and records.\n\nExample: unplay device push song.flac",
)

app.command("setup")(device_setup.setup)
app.command("flash")(device_setup.flash)
app.command("install")(device_setup.install)
app.command("doctor")(device_setup.doctor)

Port = Annotated[
    str | None,
    typer.Option(metavar="PORT", help="Serial port, or tcp://HOST:PORT. [the only device found]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]


@contextmanager
def connected(port: str | None) -> Iterator[DeviceLink]:
    """A session with the device at a port, or with the only one there is."""
    from unplay.board.finding import the_only_port
    from unplay.board.link import DeviceLink

    with DeviceLink(port or the_only_port()) as link:
        yield link


@contextmanager
def transfer() -> Iterator[Callable[[str, int, int], None]]:
    """A bar with rate and time left for (name, bytes there, bytes in all)."""
    with printing.progress() as progress:
        begun_s, begun_at, current = time.monotonic(), 0, ""

        def show(name: str, done: int, size: int) -> None:
            nonlocal begun_s, begun_at, current
            if name != current:
                begun_s, begun_at, current = time.monotonic(), done, name
            rate = (done - begun_at) / 1000 / max(time.monotonic() - begun_s, 1e-3)
            progress(f"{name}, {rate:.0f} kB/s", done / max(size, 1))

        yield show


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Ports, and the devices that answer there.

    Example: unplay device list
    """
    from unplay.board.finding import look

    found = look()
    if as_json:
        printing.print_json([vars(entry) for entry in found])
        return
    for entry in found:
        if entry.welcome is None:
            print(f"{entry.port}: {entry.reason}")
        else:
            said = entry.welcome
            print(f"{entry.port}: {said['device']}, {said['board']}, unplay {said['unplay']}")
    if not found:
        print("there is no serial port with a device; `unplay virtual-device` makes one without a board")


@app.command()
def info(port: Port = None, as_json: AsJson = False) -> None:
    """What a device is, and the room it has.

    Example: unplay device info
    """
    with connected(port) as link:
        said = link.info()
    if as_json:
        printing.print_json(said)
        return
    for name in ("device", "board", "unplay", "firmware", "storage"):
        print(f"{name:9} {said[name]}")
    if said["storage"] is None:
        print("no card, or one it cannot read: use a FAT32 card, or `unplay device config storage=flash`")
        return
    minutes = said["free_bytes"] / (4 * 16_000) / 60
    print(f"free      {said['free_bytes'] / 1e6:.1f} MB: {minutes:.0f} minutes of recording and residual")


@app.command()
def config(
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Settings to change.")
    ] = None,
    port: Port = None,
    as_json: AsJson = False,
) -> None:
    """Show a device's settings, or change some.

    Example: unplay device config name=kitchen volume_q15=8192
    """
    wanted = parse_changes(changes or [])
    with connected(port) as link:
        settings = link.config_set(wanted) if wanted else link.config_get()
    if as_json:
        printing.print_json(settings)
    else:
        print_settings(settings)


def parse_changes(changes: list[str]) -> dict[str, Any]:
    """NAME=VALUE with whole numbers as such. Raises BadInputError for unknown names and values."""
    from unplay_shared.settings import CANCELLER, DEVICE, complete

    wanted: dict[str, Any] = {}
    kinds = {entry[0]: entry[2] for entry in DEVICE + CANCELLER}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise BadInputError(f"{change!r} is no setting: write NAME=VALUE, as in volume_q15=8192.")
        is_text = kinds.get(name, ()) is None
        wanted[name] = value if is_text or not value.lstrip("-").isdigit() else int(value)
    try:
        complete(wanted, DEVICE + CANCELLER)
    except ValueError as error:
        raise BadInputError(f"{error}.") from error
    return wanted


def print_settings(settings: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from unplay_shared.settings import CANCELLER, DEVICE

    table = Table("setting", "value", "unit", "default", "what for")
    for name, unit, _, default, meaning in DEVICE + CANCELLER:
        table.add_row(name, str(settings.get(name)), unit, str(default), meaning)
    Console().print(table)


@app.command()
def push(
    sound: Annotated[Path, typer.Argument(metavar="REFERENCE", help="Any audio file.")],
    name: Annotated[str | None, typer.Option(help="What the device calls it. [the file's name]")] = None,
    keep_level: Annotated[
        bool, typer.Option("--keep-level", help="Do not bring the peak to 0.9 of full scale.")
    ] = False,
    select: Annotated[
        bool, typer.Option("--select/--no-select", help="Let the button play it from now on.")
    ] = True,
    port: Port = None,
) -> None:
    """Send a sound that the device shall play: decoded, averaged to mono, resampled, levelled.

    Example: unplay device push song.flac
    """
    from unplay.board.references import make_reference
    from unplay.board.references import push as send

    reference = make_reference(sound, name, keep_level=keep_level)
    with connected(port) as link, transfer() as progress:
        new = send(link, reference, lambda done, size: progress(reference.name, done, size), select=select)
    said = "sent" if new else "the device had it already:"
    length_s, gain_db = reference.samples / reference.rate_hz, 20 * math.log10(reference.gain)
    print(f"{said} {reference.name}, {length_s:.1f} s, level changed by {gain_db:+.1f} dB")


@app.command()
def record(
    reference: Annotated[
        str | None, typer.Option(metavar="NAME", help='What to play; "" for nothing. [the selected one]')
    ] = None,
    seconds: Annotated[int | None, typer.Option(help="How long. [to the reference's end]")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show levels until it has ended.")] = True,
    port: Port = None,
) -> None:
    """Play and record; prints the session's id.

    Example: unplay device record --seconds 60
    """
    options: dict[str, Any] = {}
    if reference is not None:
        options["reference"] = reference
    if seconds is not None:
        options["seconds"] = seconds
    with connected(port) as link:
        id = link.record(options)["id"]
        print(id)
        if wait:
            follow(link)


def follow(link: DeviceLink) -> None:
    """Show what the device says of itself until it is idle; Ctrl-C stops the recording."""
    with printing.live() as show:
        try:
            for status in link.status():
                if status["state"] == "idle":
                    return
                show(describe(status))
        except KeyboardInterrupt:
            link.stop()


def describe(status: dict[str, Any]) -> str:
    """One line of a recording's state."""
    peak_db = 20 * math.log10((1 << int(status["peak"]).bit_length()) / 32_768) if status["peak"] else -96
    reduction_db = 20 * math.log10(max(status["before"], 1) / max(status["after"], 1))
    return (
        f"{status['state']} {status['samples'] / 16_000:7.1f} s   peak ≤ {peak_db:4.0f} dB   "
        f"echo reduction {reduction_db:5.1f} dB   clipped {status['clipped']}   late {status['late']}"
    )


@app.command()
def stop(port: Port = None) -> None:
    """End the recording that is going on.

    Example: unplay device stop
    """
    with connected(port) as link:
        print(link.stop()["id"])


@app.command("ls")
def ls(port: Port = None, as_json: AsJson = False) -> None:
    """The files on a device, with their bytes.

    Example: unplay device ls
    """
    with connected(port) as link:
        files = link.ls()
    if as_json:
        printing.print_json(files)
    else:
        for name, size in sorted(files.items()):
            print(f"{size:12,} {name}")


@app.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `ls` shows it.")],
    target: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to. [its own name]")] = None,
    port: Port = None,
) -> None:
    """Fetch one file, verified; goes on where an earlier attempt broke off. `unplay sync` fetches sessions.

    Example: unplay device pull sessions/20261127-101500/mic.pcm
    """
    target = target or Path(name.rpartition("/")[2])
    if target.exists():
        raise BadInputError(f"{target} exists already: name another file.")
    with connected(port) as link, transfer() as progress:
        link.get(name, target, lambda done, size: progress(name, done, size))
    print(f"wrote {target}")


@app.command()
def rm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A file, or sessions/ID with all in it.")],
    port: Port = None,
) -> None:
    """Remove a file or a session from a device.

    Example: unplay device rm sessions/20261127-101500
    """
    with connected(port) as link:
        link.rm(name)
    print(f"removed {name}")


@app.command()
def log(port: Port = None) -> None:
    """What the device noted since it was switched on.

    Example: unplay device log
    """
    with connected(port) as link:
        for line in link.log():
            print(line)


@app.command()
def serve(
    storage: Annotated[Path, typer.Option(metavar="DIR", help="Folder of references, sessions, settings.")],
    listen: Annotated[
        str, typer.Option(metavar="tcp://HOST:PORT|PORT", help="Where hosts connect: TCP, or a serial port.")
    ] = "tcp://0.0.0.0:5333",
    card: Annotated[str, typer.Option(metavar="NAME", help="ALSA's name of the sound card.")] = "default",
    scene: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="A computed room instead of a sound card.")
    ] = None,
) -> None:
    """Be a device: on a Raspberry Pi with a card that plays and records (`pip install 'unplay[pi]'`).

    Example: unplay device serve --storage /home/pi/unplay --card hw:0
    """
    from unplay.board.pi.serving import serve as be_a_device

    with contextlib.suppress(KeyboardInterrupt):
        be_a_device(storage, listen, _i2s(card, scene), lambda address: print(address, flush=True))


def _i2s(card: str, scene: Path | None) -> type:
    """What `machine.I2S` shall be."""
    if scene is None:
        from unplay.board.pi.alsa import AlsaI2S, require_alsa

        require_alsa()
        AlsaI2S.card = card
        return AlsaI2S
    from unplay.board.pi.room import RoomI2S
    from unplay.virtual.setup import make_room, read
    from unplay.virtual.streams import Streams

    RoomI2S.streams = Streams(make_room(read(scene)), keep_truth=False)
    return RoomI2S
