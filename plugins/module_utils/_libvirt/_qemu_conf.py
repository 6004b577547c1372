# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The two settings of libvirt's qemu.conf that say how images are written.

The grammar is libvirt's own virConf (src/util/virconf.c, spec/libvirt.md 2.1), errors included:
a file that would stop the daemon is not guessed at here.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from .._errors import Refused, StoreError

SAVE_IMAGE_VERSIONS = (2, 3)
SAVE_IMAGE_FORMATS = ("raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse")
_MOST_BYTES = 10 << 20
_ADVICE = "Correct the file, or give image_version so that it is not read."

Value = t.Union[int, str, t.List[t.Any]]


@dataclass(frozen=True)
class QemuConf:
    """What qemu.conf says about save images; None where it says nothing."""

    path: str
    save_image_version: int | None
    save_image_format: str | None


@dataclass(frozen=True)
class Setting:
    """One active statement: its value and the line it starts on (from 1)."""

    value: Value
    line: int


def read_knobs(path: str) -> QemuConf:
    """Read and check the settings; a file that does not exist sets none.

    Raises `StoreError` when the file cannot be read, `Refused` naming file and line for a syntax
    error or a value that is not allowed.
    """
    settings = read_settings(path)
    return QemuConf(path, _version(path, settings), _format(path, settings))


def read_settings(path: str) -> dict[str, Setting]:
    """Every setting by name, unchecked. Raises as `read_knobs` when it cannot be read or parsed."""
    text = _read(path)
    return parse(text, path) if text is not None else {}


def _read(path: str) -> str | None:
    try:
        with open(path, "rb") as source:
            raw = source.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StoreError(
            f"{path} cannot be read: {exc.strerror}. Its save_image_version decides how the image "
            "is written. Run the module as a user that may read it (become), or give "
            "image_version.",
            path=path,
        ) from exc
    if len(raw) > _MOST_BYTES:
        raise Refused(f"{path} is larger than the 10 MiB that libvirt reads. {_ADVICE}")
    # Settings outside of strings are ASCII; what is inside them is carried, not interpreted.
    return raw.decode("utf-8", "surrogateescape")


def _version(path: str, settings: t.Mapping[str, Setting]) -> int | None:
    setting = settings.get("save_image_version")
    if setting is None:
        return None
    if not isinstance(setting.value, int) or setting.value not in SAVE_IMAGE_VERSIONS:
        raise _bad_value(path, "save_image_version", setting, "the number 2 or 3")
    return setting.value


def _format(path: str, settings: t.Mapping[str, Setting]) -> str | None:
    setting = settings.get("save_image_format")
    if setting is None:
        return None
    if not isinstance(setting.value, str) or setting.value not in SAVE_IMAGE_FORMATS:
        allowed = "one of " + ", ".join(f'"{label}"' for label in SAVE_IMAGE_FORMATS)
        raise _bad_value(path, "save_image_format", setting, allowed)
    return setting.value


def _bad_value(path: str, name: str, setting: Setting, allowed: str) -> Refused:
    return Refused(
        f"{path}:{setting.line}: {name} is {setting.value!r}; it must be {allowed}. {_ADVICE}"
    )


def parse(text: str, path: str) -> dict[str, Setting]:
    """Every setting by name; of several with one name the first, as libvirt takes it.

    Raises `Refused` naming file and line for what libvirt would not parse.
    """
    return _Parser(text, path).statements()


_MOST_NESTED_LISTS = 50

_BLANKS = re.compile(r"[ \t]*")
_SPACE = re.compile(r"[ \t\r\n]*")
_SPACE_AND_COMMENTS = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_END_OF_STATEMENT = re.compile(r"[ \t]*(?:#[^\r\n]*)?(?:[\r\n;]|\Z)")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NUMBER = re.compile(r"[+-]?[0-9]+")
_QUOTED = re.compile(r"'([^'\r\n]*)'|\"([^\"\r\n]*)\"")
_LONG_QUOTED = re.compile(r'"""(.*?)"""', re.DOTALL)


class _Parser:
    def __init__(self, text: str, path: str) -> None:
        self._text = text
        self._path = path
        self._at = 0

    def statements(self) -> dict[str, Setting]:
        settings: dict[str, Setting] = {}
        self._take(_SPACE_AND_COMMENTS)
        while self._at < len(self._text):
            line = self._line()
            name = self._take(_NAME)
            if name is None:
                raise self._error("a setting's name was expected")
            self._take(_BLANKS)
            if not self._take_character("="):
                raise self._error(f"= was expected after {name[0]}")
            self._take(_BLANKS)
            settings.setdefault(name[0], Setting(self._value(depth=0), line))
            if self._take(_END_OF_STATEMENT) is None:
                raise self._error(f"the value of {name[0]} is followed by something else")
            self._take(_SPACE_AND_COMMENTS)
        return settings

    def _value(self, depth: int) -> Value:
        if self._take_character("["):
            return self._rest_of_list(depth + 1)
        if self._text.startswith('"""', self._at):
            found = self._take(_LONG_QUOTED)
            if found is None:
                raise self._error('a string is not closed by """')
            return str(found[1])
        if self._text[self._at : self._at + 1] in ("'", '"'):
            found = self._take(_QUOTED)
            if found is None:
                raise self._error("a string is not closed on its line")
            return str(found[2] if found[1] is None else found[1])
        found = self._take(_NUMBER)
        if found is None:
            raise self._error("a quoted string, a number or a list was expected")
        return int(found[0])

    def _rest_of_list(self, depth: int) -> list[t.Any]:
        if depth > _MOST_NESTED_LISTS:
            raise self._error("lists are nested too deeply")
        values: list[t.Any] = []
        self._take(_SPACE)
        while not self._take_character("]"):
            values.append(self._value(depth))
            self._take(_SPACE)
            if not self._take_character(",") and not self._text.startswith("]", self._at):
                raise self._error("a list's values are separated by , and end with ]")
            self._take(_SPACE)
        return values

    def _take(self, pattern: t.Pattern[str]) -> t.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _take_character(self, character: str) -> bool:
        if not self._text.startswith(character, self._at):
            return False
        self._at += 1
        return True

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def _error(self, what: str) -> Refused:
        return Refused(f"{self._path}:{self._line()}: {what}. {_ADVICE}")
