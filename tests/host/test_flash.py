"""Flashing without a board: a mock of the ESP32's bootloader, a folder that acts as a Pico's drive."""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import shutil
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from esp32_mock_bootloader import process

import unplay.board.uf2
from unplay.board.esp import REGION_BYTES, flash_esp
from unplay.board.flash import flash
from unplay.board.images import ESP_HEADER, UF2_BLOCK, read_firmware
from unplay.board.uf2 import INFO, drives, flash_uf2
from unplay.errors import BadInputError, DeviceUnreachableError

ESP32, ESP32S3, ESP32C3 = 0, 9, 5
RP2040, RP2350, ABSOLUTE = 0xE48BFF56, 0xE48BFF59, 0xE48BFF57
INFO_TEXT = "UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\nBoard-ID: {}\n"


def noise(n: int) -> bytes:
    return np.random.default_rng(1).integers(0, 256, n, dtype=np.uint8).tobytes()


def esp_image(path: Path, chip: int, n: int = 150_000, least: int = 0) -> Path:
    """A header that is right before noise."""
    path.write_bytes(ESP_HEADER.pack(0xE9, 3, 2, 0x20, 0x40080000, 0xEE, chip, 0, least, 65535) + noise(n))
    return path


def uf2_blocks(family: int, n: int, total: int | None = None) -> list[bytes]:
    return [
        UF2_BLOCK.pack(
            *(0x0A324655, 0x9E5D5157, 0x2000, 0x10000000 + 256 * k, 256, k, n if total is None else total),
            family,
            noise(256),
            0x0AB16F30,
        )
        for k in range(n)
    ]


def uf2_image(path: Path, family: int, n: int = 500) -> Path:
    path.write_bytes(b"".join(uf2_blocks(family, n)))
    return path


class Board:
    """An ESP32's bootloader in a process. Not the mock's own handle, which leaves a pipe open."""

    def __init__(self, chip: str) -> None:
        self.process, port = process.start_server(None, timeout=None, chip=chip)
        self.url = f"socket://127.0.0.1:{port}"

    def stop(self) -> None:
        self.process.kill()
        process.stop_subprocess(self.process)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Bars:
    """Progress that can do something at half-way."""

    def __init__(self, at_half=lambda: None):
        self.shares: list[float] = []
        self.at_half = at_half

    def __call__(self, what: str, share: float) -> None:
        if what != "writing":
            return
        if share > 0.5 and not any(earlier > 0.5 for earlier in self.shares):
            self.at_half()
        self.shares.append(share)


@pytest.mark.parametrize(("chip", "number"), [("esp32", ESP32), ("esp32s3", ESP32S3)])
def test_esp_is_written_and_verified(tmp_path: Path, chip: str, number: int):
    image = esp_image(tmp_path / "firmware.bin", number)
    bars = Bars()
    with Board(chip) as board:
        done = flash(image, board.url, progress=bars)
    assert done.board == chip
    assert done.bytes == done.written_bytes == image.stat().st_size
    assert bars.shares[-1] == 1.0
    assert bars.shares == sorted(bars.shares)


def test_esp_verification_reads_the_flash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where writing does nothing, nothing is called done."""
    import esptool.cmds

    firmware = read_firmware(esp_image(tmp_path / "firmware.bin", ESP32))
    monkeypatch.setattr(esptool.cmds, "write_flash", lambda *_, **__: None)
    with Board("esp32") as board, pytest.raises(DeviceUnreachableError, match="broke off"):
        flash_esp(firmware, board.url, erase=False, dry_run=False, progress=Bars())


def test_esp_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import esptool.cmds

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a dry run writes")

    monkeypatch.setattr(esptool.cmds, "write_flash", refuse)
    with Board("esp32") as board:
        assert flash(esp_image(tmp_path / "firmware.bin", ESP32), board.url, dry_run=True).dry_run


def test_esp_of_another_chip_is_refused(tmp_path: Path):
    image = esp_image(tmp_path / "firmware.bin", ESP32)
    with Board("esp32s3") as board, pytest.raises(BadInputError, match=r"is for ESP32 and .* ESP32-S3"):
        flash(image, board.url)


def test_esp_revision_and_size_are_checked(tmp_path: Path):
    with Board("esp32") as board, pytest.raises(BadInputError, match=r"revision 9\.00 or later"):
        flash(esp_image(tmp_path / "firmware.bin", ESP32, least=900), board.url)
    with Board("esp32") as board, pytest.raises(BadInputError, match=r"needs 50041\d\d bytes .* 4MB"):
        flash(esp_image(tmp_path / "firmware.bin", ESP32, n=5_000_000), board.url)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Address and bytes of everything that esptool tells a board it will write, from now on."""
    from esptool.loader import ESPLoader

    noted: list[tuple[int, int]] = []

    def note(name: str, address: int) -> None:
        """address: where it stands among the arguments."""
        plain = getattr(ESPLoader, name)

        def noting(esp: ESPLoader, *arguments: int, **options: object) -> object:
            if arguments[0] and arguments[address]:
                noted.append((arguments[address], arguments[0]))
            return plain(esp, *arguments, **options)

        monkeypatch.setattr(ESPLoader, name, noting)

    note("flash_begin", 1)
    note("flash_defl_begin", 2)
    return noted


def holds(url: str, address: int, data: bytes | bytearray) -> bool:
    """Whether that is what a board's flash has there, as a whole."""
    from esptool.cmds import attach_flash, detect_chip, run_stub

    esp = run_stub(detect_chip(url))
    try:
        attach_flash(esp)
        return esp.flash_md5sum(address, len(data)) == hashlib.md5(data).hexdigest()
    finally:
        esp._port.close()


def test_esp_cut_in_the_middle_goes_on(tmp_path: Path, begun: list[tuple[int, int]]):
    """The plug is pulled at half; the same command writes only the rest, and the whole is right."""
    image = esp_image(tmp_path / "firmware.bin", ESP32, n=700_000)

    def pull() -> None:
        raise OSError(5, "Input/output error")

    with Board("esp32") as board:
        with pytest.raises(DeviceUnreachableError, match=r"broke off .* goes on where .* BOOT button"):
            flash(image, board.url, progress=Bars(at_half=pull))
        assert begun == [(0x1000, image.stat().st_size)]
        begun.clear()
        bars = Bars()
        done = flash(image, board.url, progress=bars)
        # half was there, to a region's length; esptool pads to words
        half = image.stat().st_size / 2
        assert half - REGION_BYTES < done.written_bytes <= half + REGION_BYTES
        assert sum(n for _, n in begun) == pytest.approx(done.written_bytes, abs=3)
        assert bars.shares == sorted(bars.shares)
        assert holds(board.url, 0x1000, image.read_bytes())
        begun.clear()
        assert flash(image, board.url).written_bytes == 0
        assert begun == []


def test_esp_gets_only_what_differs(tmp_path: Path, begun: list[tuple[int, int]]):
    """Two changes: two regions, of which the one in the middle is whole, the last one short."""
    old = esp_image(tmp_path / "old.bin", ESP32, n=300_000)
    changed = bytearray(old.read_bytes())
    changed[REGION_BYTES] ^= 1  # in the region from 0x10000 to 0x1ffff, as an image begins at 0x1000
    changed[-1] ^= 1
    (tmp_path / "new.bin").write_bytes(changed)
    with Board("esp32") as board:
        flash(old, board.url)
        begun.clear()
        would = flash(tmp_path / "new.bin", board.url, dry_run=True)
        assert begun == []
        done = flash(tmp_path / "new.bin", board.url)
        assert would.written_bytes == done.written_bytes < 2 * REGION_BYTES
        last = 0x1000 + len(changed) - (done.written_bytes - REGION_BYTES)
        assert begun == [(0x10000, REGION_BYTES), (last, pytest.approx(0x1000 + len(changed) - last, abs=3))]
        assert holds(board.url, 0x1000, changed)
        begun.clear()
        assert flash(old, board.url, erase=True).written_bytes == old.stat().st_size
        assert begun == [(0x1000, pytest.approx(old.stat().st_size, abs=3))]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_esp_that_loses_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import esptool.loader

    monkeypatch.setattr(esptool.loader, "WRITE_BLOCK_ATTEMPTS", 1)
    image = esp_image(tmp_path / "firmware.bin", ESP32)
    cut_off = pytest.raises(DeviceUnreachableError, match=r"broke off .* BOOT button")
    with Board("esp32") as board, cut_off:
        flash(image, board.url, progress=Bars(at_half=board.stop))
    del cut_off
    gc.collect()  # pyserial leaves a socket open whose other end has gone


def test_without_esptool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unplay_run):
    """It says what to install before it touches a port; a Pico does not need it."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "esptool" else find_spec(name)
    )
    done = unplay_run("device", "flash", esp_image(tmp_path / "firmware.bin", ESP32), "--port", "/dev/null")
    assert (done.code, done.err.count("\n")) == (5, 1)
    assert "pip install 'unplay[flash]'" in done.err
    drive = tmp_path / "RPI-RP2"
    drive.mkdir()
    (drive / INFO).write_text(INFO_TEXT.format("RPI-RP2"))
    pico = uf2_image(tmp_path / "firmware.uf2", RP2040)
    assert unplay_run("device", "flash", pico, "--drive", drive, "--dry-run").code == 0


def test_no_board_answers(tmp_path: Path):
    with pytest.raises(DeviceUnreachableError, match="hold the board's BOOT button"):
        flash(esp_image(tmp_path / "firmware.bin", ESP32), "socket://127.0.0.1:1")
    with pytest.raises(DeviceUnreachableError, match=r"there is no port .*no-port"):
        flash(esp_image(tmp_path / "firmware.bin", ESP32), str(tmp_path / "no-port"))


def test_files_that_are_no_firmware(tmp_path: Path):
    song = tmp_path / "song.wav"
    song.write_bytes(b"RIFF" + bytes(1000))
    with pytest.raises(BadInputError, match=r"is no firmware: .*micropython\.org/download"):
        read_firmware(song)
    with pytest.raises(BadInputError, match="cannot be read"):
        read_firmware(tmp_path / "nothing.bin")
    with pytest.raises(BadInputError, match="too few for MicroPython"):
        read_firmware(esp_image(tmp_path / "bootloader.bin", ESP32, n=20_000))
    with pytest.raises(BadInputError, match="ESP32-C3, which cannot play and record at once"):
        read_firmware(esp_image(tmp_path / "c3.bin", ESP32C3))
    with pytest.raises(BadInputError, match="unplay runs on RP2040 and RP2350"):
        read_firmware(uf2_image(tmp_path / "other.uf2", 0xADA52840))


def test_damaged_uf2(tmp_path: Path):
    """A block missing at the end or within, half a block, a flipped magic number."""
    path = tmp_path / "firmware.uf2"
    blocks = uf2_blocks(RP2040, 50)
    cases = [
        (blocks[:-1], "blocks are missing"),
        (blocks[:10] + blocks[11:], "block 10 is missing"),
        ([*blocks, blocks[0][:100]], "no whole number of 512"),
        ([blocks[0][:-1] + b"\0", *blocks[1:]], "block 0"),
        ([], "is no firmware"),
    ]
    for parts, message in cases:
        path.write_bytes(b"".join(parts))
        with pytest.raises(BadInputError, match=message):
            read_firmware(path)


def test_an_absolute_block_before_an_rp2350_image(tmp_path: Path):
    path = tmp_path / "firmware.uf2"
    path.write_bytes(b"".join(uf2_blocks(ABSOLUTE, 1, total=2) + uf2_blocks(RP2350, 400)))
    assert read_firmware(path).board == "pico2"


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """A Pico in its bootloader, which nobody watches yet."""
    folder = tmp_path / "media" / "RPI-RP2"
    folder.mkdir(parents=True)
    (folder / INFO).write_text(INFO_TEXT.format("RPI-RP2"))
    return folder


def restart_when_whole(drive: Path, size: int, kept: Path) -> threading.Thread:
    """What the bootloader does: takes the file, and is gone."""

    def watch() -> None:
        file = drive / "firmware.uf2"
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            if file.exists() and file.stat().st_size == size:
                shutil.copy(file, kept)
                shutil.rmtree(drive)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_uf2_is_copied_whole(tmp_path: Path, drive: Path):
    image = uf2_image(tmp_path / "firmware.uf2", RP2040)
    bars = Bars()
    board = restart_when_whole(drive, image.stat().st_size, tmp_path / "kept.uf2")
    place = flash_uf2(read_firmware(image), None, dry_run=False, progress=bars, roots=[tmp_path / "media"])
    board.join()
    assert place == drive
    assert (tmp_path / "kept.uf2").read_bytes() == image.read_bytes()
    assert bars.shares[-1] == 1.0


def test_uf2_dry_run_copies_nothing(tmp_path: Path, drive: Path):
    image = uf2_image(tmp_path / "firmware.uf2", RP2040)
    assert flash(image, drive=drive, dry_run=True).place == str(drive)
    assert [path.name for path in drive.iterdir()] == [INFO]


def test_uf2_for_the_other_chip_is_refused(tmp_path: Path, drive: Path):
    image = uf2_image(tmp_path / "firmware.uf2", RP2350)
    with pytest.raises(BadInputError, match=r"is for RP2350 and the board has an RP2040.*RPI_PICO/"):
        flash(image, drive=drive)
    (drive / INFO).write_text(INFO_TEXT.format("nRF52840-Feather"))
    with pytest.raises(BadInputError, match="nRF52840-Feather, no Pico"):
        flash(image, drive=drive)
    assert [path.name for path in drive.iterdir()] == [INFO]


def test_uf2_drives_none_and_two(tmp_path: Path, drive: Path):
    firmware = read_firmware(uf2_image(tmp_path / "firmware.uf2", RP2040))
    second = drive.with_name("RPI-RP2 1")
    shutil.copytree(drive, second)
    options = {"dry_run": False, "progress": Bars(), "roots": [tmp_path / "media"], "patience_s": 0.2}
    with pytest.raises(BadInputError, match=r"RPI-RP2 and .*RPI-RP2 1; choose one with --drive"):
        flash_uf2(firmware, None, **options)
    shutil.rmtree(drive)
    shutil.rmtree(second)
    assert drives([tmp_path / "media", tmp_path / "absent"]) == []
    with pytest.raises(DeviceUnreachableError, match="hold the board's BOOTSEL button"):
        flash_uf2(firmware, None, **options)


def test_uf2_copy_breaks_off_and_again(tmp_path: Path, drive: Path, monkeypatch: pytest.MonkeyPatch):
    """The drive goes away with half of the file; with the board back, the same command succeeds."""
    firmware = read_firmware(uf2_image(tmp_path / "firmware.uf2", RP2040))
    full = OSError(5, "Input/output error")

    class Cut(Bars):
        def __call__(self, what: str, share: float) -> None:
            super().__call__(what, share)
            if share > 0.5:
                raise full

    with pytest.raises(DeviceUnreachableError, match=r"broke off after \d+ of 256000 bytes"):
        flash_uf2(firmware, None, dry_run=False, progress=Cut(), drive=drive)
    board = restart_when_whole(drive, len(firmware.data), tmp_path / "kept.uf2")
    flash_uf2(firmware, None, dry_run=False, progress=Bars(), drive=drive)
    board.join()
    assert (tmp_path / "kept.uf2").read_bytes() == firmware.data


def test_uf2_that_the_board_does_not_take(tmp_path: Path, drive: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unplay.board.uf2, "RESTART_S", 0.2)
    with pytest.raises(DeviceUnreachableError, match="did not restart"):
        flash(uf2_image(tmp_path / "firmware.uf2", RP2040), drive=drive)


def test_which_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    image = esp_image(tmp_path / "firmware.bin", ESP32)
    monkeypatch.setattr("unplay.board.flash.candidates", lambda: ["/dev/ttyUSB0", "/dev/ttyUSB1"])
    with pytest.raises(BadInputError, match="/dev/ttyUSB0 and /dev/ttyUSB1; choose one with --port"):
        flash(image)
    monkeypatch.setattr("unplay.board.flash.candidates", lambda: [])
    with pytest.raises(DeviceUnreachableError, match="no board is plugged in"):
        flash(image)


def test_header_of_an_esp_image():
    """Offsets of esptool's documentation: chip id at 12, least revision at 15, most at 17."""
    data = bytearray(ESP_HEADER.size)
    data[0] = 0xE9
    struct.pack_into("<H", data, 12, 9)
    struct.pack_into("<HH", data, 15, 301, 399)
    assert ESP_HEADER.unpack(data)[-4:] == (9, 0, 301, 399)
