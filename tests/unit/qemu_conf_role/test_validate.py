# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt says of the new file, and what the host has."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def validate(program):
    return program("validate")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """An empty PATH; gives a function that puts a program there."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(name: str, says: str = "") -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (tmp_path / name).chmod(0o755)

    return make


@pytest.mark.parametrize(
    ("number", "text"), [(11003000, "11.3.0"), (9000000, "9.0.0"), (10010004, "10.10.4")]
)
def test_libvirts_number_as_people_write_it(validate, number, text):
    assert validate.version_text(number) == text


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)", "10.0.2"),
        ("QEMU emulator version 9.1.0 (qemu-kvm-9.1.0-15.el9)", "9.1.0"),
        ("something else", None),
    ],
)
def test_the_version_of_the_hosts_qemu(validate, programs, says, version):
    programs("qemu-kvm", says)
    validate._EMULATORS = ("qemu-system-none", "qemu-kvm")
    assert validate.qemu_version() == version


def test_a_host_without_qemu(validate, programs):
    validate._EMULATORS = ("qemu-system-none",)
    assert validate.qemu_version() is None


@pytest.mark.parametrize(
    ("image_format", "missing"),
    [("zstd", "zstd"), ("gzip", None), ("raw", None), ("sparse", None)],
)
def test_a_compressed_format_needs_the_program_of_its_name(
    validate, programs, image_format, missing
):
    programs("gzip")
    assert validate.missing_program(image_format) == missing


def test_libvirts_words_name_the_new_file_and_not_its_copy(validate, fake_libvirt, tmp_path):
    conf = tmp_path / "candidate"
    conf.write_text("max_files = many")
    fake_libvirt.refusal = "syntax error: {root}/etc/qemu.conf:1: expecting a value"
    assert validate.error_of(str(conf)) == ("syntax error: the new qemu.conf:1: expecting a value")
    (uri,) = fake_libvirt.opened
    assert uri.startswith("qemu:///embed?root=")
    assert not Path(uri.partition("root=")[2]).exists()


def test_a_file_that_libvirt_takes(validate, tmp_path):
    conf = tmp_path / "candidate"
    conf.write_text("")
    assert validate.error_of(str(conf)) is None
