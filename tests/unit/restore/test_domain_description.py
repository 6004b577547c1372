# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Descriptions in images that libvirt would build another machine from."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._domain_description import (
    check_described,
)
from ansible_collections.vmfleet.suspend.tests.support.values import an_image

MIB = 1 << 20
NVDIMM = (
    "<memory model='nvdimm'><source><path>/srv/nvdimm</path></source>"
    "<target><size unit='MiB'>16</size></target></memory>"
)
VIRTIO_MEM = (
    "<memory model='virtio-mem'><target><size unit='MiB'>128</size>"
    "<requested unit='MiB'>32</requested></target></memory>"
)
DIMM = "<memory model='dimm'><target><size unit='MiB'>32</size></target></memory>"


def a_description(memory_mib, devices=""):
    return (
        f"<domain type='kvm'><name>web01</name><memory unit='MiB'>{memory_mib}</memory>"
        f"<devices>{devices}</devices></domain>"
    )


def an_image_of(**blocks_mib):
    blocks = tuple((name, count * MIB) for name, count in blocks_mib.items())
    return an_image(layout="mapped-ram", ram_blocks=blocks)


OF_64 = {"pc.ram": 64, "vga.vram": 16, "pc.bios": 1}


@pytest.mark.parametrize(
    ("memory_mib", "blocks", "devices"),
    [
        (64, OF_64, ""),
        (64, {"mach-virt.ram": 64}, ""),
        (64, {"ram-node0": 32, "/objects/ram-node1": 32}, ""),
        (96, {**OF_64, "/objects/memdimm0": 32}, DIMM),
        (64 + 128, {**OF_64, "virtiomem0": 32}, VIRTIO_MEM),
        (64, {"something else": 7}, ""),
    ],
)
def test_the_size_that_was_saved_is_restored(memory_mib, blocks, devices):
    check_described(a_description(memory_mib, devices), an_image_of(**blocks))


@pytest.mark.parametrize("memory_mib", [32, 65, 128])
def test_another_size_is_refused(memory_mib):
    """T5: libvirt would load it without noticing, if it is larger."""
    words = rf"has {memory_mib} MiB of RAM, the guest was saved with 64: it was edited since"
    with pytest.raises(Refused, match=words):
        check_described(a_description(memory_mib), an_image_of(**OF_64))


def test_a_sequential_stream_is_left_to_qemu_which_compares():
    check_described(a_description(128), an_image(layout="sequential"))


def test_ram_in_a_file_that_outlived_its_qemu_is_refused():
    """T4."""
    with pytest.raises(Refused, match="/srv/nvdimm holds RAM of the domain"):
        check_described(a_description(80, NVDIMM), an_image_of(**OF_64, nvdimm0=16))
