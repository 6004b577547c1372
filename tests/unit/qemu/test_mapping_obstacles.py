# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why RAM cannot be a private mapping: who shares it, who pins it, what it is made of."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._command_line import (
    options_of,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._mapping_obstacles import (
    backend_obstacle,
    cannot_shrink,
    obstacles,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._option_value import (
    flat_keys,
)

PINS = "it pins all of the guest's RAM"
SHARES = "another process works in the guest's RAM"
GIVES_BACK = "it gives RAM back page by page"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("-device vfio-pci,host=01:00.0", f"vfio-pci: {PINS}"),
        ('-device {"driver":"vfio-pci-nohotplug","host":"01:00.0"}', f"vfio-pci-nohotplug: {PINS}"),
        ("-device driver=vfio-ccw,id=v", f"vfio-ccw: {PINS}"),
        ("--device vhost-user-fs-pci,chardev=c", f"vhost-user-fs-pci: {SHARES}"),
        ("-device vhost-vdpa-device-pci,vhostdev=/dev/v", f"vhost-vdpa-device-pci: {PINS}"),
        ("-device virtio-mem-pci,memdev=m", f"virtio-mem-pci: {GIVES_BACK}"),
        ("-device x-pci-proxy-dev,fd=4", f"x-pci-proxy-dev: {SHARES}"),
        ("-netdev vhost-user,id=n,chardev=c", f"vhost-user: {SHARES}"),
        ("-netdev type=vhost-user,id=n,chardev=c", f"vhost-user: {SHARES}"),
        ('-netdev {"type":"vhost-user","id":"n","chardev":"c"}', f"vhost-user: {SHARES}"),
        ("-netdev vhost-vdpa,id=n,vhostdev=/dev/v", f"vhost-vdpa: {PINS}"),
        ("-net vhost-user,chardev=c", f"vhost-user: {SHARES}"),
        ("-object cryptodev-vhost-user,id=o,chardev=c", f"cryptodev-vhost-user: {SHARES}"),
        ("-object x-remote-object,id=o,fd=4", f"x-remote-object: {SHARES}"),
        ('-object {"qom-type":"x-vfio-user-server","id":"o"}', f"x-vfio-user-server: {SHARES}"),
        ("-drive file=nvme://0000:01:00.0/1,if=none", f"nvme: {PINS}"),
        ("-drive file.driver=nvme,file.device=0000:01:00.0,if=none", f"nvme: {PINS}"),
        ("-blockdev driver=nvme,device=0000:01:00.0,namespace=1,node-name=n", f"nvme: {PINS}"),
        ("-blockdev driver=raw,file.driver=nvme,file.device=x,node-name=n", f"nvme: {PINS}"),
        (
            '-blockdev {"driver":"raw","file":{"driver":"nvme-io_uring","path":"/dev/ng0n1"}}',
            f"nvme-io_uring: {PINS}",
        ),
        (
            '-blockdev {"driver":"qcow2","backing":{"driver":"raw","file":{"driver":"nvme"}}}',
            f"nvme: {PINS}",
        ),
        ("-blockdev driver=virtio-blk-vfio-pci,path=/sys/x", f"virtio-blk-vfio-pci: {PINS}"),
        ("-blockdev driver=virtio-blk-vhost-user,path=/s", f"virtio-blk-vhost-user: {SHARES}"),
        ("-blockdev driver=virtio-blk-vhost-vdpa,path=/v", f"virtio-blk-vhost-vdpa: {PINS}"),
        ("-machine q35,confidential-guest-support=sev0", "encrypts the guest's RAM"),
        ("-M q35,memory-encryption=sev0", "encrypts the guest's RAM"),
        ("-overcommit mem-lock=on", f"mem-lock=on: {PINS}"),
        ("-overcommit cpu-pm=on,mem-lock=yes", f"mem-lock=yes: {PINS}"),
        ("-overcommit mem-lock=on-fault,cpu-pm=on", f"mem-lock=on-fault: {PINS}"),
        ("-accel xen", "xen: the hypervisor has the guest's RAM"),
        ("-nic vhost-user,chardev=c", f"vhost-user: {SHARES}"),
        ("-nic vhost-vdpa,vhostdev=/dev/v", f"vhost-vdpa: {PINS}"),
        ('-drive file=json:{"driver":"nvme",,"device":"x"},if=none', f"nvme: {PINS}"),
        (
            '-hda json:{"driver":"raw","file":{"driver":"nvme","device":"x"}}',
            f"nvme: {PINS}",
        ),
        ("-hdb nvme://0000:01:00.0/1", f"nvme: {PINS}"),
        ("-cdrom nvme://0000:01:00.0/1", f"nvme: {PINS}"),
        ("-overcommit mem-lock", f"mem-lock=on: {PINS}"),
        ("-machine pc,accel=xen", "xen: the hypervisor has the guest's RAM"),
        ("-machine pc,accel=kvm:xen", "xen: the hypervisor has the guest's RAM"),
        ("-M xenfv", "xen: the hypervisor has the guest's RAM"),
        ("-readconfig /etc/vm.cfg", "may bring along anything"),
        ("-mem-path /dev/hugepages", "puts it into files already"),
        ("-mem-prealloc", "asks for all of it at the start"),
    ],
)
def test_each_of_these_keeps_ram_from_being_mapped_and_says_why(words, why):
    option, _space, value = words.partition(" ")
    (reason,) = obstacles(options_of([option, *([value] if value else [])]))
    assert reason.startswith(f"{option.replace('--', '-')} {why}")


def test_a_word_without_a_dash_is_the_first_disk():
    (reason,) = obstacles(options_of(["-m", "64", "nvme://0000:01:00.0/1"]))
    assert reason.startswith(f"the first disk, nvme: {PINS}")


def test_every_obstacle_is_told_in_order_and_no_value_that_may_be_secret():
    words = [
        *("-device", "vfio-pci,host=hunter2", "-device", "virtio-net-pci", "-mem-prealloc"),
        *("-netdev", "vhost-user,id=n,chardev=hunter2", "-mem-path", "/hunter2"),
        *("-blockdev", "driver=nvme,device=hunter2,node-name=n"),
        *("-M", "q35,memory-encryption=hunter2", "-device", "vfio-pci,host=hunter2"),
    ]
    found = list(obstacles(options_of(words)))
    names = ["device", "mem-prealloc", "netdev", "mem-path", "blockdev", "M", "device"]
    assert [reason.split()[0] for reason in found] == [f"-{name}" for name in names]
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    "words",
    [
        "-device virtio-blk-pci,drive=d",
        "-device virtio-net-pci,netdev=n",
        "-device virtio-balloon-pci",
        "-netdev tap,id=n,vhost=on",
        "-object rng-random,id=r",
        "-object memory-backend-ram,id=m,size=64M",
        "-drive file=/srv/nvme.qcow2,if=virtio",
        "-blockdev driver=file,filename=nvme,node-name=n",
        "-machine q35,mem-merge=off",
        "-overcommit mem-lock=off,cpu-pm=on",
        "-overcommit mem-lock=no",
        "-overcommit cpu-pm=on",
        "-device vhost-vsock-pci,guest-cid=3",
        "-netdev user,id=vhost-user",
        "-object memory-backend-memfd,id=vfio-pci,size=64M",
        "-append -mem-prealloc",
        "-hda /srv/a,driver=nvme.img",
        "-hda json:nonsense",
        "-nic user,model=virtio",
        "-machine pc,accel=kvm:tcg",
        "/srv/nvme.img",
        "-name vfio-pci",
        "-accel kvm",
    ],
)
def test_each_of_these_does_not(words):
    assert list(obstacles(options_of(words.split(" ")))) == []


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ("memory-backend-ram,id=m", None),
        ("memory-backend-ram,id=m,share=off,prealloc=off", None),
        ("memory-backend-memfd,id=m,share=off,hugetlb=off", None),
        ('{"qom-type":"memory-backend-memfd","id":"m","share":false}', None),
        ("memory-backend-memfd,id=m", "it is shared"),
        ("memory-backend-memfd,id=m,share=on", "it is shared"),
        ("memory-backend-memfd,id=m,share=no", None),
        ("memory-backend-memfd,id=m,share=false", None),
        ('{"qom-type":"memory-backend-memfd","id":"m"}', "it is shared"),
        ("memory-backend-ram,id=m,share", "it is shared"),
        ('{"qom-type":"memory-backend-ram","id":"m","prealloc":true}', "preallocated"),
        ('{"qom-type":"memory-backend-memfd","share":false,"hugetlb":true}', "huge pages"),
        ("memory-backend-ram,id=m,share=yes", "it is shared"),
        ('{"qom-type":"memory-backend-ram","id":"m","share":true}', "it is shared"),
        ("memory-backend-memfd,id=m,share=off,hugetlb=on", "huge pages"),
        ("memory-backend-memfd,id=m,share=off,hugetlbsize=2M", "huge pages"),
        ("memory-backend-ram,id=m,prealloc=on", "preallocated"),
        ("memory-backend-file,id=m,mem-path=/r", "lies in a file"),
        ("memory-backend-shm,id=m", "not plain private memory"),
        ("memory-backend-epc,id=m", "not plain private memory"),
    ],
)
def test_a_backend_is_plain_private_memory_or_says_why_not(properties, reason):
    found = backend_obstacle(flat_keys(properties, "qom-type"))
    assert found is None if reason is None else found is not None and reason in found


@pytest.mark.parametrize(
    ("words", "balloon"),
    [
        ("-device virtio-balloon-pci,id=b", True),
        ("-device virtio-balloon-pci-transitional", True),
        ('-device {"driver":"virtio-balloon-ccw"}', True),
        ("-device virtio-blk-pci,drive=virtio-balloon", False),
        ("-name virtio-balloon", False),
    ],
)
def test_a_balloon_is_seen(words, balloon):
    assert cannot_shrink(options_of(words.split(" "))) is balloon
