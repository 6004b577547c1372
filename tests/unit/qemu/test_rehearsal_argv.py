# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest's command line becomes one that reaches nothing of the guest's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._rehearsal_argv import (
    Rehearsal,
    rehearsal_argv,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._rehearsal_disks import Overlay

QEMU = "qemu-system-x86_64"
SCRATCH = "/run/scratch"
NO_DISPLAY = ("-display", "none")
SIZES = {"/srv/a.qcow2": 1 << 30, "/srv/b,c": 4096, "net": 7 << 20}


def rehearse(*words: str) -> Rehearsal:
    return rehearsal_argv([QEMU, *words, *NO_DISPLAY], SCRATCH, SIZES, "/srv")


def rewritten(*words: str) -> list[str]:
    argv = list(rehearse(*words).argv)
    assert (argv[0], tuple(argv[-2:])) == (QEMU, NO_DISPLAY)
    return argv[1:-2]


# Disks of -drive.


@pytest.mark.parametrize(
    ("words", "drive"),
    [
        (["-drive", "file=a,if=virtio"], "file=a,if=virtio"),
        (["--drive", "file=a,,b,readonly=on"], "file=a,,b,readonly=on"),
        (["-drive", "readonly,file=a"], "readonly=on,file=a"),
        (["-drive", "file=a,file.read-only=off"], "file=a,file.read-only=on"),
        (["-drive", "driver=raw,file.driver=file"], "driver=raw,file.driver=file"),
        (["-hda", "a,b"], "file=a,,b,index=0,media=disk"),
        (["-hdd", "a"], "file=a,index=3,media=disk"),
        (["-cdrom", "a"], "file=a,index=2,media=cdrom"),
        (["-fdb", "a"], "file=a,if=floppy,index=1"),
        (["-pflash", "a"], "file=a,if=pflash"),
        (["-mtdblock", "a"], "file=a,if=mtd"),
        (["-sd", "a"], "file=a,if=sd"),
        (["a.img"], "file=a.img,index=0,media=disk"),
    ],
    ids=str,
)
def test_a_drive_gets_an_overlay_of_its_own_and_takes_no_lock(words: list[str], drive: str) -> None:
    assert rewritten(*words) == ["-drive", f"{drive},snapshot=on,force-share=on"]


def test_a_drive_that_was_to_be_written_through_is_not() -> None:
    assert rewritten("-drive", "file=a,snapshot=off") == [
        "-drive",
        "file=a,snapshot=on,force-share=on",
    ]


@pytest.mark.parametrize("empty", ["if=ide,media=cdrom", "if=none,id=x,readonly=on", "file=,id=x"])
def test_a_drive_without_a_medium_stays(empty: str) -> None:
    assert rewritten("-drive", empty) == ["-drive", empty]


def test_a_drive_described_in_json_keeps_a_disk_read_only_as_the_guest_knows_it() -> None:
    image = {"driver": "qcow2", "read-only": True, "file": {"filename": "a", "read-only": False}}
    text = "json:" + json.dumps(image).replace(",", ",,")
    (_option, drive) = rewritten("-drive", f"file={text},if=virtio")
    _file, _equals, rest = drive.partition("=json:")
    described, _end = json.JSONDecoder().raw_decode(rest.replace(",,", ","))
    assert described == {"driver": "qcow2", "file": {"filename": "a", "read-only": True}}
    assert drive.endswith(",if=virtio,read-only=on,snapshot=on,force-share=on")


# Disks of -blockdev.

FILE = '{"driver": "file", "node-name": "f", "filename": "/srv/a.qcow2", "auto-read-only": true}'


def overlay(node_name: str, below: str, number: int = 0) -> dict[str, object]:
    return {
        "driver": "qcow2",
        "node-name": node_name,
        "file": {"driver": "file", "filename": f"{SCRATCH}/overlay{number}.qcow2"},
        "backing": below,
    }


def test_a_writable_top_node_is_renamed_below_an_overlay_and_its_children_are_read_only() -> None:
    rehearsal = rehearse(
        *("-blockdev", FILE),
        *("-blockdev", '{"driver": "qcow2", "node-name": "X", "file": "f", "read-only": false}'),
        *("-device", "virtio-blk-pci,drive=X"),
    )
    shared = {"read-only": True, "force-share": True}
    words = rehearsal.argv[1:]
    assert words[0::2][:4] == ("-blockdev", "-blockdev", "-blockdev", "-device")
    assert [json.loads(word) for word in words[1:6:2]] == [
        {**json.loads(FILE), **shared},
        {"driver": "qcow2", "node-name": "rehearsed-0", "file": "f", **shared},
        overlay("X", "rehearsed-0"),
    ]
    assert words[7] == "virtio-blk-pci,drive=X"
    assert rehearsal.overlays == (Overlay(f"{SCRATCH}/overlay0.qcow2", "X", 1 << 30),)


def test_the_other_notation_is_read_the_same_way() -> None:
    value = "qcow2,node-name=X,file.driver=file,file.filename=b,,c,file.read-only=off"
    rehearsal = rehearse("-blockdev", value)
    assert rehearsal.argv[2] == (
        "qcow2,node-name=rehearsed-0,file.driver=file,file.filename=b,,c,file.read-only=on,"
        "read-only=on,force-share=on"
    )
    assert json.loads(rehearsal.argv[4]) == overlay("X", "rehearsed-0")
    assert rehearsal.overlays[0].size_bytes == 4096


def test_a_read_only_top_node_keeps_its_name_and_takes_no_lock() -> None:
    rehearsal = rehearse("-blockdev", "raw,node-name=X,read-only=on,file.filename=/srv/iso")
    assert rehearsal.overlays == ()
    assert rehearsal.argv[2] == (
        "raw,node-name=X,read-only=on,file.filename=/srv/iso,force-share=on"
    )


def test_every_writable_top_node_gets_its_own_overlay_under_a_free_name() -> None:
    rehearsal = rehearse(
        *("-blockdev", "qcow2,node-name=rehearsed-0,file.filename=/srv/a.qcow2"),
        *("-blockdev", "raw,node-name=Y,file.filename=a.qcow2"),
    )
    words = rehearsal.argv
    assert words[2].startswith("qcow2,node-name=rehearsed-0-,")
    assert words[6].startswith("raw,node-name=rehearsed-1,")
    assert json.loads(words[8]) == overlay("Y", "rehearsed-1", 1)
    assert [made.node_name for made in rehearsal.overlays] == ["rehearsed-0", "Y"]


@pytest.mark.parametrize(
    ("nodes", "size_bytes"),
    [
        (["nbd,node-name=net,server.type=unix,server.path=/s"], 7 << 20),
        (["file,node-name=f,filename=/srv/a.qcow2", "raw,node-name=r,file=f"], 1 << 30),
        (
            [
                "file,node-name=f,filename=a.qcow2",
                "qcow2,node-name=q,file=f",
                "throttle,node-name=t,throttle-group=g,file=q",
            ],
            1 << 30,
        ),
        (["qcow2,node-name=q,file.driver=luks,file.file.filename=/srv/a.qcow2"], 1 << 30),
    ],
    ids=str,
)
def test_the_size_is_found_by_the_node_or_by_the_file_at_the_bottom(
    nodes: list[str], size_bytes: int
) -> None:
    (made,) = rehearse(*(word for node in nodes for word in ("-blockdev", node))).overlays
    assert made.size_bytes == size_bytes


@pytest.mark.parametrize(
    "nodes",
    [
        ["nbd,node-name=other,server.path=/s"],
        ["raw,node-name=other,file.filename=/srv/unknown"],
        ["raw,node-name=other,file=a", "raw,node-name=a,file=b", "raw,node-name=b,file=a"],
    ],
    ids=str,
)
def test_a_node_of_unknown_size_is_refused_by_name(nodes: list[str]) -> None:
    with pytest.raises(Refused, match="-blockdev other: the size of its disk"):
        rehearse(*(word for node in nodes for word in ("-blockdev", node)))


# Networks.

TAP = "ifname=vmfleet%d,script=no,downscript=no"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("tap,id=n,ifname=vnet0,script=/x,vhost=on,queues=2", f"tap,id=n,vhost=on,queues=2,{TAP}"),
        ("tap,id=n,br=br0,helper=/h,vnet_hdr=off", f"tap,id=n,vnet_hdr=off,{TAP}"),
        ("bridge,id=n,br=br0", f"tap,id=n,{TAP}"),
        ("user,id=n,hostfwd=tcp::1-:2,hostfwd=udp::1-:2", "user,id=n,restrict=on"),
        (
            "user,id=n,guestfwd=tcp:10.0.2.100:5-tcp:h:5,guestfwd=:10.0.2.101:6-cmd:x,, y,net=n",
            "user,id=n,guestfwd=tcp:10.0.2.100:5-null,guestfwd=:10.0.2.101:6-null,net=n,"
            "restrict=on",
        ),
        ("socket,id=n,listen=:1234", "hubport,id=n,hubid=1"),
        ("stream,id=n,addr.type=unix,addr.path=/s,server=on", "hubport,id=n,hubid=1"),
        ("passt,id=n", "hubport,id=n,hubid=1"),
        ("l2tpv3,id=n,src=a,dst=b,txsession=1", "hubport,id=n,hubid=1"),
        ("hubport,id=n,hubid=3", "hubport,id=n,hubid=3"),
    ],
)
def test_a_network_backend_leads_nowhere(before: str, after: str) -> None:
    assert rewritten("-netdev", before) == ["-netdev", after]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            {"type": "tap", "id": "n", "ifname": "vnet0", "vhost": True},
            {"type": "tap", "id": "n", "vhost": True}
            | {"ifname": "vmfleet%d", "script": "no", "downscript": "no"},
        ),
        (
            {"type": "stream", "id": "n", "addr": {"type": "unix", "path": "/s"}},
            {"type": "hubport", "id": "n", "hubid": "1"},
        ),
        (
            {"type": "user", "id": "n", "hostfwd": [{"str": "tcp::1-:2"}]}
            | {"guestfwd": [{"str": "tcp:10.0.2.100:5-cmd:x"}]},
            {"type": "user", "id": "n", "restrict": True}
            | {"guestfwd": [{"str": "tcp:10.0.2.100:5-null"}]},
        ),
    ],
    ids=lambda value: value["type"],
)
def test_a_network_backend_in_json_leads_nowhere(
    before: dict[str, object], after: dict[str, object]
) -> None:
    (_option, value) = rewritten("-netdev", json.dumps(before))
    assert json.loads(value) == after


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (["-nic", "user,model=e1000,hostfwd=tcp::1-:2"], ["-nic", "user,model=e1000,restrict=on"]),
        (
            ["-nic", "socket,connect=h:1,model=e1000,mac=52:54:00:00:00:01,id=n"],
            ["-nic", "hubport,model=e1000,mac=52:54:00:00:00:01,id=n,hubid=1"],
        ),
        (["-nic", "bridge,model=e1000"], ["-nic", f"tap,model=e1000,{TAP}"]),
        (["-nic", "none"], ["-nic", "none"]),
        (["-net", "nic,model=e1000"], ["-net", "nic,model=e1000"]),
        (["-net", "tap,ifname=a"], ["-net", f"tap,{TAP}"]),
        (["-net", "socket,listen=:1"], []),
        (["-net", "none"], ["-net", "none"]),
    ],
    ids=str,
)
def test_a_card_given_with_its_network_keeps_model_and_address(
    words: list[str], result: list[str]
) -> None:
    assert rewritten(*words) == result


def test_networks_that_were_apart_stay_apart_on_hubs_of_their_own() -> None:
    assert rewritten(
        *("-netdev", "hubport,id=a,hubid=1"),
        *("-netdev", "socket,id=b,listen=:1"),
        *("-netdev", "socket,id=c,listen=:2"),
    )[1::2] == ["hubport,id=a,hubid=1", "hubport,id=b,hubid=2", "hubport,id=c,hubid=3"]


# Character devices.


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (["-chardev", "socket,id=c,path=/s,server=on,wait=off"], ["-chardev", "null,id=c"]),
        (["-chardev", "pty,id=c,mux=on,logfile=/l"], ["-chardev", "null,id=c,mux=on"]),
        (["-chardev", "stdio,mux,id=c"], ["-chardev", "null,mux,id=c"]),
        (["-chardev", "backend=file,path=/f,id=c"], ["-chardev", "null,id=c"]),
        (["-chardev", "spicevmc,id=c,name=vdagent"], ["-chardev", "null,id=c"]),
        (["-chardev", "ringbuf,id=c,size=8,logfile=/l"], ["-chardev", "ringbuf,id=c,size=8"]),
        (["-chardev", "hub,id=c,chardevs.0=a"], ["-chardev", "hub,id=c,chardevs.0=a"]),
        (["-serial", "unix:/s,server=on,wait=off"], ["-serial", "null"]),
        (["-serial", "mon:stdio"], ["-serial", "null"]),
        (["-serial", "none"], ["-serial", "none"]),
        (["-serial", "chardev:c"], ["-serial", "chardev:c"]),
        (["-parallel", "file:/f"], ["-parallel", "null"]),
        (["-debugcon", "file:/f"], ["-debugcon", "null"]),
        (["-monitor", "telnet::1,server"], ["-monitor", "null"]),
        (["--qmp", "unix:/s,server=on,wait=off"], ["-qmp", "null"]),
        (["-qmp-pretty", "unix:/s"], ["-qmp-pretty", "null"]),
        (["-mon", "chardev=c,mode=control"], ["-mon", "chardev=c,mode=control"]),
    ],
    ids=" ".join,
)
def test_a_character_device_reaches_nothing(words: list[str], result: list[str]) -> None:
    assert rewritten(*words) == result


# Memory, objects, devices, sound.


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "memory-backend-file,id=m,size=1G,mem-path=/dev/shm/m,share=on,prealloc=on,align=2M,"
            "host-nodes=0,policy=bind,x-use-canonical-path-for-ramblock-id=off",
            "memory-backend-memfd,id=m,size=1G,share=on,host-nodes=0,policy=bind,"
            "x-use-canonical-path-for-ramblock-id=off",
        ),
        (
            "memory-backend-file,id=nv,size=1G,mem-path=/dev/dax0.0,pmem=on,readonly=on,rom=on",
            "memory-backend-memfd,id=nv,size=1G",
        ),
        (
            "memory-backend-memfd,id=m,size=1G,hugetlb=on,hugetlbsize=2M,prealloc=on",
            "memory-backend-memfd,id=m,size=1G",
        ),
        ("memory-backend-shm,id=m,size=1G", "memory-backend-ram,id=m,size=1G"),
        ("memory-backend-ram,id=m,size=1G,prealloc=on", "memory-backend-ram,id=m,size=1G"),
        (
            '{"qom-type": "memory-backend-file", "id": "m", "size": 1, "mem-path": "/m"}',
            '{"id": "m", "size": 1, "qom-type": "memory-backend-memfd"}',
        ),
    ],
)
def test_memory_lies_in_no_file_and_keeps_its_name(before: str, after: str) -> None:
    assert rewritten("-object", before) == ["-object", after]


@pytest.mark.parametrize(
    "kept",
    [
        ["-object", "secret,id=s,data=x"],
        ["-object", "iothread,id=t"],
        ["-object", "throttle-group,id=g"],
        ["-object", "rng-random,filename=/dev/urandom,id=r"],
        ["-device", "virtio-blk-pci,drive=X"],
        ["-fsdev", "local,id=f,path=/srv,security_model=none"],
        ["-virtfs", "local,path=/srv,mount_tag=a,security_model=none"],
        ["-icount", "shift=auto"],
        ["-overcommit", "cpu-pm=on"],
        ["-set", "device.x.bootindex=1"],
        ["-sandbox", "on"],
        ["-append", "-chardev"],
    ],
    ids=" ".join,
)
def test_what_reaches_nothing_by_itself_stays(kept: list[str]) -> None:
    rehearsal = rehearse(*kept)
    assert rehearsal.argv[1:-2] == tuple(kept)
    assert rehearsal.changes == ()


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (["-audiodev", "pa,id=a,server=/s,out.frequency=8000"], ["-audiodev", "none,id=a"]),
        (
            ["-audiodev", '{"driver": "wav", "id": "a", "path": "/w"}'],
            ["-audiodev", '{"id": "a", "driver": "none"}'],
        ),
        (["-audio", "alsa,model=hda"], ["-audio", "none,model=hda"]),
        (
            ["-device", "uefi-vars-x64,jsonfile=/srv/vars,force-secure-boot=on"],
            ["-device", "uefi-vars-x64,force-secure-boot=on"],
        ),
        (["-overcommit", "mem-lock=on,cpu-pm=on"], ["-overcommit", "cpu-pm=on,mem-lock=off"]),
    ],
    ids=" ".join,
)
def test_files_and_hardware_of_the_host_are_let_alone(words: list[str], result: list[str]) -> None:
    assert rewritten(*words) == result


@pytest.mark.parametrize(
    "dropped",
    [
        *(["-D", "/l"], ["-d", "all"], ["-dfilter", "0..1"], ["-trace", "file=/t"], ["-s"]),
        *(["-gdb", "tcp::1"], ["-pidfile", "/p"], ["-plugin", "x.so"], ["-dump-vmstate", "/f"]),
        *(["-mem-path", "/dev/hugepages"], ["-mem-prealloc"], ["-vnc", ":1"], ["-perfmap"]),
        *(["-spice", "port=5900"], ["-display", "gtk"], ["-qtest", "unix:/s"], ["-jitdump"]),
        ["-object", "filter-dump,id=f,netdev=n,file=/f"],
        ["-object", "colo-compare,id=c"],
        ["-object", "input-linux,id=i,evdev=/dev/input/event0"],
        ["-object", "can-host-socketcan,id=c,if=can0,canbus=b"],
        ["-net", "vde"],
    ],
    ids=" ".join,
)
def test_what_holds_no_state_and_reaches_out_is_dropped_and_told(dropped: list[str]) -> None:
    rehearsal = rehearse("-m", "64", *dropped, "-nodefaults")
    assert rehearsal.argv == (QEMU, "-m", "64", "-nodefaults", *NO_DISPLAY)
    (change,) = rehearsal.changes
    assert change.startswith(f"Dropped {dropped[0]}")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["-device", "vfio-pci,host=01:00.0,id=gpu"], "-device vfio-pci gpu"),
        (["-device", '{"driver": "usb-host", "id": "stick"}'], "-device usb-host stick"),
        (["-device", "scsi-generic,drive=d"], "-device scsi-generic"),
        (["-device", "scsi-block,drive=d"], "-device scsi-block"),
        (["-device", "vhost-user-fs-pci,chardev=c,tag=t"], "-device vhost-user-fs-pci"),
        (["-device", "vhost-scsi-pci,wwpn=naa.1"], "-device vhost-scsi-pci"),
        (["-device", "vhost-vdpa-device-pci"], "-device vhost-vdpa-device-pci"),
        (["-device", "ivshmem-doorbell,chardev=c"], "-device ivshmem-doorbell"),
        (["-tpmdev", "emulator,id=t,chardev=c"], "-tpmdev"),
        (["-tpmdev", "passthrough,id=t"], "-tpmdev"),
        (["-netdev", "vhost-user,id=n,chardev=c"], "-netdev vhost-user n"),
        (["-netdev", "vhost-vdpa,id=n"], "-netdev vhost-vdpa n"),
        (["-netdev", "passt,id=n,vhost-user=on"], "-netdev passt n"),
        (["-netdev", '{"type": "unheard-of", "id": "n"}'], "-netdev unheard-of n"),
        (["-object", "dbus-vmstate,id=d,addr=a"], "-object dbus-vmstate d"),
        (["-object", "cryptodev-vhost-user,id=c"], "-object cryptodev-vhost-user c"),
        (["-readconfig", "/etc/vm.cfg"], "-readconfig"),
        (["-set", "drive.d.file=/x"], "-set"),
        (["-icount", "shift=7,rr=record,rrfile=/f"], "-icount"),
        (["-drive", "file=nvme://0000:01:00.0/1,if=none"], "-drive"),
        (["-blockdev", "nvme,node-name=X,device=0000:01:00.0"], "-blockdev X"),
        (["-blockdev", '{"driver": "raw", "node-name": "X", "file": {"driver": "nvme"}}'], "X"),
    ],
    ids=str,
)
def test_what_cannot_be_there_twice_is_refused_by_name(words: list[str], name: str) -> None:
    with pytest.raises(Refused, match=f"cannot be rehearsed: .*{re.escape(name)}: "):
        rehearse(*words)


def test_everything_that_cannot_be_rehearsed_is_named_at_once() -> None:
    with pytest.raises(Refused) as caught:
        rehearse("-device", "vfio-pci,id=gpu", "-tpmdev", "emulator,id=t")
    assert "vfio-pci gpu: " in caught.value.message
    assert "; -tpmdev: " in caught.value.message


# The whole.


@pytest.mark.parametrize(
    ("words", "result"),
    [
        ([], ["-display", "none"]),
        (["-vnc", ":1"], ["-display", "none"]),
        (["-display", "sdl"], ["-display", "none"]),
        (["-nographic"], ["-nographic"]),
        (["-vnc", ":1", "-display", "none"], ["-display", "none"]),
    ],
    ids=" ".join,
)
def test_no_display_is_opened_and_no_default_one(words: list[str], result: list[str]) -> None:
    assert list(rehearsal_argv([QEMU, *words], SCRATCH, {}).argv) == [QEMU, *result]


def test_changes_name_options_and_ids_and_no_values() -> None:
    changes = rehearse(
        *("-drive", "file=rbd:pool/x:key=hidden,id=d"),
        *("-blockdev", '{"driver":"raw","node-name":"net","file":{"password":"hidden"}}'),
        *("-chardev", "socket,id=c,path=/hidden"),
        *("-spice", "port=1,password=hidden"),
        *("-netdev", "user,id=n,hostfwd=tcp::1-:2"),
    ).changes
    assert changes == (
        "Replaced -drive d by the same with an overlay.",
        "Replaced -blockdev net by the same, read-only, with an overlay where it is written.",
        "Replaced -chardev c by a character device that reaches nothing.",
        "Dropped -spice: its address may be in use.",
        "Replaced -netdev n by a network that leads nowhere.",
    )


OPTIONS = st.sampled_from(
    [
        ("-m", "64"),
        ("-drive", "file=a,if=virtio"),
        ("-hda", "x"),
        ("-blockdev", "raw,node-name=R,read-only=on,file.filename=/r"),
        ("-netdev", "user,id=n,hostfwd=tcp::1-:2,guestfwd=tcp:10.0.2.100:5-tcp:h:5"),
        ("-netdev", "tap,id=t,ifname=x"),
        ("-netdev", "hubport,id=h,hubid=1"),
        ("-chardev", "socket,id=c,path=/s"),
        ("-serial", "pty"),
        ("-object", "memory-backend-file,id=m,size=1M,mem-path=/m"),
        ("-audiodev", "alsa,id=a"),
        ("-nodefaults",),
        ("-vnc", ":1"),
        ("-append", "-vnc"),
    ]
)


@given(st.lists(OPTIONS))
def test_a_rehearsal_of_a_rehearsal_is_the_same(options: list[tuple[str, ...]]) -> None:
    argv = [QEMU, *(word for option in options for word in option)]
    once = rehearsal_argv(argv, SCRATCH, {}).argv
    again = rehearsal_argv(once, SCRATCH, {})
    assert again.argv == once
    assert again.changes == ()


REACH_NOTHING = ("tap", "user", "hubport", "null", "ringbuf", "hub", "qemu-vdagent")


@pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")
def test_every_kind_of_network_and_character_device_of_this_qemu_has_a_rule() -> None:
    for option in ("-netdev", "-chardev"):
        said = subprocess.run([QEMU, option, "help"], capture_output=True, text=True, check=True)
        for kind in said.stdout.partition(":")[2].split():
            try:
                (_name, value) = rewritten(option, f"{kind},id=x")
            except Refused as exc:
                assert kind in ("vhost-user", "vhost-vdpa"), exc.message
            else:
                assert value.split(",")[0] in REACH_NOTHING
