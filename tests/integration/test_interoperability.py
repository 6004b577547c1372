# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every pair of virsh, the modules through libvirt and the modules over QMP, on one guest."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.tests.support.drive import (
    bring_back,
    do_save,
    image_info,
)
from ansible_collections.vmfleet.suspend.tests.support.interop_table import InteropTable
from ansible_collections.vmfleet.suspend.tests.support.kinds import needs_program
from ansible_collections.vmfleet.suspend.tests.support.libvirt_drive import (
    restore_by_libvirt,
    save_by_libvirt,
)

VIRSH, LIBVIRT, QMP = "virsh", "the modules, libvirt", "the modules, QMP"
YES = "yes"
CANNOT = "virsh writes none"
# What the modules are asked for; what virsh save and virsh restore are.
KINDS: dict[str, tuple[dict[str, Any], tuple[object, ...], tuple[object, ...]]] = {
    "raw": ({"image_format": "raw"}, ("--image-format", "raw"), ()),
    "zstd": ({"image_format": "zstd"}, ("--image-format", "zstd"), ()),
    "sparse, 1 channel": (
        {"image_format": "sparse", "parallel_channels": 1},
        ("--image-format", "sparse", "--parallel-channels", 1),
        ("--parallel-channels", 1),
    ),
    "sparse, 2 channels": (
        {"image_format": "sparse", "parallel_channels": 2},
        ("--image-format", "sparse", "--parallel-channels", 2),
        ("--parallel-channels", 2),
    ),
    "sparse, past the cache": (
        {"image_format": "sparse", "parallel_channels": 2, "bypass_cache": True},
        ("--image-format", "sparse", "--parallel-channels", 2, "--bypass-cache"),
        ("--parallel-channels", 2, "--bypass-cache"),
    ),
    "version 3": ({"image_version": 3}, (), ("--parallel-channels", 2)),
}
PROGRAMS = (VIRSH, LIBVIRT, QMP)


def cells():
    """All; those of `make test` have each pair, each kind, and the pairs of one with itself."""
    for i, saver in enumerate(PROGRAMS):
        for j, restorer in enumerate(PROGRAMS):
            for k, kind in enumerate(KINDS):
                diagonal = k == (3 * i + j) % len(KINDS) or (
                    i == j and kind == "sparse, 2 channels"
                )
                name = "-".join(f"{saver} to {restorer} {kind}".replace(",", "").split())
                marks = () if diagonal else (pytest.mark.full,)
                yield pytest.param(saver, restorer, kind, id=name, marks=marks)


@pytest.fixture(scope="session")
def interop_table(request):
    page = request.config.rootpath / "docs" / "docsite" / "rst" / "interoperability.rst"
    table = InteropTable(page, tuple(KINDS), write=request.config.getoption("--write-docs"))
    yield table
    table.finish()


@pytest.fixture
def bare(domain):
    """The same guest in a QEMU that libvirt does not know of."""

    def start():
        argv = [*domain.bare_argv(), "-qmp", f"unix:{domain.qmp_socket},server=on,wait=off"]
        domain.host.virsh("destroy", domain.name)
        domain.run(argv)
        domain.wait_passes(1)

    yield start
    domain.kill()


def save(saver, domain, path, kind, bare):
    options, words, _restoring = KINDS[kind]
    if saver == VIRSH:
        domain.host.virsh("save", domain.name, path, *words)
    elif saver == LIBVIRT:
        save_by_libvirt(domain, path, **options)
    else:
        bare()
        conf = domain.host.directory / "etc" / "qemu.conf"
        result = do_save(domain.qmp_socket, path, qemu_conf=str(conf), **options)
        assert result["plan"]["domain_xml"] == "libvirt's definition"
    assert not domain.alive()


def restore(saver, restorer, domain, path, kind, argv):
    options, _words, restoring = KINDS[kind]
    reading = {key: options[key] for key in ("parallel_channels", "bypass_cache") if key in options}
    if restorer == VIRSH:
        domain.host.virsh("restore", path, *restoring)
    elif restorer == LIBVIRT:
        restore_by_libvirt(domain, path, **reading)
    else:
        how: dict[str, Any] = {}
        if saver != QMP:
            how = {"argv": tuple(argv), "qmp_socket": domain.qmp_socket}
        bring_back(path, **how, **reading)


@pytest.mark.parametrize(("saver", "restorer", "kind"), list(cells()))
def test_each_brings_back_what_each_saved(
    domain, bare, store, interop_table, saver, restorer, kind
):
    needs_program(kind.split(",")[0] if kind == "zstd" else "raw")
    path, argv = store / "domain.save", domain.bare_argv()
    if saver == VIRSH and kind == "version 3":
        interop_table.add(saver, restorer, kind, CANNOT)
        with pytest.raises(AssertionError, match="Invalid image_format 'v3'"):
            domain.host.virsh("save", domain.name, path, "--image-format", "v3")
        return
    save(saver, domain, path, kind, bare)
    if restorer == VIRSH and kind == "version 3":
        with pytest.raises(AssertionError, match=r"image version is not supported"):
            restore(saver, restorer, domain, path, kind, argv)
        outcome = "refused: image version is not supported"
        restorer = LIBVIRT
        interop_table.add(saver, VIRSH, kind, outcome)
    else:
        interop_table.add(saver, restorer, kind, YES)
    restore(saver, restorer, domain, path, kind, argv)
    domain.wait_passes(2)
    assert domain.mismatches == []
    assert image_info(path)["state"] == ("ready" if restorer == VIRSH else "spent")


def test_an_image_without_a_description_for_libvirt_says_so_to_virsh_and_to_the_module(
    domain, ran, store
):
    path, guest = store / "guest.save", ran(name="alone")
    result = do_save(guest.qmp_socket, path, image_version=2, image_format="sparse")
    assert result["plan"]["domain_xml"] == "generated"
    assert "not one of libvirt's" in result["plan"]["reasons"]["domain_xml"]
    with pytest.raises(AssertionError, match="saved/over/QMP/without/description/for/libvirt"):
        domain.host.virsh("restore", path)
    with pytest.raises(Refused, match=r"saved over QMP without a description for libvirt.*Restore"):
        restore_by_libvirt(domain, path, domain="alone")
    bring_back(path)
    guest.wait_passes(2)
    assert guest.mismatches == []


def test_a_definition_edited_since_makes_no_image_that_libvirt_would_restore_wrongly(
    domain, bare, store
):
    """T5: libvirt would load a mapped-ram image into more RAM than it was saved from, silently."""
    path = store / "domain.save"
    bare()
    xml = domain.domain_xml()
    domain.host.define(xml.replace(f">{domain.memory_mib}<", f">{2 * domain.memory_mib}<"))
    conf = domain.host.directory / "etc" / "qemu.conf"
    options: dict[str, Any] = {"image_version": 2, "image_format": "sparse", "qemu_conf": str(conf)}
    edited = store.parent / "edited.xml"
    edited.write_text(xml.replace(f">{domain.memory_mib}<", f">{2 * domain.memory_mib}<"))
    with pytest.raises(Refused, match=r"it has 128 MiB of RAM, the guest 64"):
        do_save(domain.qmp_socket, path, domain_xml_file=str(edited), **options)
    result = do_save(domain.qmp_socket, path, **options)
    assert result["plan"]["domain_xml"] == "generated"
    assert "it has 128 MiB of RAM" in result["plan"]["reasons"]["domain_xml"]
    with pytest.raises(AssertionError, match="saved/over/QMP"):
        domain.host.virsh("restore", path)
    bring_back(path)
    domain.wait_passes(2)
    assert domain.mismatches == []


def test_a_description_given_by_the_operator_is_what_virsh_restores(domain, bare, store):
    path, xml = store / "domain.save", store.parent / "domain.xml"
    xml.write_text(domain.host.virsh("dumpxml", "--migratable", "--security-info", domain.name))
    bare()
    domain.host.virsh("undefine", domain.name)
    options: dict[str, Any] = {
        "image_version": 2,
        "image_format": "sparse",
        "domain_xml_file": str(xml),
    }
    assert do_save(domain.qmp_socket, path, **options)["plan"]["domain_xml"] == "domain_xml_file"
    domain.host.virsh("restore", path)
    domain.wait_passes(2)
    assert domain.mismatches == []
    domain.host.define(domain.domain_xml())  # as the fixture expects it
