# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines whose RAM becomes a private mapping of an image, and back."""

from __future__ import annotations

import json

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._command_line import (
    options_of,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._mapped_argv import (
    ImageBlock,
    map_ram,
    plain_again,
)

IMAGE = "/store/web01.save"
MIB = 1 << 20
PAGE = 4096
QEMU = "qemu-system-x86_64"


def block(name, mib=64, page=PAGE, offset=MIB):
    return ImageBlock(name, mib * MIB, page, offset)


RAM = block("pc.ram")
SMALL = (
    block("pc.bios", 1),
    block("/rom@etc/acpi/tables", 128),
    block("0000:00:02.0/vga.vram", 256),
)


def mapped(*words, blocks=(RAM, *SMALL), page=PAGE, path=IMAGE):
    return map_ram((QEMU, *words), path, blocks, host_page_bytes=page)


def backed(name, size="size=64M", offset=MIB, canonical="off", path=IMAGE):
    """A memory backend as it should be."""
    return (
        f"memory-backend-file,id={name},{size},mem-path={path},offset={offset},share=off,"
        f"readonly=on,rom=off,x-use-canonical-path-for-ramblock-id={canonical}"
    )


def test_ram_that_the_machine_makes_for_itself_gets_a_backend_of_the_blocks_name_and_size():
    found = mapped("-m", "64")
    size = f"size={64 * MIB}"
    assert found.argv == (
        *(QEMU, "-m", "64"),
        *("-object", backed("pc.ram", size)),
        *("-machine", "memory-backend=pc.ram"),
    )
    assert found.blocks == (RAM,)
    assert found.changes == (f"Mapped RAM block pc.ram from {IMAGE}.",)


@pytest.mark.parametrize(
    "kind",
    ["memory-backend-ram", "memory-backend-memfd,share=off", "memory-backend-memfd,share=no"],
)
@pytest.mark.parametrize("machine", ["-machine", "-M"])
def test_a_backend_that_is_there_becomes_the_mapping_under_its_id(kind, machine):
    kind, *share = kind.split(",")
    words = ",".join([kind, "id=main", "size=64M", *share])
    found = mapped("-object", words, machine, "pc,memory-backend=main", blocks=(block("main"),))
    assert found.argv == (QEMU, "-object", backed("main"), machine, "pc,memory-backend=main")


def test_what_else_a_backend_was_told_stays():
    words = "memory-backend-ram,id=main,size=64M,policy=bind,host-nodes=0,host-nodes=1,merge=off"
    found = mapped("-object", words, "-machine", "memory-backend=main", blocks=(block("main"),))
    kept = "size=64M,policy=bind,host-nodes=0,host-nodes=1,merge=off"
    assert found.argv[2] == backed("main", kept)


def test_in_json_numbers_stay_numbers_and_switches_switches():
    written = {"qom-type": "memory-backend-memfd", "id": "main", "size": 64 * MIB, "share": False}
    words = ("-object", json.dumps(written), "-machine", '{"type":"pc","memory-backend":"main"}')
    found = mapped(*words, blocks=(block("main"),))
    assert json.loads(found.argv[2]) == {
        "qom-type": "memory-backend-file",
        "id": "main",
        "size": 64 * MIB,
        "mem-path": IMAGE,
        "offset": MIB,
        "share": False,
        "readonly": True,
        "rom": "off",
        "x-use-canonical-path-for-ramblock-id": False,
    }
    assert found.argv[3:] == words[2:]


def test_every_numa_node_and_memory_device_is_mapped_at_its_own_place():
    blocks = (block("near"), block("far", offset=80 * MIB), block("dimm", offset=160 * MIB), *SMALL)
    words = [
        *("-object", "memory-backend-ram,id=near,size=64M", "-numa", "node,memdev=near"),
        *("-object", "memory-backend-ram,id=far,size=64M", "-numa", "node,memdev=far"),
        *("-object", "memory-backend-ram,id=dimm,size=64M", "-device", "pc-dimm,memdev=dimm"),
    ]
    found = mapped(*words, blocks=blocks)
    assert [one.name for one in found.blocks] == ["near", "far", "dimm"]
    assert found.argv[2] == backed("near")
    assert found.argv[6] == backed("far", offset=80 * MIB)
    assert found.argv[10] == backed("dimm", offset=160 * MIB)
    assert "-machine" not in found.argv


def test_beside_a_memory_device_the_machines_own_ram_is_mapped_too():
    words = ("-object", "memory-backend-ram,id=dimm,size=512M", "-device", "pc-dimm,memdev=dimm")
    found = mapped(*words, blocks=(RAM, block("dimm", 512), *SMALL))
    assert {one.name for one in found.blocks} == {"pc.ram", "dimm"}
    assert found.argv[-1] == "memory-backend=pc.ram"


def test_a_block_that_is_named_after_its_path_keeps_that_name():
    words = ("-object", "memory-backend-memfd,id=m0,size=64M,share=off")
    found = mapped(
        *words, "-machine", "pc-i440fx-3.1,memory-backend=m0", blocks=(block("/objects/m0"),)
    )
    assert found.argv[2] == backed("m0", canonical="on")


def test_commas_in_the_images_path_are_doubled():
    found = mapped("-m", "64", path="/store/a,b.save")
    assert "mem-path=/store/a,,b.save," in found.argv[4]


@pytest.mark.parametrize(
    ("words", "blocks", "reason"),
    [
        (("-m", "64"), (block("pc.ram", page=2 * MIB),), "has pages of 2097152 bytes"),
        (("-m", "64"), (block("pc.ram", offset=MIB + 512),), "lies at offset 1049088"),
        (("-m", "64"), SMALL[1:], "has no RAM block that is the machine's own"),
        (
            ("-object", "memory-backend-ram,id=other,size=1M", "-numa", "node,memdev=other"),
            (RAM,),
            "memory backend other: the image has no RAM block of that name",
        ),
        (
            ("-object", "memory-backend-file,id=main,size=64M,mem-path=/dev/shm/ram"),
            (block("main"), RAM),
            "memory backend main: its RAM lies in a file already",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(words, blocks, reason):
    with pytest.raises(Refused, match=reason):
        mapped(*words, blocks=blocks)


def test_a_host_with_larger_pages_needs_offsets_that_fit_them():
    assert mapped("-m", "64", page=64 << 10).blocks == (RAM,)
    with pytest.raises(Refused, match="pages of 65536 bytes do not fit"):
        mapped("-m", "64", blocks=(block("pc.ram", offset=MIB + PAGE),), page=64 << 10)


def test_all_reasons_are_told_at_once():
    with pytest.raises(Refused) as refused:
        mapped(
            *("-object", "memory-backend-memfd,id=a,size=64M", "-numa", "node,memdev=a"),
            *("-device", "vfio-pci,host=01:00.0", "-overcommit", "mem-lock=on"),
        )
    for words in ("memory backend a: it is shared", "vfio-pci", "mem-lock=on"):
        assert words in refused.value.message


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "64"),
        ("-object", "memory-backend-ram,id=pc.ram,size=64M", "-M", "memory-backend=pc.ram"),
        (
            *("-object", '{"qom-type":"memory-backend-ram","id":"pc.ram","size":67108864}'),
            *("-M", "memory-backend=pc.ram"),
        ),
    ],
)
def test_recorded_mappings_become_plain_ram_that_can_be_mapped_again(words):
    once = mapped(*words)
    changes: list[str] = []
    plain = [
        word for option in plain_again(options_of(once.argv[1:]), changes) for word in option.words
    ]
    assert not any(IMAGE in word for word in plain)
    assert any("memory-backend-ram" in word for word in plain)
    assert len(changes) == 1
    again = mapped(*plain)
    assert again.blocks == once.blocks
    assert sum(IMAGE in word for word in again.argv) == 1


@pytest.mark.parametrize(
    "value",
    [
        "memory-backend-file,id=m,size=64M,mem-path=/r,share=on,readonly=on,rom=off",
        "memory-backend-file,id=m,size=64M,mem-path=/r,readonly=on,rom=on",
        "memory-backend-file,id=m,size=64M,mem-path=/r,readonly=on",
        "memory-backend-file,id=m,size=64M,mem-path=/r,share=on",
        "memory-backend-ram,id=m,size=64M",
        "rng-random,id=m",
    ],
)
def test_other_objects_are_left_as_they_are(value):
    changes: list[str] = []
    options = list(options_of(["-object", value]))
    assert (plain_again(options, changes), changes) == (options, [])
