# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines whose RAM becomes a private mapping of an image, and back."""

from __future__ import annotations

import json
import shutil
import subprocess

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


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("memory-backend-memfd,id=main,size=64M,share=off,seal=on,hugetlb=off", "size=64M"),
        ("memory-backend-ram,id=main,size=64M,prealloc=off,dump=off", "size=64M,dump=off"),
        ("qom-type=memory-backend-ram,id=main,size=64M", "size=64M"),
    ],
)
def test_what_a_file_has_no_use_for_is_dropped(written, kept):
    found = mapped("-object", written, "-M", "memory-backend=main", blocks=(block("main"),))
    assert found.argv[2] == backed("main", kept)


def test_what_a_file_has_no_use_for_is_dropped_from_json_as_well():
    written = {
        **{"qom-type": "memory-backend-memfd", "id": "main", "size": 64 * MIB, "share": False},
        **{"seal": True, "hugetlb": False, "prealloc": False, "dump": False},
    }
    words = ("-object", json.dumps(written), "-M", "memory-backend=main")
    described = json.loads(mapped(*words, blocks=(block("main"),)).argv[2])
    assert not described.keys() & {"seal", "hugetlb", "prealloc"}
    assert described["dump"] is False


def test_in_json_numbers_stay_numbers_and_switches_switches():
    written = {"qom-type": "memory-backend-memfd", "id": "main", "size": 64 * MIB, "share": False}
    words = ("-object", json.dumps(written), "-machine", "pc,memory-backend=main")
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


@pytest.mark.parametrize("node", ["node,memdev=near", "node,cpus=0-1,memdev=near"])
def test_a_node_that_names_its_memory_leaves_none_to_the_machine(node):
    words = ("-object", "memory-backend-ram,id=near,size=64M", "-numa", node)
    assert mapped(*words, blocks=(block("near"), *SMALL)).argv[3:] == ("-numa", node)


@pytest.mark.parametrize("node", ["node,cpus=0-1", "node,mem=64M"])
def test_nodes_without_memory_of_their_own_share_the_machines(node):
    found = mapped("-m", "64", "-numa", node)
    assert found.argv[-1] == "memory-backend=pc.ram"


def test_all_other_words_stay_as_they_are_and_in_order():
    words = ["-S", "-m", "64", "-append", "-object", "-name", "a,,b", "-drive", "file=x", "d.img"]
    assert mapped(*words).argv[: len(words) + 1] == (QEMU, *words)


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


def test_a_path_stays_the_blocks_name_in_json_too():
    written = '{"qom-type":"memory-backend-memfd","id":"m0","size":67108864,"share":false}'
    words = ("-object", written, "-M", "pc-i440fx-3.1,memory-backend=m0")
    described = json.loads(mapped(*words, blocks=(block("/objects/m0"),)).argv[2])
    assert described["x-use-canonical-path-for-ramblock-id"] is True
    assert described["id"] == "m0"


COMMAS = "/store/a,b,,c.save"


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "64"),
        ("-object", "memory-backend-ram,id=pc.ram,size=64M", "-M", "memory-backend=pc.ram"),
    ],
)
def test_commas_in_the_images_path_are_doubled(words):
    argv = mapped(*words, path=COMMAS).argv
    (value,) = (word for word in argv if word.startswith("memory-backend-file"))
    assert ",mem-path=/store/a,,b,,,,c.save,offset=" in value


def test_commas_in_the_images_path_are_not_doubled_in_json():
    written = '{"qom-type":"memory-backend-ram","id":"main","size":67108864}'
    words = ("-object", written, "-M", "memory-backend=main")
    found = mapped(*words, blocks=(block("main"),), path=COMMAS)
    assert json.loads(found.argv[2])["mem-path"] == COMMAS


def test_what_json_leaves_to_a_default_is_said():
    written = '{"qom-type":"memory-backend-ram","id":"main","size":67108864}'
    words = ("-object", written, "-M", "memory-backend=main")
    assert json.loads(mapped(*words, blocks=(block("main"),)).argv[2])["share"] is False


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


def test_beside_flash_of_its_size_the_machines_ram_is_known_by_its_name():
    blocks = (block("virt.flash0"), block("virt.flash1"), block("mach-virt.ram"))
    assert [one.name for one in mapped("-m", "64", blocks=blocks).blocks] == ["mach-virt.ram"]


@pytest.mark.parametrize("names", [("a", "b"), ("a.ram", "b.ram")])
def test_which_block_is_the_machines_ram_is_never_guessed(names):
    with pytest.raises(Refused, match="of 67108864 bytes is the machine's own cannot be told"):
        mapped("-m", "64", blocks=tuple(map(block, names)))


def test_a_template_that_ram_began_with_leaves_nothing_behind_that_plain_ram_has_not():
    value = (
        "memory-backend-file,id=m,size=64M,mem-path=/t,readonly=on,rom=off,pmem=off,"
        "discard-data=off,align=2M,offset=0,dump=off"
    )
    changes: list[str] = []
    (option,) = plain_again(options_of(["-object", value]), changes)
    assert option.value == "memory-backend-ram,id=m,size=64M,dump=off"


def test_a_host_with_larger_pages_needs_offsets_that_fit_them():
    assert mapped("-m", "64", page=64 << 10).blocks == (RAM,)
    with pytest.raises(Refused, match="pages of 65536 bytes do not fit"):
        mapped("-m", "64", blocks=(block("pc.ram", offset=MIB + PAGE),), page=64 << 10)
    odd = ImageBlock("pc.ram", 64 * MIB + PAGE, PAGE, MIB)
    with pytest.raises(Refused, match=r"of 67112960 bytes .* do not fit"):
        mapped("-m", "64", blocks=(odd,), page=64 << 10)


def test_all_reasons_are_told_at_once():
    with pytest.raises(Refused) as refused:
        mapped(
            *("-object", "memory-backend-memfd,id=a,size=64M", "-numa", "node,memdev=a"),
            *("-object", "memory-backend-ram,id=b,size=64M", "-numa", "node,memdev=b"),
            *("-object", '{"qom-type":"memory-backend-ram","id":"c","size":1,"prealloc":true}'),
            *("-object", "memory-backend-ram,id=d,size=64M", "-device", "pc-dimm,memdev=d"),
            *("-device", "vfio-pci,host=01:00.0", "-overcommit", "mem-lock=on", "-mem-prealloc"),
            *("-netdev", "vhost-user,id=n,chardev=hunter2"),
            blocks=(block("a"), block("c"), block("d", page=2 * MIB)),
        )
    message = refused.value.message
    for words in (
        "memory backend a: it is shared",
        "memory backend b: the image has no RAM block",
        "memory backend c: it is preallocated",
        "RAM block d has pages of 2097152 bytes",
        "-device vfio-pci",
        "-overcommit mem-lock=on",
        "-mem-prealloc",
        "-netdev vhost-user",
    ):
        assert words in message
    assert message.startswith("The guest's RAM cannot be mapped from its image: ")
    assert message.endswith(". Set load to eager.")
    assert "hunter2" not in message


def plain(argv, changes):
    """The words after the program, with plain RAM."""
    return [word for option in plain_again(options_of(argv[1:]), changes) for word in option.words]


JSON_BACKEND = '{"qom-type":"memory-backend-ram","id":"pc.ram","size":67108864}'
FORMS = {
    "of the machine": ("-m", "64"),
    "words": ("-object", "memory-backend-ram,id=pc.ram,size=64M", "-M", "memory-backend=pc.ram"),
    "json": ("-object", JSON_BACKEND, "-M", "memory-backend=pc.ram"),
    "memfd": (
        *("-object", "memory-backend-memfd,id=pc.ram,size=64M,share=off,seal=off"),
        *("-machine", "memory-backend=pc.ram"),
    ),
    "a node": ("-object", "memory-backend-ram,id=pc.ram,size=64M", "-numa", "node,memdev=pc.ram"),
}


@pytest.mark.parametrize("path", [IMAGE, COMMAS])
@pytest.mark.parametrize(
    ("form", "name"),
    [
        *((form, "pc.ram") for form in FORMS),
        *((form, "/objects/pc.ram") for form in FORMS if form != "of the machine"),
    ],
)
def test_recorded_mappings_become_plain_ram_that_can_be_mapped_again(form, name, path):
    blocks = (block(name), *SMALL)
    once = mapped(*FORMS[form], blocks=blocks, path=path)
    changes: list[str] = []
    words = plain(once.argv, changes)
    assert not any("save" in word for word in words)
    assert any("memory-backend-ram" in word for word in words)
    assert changes == ["Made memory backend pc.ram plain RAM: it was a mapping."]
    moved = (block(name, offset=5 * MIB), *SMALL)
    again = mapped(*words, blocks=moved, path="/store/next.save")
    assert again.blocks == moved[:1]
    (value,) = (word for word in again.argv if "memory-backend-file" in word)
    assert "/store/next.save" in value
    assert str(5 * MIB) in value
    assert plain(again.argv, []) == words


def test_of_several_mappings_each_becomes_plain_ram():
    words = [
        *("-object", "memory-backend-ram,id=a,size=64M", "-numa", "node,memdev=a"),
        *("-object", "memory-backend-ram,id=b,size=64M", "-numa", "node,memdev=b"),
    ]
    once = mapped(*words, blocks=(block("a"), block("b", offset=80 * MIB)))
    changes: list[str] = []
    kept = "size=64M,x-use-canonical-path-for-ramblock-id=off"
    assert plain(once.argv, changes) == [
        *("-object", f"memory-backend-ram,id=a,{kept}", "-numa", "node,memdev=a"),
        *("-object", f"memory-backend-ram,id=b,{kept}", "-numa", "node,memdev=b"),
    ]
    assert [change.split()[3] for change in changes] == ["a", "b"]


def test_plain_ram_in_json_keeps_the_types_of_what_stays():
    once = mapped("-object", JSON_BACKEND, "-M", "memory-backend=pc.ram")
    assert json.loads(plain(once.argv, [])[1]) == {
        "qom-type": "memory-backend-ram",
        "id": "pc.ram",
        "size": 64 * MIB,
        "x-use-canonical-path-for-ramblock-id": False,
    }


@pytest.mark.parametrize(
    "view",
    [
        "mem-path=/r,readonly=on,rom=off",
        "mem-path=/r,readonly,rom=off,share=off",
        "mem-path=/r,offset=1M,align=2M,readonly=yes,rom=off,share=no",
    ],
)
def test_however_a_private_view_is_written_it_becomes_plain_ram(view):
    options = options_of(["-object", f"memory-backend-file,id=m,size=64M,{view}"])
    (option,) = plain_again(options, [])
    assert option.words == ("-object", "memory-backend-ram,id=m,size=64M")


@pytest.mark.parametrize(
    "value",
    [
        "memory-backend-file,id=m,size=64M,mem-path=/r,share=on,readonly=on,rom=off",
        "memory-backend-file,id=m,size=64M,mem-path=/r,readonly=on,rom=on",
        "memory-backend-file,id=m,size=64M,mem-path=/r,readonly=on",
        "memory-backend-file,id=m,size=64M,mem-path=/r,readonly=on,rom=auto",
        "memory-backend-file,id=m,size=64M,mem-path=/r,readonly=off,rom=off",
        "memory-backend-file,id=m,size=64M,mem-path=/r,share=on",
        '{"qom-type":"memory-backend-file","id":"m","mem-path":"/r","readonly":true,"rom":"on"}',
        '{"qom-type":"memory-backend-file","id":"m","mem-path":"/r","rom":"off","share":true}',
        "memory-backend-ram,id=m,size=64M",
        "rng-random,id=m",
    ],
)
def test_other_objects_are_left_as_they_are(value):
    changes: list[str] = []
    options = list(options_of(["-object", value]))
    assert (plain_again(options, changes), changes) == (options, [])


# The rewritten words against a real QEMU.

real = pytest.mark.skipif(shutil.which(QEMU) is None, reason="asks an installed QEMU")


def ram_blocks(words):
    """The names of the RAM blocks of a QEMU with these words; it must start."""
    asked = [
        {"execute": "qmp_capabilities"},
        {"execute": "human-monitor-command", "arguments": {"command-line": "info ramblock"}},
        {"execute": "quit"},
    ]
    ran = subprocess.run(
        [QEMU, "-nodefaults", "-display", "none", "-S", "-qmp", "stdio", *words],
        input="".join(json.dumps(command) + "\n" for command in asked),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    replies = [json.loads(line) for line in ran.stdout.splitlines()]
    (table,) = (one["return"] for one in replies if isinstance(one.get("return"), str))
    return {line.split()[0] for line in table.splitlines()[1:]}


@real
@pytest.mark.parametrize(
    ("form", "machine", "name"),
    [
        *((form, "pc", "pc.ram") for form in FORMS),
        ("words", "pc-i440fx-3.1", "pc.ram"),
        ("memfd", "pc-i440fx-3.1", "/objects/pc.ram"),
    ],
)
def test_qemu_takes_the_mapping_and_names_the_block_as_the_image_does(
    tmp_path, form, machine, name
):
    image = tmp_path / "a,b.save"
    with image.open("wb") as file:
        file.truncate(66 * MIB)
    words = ("-m", "64", *FORMS[form], "-M", machine)
    had = ram_blocks(words)
    assert name in had
    found = mapped(*words, blocks=(block(name),), path=str(image))
    assert ram_blocks(found.argv[1:]) == had
    image.unlink()
    assert ram_blocks(plain(found.argv, [])) == had
