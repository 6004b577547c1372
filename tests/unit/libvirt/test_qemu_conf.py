# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""qemu.conf: libvirt's grammar, and the two settings that matter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused, StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt._qemu_conf import (
    SAVE_IMAGE_FORMATS,
    QemuConf,
    parse,
    read_knobs,
)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "qemu.conf"


# The settings.


def test_a_missing_file_sets_nothing(conf: Path) -> None:
    assert read_knobs(str(conf)) == QemuConf(str(conf), None, None)


@pytest.mark.parametrize("text", ["", "\n", "# only a comment", '#save_image_format = "xz"\n'])
def test_a_file_without_active_settings_sets_nothing(conf: Path, text: str) -> None:
    conf.write_text(text)
    assert read_knobs(str(conf)) == QemuConf(str(conf), None, None)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("label", SAVE_IMAGE_FORMATS)
def test_reads_version_and_format(conf: Path, version: int, label: str) -> None:
    conf.write_text(f'save_image_version = {version}\nsave_image_format = "{label}"\n')
    assert read_knobs(str(conf)) == QemuConf(str(conf), version, label)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("save_image_version = 1", "save_image_version is 1; it must be the number 2 or 3"),
        ("save_image_version = 4", "is 4"),
        ("save_image_version = -3", "is -3"),
        ('save_image_version = "3"', "is '3'; it must be the number"),
        ("save_image_version = [ 3 ]", "must be the number"),
        ('save_image_format = "v3"', "save_image_format is 'v3'; it must be one of \"raw\""),
        ('save_image_format = ""', "must be one of"),
        ("save_image_format = 6", "is 6"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_file_and_line(
    conf: Path, line: str, words: str
) -> None:
    conf.write_text(f"# one\n\n{line}\n")
    with pytest.raises(Refused) as caught:
        read_knobs(str(conf))
    assert caught.value.message.startswith(f"{conf}:3: ")
    assert words in caught.value.message
    assert "give image_version" in caught.value.message


def test_the_first_of_duplicates_wins_and_later_ones_are_not_judged(conf: Path) -> None:
    conf.write_text("save_image_version = 2\nsave_image_version = 3\nsave_image_version = 9\n")
    assert read_knobs(str(conf)).save_image_version == 2


def test_what_cannot_be_read_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be read: .*become.*give image_version"):
        read_knobs(str(tmp_path))  # a directory: unreadable for root, too


def test_a_file_libvirt_would_not_read_for_its_size_is_refused(conf: Path) -> None:
    limit = 10 << 20
    conf.write_bytes(b"")
    os.truncate(conf, limit + 1)
    with pytest.raises(Refused, match="larger than the 10 MiB"):
        read_knobs(str(conf))


def test_other_settings_may_hold_any_bytes(conf: Path) -> None:
    conf.write_bytes(b'vnc_password = "\xff\xfe"\nsave_image_version = 3\n')
    assert read_knobs(str(conf)).save_image_version == 3


# The grammar.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a = 'x'", "x"),
        ('a = "x"', "x"),
        ("a='x'", "x"),
        ('\ta\t=\t"x"\t', "x"),
        ('a = "it\'s"', "it's"),
        ("a = 'say \"x\"'", 'say "x"'),
        ('a = "no\\escape"', "no\\escape"),
        ('a = "# no comment; no end"', "# no comment; no end"),
        ('a = """one\ntwo"""', "one\ntwo"),
        ('a = """with "quotes" inside"""', 'with "quotes" inside'),
        ("a = ''", ""),
        ("a = 7", 7),
        ("a = +7", 7),
        ("a = -7", -7),
        ("a = 007", 7),
        ("a = 1 # comment", 1),
        ("a = 1# comment", 1),
        ("a = 1;", 1),
        ("a = 1\r\n", 1),
        ("a = []", []),
        ("a = [ ]", []),
        ('a = [ "x" ]', ["x"]),
        ('a = [\n  "x",\n  2,\n]\n', ["x", 2]),
        ('a = [ "x", [ 1, 2 ] ]', ["x", [1, 2]]),
    ],
)
def test_values(text: str, value: object) -> None:
    assert parse(text, "f")["a"].value == value


def test_statements_end_at_a_newline_or_a_semicolon() -> None:
    settings = parse("a = 1; b = 2\nc_3 = 'x' # last; d = 4\n", "f")
    assert {name: setting.value for name, setting in settings.items()} == {
        "a": 1,
        "b": 2,
        "c_3": "x",
    }


def test_lines_are_counted_through_strings_lists_and_comments() -> None:
    text = '# one\na = """two\nthree"""\nb = [\n 5,\n]\n\nc = 1; d = 2\n'
    lines = {name: setting.line for name, setting in parse(text, "f").items()}
    assert lines == {"a": 2, "b": 4, "c": 8, "d": 8}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a = word", "a quoted string, a number or a list was expected"),
        ("a =", "a quoted string, a number or a list was expected"),
        ("a =\n1", "a quoted string, a number or a list was expected"),
        ("a = -", "a quoted string, a number or a list was expected"),
        ("a = 0x10", "followed by something else"),
        ("a = 'x' 'y'", "followed by something else"),
        ("a = 1 b = 2", "followed by something else"),
        ("a 1", "= was expected after a"),
        ("a-b = 1", "= was expected after a"),
        ("1a = 1", "a setting's name was expected"),
        ("_a = 1", "a setting's name was expected"),
        ("; a = 1", "a setting's name was expected"),
        ("[section]", "a setting's name was expected"),
        ("a = 'x", "not closed on its line"),
        ("a = \"x'", "not closed on its line"),
        ("a = 'x\ny'", "not closed on its line"),
        ('a = """x', 'not closed by """'),
        ("a = [ 1 2 ]", "separated by ,"),
        ("a = [ , ]", "a quoted string, a number or a list was expected"),
        ("a = [ 1, # no comments in lists", "a quoted string, a number or a list was expected"),
        ("a = " + "[" * 2000, "nested too deeply"),
    ],
)
def test_syntax_errors_name_file_and_line(line: str, words: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(f"ok = 1\n{line}\n", "/etc/libvirt/qemu.conf")
    assert caught.value.message.startswith("/etc/libvirt/qemu.conf:2: ")
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = [\n1,\n2\n3 ]", 4),
        ("a = [ 1, 2\n", 2),
        ('a = """\n\n"""\nb = word', 4),
        ("a = [\n\n", 3),
    ],
)
def test_a_syntax_error_is_told_where_it_is_not_where_the_statement_began(
    text: str, line: int
) -> None:
    with pytest.raises(Refused, match=rf"^f:{line}: "):
        parse(text, "f")
