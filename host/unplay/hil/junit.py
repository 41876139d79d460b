"""Validations as JUnit XML, in the form pytest writes: a suite a device, a case a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from unplay.hil.validation import Row, Validation


def junit(done: Sequence[Validation], unreachable: Mapping[str, str]) -> bytes:
    """unreachable: ports whose run broke off, and why; each is a suite with one error."""
    root = ElementTree.Element("testsuites", name="unplay validate")
    for validation in done:
        _suite(root, validation)
    for port, reason in unreachable.items():
        suite = _element(root, "testsuite", name=port, tests=1, failures=0, errors=1, skipped=0)
        case = _element(suite, "testcase", classname=f"unplay.validate.{port}", name="run")
        _element(case, "error", message=reason)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _suite(root: ElementTree.Element, validation: Validation) -> None:
    suite = _element(
        root,
        "testsuite",
        name=validation.device,
        tests=len(validation.rows),
        failures=len(validation.failed),
        errors=0,
        skipped=0,
        time=validation.took_s,
        timestamp=validation.started,
    )
    properties = _element(suite, "properties")
    for name in ("board", "port", "unplay", "firmware"):
        _element(properties, "property", name=name, value=getattr(validation, name))
    for row in validation.rows:
        case = _element(suite, "testcase", classname=f"unplay.validate.{validation.device}", name=row.name)
        if not row.passed:
            _element(case, "failure", message=sentence(row))
        _element(case, "system-out").text = sentence(row)


def sentence(row: Row) -> str:
    """A figure, what was measured and what was asked."""
    asked = f" (asked: {row.floor})" if row.floor else ""
    said = "; ".join(text for text in (row.measured, row.note) if text)
    return f"{row.figure.title}: {said}{asked}"


def _element(parent: ElementTree.Element, tag: str, **attributes: object) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, {name: str(value) for name, value in attributes.items()})
