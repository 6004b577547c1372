# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role qemu_conf against a real libvirtd, which is not the machine's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.tests.support.libvirt_host import libvirt_missing
from ansible_collections.vmfleet.suspend.tests.support.qemu_conf_host import (
    ADMIN,
    LENSES,
    PASSWORD,
    QemuConfHost,
    ended,
)

_BEGIN = "# BEGIN ANSIBLE MANAGED BLOCK of vmfleet.suspend.qemu_conf\n"
_END = "# END ANSIBLE MANAGED BLOCK of vmfleet.suspend.qemu_conf\n"
_SPARSE = {"qemu_conf_save_image_format": "sparse"}
_DANGER = {**_SPARSE, "qemu_conf_auto_start_bypass_cache": True}
_WAIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def shared_host() -> Iterator[QemuConfHost]:
    missing = libvirt_missing()
    if missing is not None:
        pytest.skip(missing)
    machines_own = _machines_own_files()
    host = QemuConfHost()
    try:
        yield host.start()
    finally:
        host.close()
    assert _machines_own_files() == machines_own
    assert not host.directory.exists()
    assert str(host.directory) not in Path("/proc/self/mounts").read_text()


def _machines_own_files() -> dict[Path, bytes]:
    places = (Path("/etc/libvirt"), Path(LENSES))
    return {
        path: path.read_bytes() for place in places for path in place.glob("*") if path.is_file()
    }


@pytest.fixture
def host(shared_host: QemuConfHost) -> Iterator[QemuConfHost]:
    shared_host.restore_conf()
    yield shared_host
    assert shared_host.leftovers() == []


def _block(settings: str) -> str:
    return _BEGIN + settings + _END


def _changed(printed: str) -> bool:
    return "changed=0 " not in printed


def _line(printed: str) -> str:
    """Ansible breaks long messages."""
    return " ".join(printed.split())


def _augeas_reads(host: QemuConfHost, text: str) -> str:
    before = host.conf.read_text()
    host.conf.write_text(text)
    ask = "get /files{0}/save_image_version\nprint /augeas/files{0}/error\n"
    script = host.directory / "ask-augeas"
    script.write_text(ask.format("/etc/libvirt/qemu.conf"))
    said = host.run("augtool", "--file", script).stdout
    host.conf.write_text(before)
    return said


# What every `make test` runs.


@pytest.mark.full
def test_every_knob_stands_first_in_the_file_once_and_the_administrators_lines_stay(host):
    stock = host.lens.read_text()
    assert "parse_failed" in _augeas_reads(host, "save_image_version = 3\n" + ADMIN)
    old_pid = host.daemon_pid()
    wanted = {
        "qemu_conf_save_image_version": 3,
        "qemu_conf_save_image_format": "gzip",
        "qemu_conf_auto_start_bypass_cache": True,
        "qemu_conf_auto_save_bypass_cache": False,
    }
    printed = host.play(wanted, "--diff", "-vvv")
    settings = (
        'save_image_version = 3\nsave_image_format = "gzip"\n'
        "auto_start_bypass_cache = 1\nauto_save_bypass_cache = 0\n"
    )
    assert host.conf.read_text() == _block(settings) + ADMIN
    assert '+save_image_format = "gzip"' in printed
    assert PASSWORD not in printed
    assert "stock libvirt ignores save_image_version" in printed
    assert host.conf.stat().st_mode & 0o777 == 0o600
    assert [backup.read_text() for backup in host.backups()] == [ADMIN]
    assert host.daemon_pid() != old_pid
    assert ended(old_pid)

    pid = host.daemon_pid()
    assert not _changed(host.play(wanted))
    assert host.daemon_pid() == pid
    assert len(host.backups()) == 1

    # The lens learned one word, and is as strict as it was.
    assert len(host.lens.read_text().splitlines()) == len(stock.splitlines()) + 1
    read = _augeas_reads(host, host.conf.read_text())
    assert "save_image_version = 3" in read
    assert "error" not in read
    test_of_libvirt = Path(LENSES) / "tests" / "test_libvirtd_qemu.aug"
    host.run("augparse", "-I", host.lens.parent, test_of_libvirt)
    assert "parse_failed" in _augeas_reads(host, "save_image_versio = 3\n")


@pytest.mark.full
def test_check_mode_shows_the_block_alone_and_changes_nothing(host):
    pid = host.daemon_pid()
    printed = host.play(_SPARSE, "--check", "--diff", "-vvv")
    assert '+save_image_format = "sparse"' in printed
    assert PASSWORD not in printed
    assert _changed(printed)
    assert host.conf.read_text() == ADMIN
    assert host.backups() == []
    assert host.daemon_pid() == pid


_FULL = pytest.mark.full
_REFUSALS = [
    pytest.param(
        ADMIN + 'dump_image_format = "v3"\n', _SPARSE, "Invalid dump_image_format", id="bad value"
    ),
    pytest.param(
        ADMIN + "max_files = many\n", _SPARSE, "expecting a value", id="bad syntax", marks=_FULL
    ),
    pytest.param(
        ADMIN, {"qemu_conf_save_image_version": 4}, "must be one of", id="version 4", marks=_FULL
    ),
    pytest.param(ADMIN, _DANGER, "bypass_cache_with_sparse", id="bypass, sparse", marks=_FULL),
    pytest.param(
        ADMIN + "auto_start_bypass_cache = 1\n",
        _SPARSE,
        "bypass_cache_with_sparse",
        id="bypass in the administrator's line",
        marks=_FULL,
    ),
    pytest.param(
        ADMIN,
        {**_SPARSE, "qemu_conf_restart_command": []},
        "is not the main process of virtqemud.service or libvirtd.service",
        id="no way to restart",
        marks=_FULL,
    ),
]


def _assert_refused(host, text, variables, message, *words):
    host.restore_conf(text)
    pid = host.daemon_pid()
    assert message in _line(host.play(variables, *words, fails=True))
    assert host.conf.read_text() == text
    assert host.backups() == []
    assert host.daemon_pid() == pid
    assert host.answers()


@pytest.mark.parametrize(("text", "variables", "message"), _REFUSALS)
def test_what_is_refused_leaves_file_and_daemon_alone(host, text, variables, message):
    _assert_refused(host, text, variables, message)


@pytest.mark.full
@pytest.mark.parametrize(("text", "variables", "message"), _REFUSALS)
def test_check_mode_refuses_the_same(host, text, variables, message):
    _assert_refused(host, text, variables, message, "--check")


# The file.


@pytest.mark.full
def test_without_a_knob_the_block_is_taken_out(host):
    host.conf.write_text(_block('save_image_format = "gzip"\n') + ADMIN)
    assert '-save_image_format = "gzip"' in host.play({}, "--diff")
    assert host.conf.read_text() == ADMIN


@pytest.mark.full
def test_a_block_that_an_earlier_line_would_beat_is_moved_to_the_beginning(host):
    block = _block('save_image_format = "sparse"\n')
    host.conf.write_text('save_image_format = "gzip"\n' + block + ADMIN)
    printed = host.play(_SPARSE, "--diff")
    assert "+# This block" not in printed
    assert "-# This block is not at the beginning" in printed
    assert host.conf.read_text() == block + 'save_image_format = "gzip"\n' + ADMIN


@pytest.mark.full
def test_the_dangerous_combination_is_taken_when_allowed_by_name(host):
    host.play({**_DANGER, "qemu_conf_allow": ["bypass_cache_with_sparse"]})
    assert host.conf.read_text().startswith(
        _BEGIN + 'save_image_format = "sparse"\nauto_start_bypass_cache = 1\n'
    )


@pytest.mark.full
def test_a_file_that_is_edited_meanwhile_is_left_as_it_is(host):
    # libvirt's QEMU is asked for its version after the new file was made from the old one.
    editor = (
        "#!/bin/sh\necho '# a last thought' >>/etc/libvirt/qemu.conf\n"
        'exec /usr/bin/qemu-system-x86_64 "$@"\n'
    )
    path = Path(host.program("editor/qemu-system-x86_64", editor)).parent
    pid = host.daemon_pid()
    printed = host.play(_SPARSE, path=str(path), fails=True)
    assert "was changed by someone else meanwhile" in _line(printed)
    assert host.conf.read_text() == ADMIN + "# a last thought\n"
    assert host.backups() == []
    assert host.daemon_pid() == pid


# What the host has.


@pytest.mark.full
def test_sparse_is_refused_where_qemu_is_too_old(host):
    old = "#!/bin/sh\necho 'QEMU emulator version 8.2.2 (Debian)'\n"
    path = Path(host.program("old/qemu-system-x86_64", old)).parent
    printed = host.play(_SPARSE, path=str(path), fails=True)
    assert "needs libvirt 11.2 and QEMU 9.0" in printed
    assert host.conf.read_text() == ADMIN


@pytest.mark.full
@pytest.mark.parametrize("variable", ["save_image_format", "auto_save_bypass_cache"])
def test_what_came_with_libvirt_11_2_is_refused_before_it(host, variable):
    old = host.directory / f"old-libvirt-{variable}"
    old.mkdir()
    binding = "/usr/lib/python3/dist-packages/libvirt.py"
    # The real binding, but for the version that it tells.
    (old / "libvirt.py").write_text(
        f"exec(open({binding!r}).read())\ndef getVersion(name=None):\n    return 11001000\n"
    )
    value = "sparse" if variable == "save_image_format" else True
    command = host.command({f"qemu_conf_{variable}": value})
    printed = host.run("env", f"PYTHONPATH={old}", *command, check=False).stdout
    assert "libvirt 11.1.0" in printed
    assert host.conf.read_text() == ADMIN


@pytest.mark.full
def test_a_compressor_that_is_not_installed_is_refused(host):
    program = shutil.which("zstd")
    assert program is not None
    program = os.path.realpath(program)
    host.run("mount", "--bind", "/dev/null", program)  # no longer a program, in the host alone
    try:
        printed = host.play({"qemu_conf_save_image_format": "zstd"}, fails=True)
    finally:
        host.run("umount", program)
    assert "runs the program zstd" in printed
    assert host.conf.read_text() == ADMIN


# The daemon.


@pytest.mark.full
def test_the_restarted_daemon_saves_a_running_guest_in_the_new_format(host):
    host.start_domain()
    host.play(_SPARSE)
    image = host.directory / "tiny.save"
    host.virsh("save", "tiny", image)
    assert struct.unpack_from("<16s4I", image.read_bytes())[4] == 6  # sparse


@pytest.mark.full
def test_a_running_job_is_not_cut_off(host):
    host.play({"qemu_conf_save_image_format": "lzop"})
    before = host.conf.read_text()
    pid = host.daemon_pid()
    host.start_domain()
    image = host.directory / "slow.save"
    save = host.begin("virsh", "-c", "qemu:///system", "save", "tiny", image)
    end = time.monotonic() + _WAIT_SECONDS
    while "None" in host.virsh("domjobinfo", "tiny"):
        assert time.monotonic() < end, "the save does not begin"
        time.sleep(0.1)
    assert "cut off the jobs of tiny" in _line(host.play(_SPARSE, fails=True))
    assert host.conf.read_text() == before
    assert host.daemon_pid() == pid
    (host.directory / "go").touch()
    assert save.wait(60) == 0
    host.play(_SPARSE)
    assert "sparse" in host.conf.read_text()


@pytest.mark.full
def test_a_daemon_that_does_not_come_back_gets_its_old_file_again(host):
    variables = {**_SPARSE, "qemu_conf_restart_command": [host.restart_badly]}
    printed = _line(host.play(variables, fails=True))
    assert "does not answer at qemu:///system within 5 s" in printed
    assert "The old file was put back, and the daemon runs with it." in printed
    assert host.conf.read_text() == ADMIN
    assert host.answers()


@pytest.mark.full
def test_a_restart_that_does_nothing_is_found_out(host):
    pid = host.daemon_pid()
    does_nothing = {"qemu_conf_restart_command": ["/bin/true"], "qemu_conf_start_wait_seconds": 1}
    printed = _line(host.play({**_SPARSE, **does_nothing}, fails=True))
    assert (
        f"The daemon was not restarted: what answers at qemu:///system is process {pid}" in printed
    )
    assert "The old file was put back" in printed
    assert host.conf.read_text() == ADMIN
    assert host.daemon_pid() == pid
    # It still has the old settings, but nobody can know that: the next run restarts it.
    assert "changed=2 " in host.play({})
    assert host.daemon_pid() != pid


def _kill_with_all_it_started(pid: int) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended by itself
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                _kill_with_all_it_started(int(child))
        os.kill(pid, signal.SIGKILL)


@pytest.mark.full
def test_a_run_cut_off_before_the_restart_is_made_good_by_the_next(host):
    pid = host.daemon_pid()
    variables = {**_SPARSE, "qemu_conf_restart_command": [host.restart_never_ends]}
    play = host.begin(*host.command(variables))
    end = time.monotonic() + _WAIT_SECONDS
    while not (host.directory / "restarting").exists():
        assert time.monotonic() < end, "the role does not get as far as the restart"
        time.sleep(0.1)
    _kill_with_all_it_started(play.pid)
    play.wait(10)
    for left in host.leftovers():  # of the killed run
        shutil.rmtree(left)
    assert host.conf.read_text().startswith(_BEGIN)
    assert host.daemon_pid() == pid

    in_check_mode = host.play(_SPARSE, "--check")
    assert "was written after the daemon" in _line(in_check_mode)
    assert _changed(in_check_mode)
    assert host.daemon_pid() == pid

    assert _changed(host.play(_SPARSE))
    assert host.daemon_pid() != pid
    assert host.answers()
    assert not _changed(host.play(_SPARSE))


@pytest.mark.full
def test_a_daemon_that_hangs_is_not_restarted(host):
    pid = host.daemon_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        printed = _line(host.play(_SPARSE, fails=True))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "probably as it hangs" in printed
    assert host.conf.read_text() == ADMIN
    assert host.daemon_pid() == pid


@pytest.mark.full
def test_a_daemon_that_is_down_is_started_with_a_file_where_there_was_none(host):
    host.end_daemon()
    host.conf.unlink()
    host.play(_SPARSE)
    assert host.answers()
    assert host.conf.read_text() == _block('save_image_format = "sparse"\n')
    assert host.conf.stat().st_mode & 0o777 == 0o600


@pytest.mark.full
def test_a_daemon_that_systemd_does_not_run_now_is_not_started(host):
    host.end_daemon()
    host.play({**_SPARSE, "qemu_conf_restart_command": []})
    try:
        assert not host.answers()
    finally:
        host.start_daemon()
    assert "sparse" in host.conf.read_text()


@pytest.mark.full
def test_systemd_restarts_the_unit_whose_main_process_answers(host):
    old_pid = host.daemon_pid()
    path = host.systemctl("libvirtd.service", host.restart_program)
    host.play({**_SPARSE, "qemu_conf_restart_command": []}, path=path)
    assert (host.directory / "restarted-by-systemd").exists()
    assert host.daemon_pid() != old_pid
    assert "sparse" in host.conf.read_text()


@pytest.mark.full
@pytest.mark.parametrize(
    ("socket_name", "unit"),
    [("virtqemud-sock", "virtqemud.service"), ("libvirt-sock", "libvirtd.service")],
)
def test_systemd_restarts_the_unit_whose_socket_it_listens_on(host, socket_name, unit):
    variables = {**_SPARSE, "qemu_conf_restart_command": []}
    with host.socket_activation(socket_name, unit) as path:
        old_pid = host.daemon_pid()
        host.play(variables, path=path)
        assert (host.directory / "restarted-by-systemd").exists()
        assert host.daemon_pid() != old_pid
        assert "sparse" in host.conf.read_text()
        assert not _changed(host.play(variables, path=path))


@pytest.mark.full
def test_a_unit_that_is_not_restarted_is_found_out_behind_its_socket(host):
    variables = {"qemu_conf_restart_command": [], "qemu_conf_start_wait_seconds": 1}
    with host.socket_activation("virtqemud-sock", "virtqemud.service"):
        path = host.systemctl("virtqemud.service", "/bin/true")
        printed = _line(host.play({**_SPARSE, **variables}, path=path, fails=True))
    assert "The daemon was not restarted: what answers" in printed
    assert host.conf.read_text() == ADMIN
