# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain description: made, read, and shown without secrets."""

from __future__ import annotations

import typing as t
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._domain_xml import (
    UNREADABLE,
    identity,
    is_minimal,
    minimal_domain_xml,
    redact,
)

UUID = "6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77"
GUEST: dict[str, t.Any] = {
    "name": "web01",
    "uuid": UUID,
    "memory_bytes": 1 << 30,
    "vcpus": 2,
    "arch": "x86_64",
    "machine": "pc-q35-10.0",
    "accelerator": "kvm",
}


def test_a_minimal_description_has_what_libvirt_requires():
    domain = ElementTree.fromstring(minimal_domain_xml(**GUEST))
    assert (domain.tag, domain.get("type")) == ("domain", "kvm")
    assert [child.tag for child in domain] == ["name", "uuid", "memory", "vcpu", "os", "devices"]
    assert domain.findtext("memory[@unit='KiB']") == "1048576"
    assert domain.findtext("os/type[@arch='x86_64'][@machine='pc-q35-10.0']") == "hvm"


def test_a_minimal_description_names_an_emulator_that_libvirt_does_not_find():
    xml = minimal_domain_xml(**GUEST)
    assert is_minimal(xml)
    assert not is_minimal(xml.replace("/saved/over", "/usr/bin"))
    assert not is_minimal("<domain")


def test_a_guest_without_a_uuid_gets_none():
    assert identity(minimal_domain_xml(**{**GUEST, "uuid": None})) == ("web01", None)


@given(st.text(min_size=1).filter(str.strip))
def test_any_name_gives_a_description_that_can_be_read(name):
    xml = minimal_domain_xml(**{**GUEST, "name": name})
    xml.encode("utf-8")
    ElementTree.fromstring(xml)


@pytest.mark.parametrize("name", ["a & b", "<name>", 'qu"ote', "dömäin", "日本"])
def test_names_are_escaped(name):
    assert identity(minimal_domain_xml(**{**GUEST, "name": name})) == (name, UUID)


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "not xml",
        "<domain/>",
        "<domain><name> </name></domain>",
        "<network><name>a</name></network>",
        "<!DOCTYPE x [<!ENTITY a 'b'>]><domain><name>&a;</name></domain>",
    ],
)
def test_what_is_no_domain_with_a_name_has_no_identity(xml):
    assert identity(xml) is None


def test_nothing_that_could_be_a_secret_is_shown():
    xml = """
    <domain xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
      <name>web01</name>
      <metadata><own token="t">SECRET-META</own></metadata>
      <sysinfo type="smbios"><oemStrings><entry>SECRET-OEM</entry></oemStrings></sysinfo>
      <os><cmdline>root=/dev/vda key=SECRET-CMD</cmdline></os>
      <devices>
        <graphics type="vnc" passwd="SECRET-VNC"/>
        <disk><source><cookies><cookie name="c">SECRET-COOKIE</cookie></cookies></source></disk>
      </devices>
      <launchSecurity type="sev"><session>SECRET-SEV</session></launchSecurity>
      <qemu:commandline>
        <qemu:arg value="secret,data=SECRET-ARG"/><qemu:env name="A" value="SECRET-ENV"/>
      </qemu:commandline>
      <qemu:override><qemu:device alias="d"><qemu:frontend>
        <qemu:property name="serial" type="string" value="SECRET-PROPERTY"/>
      </qemu:frontend></qemu:device></qemu:override>
    </domain>"""
    shown = redact(xml)
    assert "SECRET" not in shown
    assert identity(shown) == ("web01", None)


@pytest.mark.parametrize(
    "inside",
    [
        "<metadata>SECRET</metadata>",
        "<metadata><own/>SECRET</metadata>",
        "<metadata><own key='SECRET'/></metadata>",
        "<sysinfo><entry/>SECRET</sysinfo>",
        "<sysinfo><system><entry name='a'>SECRET</entry></system></sysinfo>",
        "<devices><graphics type='spice' password='SECRET'/></devices>",
        "<!-- SECRET -->",
    ],
)
def test_a_secret_is_hidden_wherever_it_stands_and_the_rest_is_shown(inside):
    shown = redact(f"<domain><name>web01</name>{inside}<os><type>hvm</type></os> </domain>")
    assert "SECRET" not in shown
    assert shown.startswith("<domain><name>web01</name>")
    assert shown.endswith("<os><type>hvm</type></os> </domain>")


def test_a_description_without_secrets_is_shown_as_it_is():
    xml = '<domain><name>web01</name><metadata /><pae value="on" /> text</domain>'
    assert redact(xml) == xml


@pytest.mark.parametrize("tag", ["a", "sysinfo"])
@pytest.mark.parametrize(("levels", "shown"), [(100, True), (101, False), (100_000, False)])
def test_what_is_nested_deeper_than_any_domain_is_not_shown(tag, levels, shown):
    assert (redact(f"<{tag}>" * levels + f"</{tag}>" * levels) != UNREADABLE) is shown


def test_text_that_cannot_be_parsed_is_not_shown():
    assert redact("<domain><graphics passwd='SECRET'") == UNREADABLE
    assert redact("<!DOCTYPE a><domain/>") == UNREADABLE
