# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a process is run: seen, written into an image, read back without trust."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._environment import (
    matters,
    what_matters,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._limits import (
    LIMITS,
    read_limits,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._process import identify
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._surroundings import (
    USUAL,
    Surroundings,
    chosen_id,
    differing_namespaces,
    observe,
    own_namespaces,
    started_in,
    text_of,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._record import (
    RECORD_TAG,
    pack_block,
    unpack_block,
)
from ansible_collections.vmfleet.suspend.tests.support.model_guest import identity_of
from ansible_collections.vmfleet.suspend.tests.support.observing import (
    observed,
    printed_by,
)

NOBODY = 65534
SLEEP = os.path.realpath(shutil.which("sleep") or "sleep")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@pytest.fixture
def run(tmp_path):
    """Start a program and observe it; it ends with the test."""
    children = []

    def start(argv, **options):
        options.setdefault("cwd", tmp_path)
        children.append(subprocess.Popen(argv, **options))
        return observed(children[-1].pid)

    yield start
    for child in children:
        child.kill()
        child.wait()


# Seen.


def test_a_process_is_seen_as_it_was_started(run, tmp_path):
    argv = ("sleep", "600")
    seen = run(argv, env={"TZ": "UTC", "PATH": "/bin:/usr/bin", "API_KEY": "x"}, umask=0o27)
    assert seen == Surroundings(
        argv=argv,
        executable=SLEEP,
        executable_deleted=False,
        cwd=os.path.realpath(tmp_path),
        user_id=os.geteuid(),
        group_id=os.getegid(),
        groups=tuple(os.getgroups()),
        limits=seen.limits,
        umask=0o27,
        environment={"TZ": "UTC", "PATH": "/bin:/usr/bin"},
        namespaces=own_namespaces(),
    )


def test_limits_are_those_of_the_process(run):
    def lowered():
        resource.setrlimit(resource.RLIMIT_CORE, (0, 4096))

    seen = run(["sleep", "600"], preexec_fn=lowered)
    assert seen.limits["RLIMIT_CORE"] == (0, 4096)
    own = {name: resource.getrlimit(getattr(resource, name)) for name in LIMITS.values()}
    unlimited = resource.RLIM_INFINITY
    assert {name: pair for name, pair in seen.limits.items() if name != "RLIMIT_CORE"} == {
        name: tuple(None if limit == unlimited else limit for limit in pair)
        for name, pair in own.items()
        if name != "RLIMIT_CORE"
    }


@needs_root
def test_its_user_and_groups_are_seen(run, tmp_path):
    seen = run(["sleep", "600"], cwd="/", user=NOBODY, group=1000, extra_groups=[4, 36])
    assert (seen.user_id, seen.group_id, seen.groups) == (NOBODY, 1000, (4, 36))


@needs_root
def test_another_namespace_is_seen():
    with subprocess.Popen(["unshare", "--net", "sleep", "600"]) as child:
        try:
            seen = observed(child.pid)
            while seen.argv[0] != "sleep":  # it is unshare until then
                seen = observed(child.pid)
        finally:
            child.kill()
    assert seen.namespaces["net"].startswith("net:[")
    assert {**seen.namespaces, "net": own_namespaces()["net"]} == own_namespaces()


def test_bytes_that_are_no_text_are_kept(run, tmp_path):
    odd = b"\xff\xed\xa0\x80 '\xc3\xa9\n"
    (tmp_path / os.fsdecode(odd)).mkdir()
    (tmp_path / os.fsdecode(odd) / os.fsdecode(odd)).touch()
    seen = run(
        [b"tail", b"-f", b"/dev/null", odd],
        cwd=tmp_path / os.fsdecode(odd),
        env={b"TZ": odd, b"PATH": b"/bin:/usr/bin"},
    )
    assert seen.argv[-1] == text_of(odd)
    assert seen.environment["TZ"] == text_of(odd)
    assert seen.cwd.endswith(text_of(odd))
    assert through_an_image(seen) == seen


def test_a_replaced_program_is_known_by_the_name_it_had(run, tmp_path):
    program = tmp_path / "qemu"
    shutil.copy(SLEEP, program)
    with subprocess.Popen([program, "600"]) as child:
        try:
            program.unlink()
            shutil.copy(SLEEP, program)  # what a package's upgrade does
            seen = observed(child.pid)
        finally:
            child.kill()
    assert (seen.executable, seen.executable_deleted) == (os.path.realpath(program), True)


def test_a_program_may_be_called_deleted(run, tmp_path):
    program = tmp_path / "qemu (deleted)"
    shutil.copy(SLEEP, program)
    seen = run([program, "600"])
    assert (seen.executable, seen.executable_deleted) == (os.path.realpath(program), False)


def test_a_removed_directory_is_known_by_the_name_it_had(tmp_path):
    directory = tmp_path / "gone"
    directory.mkdir()
    with subprocess.Popen(["sleep", "600"], cwd=directory) as child:
        try:
            directory.rmdir()
            seen = observed(child.pid)
        finally:
            child.kill()
    assert seen.cwd == os.path.realpath(directory)


def test_a_process_that_ended_shows_nothing():
    child = subprocess.Popen(["sleep", "600"])
    process = identity_of(child.pid)
    child.kill()
    child.wait()
    assert observe(process) is None


AS_NOBODY = f"""
import os, sys
from {identify.__module__} import identify
from {observe.__module__} import observe, own_namespaces
process = identify(int(sys.argv[1]))
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
print(observe(process), set(own_namespaces().values()))
"""


@needs_root
def test_a_process_of_another_user_shows_nothing():
    """Who cannot see the first process either takes its own namespaces for the usual ones."""
    assert printed_by(AS_NOBODY, str(os.getpid())) == f"None {{'{USUAL}'}}"


# Decided from what is seen.


@pytest.mark.parametrize(
    ("argv", "cwd", "pwd", "directory"),
    [
        (["qemu", "-daemonize"], "/", "/srv/vm", "/srv/vm"),
        (["qemu", "--daemonize"], "/", "/srv/vm", "/srv/vm"),
        (["qemu", "-daemonize"], "/", None, "/"),
        (["qemu", "-daemonize"], "/", "vm", "/"),
        (["qemu", "-daemonize"], "/srv/other", "/srv/vm", "/srv/other"),
        (["qemu"], "/", "/srv/vm", "/"),
        (["qemu", "-name", "-daemonize"], "/", "/srv/vm", "/"),
    ],
)
def test_relative_paths_of_a_daemon_start_where_it_was_started(argv, cwd, pwd, directory):
    assert started_in(argv, cwd, {} if pwd is None else {"PWD": pwd}) == directory


@pytest.mark.parametrize(
    ("line", "chosen"),
    [
        ("\t0\t0\t0\t0", 0),
        ("\t1000\t1000\t1000\t1000", 1000),
        ("\t1000\t0\t0\t0", 1000),  # a program with root's set-user-ID bit
        ("\t1000\t36\t36\t36", 1000),
        ("\t0\t1000\t0\t1000", 1000),  # a root that acts as somebody
    ],
)
def test_a_process_with_two_users_is_started_as_the_one_that_is_not_root(line, chosen):
    assert chosen_id(line) == chosen


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "LD_PRELOAD",
        "QEMU_MODULE_DIR",
        "TMPDIR",
        "TZ",
        "LC_ALL",
        "DBUS_SESSION_BUS_ADDRESS",
        "https_proxy",
        "CEPH_CONF",
    ],
)
def test_what_qemu_reads_matters(name):
    assert matters(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "AWS_ACCESS_KEY_ID",
        "HTTP_PROXY",
        "LIBISCSI_CHAP_PASSWORD",
        "MYPATH",
        "PATH_INFO",
        "PWD",
        "QEMU_VNC_PASSWORD",
        "SDL_TOKEN",
        "SSH_AUTH_SOCK",
        "SUDO_USER",
        "path",
    ],
)
def test_what_may_be_a_secret_or_is_not_read_does_not(name):
    assert not matters(name)


def test_only_what_matters_is_kept():
    assert what_matters({"HOME": "/", "VAULT_PASS": "x", "QEMU_SECRET": "y"}) == {"HOME": "/"}


def test_unknown_and_unlimited_limits():
    content = (
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max open files            1024                 524288               files     \n"
        "Max core file size        0                    unlimited            bytes     \n"
        "Max file locks            unlimited            unlimited            locks     \n"
        "Max realtime timeout      unlimited            unlimited            us        \n"
    )
    assert read_limits(content) == {
        "RLIMIT_NOFILE": (1024, 524288),
        "RLIMIT_CORE": (0, None),
        "RLIMIT_RTTIME": (None, None),
    }


OWN = {"mnt": USUAL, "net": USUAL, "pid": USUAL, "user": USUAL}


@pytest.mark.parametrize(
    ("recorded", "own", "kinds"),
    [
        ({}, {}, ()),
        (OWN, OWN, ()),
        ({**OWN, "net": "net:[4026532281]"}, OWN, ("network namespace (net)",)),
        (OWN, {**OWN, "net": "net:[4026532281]"}, ("network namespace (net)",)),
        ({**OWN, "net": "net:[4026532281]"}, {**OWN, "net": "net:[4026532281]"}, ()),
        (
            {"mnt": "mnt:[1]", "net": "net:[2]", "pid": "pid:[3]", "user": "user:[4]"},
            OWN,
            ("mount namespace", "network namespace", "process namespace", "user namespace"),
        ),
        ({"uts": "uts:[1]"}, OWN, ()),
        ({"net": "net:[1]"}, {}, ("network namespace (net)",)),
    ],
)
def test_each_namespace_that_differs_is_told_with_the_way_out(recorded, own, kinds):
    told = differing_namespaces(recorded, own)
    assert len(told) == len(kinds)
    for words, kind in zip(told, kinds, strict=True):
        assert kind in words
        assert "give qmp_socket; or give argv" in words


# Written down.

TEXT = st.binary().map(lambda data: text_of(data.replace(b"\0", b"")))
IDS = st.integers(0, (1 << 32) - 2)
LIMIT = st.one_of(st.none(), st.integers(0, (1 << 63) - 1))
LIMIT_PAIRS = st.tuples(LIMIT, LIMIT).map(
    lambda pair: tuple(sorted(pair, key=lambda limit: 1 << 64 if limit is None else limit))
)
ANY = st.builds(
    Surroundings,
    argv=st.lists(TEXT, min_size=1).map(tuple),
    executable=TEXT.map("/{}".format),
    executable_deleted=st.booleans(),
    cwd=TEXT.map("/{}".format),
    user_id=IDS,
    group_id=IDS,
    groups=st.lists(IDS).map(tuple),
    limits=st.dictionaries(st.sampled_from(sorted(LIMITS.values())), LIMIT_PAIRS),
    umask=st.integers(0, 0o777),
    environment=st.dictionaries(TEXT.map(lambda name: "Q" + name.replace("=", "")), TEXT),
    namespaces=st.dictionaries(TEXT, TEXT),
)


def through_an_image(surroundings):
    block = pack_block(RECORD_TAG, {"launch": surroundings.as_dict()})
    return Surroundings.from_dict((unpack_block(RECORD_TAG, block) or {})["launch"])


@given(ANY)
def test_an_image_keeps_every_byte(surroundings):
    assert through_an_image(surroundings) == surroundings


GOOD = {
    "argv": ["qemu"],
    "executable": "/usr/bin/qemu",
    "executable_deleted": False,
    "cwd": "/",
    "user_id": 107,
    "group_id": 107,
    "groups": [36],
    "limits": {"RLIMIT_NOFILE": [1024, None]},
    "umask": 2,
    "environment": {"TZ": "UTC"},
    "namespaces": {"net": USUAL},
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("argv", None),
        ("argv", []),
        ("argv", "qemu"),
        ("argv", ["qemu", 1]),
        ("argv", ["qemu", "a\0b"]),
        ("argv", ["qemu", "\ud800"]),  # no byte of the kernel's becomes this
        ("executable", None),
        ("executable", "qemu"),
        ("executable_deleted", 0),
        ("cwd", ""),
        ("cwd", "../x"),
        ("cwd", "/\0"),
        ("user_id", None),
        ("user_id", "107"),
        ("user_id", 107.0),
        ("user_id", True),
        ("user_id", -1),  # setresuid(2) would change nothing
        ("user_id", 0xFFFFFFFF),
        ("group_id", -1),
        ("group_id", 0xFFFFFFFF),
        ("groups", None),
        ("groups", [-1]),
        ("groups", ["36"]),
        ("groups", [1] * 65537),
        ("limits", []),
        ("limits", {"RLIMIT_NOFILE": 1024}),
        ("limits", {"RLIMIT_NOFILE": [1024]}),
        ("limits", {"RLIMIT_NOFILE": [2, 1]}),
        ("limits", {"RLIMIT_NOFILE": [None, 1]}),
        ("limits", {"RLIMIT_NOFILE": [-1, None]}),
        ("limits", {"RLIMIT_NOFILE": [1, 1 << 63]}),
        ("limits", {"RLIM_INFINITY": [1, 1]}),
        ("umask", -1),
        ("umask", 0o1000),
        ("umask", "2"),
        ("environment", ["TZ=UTC"]),
        ("environment", {"TZ": None}),
        ("environment", {"A=B": "C"}),
        ("environment", {"": "C"}),
        ("environment", {"TZ": "\0"}),
        ("namespaces", {"net": 4026531840}),
        ("namespaces", "net"),
    ],
)
def test_what_is_not_surroundings_is_none(field, value):
    assert Surroundings.from_dict(GOOD) is not None
    assert Surroundings.from_dict({**GOOD, field: value}) is None
    assert Surroundings.from_dict({name: GOOD[name] for name in GOOD if name != field}) is None


@pytest.mark.parametrize("data", [None, [], "launch", {}])
def test_no_surroundings_at_all_are_none(data):
    assert Surroundings.from_dict(data) is None


def test_what_is_written_is_plain_json():
    surroundings = Surroundings.from_dict(GOOD)
    assert surroundings is not None
    assert json.loads(json.dumps(surroundings.as_dict())) == GOOD
