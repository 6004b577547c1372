# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line that an image carries, run once more."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._argv import incoming_argv
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._command_line import options_of
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._mapped_argv import (
    ImageBlock,
    map_ram,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._recorded_argv import (
    Relaunch,
    relaunch,
)

QEMU = "qemu-system-x86_64"
PROGRAM = "/usr/bin/qemu-system-x86_64"
Q35 = "pc-q35-10.0"
PINNED = ["-machine", Q35]


def rewritten(*words: str, changed_user: bool = False) -> Relaunch:
    return relaunch([PROGRAM, *words], program=PROGRAM, machine_type=Q35, changed_user=changed_user)


def refusal(*words: str, changed_user: bool = False) -> str:
    with pytest.raises(Refused) as caught:
        rewritten(*words, changed_user=changed_user)
    return caught.value.message


def becomes(recorded: str, expected: str, **options: bool) -> None:
    """Both with a machine type that needs no change."""
    result = rewritten(*PINNED, *shlex.split(recorded), **options)
    assert list(result.argv) == [PROGRAM, *PINNED, *shlex.split(expected)]
    assert bool(result.changes) == (recorded != expected)


# The program.


def test_a_command_line_that_needs_no_change_is_told_without_a_sentence() -> None:
    argv = (PROGRAM, *PINNED, "-m", "64", "disk.img")
    assert rewritten(*argv[1:]) == Relaunch(argv, ())


@pytest.mark.parametrize("name", [QEMU, "./build/qemu", "/old/qemu-system-x86_64"])
def test_the_recorded_executable_is_the_program(name: str) -> None:
    result = relaunch([name, *PINNED], program=PROGRAM, machine_type=Q35, changed_user=False)
    assert result == Relaunch((PROGRAM, *PINNED), (f"Runs {PROGRAM}, the file that {name} was.",))


def test_an_empty_command_line_is_refused() -> None:
    with pytest.raises(Refused, match="empty"):
        relaunch([], program=PROGRAM, machine_type=Q35, changed_user=False)


@pytest.mark.parametrize(
    ("name", "program", "words", "added"),
    [
        ("kvm", PROGRAM, [], ["-accel", "kvm", "-accel", "tcg"]),
        ("/usr/bin/kvm", PROGRAM, ["-m", "64"], ["-accel", "kvm", "-accel", "tcg"]),
        ("kvm", PROGRAM, ["-accel", "tcg"], []),
        ("kvm", PROGRAM, ["-enable-kvm"], []),
        ("kvm", PROGRAM, ["-machine", f"{Q35},accel=tcg"], []),
        ("kvm", PROGRAM, ["-readconfig", "my.conf", "-M", Q35], []),
        ("qemu-kvm", "/usr/libexec/qemu-kvm", [], []),
        (QEMU, PROGRAM, [], []),
        (QEMU, "/usr/libexec/qemu-kvm", [], ["-accel", "tcg", "-accel", "kvm"]),
    ],
)
def test_what_the_programs_name_meant_for_the_accelerator_is_written_out(
    name: str, program: str, words: list[str], added: list[str]
) -> None:
    argv = [name, *PINNED, *words]
    result = relaunch(argv, program=program, machine_type=Q35, changed_user=False)
    assert list(result.argv) == [program, *argv[1:], *added]


# The machine type.


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ("-machine q35", f"-machine {Q35}"),
        ("--machine q35", f"--machine {Q35}"),
        ("-M q35", f"-M {Q35}"),
        ("-machine type=q35,accel=kvm:tcg", f"-machine type={Q35},accel=kvm:tcg"),
        ("-machine accel=tcg,type=q35,usb=off", f"-machine accel=tcg,type={Q35},usb=off"),
        ("-machine q35,accel=tcg,x=a,,b", f"-machine {Q35},accel=tcg,x=a,,b"),
        ("-machine pc,type=q35,usb=off", f"-machine {Q35},usb=off"),
        ("-machine type=pc,type=q35", f"-machine type={Q35},type={Q35}"),
        ("-M pc -m 64 -M q35", f"-M {Q35} -m 64 -M {Q35}"),
        ("-M q35 -machine accel=tcg", f"-M {Q35} -machine accel=tcg"),
        ("-machine accel=tcg -M q35", f"-machine accel=tcg -M {Q35}"),
        ("-machine accel=tcg", f"-machine {Q35},accel=tcg"),
        ("-M ''", f"-M {Q35}"),
        ("-m 64", f"-m 64 -machine {Q35}"),
        ("-append -machine", f"-append -machine -machine {Q35}"),
        # A configuration file may name a type, and the last one counts.
        ("-M q35 -readconfig c", f"-M {Q35} -readconfig c -machine {Q35}"),
        ("-M q35 -readconfig c -M usb=off", f"-M {Q35} -readconfig c -M {Q35},usb=off"),
        ("-readconfig c -M q35", f"-readconfig c -M {Q35}"),
        ("-M accel=tcg -readconfig c", f"-M accel=tcg -readconfig c -machine {Q35}"),
    ],
)
def test_the_machine_type_is_what_the_guest_had(recorded: str, expected: str) -> None:
    result = rewritten(*shlex.split(recorded))
    assert list(result.argv) == [PROGRAM, *shlex.split(expected)]
    assert result.changes


def test_the_change_of_the_machine_type_names_both() -> None:
    assert rewritten("-M", "q35").changes == (f"Made -M q35 {Q35}, which it was.",)


@pytest.mark.parametrize("words", ["", "-M q35", "-machine accel=tcg"])
def test_an_unknown_machine_type_changes_nothing(words: str) -> None:
    argv = [PROGRAM, *shlex.split(words)]
    result = relaunch(argv, program=PROGRAM, machine_type="", changed_user=False)
    assert result == Relaunch(tuple(argv), ())


# Sockets.

SHORT = ["serial", "parallel", "monitor", "qmp", "qmp-pretty", "debugcon"]
SCHEMES = ["unix:/s", "tcp::4444", "telnet:h:4444", "tn3270:h:4444", "websocket:h:4444"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("server=on", "server=on,wait=off"),
        ("server", "server,wait=off"),
        ("server=yes,tight=off", "server=yes,tight=off,wait=off"),
        ("server=on,wait=on,tight=off", "server=on,wait=off,tight=off"),
        ("wait,server", "wait=off,server"),
        ("server=on,wait=off,wait=on", "server=on,wait=off"),
        ("server=on,nowait,wait=y", "server=on,wait=off"),
        ("server=off,server=on", "server=off,server=on,wait=off"),
        *((same, same) for same in ("server=on,wait=off", "server,nowait", "server=y,wait=no")),
        *((same, same) for same in ("server=off", "noserver", "reconnect-ms=500", "tight=off")),
        *((same, same) for same in ("server=on,wait=on,nowait", "server=on,noserver")),
    ],
)
def test_a_listening_socket_does_not_wait(words: str, expected: str) -> None:
    for front in (
        "-chardev socket,id=c,path=/s",
        "-chardev id=c,path=/s,,wait=on,backend=socket",
        "--chardev socket,host=h,port=4444,id=c",
        "-serial mon:unix:/s",
        *(f"-{name} {scheme}" for name in SHORT for scheme in SCHEMES),
        *(f"-gdb {scheme}" for scheme in SCHEMES if not scheme.startswith("tcp")),
    ):
        becomes(f"{front},{words}", f"{front},{expected}")


@pytest.mark.parametrize(
    "same",
    [
        "-gdb tcp::1234,server=on",
        "-gdb tcp::1234",
        "-s",
        "-chardev pty,id=c",
        "-chardev file,id=c,path=socket,,server=on",
        "-chardev udp,id=c,port=1,server=on",
        "-serial stdio",
        "-serial mon:stdio",
        "-serial chardev:c",
        "-serial unix:/s",
        "-monitor none",
        "-netdev stream,id=n,server=on,addr.type=unix,addr.path=/s",
        "-netdev socket,id=n,listen=:4444",
        "-append unix:/s,server=on",
    ],
)
def test_what_does_not_wait_stays(same: str) -> None:
    becomes(same, same)


@pytest.mark.parametrize(
    "device",
    [
        "-netdev vhost-user,id=n,chardev=c",
        "-netdev type=vhost-user,id=n,chardev=c",
        """-netdev '{"type":"vhost-user","id":"n","chardev":"c"}'""",
        "-device vhost-user-blk-pci,chardev=c",
        """-device '{"driver":"vhost-user-fs-pci","chardev":"c"}'""",
        "-tpmdev emulator,id=t,chardev=c",
        "-object cryptodev-vhost-user,id=v,chardev=c",
    ],
)
def test_a_socket_whose_peer_is_part_of_a_device_goes_on_waiting_for_it(device: str) -> None:
    peer = "-chardev socket,id=c,path=/s,server=on"
    other = "-chardev socket,id=d,path=/d,server=on"
    becomes(f"{peer} {device}", f"{peer} {device}")
    becomes(f"{device} {peer} {other}", f"{device} {peer} {other},wait=off")


def test_the_sentence_names_the_socket_and_not_where_it_is() -> None:
    result = rewritten(*PINNED, "-chardev", "socket,id=c,path=/s,server=on")
    assert result.changes == (
        "Set wait=off for -chardev c: QEMU would hold until its first client.",
    )


# Users, directories, pidfiles.


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ("-runas nobody", ""),
        ("--runas 1000:1000 -m 64", "-m 64"),
        ("-run-with user=nobody", ""),
        ("-run-with async-teardown=on,user=1:1", "-run-with async-teardown=on"),
        ("-run-with user=a,async-teardown,user=b", "-run-with async-teardown"),
        ("-run-with async-teardown=on", "-run-with async-teardown=on"),
    ],
)
def test_a_qemu_that_is_started_as_its_user_changes_none(recorded: str, expected: str) -> None:
    becomes(recorded, expected, changed_user=True)
    becomes(recorded, recorded, changed_user=False)


@pytest.mark.parametrize(
    "words", ["-chroot /srv", "-run-with chroot=/srv", "-run-with user=nobody,chroot=/srv"]
)
def test_a_new_root_directory_needs_root(words: str) -> None:
    becomes(words, words, changed_user=False)
    message = refusal(*words.split(), changed_user=True)
    assert f"{words.split()[0]} needs root for its chroot, and QEMU starts as" in message
    assert "Give argv" in message


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ("-pidfile /p", "-pidfile /p"),
        ("-pidfile /a -m 64 --pidfile /b -S", "-m 64 --pidfile /b -S"),
        ("-pidfile /a -pidfile /b -pidfile /a", "-pidfile /a"),
    ],
)
def test_only_the_last_pidfile_stays(recorded: str, expected: str) -> None:
    becomes(recorded, expected)


# RAM that was a private mapping of an image.

IMAGE = "/store/a.save"
VIEW = f"mem-path={IMAGE},offset=1048576,share=off,readonly=on,rom=off"
PC_RAM = (ImageBlock("pc.ram", 64 << 20, 4096, 1 << 20),)


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (
            f"-object memory-backend-file,id=m,size=64M,{VIEW} -machine memory-backend=m",
            "-object memory-backend-ram,id=m,size=64M -machine memory-backend=m",
        ),
        (
            f"-object memory-backend-file,id=a,size=1G,{VIEW} -numa node,memdev=a -S "
            f"--object memory-backend-file,id=b,size=1G,{VIEW} -device pc-dimm,memdev=b",
            "-object memory-backend-ram,id=a,size=1G -numa node,memdev=a -S "
            "--object memory-backend-ram,id=b,size=1G -device pc-dimm,memdev=b",
        ),
        (
            """-object '{"qom-type": "memory-backend-file", "id": "m", "size": 67108864, """
            """"mem-path": "/i", "offset": 4096, "readonly": true, "rom": "off"}'""",
            """-object '{"id": "m", "size": 67108864, "qom-type": "memory-backend-ram"}'""",
        ),
    ],
)
def test_ram_that_was_mapped_is_plain_again(recorded: str, expected: str) -> None:
    result = rewritten(*PINNED, *shlex.split(recorded))
    assert list(result.argv) == [PROGRAM, *PINNED, *shlex.split(expected)]
    assert result.changes
    assert rewritten(*result.argv[1:]).changes == ()


@pytest.mark.parametrize(
    "same",
    [
        "-object memory-backend-file,id=m,size=64M,mem-path=/dev/shm/ram,share=on",
        "-object memory-backend-file,id=m,size=64M,mem-path=/dev/hugepages",
        "-object memory-backend-file,id=m,size=64M,mem-path=/rom,readonly=on,rom=on",
        "-object memory-backend-file,id=m,size=64M,mem-path=/pmem,readonly=on,share=on",
        "-object memory-backend-memfd,id=m,size=64M,share=on",
        "-mem-path /dev/hugepages",
    ],
)
def test_memory_that_is_a_file_for_another_reason_stays_one(same: str) -> None:
    becomes(same, same)


def test_the_sentence_names_the_backend_and_not_the_image() -> None:
    result = rewritten(*PINNED, "-object", f"memory-backend-file,id=m,size=64M,{VIEW}")
    assert result.changes == ("Made memory backend m plain RAM: it was a mapping.",)


@pytest.mark.parametrize("words", [["-m", "64"], ["-M", "q35", "-m", "64"], [*PINNED, "-m", "64"]])
def test_a_guest_that_is_saved_and_mapped_again_and_again_keeps_one_command_line(
    words: list[str],
) -> None:
    first = map_ram(rewritten(*words).argv, IMAGE, PC_RAM, host_page_bytes=4096)
    plain = rewritten(*first.argv[1:])
    second = map_ram(plain.argv, IMAGE, PC_RAM, host_page_bytes=4096)
    assert rewritten(*second.argv[1:]).argv == plain.argv
    assert not any(IMAGE in word for word in plain.argv)
    assert sum(IMAGE in word for word in second.argv) == 1


# Inherited file descriptors.

OWN_PATH = "the path of the file itself"
ADDRESS = "the address of the socket"
TAP = "ifname=NAME,script=no,downscript=no"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("-netdev tap,id=net0,fd=30", f"-netdev net0 {{}} (fd: give {TAP} instead)"),
        (
            "-netdev tap,id=net0,fds=3:4,vhost=on,vhostfds=5:6",
            f"-netdev net0 {{}} (fds, vhostfds: give {TAP} and vhost=on instead)",
        ),
        ("-nic tap,fd=3", f"-nic {{}} (fd: give {TAP} instead)"),
        ("-net tap,fd=3", f"-net {{}} (fd: give {TAP} instead)"),
        ("-netdev tap,id=n,vhostfd=3", "-netdev n {} (vhostfd: give vhost=on instead)"),
        ("-netdev vhost-vdpa,id=n,vhostfd=3", "-netdev n {} (vhostfd: give vhostdev=PATH instead)"),
        (
            "-netdev vhost-vdpa,id=n,vhostdev=/dev/fdset/2",
            f"-netdev n {{}} (vhostdev: give {OWN_PATH} instead)",
        ),
        ("-netdev socket,id=n,fd=3", f"-netdev n {{}} (fd: give {ADDRESS} instead)"),
        (
            "-netdev stream,id=n,addr.type=fd,addr.str=5",
            f"-netdev n {{}} (addr.type: give {ADDRESS} instead)",
        ),
        (
            "-netdev dgram,id=n,local.type=fd,local.str=5",
            f"-netdev n {{}} (local.type: give {ADDRESS} instead)",
        ),
        (
            """-netdev '{"type":"stream","id":"n","addr":{"type":"fd","str":"5"}}'""",
            f"-netdev n {{}} (addr.type: give {ADDRESS} instead)",
        ),
        (
            """-netdev '{"type":"tap","id":"n","fds":"3:4"}'""",
            f"-netdev n {{}} (fds: give {TAP} instead)",
        ),
        (
            "-netdev af-xdp,id=n,sock-fds=3",
            "-netdev n {} (sock-fds: give the same without sock-fds instead)",
        ),
        ("-chardev socket,id=c,fd=3,server=on", f"-chardev c {{}} (fd: give {ADDRESS} instead)"),
        (
            "-chardev file,id=c,path=/dev/fdset/1",
            f"-chardev c {{}} (path: give {OWN_PATH} instead)",
        ),
        ("-serial file:/dev/fd/3", f"-serial {{}} (give {OWN_PATH} instead)"),
        ("-object iommufd,id=i,fd=22", "-object i {} (fd: give the same without fd instead)"),
        (
            """-object '{"qom-type":"iommufd","id":"i","fd":"22"}'""",
            "-object i {} (fd: give the same without fd instead)",
        ),
        (
            "-object secret,id=s,file=/proc/self/fd/9",
            f"-object s {{}} (file: give {OWN_PATH} instead)",
        ),
        (
            "-device vhost-vsock-pci,id=v,guest-cid=3,vhostfd=7",
            "-device v {} (vhostfd: give the same without vhostfd instead)",
        ),
        ("-device vfio-pci,id=v,fd=7", "-device v {} (fd: give host=ADDRESS instead)"),
        (
            """-device '{"driver":"vfio-pci","id":"v","fd":"7"}'""",
            "-device v {} (fd: give host=ADDRESS instead)",
        ),
        ("-set device.v.fd=7", "-set {} (device.v.fd: give the same without fd instead)"),
        ("-drive file=/dev/fdset/1,if=virtio", f"-drive {{}} (file: give {OWN_PATH} instead)"),
        (
            "-drive id=d,file.filename=/dev/fdset/1",
            f"-drive d {{}} (file.filename: give {OWN_PATH} instead)",
        ),
        (
            """-drive 'file=json:{"driver":"raw",,"file":{"filename":"/dev/fdset/1"}},id=d'""",
            f"-drive d {{}} (file.file.filename: give {OWN_PATH} instead)",
        ),
        (
            "-blockdev qcow2,node-name=d,file.driver=file,file.filename=/dev/fdset/1",
            f"-blockdev d {{}} (file.filename: give {OWN_PATH} instead)",
        ),
        (
            """-blockdev '{"node-name":"d","driver":"qcow2","backing":{"file":"""
            """{"driver":"file","filename":"/dev/fdset/12"}}}'""",
            f"-blockdev d {{}} (backing.file.filename: give {OWN_PATH} instead)",
        ),
        (
            """-blockdev '{"node-name":"d","driver":"nbd","server":{"type":"fd","str":"3"}}'""",
            f"-blockdev d {{}} (server.type: give {ADDRESS} instead)",
        ),
        ("-fsdev proxy,id=f,sock_fd=3", "-fsdev f {} (sock_fd: give socket=PATH instead)"),
        (
            "-tpmdev passthrough,id=t,path=/dev/fdset/1",
            f"-tpmdev t {{}} (path: give {OWN_PATH} instead)",
        ),
        ("-kernel /dev/fd/4", f"-kernel {{}} (give {OWN_PATH} instead)"),
        ("-readconfig /proc/41/fd/4", f"-readconfig {{}} (give {OWN_PATH} instead)"),
        ("-readconfig /dev/stdin", f"-readconfig {{}} (give {OWN_PATH} instead)"),
        ("-fw_cfg opt/x,file=/dev/fd/4", f"-fw_cfg {{}} (file: give {OWN_PATH} instead)"),
        ("/dev/fdset/1", f"A disk image {{}} (give {OWN_PATH} instead)"),
    ],
)
def test_an_inherited_descriptor_is_refused_by_name(words: str, named: str) -> None:
    expected = named.format("uses a file descriptor that its starter handed over")
    assert expected in refusal(*shlex.split(words))


def test_every_use_is_named_at_once() -> None:
    message = refusal(
        *("-add-fd", "fd=5,set=1,opaque=hunter2", "-drive", "file=/dev/fdset/1,id=d"),
        *("-netdev", "tap,id=n,fd=9", "-chroot", "/srv"),
        changed_user=True,
    )
    assert message.startswith("The recorded command line cannot be used again: -add-fd hands ")
    assert all(name in message for name in ("-drive d ", "-netdev n ", "-chroot "))
    assert message.endswith(". Give argv with that replaced.")
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "same",
    [
        "-incoming fd:7",
        "-append console=ttyS0,fd=3,x=/dev/fd/3",
        "-append /dev/fd/3",
        "-name guest,fd=3",
        "-drive file=/dev/fd0",
        "-drive file=/srv/dev/fdset/1.img",
        "-fda /dev/fd0",
        "-smbios type=fd,serial=fd=3",
        "-netdev tap,id=fd,ifname=vhostfd",
        "-netdev user,id=n,hostfwd=tcp::22-:22",
        "-blockdev file,node-name=fd,filename=fds",
        "-device isa-fdc,fdtypeA=120",
    ],
)
def test_what_only_looks_like_a_descriptor_stays(same: str) -> None:
    becomes(same, same)


# All together.

INERT = [
    ["-m", "64"],
    ["-snapshot"],
    ["-nodefaults"],
    ["-device", "virtio-net-pci,netdev=n,romfile="],
    ["-blockdev", '{"driver":"null-co","node-name":"d"}'],
    ["-drive", "file=a,,b.img,if=none,id=x"],
    ["--cpu", "max,+x2apic"],
    ["-S"],
    ["disk.img"],
    ["-object", "secret,id=s,data=hunter2"],
]
RULED = [
    ["-M", "pc"],
    ["-machine", "accel=tcg"],
    ["--machine", "usb=off,type=q35"],
    ["-machine", "pc,type=q35"],
    ["-readconfig", "c.conf"],
    ["-pidfile", "/a"],
    ["-pidfile", "/b"],
    ["-runas", "me"],
    ["-run-with", "user=me,async-teardown=on"],
    ["-chardev", "socket,id=c,path=/s,server,wait"],
    ["-serial", "mon:tcp::1,server=on"],
    ["-gdb", "unix:/g,server=on"],
    ["-tpmdev", "emulator,id=t,chardev=c"],
    ["-accel", "tcg"],
]
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
INERT_OPTIONS = st.one_of(
    st.sampled_from(INERT), st.tuples(st.sampled_from(["-append", "-name", "-D"]), TEXTS)
).filter(lambda words: not words[-1].startswith("/"))
COMMAND_LINES = st.lists(st.one_of(INERT_OPTIONS, st.sampled_from(RULED)).map(tuple), max_size=12)


@given(COMMAND_LINES, st.sampled_from(["kvm", PROGRAM]), st.booleans())
def test_what_no_rule_names_passes_through_in_order_and_twice_is_once(
    options: list[tuple[str, ...]], name: str, changed_user: bool
) -> None:
    argv = [name, *(word for words in options for word in words)]
    once = relaunch(argv, program=PROGRAM, machine_type=Q35, changed_user=changed_user)
    ruled = {words[0].lstrip("-") for words in RULED}
    inert = [words for words in options if words[0].lstrip("-") not in ruled]
    kept = [option.words for option in options_of(once.argv[1:]) if option.name not in ruled]
    assert kept == inert
    again = relaunch(once.argv, program=PROGRAM, machine_type=Q35, changed_user=changed_user)
    assert again == Relaunch(once.argv, ())
    assert not any("hunter2" in change for change in once.changes)


def test_a_command_line_of_libvirts_kind_becomes_a_destination() -> None:
    result = rewritten(
        *("-M", "q35,usb=off", "-chardev", "socket,id=m,path=/q,server=on"),
        *("-mon", "chardev=m,mode=control", "-daemonize", "-incoming", "fd:7", "-S"),
    )
    argv, _changes = incoming_argv(result.argv, "/q")
    assert argv == [
        *(PROGRAM, "-M", f"{Q35},usb=off", "-chardev", "socket,id=m,path=/q,server=on,wait=off"),
        *("-mon", "chardev=m,mode=control", "-incoming", "defer", "-S"),
    ]


# The rules against a real QEMU.

real = pytest.mark.skipif(shutil.which(QEMU) is None, reason="asks an installed QEMU")
BARE = ["-nodefaults", "-display", "none", "-S", "-m", "16"]


def answers(cwd: Path, words: t.Sequence[str], *commands: dict[str, t.Any]) -> list[t.Any]:
    """What a QEMU with these words answers before it ends; empty when it does not start."""
    asked = [{"execute": "qmp_capabilities"}, *commands, {"execute": "quit"}]
    ran = subprocess.run(
        [*words, *BARE, "-qmp", "stdio"],
        executable=shutil.which(QEMU),
        input="".join(json.dumps(command) + "\n" for command in asked),
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        check=False,
    )
    replies = [json.loads(line) for line in ran.stdout.splitlines()]
    return [reply["return"] for reply in replies if "return" in reply][1:-1]


def machine_of(cwd: Path, words: t.Sequence[str]) -> str:
    wanted = {"path": "/machine", "property": "type"}
    (kind,) = answers(cwd, words, {"execute": "qom-get", "arguments": wanted})
    return str(kind)


def again(words: t.Sequence[str], machine_type: str) -> tuple[str, ...]:
    return relaunch(words, program=QEMU, machine_type=machine_type, changed_user=False).argv


@real
@pytest.mark.parametrize(
    "words",
    [
        "-M q35 -machine isapc",
        "-M isapc -machine q35,usb=off",
        "-M isapc -machine usb=off",
        "-machine pc,type=isapc",
        "-machine usb=off,type=isapc",
        "-M q35 -readconfig isapc.conf",
        "-readconfig isapc.conf -M usb=off",
        "-readconfig isapc.conf -machine microvm",
        "-machine usb=off",
        "",
    ],
)
def test_qemu_takes_the_type_that_was_pinned(tmp_path: Path, words: str) -> None:
    (tmp_path / "isapc.conf").write_text('[machine]\n  type = "isapc"\n')
    recorded = [QEMU, *words.split()]
    had = machine_of(tmp_path, recorded)
    assert had == machine_of(tmp_path, again(recorded, had.replace("-machine", "")))
    assert machine_of(tmp_path, again(recorded, "none")) == "none-machine"


@real
@pytest.mark.parametrize(
    "words",
    [
        "-chardev socket,id=c,path=s,server=on",
        "-chardev socket,id=c,path=s,server,wait=off,wait",
        "-monitor unix:s,server",
        "-qmp tcp:127.0.0.1:0,server=on",
        "-serial mon:unix:s,server=on",
        "-parallel websocket:127.0.0.1:0,server=on",
        "-debugcon tn3270:127.0.0.1:0,server=on",
        "-gdb unix:s,server=on",
    ],
)
def test_a_socket_that_would_hold_qemu_up_does_not_any_more(tmp_path: Path, words: str) -> None:
    recorded = [QEMU, "-M", "isapc", *words.split()]
    process = subprocess.Popen(
        [*recorded, *BARE],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert process.stderr is not None
        assert any("QEMU waiting for connection" in line for line in process.stderr)
    finally:
        process.kill()
        process.communicate()
    (status,) = answers(tmp_path, again(recorded, "isapc"), {"execute": "query-status"})
    assert status["status"] == "prelaunch"


@real
def test_gdb_tells_its_tcp_port_itself_not_to_wait(tmp_path: Path) -> None:
    words = [QEMU, "-M", "isapc", "-gdb", "tcp:127.0.0.1:0,server=on"]
    assert answers(tmp_path, words, {"execute": "query-status"})


@real
def test_a_device_cannot_do_without_its_peer(tmp_path: Path) -> None:
    """Why a socket that it listens on goes on waiting."""
    socket = "socket,id=c,path=s,server=on,wait=off"
    words = [QEMU, "-M", "pc", "-chardev", socket, "-device", "vhost-user-rng-pci,chardev=c"]
    assert answers(tmp_path, words, {"execute": "query-status"}) == []


@real
def test_qemu_uses_the_last_pidfile_only(tmp_path: Path) -> None:
    status: dict[str, t.Any] = {"execute": "query-status"}
    none = [QEMU, "-M", "none"]
    assert answers(tmp_path, [*none, "-pidfile", "absent/p", "-pidfile", "p"], status)
    assert not answers(tmp_path, [*none, "-pidfile", "p", "-pidfile", "absent/p"], status)


@real
@pytest.mark.skipif(not os.access("/dev/kvm", os.W_OK), reason="needs KVM to tell them apart")
@pytest.mark.parametrize("name", ["kvm", QEMU])
def test_the_accelerator_is_the_one_that_the_old_name_chose(tmp_path: Path, name: str) -> None:
    words = [name, "-M", "isapc"]
    (had,) = answers(tmp_path, words, {"execute": "query-kvm"})
    (has,) = answers(tmp_path, again(words, "isapc"), {"execute": "query-kvm"})
    assert had["enabled"] == has["enabled"] == (name == "kvm")
