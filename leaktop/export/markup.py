"""Elements of SVG and HTML, which escape all text by themselves; scripts and styles beside them."""

from importlib.resources import files
from xml.etree.ElementTree import Element, SubElement, tostring

__all__ = ["Element", "asset", "element", "svg_text", "within"]

SVG = "http://www.w3.org/2000/svg"


def within(parent: Element, tag: str, text: str = "", **attributes: object) -> Element:
    """Return a new element within ``parent``; ``class_`` and ``data_x`` stand for class, data-x."""
    return _filled(SubElement(parent, tag), text, attributes)


def element(tag: str, text: str = "", **attributes: object) -> Element:
    """Return a new element."""
    return _filled(Element(tag), text, attributes)


def _filled(made: Element, text: str, attributes: dict[str, object]) -> Element:
    made.text = text
    for name, value in attributes.items():
        made.set(name.rstrip("_").replace("_", "-"), str(value))
    return made


def asset(name: str) -> str:
    """Return a style or a script of this package."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def svg_text(root: Element) -> bytes:
    """Return an SVG file."""
    text: bytes = tostring(root, encoding="utf-8")
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + text + b"\n"
