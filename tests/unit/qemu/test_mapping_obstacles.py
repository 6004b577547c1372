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


@pytest.mark.parametrize(
    "words",
    [
        "-device vfio-pci,host=01:00.0",
        '-device {"driver":"vfio-pci-nohotplug","host":"01:00.0"}',
        "-device vhost-user-fs-pci,chardev=c",
        "-device vhost-vdpa-device-pci,vhostdev=/dev/vhost-vdpa-0",
        "-device virtio-mem-pci,memdev=m",
        "-device x-pci-proxy-dev,fd=4",
        "-netdev vhost-user,id=n,chardev=c",
        "-netdev vhost-vdpa,id=n,vhostdev=/dev/vhost-vdpa-0",
        "-object cryptodev-vhost-user,id=o,chardev=c",
        "-object x-remote-object,id=o,fd=4",
        "-object x-vfio-user-server,id=o",
        "-drive file=nvme://0000:01:00.0/1,if=none",
        "-blockdev driver=nvme,device=0000:01:00.0,namespace=1,node-name=n",
        "-blockdev driver=raw,file.driver=nvme,file.device=0000:01:00.0,node-name=n",
        '-blockdev {"driver":"raw","file":{"driver":"nvme-io_uring","path":"/dev/ng0n1"}}',
        "-blockdev driver=virtio-blk-vfio-pci,path=/sys/x,node-name=n",
        "-blockdev driver=virtio-blk-vhost-user,path=/s,node-name=n",
        "-blockdev driver=virtio-blk-vhost-vdpa,path=/dev/v,node-name=n",
        "-machine q35,confidential-guest-support=sev0",
        "-M q35,memory-encryption=sev0",
        "-overcommit mem-lock=on",
        "-overcommit mem-lock=on-fault,cpu-pm=on",
        "-accel xen",
        "-mem-path /dev/hugepages",
        "-mem-prealloc",
    ],
)
def test_each_of_these_keeps_ram_from_being_mapped(words):
    option, _space, value = words.partition(" ")
    (reason,) = obstacles(options_of([option, *([value] if value else [])]))
    assert reason.startswith(option)


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
