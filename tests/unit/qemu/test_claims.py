# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command line takes for itself when QEMU starts, and which servers it needs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import typing as t
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._claims import (
    Claim,
    Peer,
    claims_of,
    peers_of,
)

QEMU = "qemu-system-x86_64"
HOME = "/vm"


def claimed(*words: str) -> list[tuple[str, str, str]]:
    return [(claim.kind, claim.where, claim.option) for claim in claims_of([QEMU, *words], HOME)]


def needed(*words: str) -> list[tuple[str, str, str]]:
    return [(peer.kind, peer.where, peer.option) for peer in peers_of([QEMU, *words], HOME)]


def as_json(**value: object) -> str:
    return json.dumps(value)


CHARDEVS = [
    ("socket,id=c,path=/s,server=on", "socket", "/s"),
    ("socket,id=c,path=s,server=on,wait=off", "socket", "/vm/s"),
    ("socket,id=c,path=s,server,nowait", "socket", "/vm/s"),
    ("socket,id=c,path=a,,b,server=on", "socket", "/vm/a,b"),
    ("backend=socket,id=c,path=/s,server=on", "socket", "/s"),
    ("socket,id=c,path=s,abstract=on,server=on", "socket", "@s"),
    ("socket,id=c,host=,port=1,server=on", "tcp", "*:1"),
    ("socket,id=c,host=h,port=1,server=on", "tcp", "h:1"),
    ("socket,id=c,host=::1,port=1,server=on", "tcp", "[::1]:1"),
    ("socket,id=c,host=,port=1,ipv4=on,server=on", "tcp", "0.0.0.0:1"),
    ("socket,id=c,host=,port=1,ipv6=off,server=on", "tcp", "0.0.0.0:1"),
    ("socket,id=c,host=,port=1,ipv6=on,server=on", "tcp", "[::]:1"),
    ("socket,id=c,host=,port=1,ipv4=off,server=on", "tcp", "[::]:1"),
    ("socket,id=c,host=,port=1,ipv4=on,ipv6=on,server=on", "tcp", "*:1"),
    ("udp,id=c,host=h,port=9,localport=1", "udp", "*:1"),
    ("udp,id=c,host=h,port=9,localaddr=127.0.0.1,localport=1", "udp", "127.0.0.1:1"),
]


@pytest.mark.parametrize(("value", "kind", "where"), CHARDEVS, ids=[row[0] for row in CHARDEVS])
def test_a_chardev_that_serves_is_claimed_under_its_id(value: str, kind: str, where: str) -> None:
    assert claimed("-chardev", value) == [(kind, where, "-chardev c")]
    assert needed("-chardev", value) == []


@pytest.mark.parametrize(
    "option",
    ["qmp", "qmp-pretty", "monitor", "serial", "parallel", "debugcon", "gdb", "qtest", "-qmp"],
)
@pytest.mark.parametrize(
    ("value", "kind", "where"),
    [
        ("unix:/s,server=on,wait=off", "socket", "/s"),
        ("unix:s,server,nowait", "socket", "/vm/s"),
        ("unix:path=s,server=on", "socket", "/vm/s"),
        ("mon:unix:s,server=on", "socket", "/vm/s"),
        ("tcp::1,server=on", "tcp", "*:1"),
        ("tcp:127.0.0.1:1,server,nowait", "tcp", "127.0.0.1:1"),
        ("telnet:h:1,server=on,wait=off", "tcp", "h:1"),
        ("tn3270:h:1,server=on", "tcp", "h:1"),
        ("websocket:h:1,server=on", "tcp", "h:1"),
        ("udp:h:9@:1", "udp", "*:1"),
        ("udp::9@127.0.0.1:1", "udp", "127.0.0.1:1"),
    ],
)
def test_the_short_notation_is_read_alike_for_every_option_that_takes_it(
    option: str, value: str, kind: str, where: str
) -> None:
    name = option.lstrip("-")
    assert claimed(f"-{option}", value) == [(kind, where, f"-{name}")]


DISPLAYS = [
    (":0", ["*:5900"]),
    ("127.0.0.1:3", ["127.0.0.1:5903"]),
    ("vnc=127.0.0.1:3", ["127.0.0.1:5903"]),
    ("[::1]:3,password=on", ["[::1]:5903"]),
    (":3,ipv4=on", ["0.0.0.0:5903"]),
    ("h:3,websocket=on", ["h:5903", "h:5703"]),
    ("h:3,websocket=", ["h:5903", "h:5703"]),
    ("h:3,websocket", ["h:5903", "h:5703"]),
    ("h:3,websocket=6000", ["h:5903", "h:6000"]),
    ("h:3,websocket=[::1]:6000", ["h:5903", "[::1]:6000"]),
    ("h:3,websocket=off", ["h:5903"]),
    ("h:3,vnc=i:4", ["h:5903", "i:5904"]),
    ("h:3,to=99", []),
    ("h:3,to=0", ["h:5903"]),
    ("none", []),
]


@pytest.mark.parametrize(("value", "ports"), DISPLAYS, ids=[row[0] for row in DISPLAYS])
def test_the_number_of_a_vnc_display_counts_from_5900_and_of_its_websocket_from_5700(
    value: str, ports: list[str]
) -> None:
    assert claimed("-vnc", value) == [("tcp", port, "-vnc") for port in ports]
    assert claimed("-display", f"vnc={value}") == [("tcp", port, "-display") for port in ports]


def test_a_vnc_display_may_be_a_socket_and_its_websocket_another() -> None:
    assert claimed("-vnc", "unix:a") == [("socket", "/vm/a", "-vnc")]
    assert claimed("-vnc", "h:3,websocket=unix:b")[1:] == [("socket", "/vm/b", "-vnc")]


SPICE = [
    (["port=1"], [("tcp", "*:1")]),
    (["port=1,tls-port=2,addr=127.0.0.1"], [("tcp", "127.0.0.1:1"), ("tcp", "127.0.0.1:2")]),
    (["port=1", "addr=h"], [("tcp", "h:1")]),
    (["port=0,tls-port=2"], [("tcp", "*:2")]),
    (["port=1,ipv4=on"], [("tcp", "0.0.0.0:1")]),
    (["unix=on,addr=s,disable-ticketing=on"], [("socket", "/vm/s")]),
    (["unix=on"], []),
]


@pytest.mark.parametrize(("values", "claims"), SPICE)
def test_spice_listens_where_all_its_options_together_say(
    values: list[str], claims: list[tuple[str, str]]
) -> None:
    words = [word for value in values for word in ("-spice", value)]
    assert claimed(*words) == [(kind, where, "-spice") for kind, where in claims]


@pytest.mark.parametrize(
    "words", [["-s"], ["--s"], ["-gdb", "tcp::1234"], ["-gdb", "tcp::1234,server=on"]]
)
def test_a_debugger_s_tcp_port_is_claimed_without_being_called_a_server(words: list[str]) -> None:
    assert claimed(*words) == [("tcp", "*:1234", f"-{words[0].lstrip('-')}")]


NETDEVS = [
    ("user,id=n", []),
    ("user,id=n,hostfwd=tcp::1-:22", [("tcp", "0.0.0.0:1")]),
    ("user,id=n,hostfwd=::1-:22", [("tcp", "0.0.0.0:1")]),
    ("user,id=n,hostfwd=udp:127.0.0.1:1-10.0.2.15:53", [("udp", "127.0.0.1:1")]),
    (
        "user,id=n,hostfwd=tcp::1-:22,hostfwd=tcp:127.0.0.1:2-:80,hostfwd=udp::1-:53",
        [("tcp", "0.0.0.0:1"), ("tcp", "127.0.0.1:2"), ("udp", "0.0.0.0:1")],
    ),
    ("user,id=n,hostfwd=tcp::0-:22", []),
    (
        as_json(type="user", id="n", hostfwd=[{"str": "tcp::1-:22"}, {"str": "udp::2-:2"}]),
        [("tcp", "0.0.0.0:1"), ("udp", "0.0.0.0:2")],
    ),
    ("socket,id=n,listen=:1", [("tcp", "0.0.0.0:1")]),
    ("socket,id=n,listen=127.0.0.1:1", [("tcp", "127.0.0.1:1")]),
    ("socket,id=n,udp=h:9,localaddr=127.0.0.1:1", [("udp", "127.0.0.1:1")]),
    ("socket,id=n,udp=h:9,localaddr=:1", [("udp", "0.0.0.0:1")]),
    ("socket,id=n,mcast=230.0.0.1:1", []),
    ("stream,id=n,server=on,addr.type=unix,addr.path=s", [("socket", "/vm/s")]),
    ("stream,id=n,server=on,addr.type=unix,addr.path=s,addr.abstract=on", [("socket", "@s")]),
    ("stream,id=n,server=on,addr.type=inet,addr.host=h,addr.port=1", [("tcp", "h:1")]),
    ("stream,id=n,server=on,addr.type=inet,addr.host=,addr.port=1", [("tcp", "*:1")]),
    ("stream,id=n,server=on,addr.type=inet,addr.host=h,addr.port=1,addr.to=9", []),
    ("stream,id=n,server=on,addr.type=fd,addr.str=3", []),
    (
        as_json(type="stream", id="n", server=True, addr={"type": "unix", "path": "s"}),
        [("socket", "/vm/s")],
    ),
    (
        as_json(
            type="stream", id="n", server=True, addr={"type": "inet", "host": "h", "port": "1"}
        ),
        [("tcp", "h:1")],
    ),
    (
        "dgram,id=n,local.type=unix,local.path=s,remote.type=unix,remote.path=r",
        [("socket", "/vm/s")],
    ),
    (
        "dgram,id=n,local.type=inet,local.host=h,local.port=1,"
        "remote.type=inet,remote.host=h,remote.port=2",
        [("udp", "h:1")],
    ),
    (
        as_json(
            type="dgram",
            id="n",
            local={"type": "inet", "host": "", "port": "1"},
            remote={"type": "inet", "host": "h", "port": "2"},
        ),
        [("udp", "0.0.0.0:1")],
    ),
    (
        "dgram,id=n,remote.type=inet,remote.host=230.0.0.1,remote.port=1,"
        "local.type=inet,local.host=h,local.port=1",
        [],
    ),
    ("l2tpv3,id=n,src=h,dst=i,udp=on,srcport=1,dstport=2,txsession=1", [("udp", "h:1")]),
    ("l2tpv3,id=n,src=h,dst=i,txsession=1", []),
    ("tap,id=n,ifname=tap0", []),
    ("vhost-user,id=n,chardev=c", []),
]


@pytest.mark.parametrize("option", ["netdev", "nic"])
@pytest.mark.parametrize(("value", "claims"), NETDEVS, ids=[row[0] for row in NETDEVS])
def test_a_network_that_listens_is_claimed_under_its_id(
    option: str, value: str, claims: list[tuple[str, str]]
) -> None:
    assert claimed(f"-{option}", value) == [(kind, where, f"-{option} n") for kind, where in claims]


def test_the_old_option_for_networks_is_read_too() -> None:
    assert claimed("-net", "nic", "-net", "user,hostfwd=tcp::1-:22") == [
        ("tcp", "0.0.0.0:1", "-net")
    ]


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["-pidfile", "/run/vm.pid"], "/run/vm.pid"),
        (["-pidfile", "vm.pid"], "/vm/vm.pid"),
        (["-pidfile", "first", "-pidfile", "last"], "/vm/last"),
    ],
)
def test_the_last_pidfile_is_claimed(words: list[str], where: str) -> None:
    assert claimed(*words) == [("pidfile", where, "-pidfile")]


@pytest.mark.parametrize(
    "words",
    [
        ["-incoming", "tcp:0:4444"],
        ["-incoming", "unix:/run/stream"],
        ["-chardev", "null,id=c"],
        ["-chardev", "pty,id=c,path=/s"],
        ["-chardev", "file,id=c,path=/log"],
        ["-chardev", "socket,id=c,fd=7,server=on"],
        ["-chardev", "socket,id=c,host=h,port=0,server=on"],
        ["-chardev", "socket,id=c,host=h,port=1,to=9,server=on"],
        ["-chardev", "udp,id=c,host=h,port=1"],
        ["-serial", "udp:h:1"],
        ["-serial", "chardev:c"],
        ["-serial", "none"],
        ["-gdb", "none"],
        ["-display", "gtk"],
        ["-append", "unix:/s,server=on"],
        ["-name", "-qmp", "unix:/s,server=on"],
        ["disk.img"],
    ],
    ids=" ".join,
)
def test_nothing_is_claimed_that_is_not_bound_or_that_qemu_chooses(words: list[str]) -> None:
    assert claimed(*words) == []


def test_claims_keep_their_order_and_are_told_once() -> None:
    assert claimed("-s", "-qmp", "unix:b,server=on", "-serial", "unix:a,server=on", "-s") == [
        ("tcp", "*:1234", "-s"),
        ("socket", "/vm/b", "-qmp"),
        ("socket", "/vm/a", "-serial"),
    ]


# Servers that must answer first.

PEERS = [
    (["-chardev", "socket,id=c,path=s"], ("socket", "/vm/s", "-chardev c")),
    (["-chardev", "socket,id=c,path=s,server=off"], ("socket", "/vm/s", "-chardev c")),
    (["-chardev", "socket,id=c,path=s,noserver"], ("socket", "/vm/s", "-chardev c")),
    (["-chardev", "socket,id=c,path=s,reconnect=0"], ("socket", "/vm/s", "-chardev c")),
    (["-chardev", "socket,id=c,path=s,abstract=on"], ("socket", "@s", "-chardev c")),
    (["-chardev", "socket,id=c,host=h,port=1"], ("tcp", "h:1", "-chardev c")),
    (["-serial", "unix:s"], ("socket", "/vm/s", "-serial")),
    (["-monitor", "tcp:h:1"], ("tcp", "h:1", "-monitor")),
    (["-gdb", "unix:s"], ("socket", "/vm/s", "-gdb")),
    (["-netdev", "stream,id=n,addr.type=unix,addr.path=s"], ("socket", "/vm/s", "-netdev n")),
    (
        ["-netdev", as_json(type="stream", id="n", addr={"type": "unix", "path": "s"})],
        ("socket", "/vm/s", "-netdev n"),
    ),
    (
        ["-netdev", "stream,id=n,server=off,addr.type=inet,addr.host=h,addr.port=1"],
        ("tcp", "h:1", "-netdev n"),
    ),
    (["-netdev", "socket,id=n,connect=h:1"], ("tcp", "h:1", "-netdev n")),
    (
        ["-netdev", "user,id=n,guestfwd=tcp:10.0.2.100:80-tcp:h:1"],
        ("tcp", "h:1", "-netdev n"),
    ),
    (["-vnc", "h:5500,reverse=on"], ("tcp", "h:5500", "-vnc")),
    (["-object", "pr-manager-helper,id=p,path=s"], ("socket", "/vm/s", "-object p")),
    (
        ["-object", as_json(**{"qom-type": "pr-manager-helper", "id": "p", "path": "s"})],
        ("socket", "/vm/s", "-object p"),
    ),
    (["-object", "input-barrier,id=b,name=g"], ("tcp", "localhost:24800", "-object b")),
]


@pytest.mark.parametrize(("words", "peer"), PEERS, ids=[" ".join(row[0]) for row in PEERS])
def test_a_client_needs_its_server(words: list[str], peer: tuple[str, str, str]) -> None:
    assert needed(*words) == [peer]
    assert claimed(*words) == []


@pytest.mark.parametrize(
    "words",
    [
        ["-chardev", "socket,id=c,path=s,reconnect=1"],
        ["-chardev", "socket,id=c,path=s,reconnect-ms=500"],
        ["-serial", "unix:s,reconnect=1"],
        ["-netdev", "stream,id=n,addr.type=unix,addr.path=s,reconnect-ms=500"],
        ["-netdev", "stream,id=n,addr.type=unix,addr.path=s,reconnect=5"],
        ["-netdev", "user,id=n,guestfwd=tcp:10.0.2.100:80-cmd:cat"],
        ["-chardev", "udp,id=c,host=h,port=1"],
        ["-object", "secret,id=s,data=x"],
    ],
    ids=" ".join,
)
def test_a_client_that_tries_again_needs_no_server(words: list[str]) -> None:
    assert needed(*words) == []


def test_what_qemu_serves_itself_is_no_other_server() -> None:
    both = ["socket,id=a,host=h,port=1,server=on,wait=off", "socket,id=b,host=h,port=1"]
    assert needed("-chardev", both[0], "-chardev", both[1]) == []


def test_the_option_is_told_by_name_and_id_and_nothing_else() -> None:
    assert claims_of([QEMU, "-spice", "port=1,password=geheim"], HOME) == (
        Claim("tcp", "*:1", "-spice"),
    )
    assert peers_of([QEMU, "-chardev", "socket,path=/s,id=swtpm"], HOME) == (
        Peer("socket", "/s", "-chardev swtpm"),
    )


@given(
    st.lists(
        st.sampled_from(["-chardev", "-serial", "-vnc", "-netdev", "-spice", "-gdb", "-pidfile"])
        | st.text('socketuniptcv:=,@-{}[]"1', max_size=20),
        max_size=6,
    )
)
def test_every_command_line_can_be_read(words: list[str]) -> None:
    for claim in claims_of([QEMU, *words], HOME):
        assert claim.kind in ("socket", "tcp", "udp", "pidfile")
    for peer in peers_of([QEMU, *words], HOME):
        assert peer.kind in ("socket", "tcp")


def test_an_empty_command_line_claims_nothing() -> None:
    assert claims_of([], HOME) == ()


# The real one.


def free_ports(number: int) -> t.Iterator[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _number in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in probes]
    return iter(ports)


def bound_by(pid: int) -> set[tuple[str, str]]:
    """Table (without its 6) and name, or port, of every socket that awaits somebody."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    held = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    found = set()
    for row in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = row.split(None, 7)
        if fields[6] in held and len(fields) == 8 and fields[5] == "01":
            found.add(("socket", fields[7]))
    for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", None)):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[9] in held and state in (None, fields[3]):
                found.add((table.rstrip("6"), str(int(fields[1].partition(":")[2], 16))))
    return found


def claimed_by(argv: list[str]) -> set[tuple[str, str]]:
    return {
        (claim.kind, claim.where if claim.kind == "socket" else claim.where.rpartition(":")[2])
        for claim in claims_of(argv, "")
        if claim.kind != "pidfile"
    }


@pytest.mark.skipif(shutil.which(QEMU) is None, reason="compares with an installed QEMU")
def test_qemu_binds_what_is_claimed_and_nothing_else(tmp_path: Path) -> None:
    port = free_ports(16)
    display = next(port) - 5900
    stream = "stream,id={},server=on,addr.type={}"
    dgram = "dgram,id={},local.type={},remote.type={}"
    inet = f"local.host=127.0.0.1,local.port={next(port)},remote.host=127.0.0.1,remote.port=9"
    argv = [
        *(QEMU, "-M", "pc", "-accel", "tcg", "-nodefaults", "-S", "-display", "none"),
        *("-chardev", "socket,id=c1,path=c1,server=on,wait=off"),
        *("-chardev", f"socket,id=c2,path={tmp_path.name}-c2,abstract=on,server=on,wait=off"),
        *("-chardev", f"socket,id=c3,host=,port={next(port)},server=on,wait=off"),
        *("-chardev", f"udp,id=c4,host=127.0.0.1,port=9,localport={next(port)}"),
        *("-qmp", "unix:q1,server=on,wait=off", "-qmp-pretty", "unix:path=q2,server=on,wait=off"),
        *("-monitor", f"telnet:127.0.0.1:{next(port)},server=on,wait=off"),
        *("-serial", "mon:unix:s1,server=on,wait=off"),
        *("-parallel", f"tcp:127.0.0.1:{next(port)},server=on,wait=off"),
        *("-debugcon", f"websocket:127.0.0.1:{next(port)},server=on,wait=off"),
        *("-gdb", f"tcp:127.0.0.1:{next(port)}"),
        *("-vnc", f"127.0.0.1:{display},websocket={next(port)}", "-vnc", "unix:v1"),
        *("-netdev", f"user,id=n1,hostfwd=tcp::{next(port)}-:22,hostfwd=udp::{next(port)}-:53"),
        *("-nic", f"user,hostfwd=tcp:127.0.0.1:{next(port)}-:80"),
        *("-netdev", f"socket,id=n2,listen=127.0.0.1:{next(port)}"),
        *("-netdev", f"socket,id=n3,udp=127.0.0.1:9,localaddr=127.0.0.1:{next(port)}"),
        *("-netdev", stream.format("n4", "unix") + ",addr.path=n4"),
        *("-netdev", stream.format("n5", "inet") + f",addr.host=127.0.0.1,addr.port={next(port)}"),
        *("-netdev", dgram.format("n6", "unix", "unix") + ",local.path=n6,remote.path=r"),
        *("-netdev", dgram.format("n7", "inet", "inet") + f",{inet}"),
    ]
    claims = claimed_by(argv)
    assert len(claims) == 23
    with subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            until = time.monotonic() + 20
            while bound_by(process.pid) != claims and time.monotonic() < until:
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.05)
            assert bound_by(process.pid) == claims
        finally:
            process.kill()
