"""A validation of several devices at once, and what is written of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unplay.audio import write_whole
from unplay.board.link import DeviceLink
from unplay.errors import DeviceUnreachableError, UnplayError, ValidationError
from unplay.hil import history
from unplay.hil.floors import FloorsFile
from unplay.hil.history import Trend
from unplay.hil.junit import junit, sentence
from unplay.hil.validation import Plan, Progress, Validation, validate


@dataclass(frozen=True)
class Rack:
    """What came of a run. done: each device with the trends of its figures. broken: by port."""

    done: list[tuple[Validation, Mapping[str, Trend]]]
    broken: dict[str, UnplayError]

    @property
    def reasons(self) -> dict[str, str]:
        return {port: str(error) for port, error in self.broken.items()}

    def as_json(self) -> list[dict[str, Any]]:
        """One object a device; "worse" has the figures that got worse, and by how much."""
        return [
            {
                **validation.as_json(),
                "worse": {name: trend.worse for name, trend in trends.items() if trend.worse is not None},
            }
            for validation, trends in self.done
        ] + [{"port": port, "passed": False, "error": reason} for port, reason in self.reasons.items()]

    def write_junit(self, path: Path) -> None:
        write_whole(path, junit([validation for validation, _ in self.done], self.reasons))

    def write_page(self, path: Path) -> None:
        from unplay.report.validation_page import validation_page

        write_whole(path, validation_page(self.done, self.reasons).encode())

    def require(self) -> None:
        """Raises what a run broke off with, else ValidationError where a floor does not hold."""
        for error in self.broken.values():
            raise error
        failed = {validation.device: validation.failed for validation, _ in self.done if validation.failed}
        if failed:
            texts = [f"{device}: {', '.join(map(sentence, rows))}" for device, rows in failed.items()]
            raise ValidationError(
                f"not as good as asked for: {'; '.join(texts)}. Was the room quiet? `unplay device doctor` "
                "looks for the cause."
            )


def validate_all(
    ports: Sequence[str], floors: FloorsFile, plan: Plan, library: Path, progress: Progress
) -> Rack:
    """All devices at the same time; each run is added to the library and compared with those before."""
    shares = dict.fromkeys(ports, 0.0)

    def one(port: str) -> tuple[Validation, Mapping[str, Trend]] | UnplayError:
        def tell(doing: str, share: float) -> None:
            shares[port] = share
            progress(f"{port}: {doing}", sum(shares.values()) / len(shares))

        try:
            with DeviceLink(port) as link:
                validation = validate(link, floors, plan, tell)
            trends = history.trends(validation, history.earlier(validation, library))
            history.save(validation, library)
            return validation, trends
        except UnplayError as error:
            return error

    with ThreadPoolExecutor(len(ports)) as pool:
        results = dict(zip(ports, pool.map(one, ports), strict=True))
    return Rack(
        [result for result in results.values() if not isinstance(result, UnplayError)],
        {port: result for port, result in results.items() if isinstance(result, UnplayError)},
    )


def all_ports() -> list[str]:
    """Of all devices found. Raises DeviceUnreachableError where there is none."""
    from unplay.board.finding import look

    ports = [entry.port for entry in look() if entry.welcome is not None]
    if not ports:
        raise DeviceUnreachableError("no device was found: connect one, or name its port with --port.")
    return ports
