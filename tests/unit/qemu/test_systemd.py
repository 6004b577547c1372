# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which systemd unit a guest runs under, what refuses its save, and how systemd is spoken to."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused, StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import (
    _systemctl,
    _systemd,
    _systemd_drop_in,
    _systemd_guest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._deadline import Deadline
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._systemctl import (
    SystemdError,
    properties,
    require_manager,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._systemd import (
    finish_stop,
    settle,
    start_with,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._systemd_drop_in import (
    drop_in_path,
    exec_line,
    remove_drop_in,
    write_drop_in,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._systemd_guest import (
    unit_to_stop,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._systemd_unit import (
    Membership,
    Unit,
    own_unit,
    save_refusal,
    unit_of,
)

GUEST = Unit("guest.service")
USERS = Unit("guest.service", 1000)
ARGV = ("/usr/bin/qemu-system-x86_64", "-S")
USER_SLICE = "/user.slice/user-1000.slice/user@1000.service"

# --- /proc/PID/cgroup ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/guest.service", GUEST),
        ("/system.slice/system-guest.slice/guest@one.service", Unit("guest@one.service")),
        ("/guest.service", GUEST),
        (f"{USER_SLICE}/app.slice/guest.service", USERS),
        ("/system.slice/_cpu.service", Unit("cpu.service")),
    ],
)
def test_the_innermost_service_of_v2_is_found_with_its_manager(path, unit):
    assert unit_of(f"0::{path}\n") == Membership(unit, path)


def test_a_group_below_the_service_is_still_the_services():
    assert unit_of("0::/system.slice/guest.service/vcpus\n") == Membership(
        GUEST, "/system.slice/guest.service"
    )


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/init.scope",
        "/user.slice/user-0.slice/session-1.scope",
        "/system.slice/run-r0123.scope",
        f"{USER_SLICE}/app.slice/run-r0123.scope",
        f"{USER_SLICE}/init.scope",
        r"/machine.slice/machine-qemu\x2d1\x2dguest.scope/libvirt/emulator",
        "/system.slice",
        "/qemu.slice/100.scope",
    ],
)
def test_a_scope_or_a_bare_group_is_no_service(path):
    assert unit_of(f"0::{path}\n") is None


V1 = "5:memory:/system.slice/other.service\n1:name=systemd:{}\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (V1.format("/system.slice/guest.service"), True),
        (V1.format("/system.slice/guest.service") + "0::/system.slice/guest.service\n", True),
        (V1.format("/") + "0::/system.slice/guest.service\n", True),
        (V1.format("/") + "0::/\n", False),
        ("5:memory:/system.slice/other.service\n", False),
        ("1:name=systemd:/a:b/guest.service\n", True),
        ("", False),
    ],
    ids=["v1", "hybrid", "v2 in use", "none", "a controller's", "colon", "empty"],
)
def test_only_systemds_own_hierarchies_are_read(text, found):
    membership = unit_of(text)
    assert (membership is not None) is found
    if membership is not None:
        assert membership.unit == GUEST


# --- the option ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("guest", "guest.service"),
        ("guest.service", "guest.service"),
        ("guest@one", "guest@one.service"),
        ("my.guest", "my.guest.service"),
        (r"guest@a\x2db", r"guest@a\x2db.service"),
        ("-guest", "-guest.service"),
    ],
)
def test_a_unit_is_named_with_or_without_its_suffix(given_name, name):
    assert own_unit(given_name, 0) == Unit(name)
    assert own_unit(given_name, 1000) == Unit(name, 1000)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".service",
        "guest@.service",
        "guest@",
        "guest.socket",
        "guest.timer",
        "../guest.service",
        "/etc/guest.service",
        "two guests",
        "guest\n.service",
        "guest.service\n",
        "guest*",
        "g" * 250,
    ],
)
def test_what_does_not_name_one_service_is_refused(name):
    with pytest.raises(Refused, match="does not name a service"):
        own_unit(name, 0)


# --- what refuses a save ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "restart", "named", "runs_in_named", "refusal"),
    [
        (None, None, None, False, None),
        (GUEST, "no", None, False, None),
        (GUEST, "always", GUEST, True, None),
        (GUEST, None, GUEST, True, None),
        (GUEST, "always", None, False, "has Restart=always: .*systemd_unit=guest.service .* root"),
        (USERS, "on-failure", None, False, "Restart=on-failure: .*a run by the user 1000"),
        (GUEST, None, None, False, "cannot be learned .*systemd_unit=guest.service"),
        (GUEST, "no", Unit("other.service"), False, "guest.service, not under .*other.service"),
        (USERS, "no", GUEST, False, "guest.service of the user 1000, not under .*the user 1000"),
        (None, None, GUEST, False, "does not run as .*Leave systemd_unit out"),
    ],
)
def test_a_save_is_refused_when_the_guest_would_not_stay_ended(
    found, restart, named, runs_in_named, refusal
):
    said = save_refusal(found, restart, named, runs_in_named)
    assert said is None if refusal is None else re.search(refusal, str(said))


# --- the drop-in file ------------------------------------------------------------------------

WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))


def as_systemd_reads(line):
    """The words of an ExecStart= whose words are all quoted: unescaped, then ``%%`` and ``$$``."""
    escapes = {"n": "\n", "t": "\t", "\\": "\\", '"': '"'}
    quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', line, re.DOTALL)
    assert " ".join(f'"{word}"' for word in quoted) == line
    plain = [
        re.sub(
            r"\\(x([0-9a-f]{2})|.)",
            lambda found: chr(int(found[2], 16)) if found[2] else escapes[found[1]],
            word,
        )
        for word in quoted
    ]
    assert not any(re.search(r"%(?!%)|\$(?!\$)", re.sub(r"%%|\$\$", "", word)) for word in plain)
    return [word.replace("%%", "%").replace("$$", "$") for word in plain]


@given(WORDS)
def test_a_command_line_survives_the_unit_file(words):
    line = exec_line(["/usr/bin/qemu", *words])
    assert as_systemd_reads(line) == ["/usr/bin/qemu", *words]
    assert not re.search(r"[\x00-\x1f\x7f]", line)


def test_words_that_systemd_cannot_show_are_refused():
    with pytest.raises(Refused, match="not UTF-8"):
        exec_line(["/usr/bin/qemu", os.fsdecode(b"\xff")])


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """Where drop-in files are written in these tests."""
    places = {True: str(tmp_path / "system"), False: str(tmp_path / "user-{}")}
    monkeypatch.setattr(_systemd_drop_in, "_DIRECTORIES", places)
    return tmp_path


def test_the_drop_in_file_replaces_the_command_and_says_whose_it_is(directory):
    path = Path(write_drop_in(GUEST, ARGV))
    assert path == directory / "system" / "guest.service.d" / "zz-vmfleet-suspend.conf"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert "vmfleet.suspend" in lines[0]
    assert lines[-2:] == ["ExecStart=", 'ExecStart="/usr/bin/qemu-system-x86_64" "-S"']
    assert {"Type=exec", "Restart=no", "PIDFile="} < set(lines)


def test_only_the_owner_reads_the_drop_in_file(directory):
    assert os.stat(write_drop_in(USERS, ARGV)).st_mode & 0o777 == 0o600
    assert drop_in_path(USERS).startswith(f"{directory}/user-1000/guest.service.d/")


def test_removing_the_drop_in_file_leaves_what_others_put_beside_it(directory):
    others = directory / "system" / "guest.service.d" / "other.conf"
    write_drop_in(GUEST, ARGV)
    others.touch()
    remove_drop_in(GUEST)
    assert list(others.parent.iterdir()) == [others]
    others.unlink()
    remove_drop_in(GUEST)
    assert not others.parent.exists()


def test_a_drop_in_file_that_cannot_be_written_is_an_error_that_names_it(directory):
    (directory / "system").touch()
    with pytest.raises(StoreError, match=r"guest\.service\.d/zz-vmfleet"):
        write_drop_in(GUEST, ARGV)


# --- speaking to systemd ---------------------------------------------------------------------

STOPPED = {"LoadState": "loaded", "ActiveState": "inactive", "Id": GUEST.name, "Job": ""}
RUNNING = {**STOPPED, "ActiveState": "active", "SubState": "running", "MainPID": "77"}


@pytest.fixture
def scripted(directory, monkeypatch):
    """A `systemctl` that notes what it was told and shows the given properties."""
    programs = directory / "bin"
    programs.mkdir()
    calls = directory / "calls"
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(_systemctl, "_SYSTEM", str(directory))
    shell, cat = shutil.which("sh", path="/bin"), shutil.which("cat", path="/bin:/usr/bin")

    def script(shown=None, body=""):
        (directory / "shown").write_text("".join(f"{k}={v}\n" for k, v in (shown or {}).items()))
        program = programs / "systemctl"
        program.write_text(
            f'#!{shell}\nprintf "%s\\n" "$LC_ALL $*" >>{calls}\n{body}\n'
            f'case "$*" in *\\ show\\ *) {cat} {directory}/shown;; esac\n'
        )
        program.chmod(0o755)
        return lambda: calls.read_text().splitlines()

    return script


def test_systemctl_is_asked_in_the_c_locale_with_the_name_after_the_options(scripted):
    calls = scripted(RUNNING)
    shown = asyncio.run(properties(Unit("-guest.service")))
    assert (shown["MainPID"], shown["ControlGroup"]) == ("77", "")
    (call,) = calls()
    assert call.startswith("C --no-pager --no-ask-password show --property=")
    assert call.endswith(" -- -guest.service")


def test_what_systemctl_refuses_is_told_in_its_words(scripted):
    scripted(body="echo Access denied >&2; exit 4")
    with pytest.raises(SystemdError, match=r"show .*exit status 4\): Access denied"):
        asyncio.run(properties(GUEST))


def test_a_systemd_that_does_not_answer_is_not_waited_for_for_ever(scripted, monkeypatch):
    scripted(body="exec /bin/sleep 600")
    monkeypatch.setattr(_systemctl, "_ANSWER_SECONDS", 0.2)
    with pytest.raises(SystemdError, match=r"did not answer .* within 0\.2 s"):
        asyncio.run(properties(GUEST))


@pytest.mark.usefixtures("scripted")
def test_a_host_without_systemctl_is_an_error():
    with pytest.raises(SystemdError, match="systemctl cannot be run"):
        asyncio.run(properties(GUEST))


@pytest.mark.parametrize(
    "work",
    [
        lambda: unit_to_stop(os.getpid(), "guest"),
        lambda: start_with(GUEST, ARGV, Deadline(1)),
        lambda: properties(GUEST),
    ],
    ids=["save", "restore", "question"],
)
def test_a_unit_is_refused_where_no_systemd_runs(monkeypatch, tmp_path, work):
    monkeypatch.setattr(_systemctl, "_SYSTEM", str(tmp_path / "none"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(Refused, match=r"No systemd runs here .*Leave systemd_unit out"):
        asyncio.run(work())


def test_a_unit_of_a_user_whose_systemd_does_not_run_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(_systemctl, "_USER", str(tmp_path / "{}"))
    with pytest.raises(Refused, match=r"No systemd of the user 1000 runs here"):
        require_manager(USERS)


def test_a_service_of_a_systemd_outside_of_this_container_refuses_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(_systemctl, "_SYSTEM", str(tmp_path / "none"))
    outside = Membership(Unit("agent.service"), "/system.slice/agent.service")
    monkeypatch.setattr(_systemd_guest, "unit_of_process", lambda _pid: outside)
    assert asyncio.run(unit_to_stop(os.getpid(), None)) is None


def test_a_service_of_the_same_name_elsewhere_is_not_believed(scripted, monkeypatch):
    scripted({**RUNNING, "Restart": "no", "ControlGroup": "/system.slice/guest.service"})
    inner = Membership(GUEST, "/system.slice/box.service/payload/system.slice/guest.service")
    monkeypatch.setattr(_systemd_guest, "unit_of_process", lambda _pid: inner)
    with pytest.raises(Refused, match="cannot be learned"):
        asyncio.run(unit_to_stop(os.getpid(), None))


def test_a_unit_that_does_not_end_keeps_the_file_that_holds_its_restart_back(scripted, monkeypatch):
    scripted(RUNNING)
    monkeypatch.setattr(_systemd, "_STOP_SECONDS", 0.1)
    path = write_drop_in(GUEST, ARGV)
    with pytest.raises(SystemdError, match=r"did not end within 0\.1 s .*active, running"):
        asyncio.run(finish_stop(GUEST))
    assert os.path.exists(path)


def test_a_unit_that_is_never_up_keeps_the_file_and_says_so(scripted, monkeypatch):
    scripted({**RUNNING, "ActiveState": "activating", "SubState": "start-post"})
    monkeypatch.setattr(_systemd, "_SETTLE_SECONDS", 0.1)
    path = write_drop_in(GUEST, ARGV)
    with pytest.raises(SystemdError, match=r"activating, start-post\).*ExecStartPost=.*remove "):
        asyncio.run(settle(GUEST, 77))
    assert os.path.exists(path)


@pytest.mark.parametrize(
    "shown", [{**RUNNING, "MainPID": "78"}, {**STOPPED, "MainPID": "0"}], ids=["another", "ended"]
)
def test_a_unit_that_lost_the_guest_says_what_it_has(scripted, shown):
    calls = scripted(shown)
    path = write_drop_in(GUEST, ARGV)
    with pytest.raises(SystemdError, match=r"does not have the guest's QEMU \(77\)"):
        asyncio.run(settle(GUEST, 77))
    assert not os.path.exists(path)
    assert "C --no-pager --no-ask-password daemon-reload" in calls()


def test_a_systemd_too_old_for_the_file_is_refused_and_the_file_removed(scripted):
    # What comes last in DropInPaths= is read last.
    path = drop_in_path(GUEST)
    calls = scripted({**STOPPED, "DropInPaths": path, "Type": "simple", "Restart": "no"})
    with pytest.raises(Refused, match=r"Type=simple.*systemd 240"):
        asyncio.run(start_with(GUEST, ["/bin/sleep", "600"], Deadline(5)))
    assert not os.path.exists(path)
    assert not any(" start " in call for call in calls())
