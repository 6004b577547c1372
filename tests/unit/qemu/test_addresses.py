# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether somebody listens at an address, on real sockets, without disturbing who does."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import _addresses
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._addresses import silent, taken
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._claims import Claim, Peer

QEMU = "qemu-system-x86_64"
THIS_PROCESS = f"process {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"
NOBODY = "nothing listens there"


def socket_taken(where: object) -> str | None:
    return taken(Claim("socket", str(where), "-qmp"))


def socket_silent(where: object) -> str | None:
    return silent(Peer("socket", str(where), "-chardev c"))


@contextlib.contextmanager
def listening(
    address: str | bytes | tuple[t.Any, ...], family: int = socket.AF_UNIX
) -> t.Iterator[socket.socket]:
    """A server, which must have seen no client at the end."""
    with socket.socket(family) as server:
        server.bind(address)
        server.listen(1)
        yield server
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


# UNIX sockets.


def test_a_socket_that_listens_is_taken_and_answers_and_sees_no_client(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(str(path)):
        assert socket_taken(path) == f"{THIS_PROCESS} listens there"
        assert socket_silent(path) is None


def test_a_file_that_a_dead_server_left_is_free_and_silent(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(str(path)):
        pass
    assert path.is_socket()
    assert socket_taken(path) is None
    assert socket_silent(path) == NOBODY


@pytest.mark.parametrize("name", ["absent", "no/directory", "file", "file/s"])
def test_a_path_without_a_socket_is_free_and_silent(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    assert socket_taken(tmp_path / name) is None
    assert socket_silent(tmp_path / name) == NOBODY


def test_a_server_that_went_and_left_its_client_is_silent(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen(1)
        client.connect(path)
        with server.accept()[0]:
            server.close()
            assert socket_taken(path) is None
            assert socket_silent(path) == NOBODY


@pytest.mark.parametrize("has_peer", [False, True])
def test_a_datagram_socket_is_taken(tmp_path: Path, has_peer: bool) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(path)
        if has_peer:
            bound.connect(path)
        assert socket_taken(path) == f"{THIS_PROCESS} listens there"


def test_a_socket_is_the_same_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with listening(str(tmp_path / "real" / "s")):
        assert socket_taken(tmp_path / "link" / "s") == f"{THIS_PROCESS} listens there"


def test_a_path_longer_than_a_socket_s_address_is_looked_at_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.chdir(deep)
    with listening("s"):
        assert socket_taken(deep / "s") == f"{THIS_PROCESS} listens there"
        assert socket_silent(deep / "s") is None
    assert socket_taken(deep / ("n" * 120)) is None


def test_a_relative_name_is_told_apart_by_its_process_s_directory(tmp_path: Path) -> None:
    program = "import socket; s = socket.socket(1); s.bind('s'); s.listen(1); print(); input()"
    homes = [tmp_path / "a", tmp_path / "b"]
    with contextlib.ExitStack() as stack:
        for home in homes:
            home.mkdir()
            child = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program],
                    cwd=home,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            assert child.stdout is not None
            child.stdout.readline()
        said = socket_taken(homes[1] / "s")
        assert said is not None
        assert said.startswith(f"process {child.pid} (")
        assert "and" not in said


def test_who_listens_need_not_be_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_addresses, "listening_sockets", lambda where: set())  # another namespace
    with listening(str(tmp_path / "s")):
        said = socket_taken(tmp_path / "s")
    assert said == "a process that is not visible from here listens there"


def test_without_permission_the_kernel_s_table_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_addresses, "_probe_error", lambda path: errno.EACCES)
    path = tmp_path / "s"
    with listening(str(path)):
        assert socket_taken(path) == f"{THIS_PROCESS} listens there"
        assert socket_silent(path) is None
    assert socket_taken(path) is None
    assert socket_silent(path) is None  # that nobody is seen does not say that nobody is there


@pytest.mark.parametrize("tight", [True, False], ids=["tight", "padded"])
def test_an_abstract_name_is_taken_while_it_is_bound(tight: bool) -> None:
    where = f"@vmfleet-test-{os.getpid()}"
    address = b"\0" + where[1:].encode()
    with listening(address if tight else address.ljust(108, b"\0")):
        assert socket_taken(where) == f"{THIS_PROCESS} listens there"
        assert socket_silent(where) is None
    assert socket_taken(where) is None
    assert socket_silent(where) == NOBODY


@pytest.mark.parametrize("where", ["@" + "n" * 200, "/" + "n" * 300])
def test_a_name_that_no_socket_can_have_is_free(where: str) -> None:
    assert socket_taken(where) is None


# Ports.


def tcp_taken(where: str) -> str | None:
    return taken(Claim("tcp", where, "-vnc"))


def tcp_silent(where: str) -> str | None:
    return silent(Peer("tcp", where, "-chardev c"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "*"])
def test_a_tcp_port_that_listens_is_taken_and_answers(host: str) -> None:
    with listening(("127.0.0.1", 0), socket.AF_INET) as server:
        where = f"{host}:{server.getsockname()[1]}"
        assert tcp_taken(where) == f"{THIS_PROCESS} has that TCP port"
        assert tcp_silent(where) is None
    assert tcp_taken(where) is None
    assert tcp_silent(where) == NOBODY


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "::"])
def test_a_server_at_every_address_is_at_this_one(everywhere: str) -> None:
    family = socket.AF_INET6 if ":" in everywhere else socket.AF_INET
    with listening((everywhere, 0), family) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"
        assert tcp_taken(where) == f"{THIS_PROCESS} has that TCP port"
        assert tcp_silent(where) is None


def test_a_port_of_another_address_is_free() -> None:
    with listening(("127.0.0.1", 0), socket.AF_INET) as server:
        port = server.getsockname()[1]
        assert tcp_taken(f"127.0.0.2:{port}") is None
        assert tcp_silent(f"127.0.0.2:{port}") == NOBODY
        assert tcp_taken(f"[::1]:{port}") is None


def test_every_address_of_one_family_is_none_of_the_other() -> None:
    with listening(("127.0.0.1", 0), socket.AF_INET) as server:
        assert tcp_taken(f"[::]:{server.getsockname()[1]}") is None


def test_a_connection_that_outlived_its_server_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"
        with socket.create_connection(server.getsockname()), server.accept()[0]:
            server.close()
            assert tcp_taken(where) is None
            assert tcp_silent(where) == NOBODY


def test_a_port_of_an_address_of_the_other_family_is_found() -> None:
    with listening(("::1", 0), socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert tcp_taken(f"[::1]:{port}") == f"{THIS_PROCESS} has that TCP port"
        assert tcp_taken(f"*:{port}") == f"{THIS_PROCESS} has that TCP port"
        assert tcp_silent(f"[::1]:{port}") is None
        assert tcp_taken(f"127.0.0.1:{port}") is None


def test_what_a_closed_connection_left_is_not_in_the_way() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        server.accept()[0].close()  # who closes first keeps the port in TIME_WAIT
        client.close()
    assert tcp_taken(f"127.0.0.1:{port}") is None


def test_a_udp_port_is_taken_by_udp_alone() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{bound.getsockname()[1]}"
        assert taken(Claim("udp", where, "-netdev n")) == f"{THIS_PROCESS} has that UDP port"
        assert tcp_taken(where) is None
    assert taken(Claim("udp", where, "-netdev n")) is None


@pytest.mark.parametrize("where", ["192.0.2.1:5900", "no host at all:5900", "127.0.0.1:nothing"])
def test_an_address_that_this_host_does_not_have_is_not_taken(where: str) -> None:
    assert tcp_taken(where) is None


def test_a_host_without_an_address_does_not_answer() -> None:
    assert tcp_silent("no host at all:5900") == "the name of its host cannot be resolved"


def test_another_host_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_addresses, "_is_of_this_host", lambda family, address: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"
        assert tcp_silent(where) is None
        server.accept()[0].close()
    assert tcp_silent(where) == "it does not answer (Connection refused)"


# Pidfiles.


def test_a_pidfile_is_taken_while_a_process_holds_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    program = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX)\n"
        "print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        claim = Claim("pidfile", str(path), "-pidfile")
        assert taken(claim) == f"process {child.pid} holds its lock"
    assert path.exists()
    assert taken(claim) is None


@pytest.mark.parametrize("name", ["absent", "fifo", "."])
def test_what_is_no_locked_file_is_no_pidfile_in_use(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert taken(Claim("pidfile", str(tmp_path / name), "-pidfile")) is None


# The real one.


@pytest.mark.skipif(shutil.which(QEMU) is None, reason="asks an installed QEMU")
def test_a_qemu_has_its_pidfile_and_its_monitor_and_is_not_disturbed(tmp_path: Path) -> None:
    words = ["-M", "none", "-nodefaults", "-display", "none", "-pidfile", "pid"]
    argv = [QEMU, *words, "-qmp", "unix:qmp,server=on,wait=on"]
    pidfile = Claim("pidfile", str(tmp_path / "pid"), "-pidfile")
    with subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 20
            # It listens, and waits for one client: any other would be taken for that one.
            while socket_taken(tmp_path / "qmp") is None and time.monotonic() < until:
                time.sleep(0.05)
            named = f"process {process.pid} ({QEMU[:15]}) listens there"
            assert socket_taken(tmp_path / "qmp") == named
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                client.connect(str(tmp_path / "qmp"))
                assert client.recv(100).startswith(b'{"QMP"')
                assert socket_taken(tmp_path / "qmp") == named
            assert taken(pidfile) == f"process {process.pid} holds its lock"
        finally:
            process.kill()
    assert socket_taken(tmp_path / "qmp") is None
    assert taken(pidfile) is None
