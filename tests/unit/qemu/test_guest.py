# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at a guest: what QEMU's answers mean."""

from __future__ import annotations

import os
import subprocess

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import MonitorError
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._guest import (
    NIL_UUID,
    observe,
    offers_exit_on_error,
    query_offer,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._process import identify
from ansible_collections.vmfleet.suspend.tests.support.model_guest import (
    RAM_BYTES,
    model_guest,
    with_monitor,
)
from ansible_collections.vmfleet.suspend.tests.support.qemu_replies import (
    CAPABILITIES,
    PARAMETERS,
    SCHEMA,
)

ELSEWHERE = "/nonexistent/disk.img"


@pytest.fixture
def model(tmp_path):
    with model_guest(tmp_path) as guest:
        yield guest


def look(model, **options):
    return with_monitor(model.qmp_socket, lambda monitor: observe(monitor, **options))


def a_node(filename, driver="file", **fields):
    return {"node-name": "disk", "drv": driver, "file": str(filename), "ro": False, **fields}


def test_everything_that_a_plan_needs_is_asked_for(model):
    model.qemu.block_jobs = [{"device": "job0", "type": "mirror"}]
    model.qemu.block_exports = [{"id": "export0", "type": "nbd"}]
    model.qemu.blocked_reasons = ["non-migratable device"]
    guest = look(model)
    assert guest.qmp_socket == str(model.qmp_socket)
    assert guest.process == model.identity
    assert (guest.name, guest.uuid) == (model.qemu.name, model.qemu.uuid)
    assert (guest.run_state, guest.qemu_version) == ("running", "10.0.2")
    assert guest.machine_type == "pc-i440fx-10.0"
    assert (guest.architecture, guest.accelerator) == ("x86_64", "kvm")
    assert (guest.memory_bytes, guest.ram_bytes, guest.vcpus) == (RAM_BYTES, RAM_BYTES, 1)
    assert (guest.migration_status, guest.blocked_reasons) == (None, ("non-migratable device",))
    assert guest.block_jobs == ({"device": "job0", "type": "mirror"},)
    assert guest.block_exports == ({"id": "export0", "type": "nbd"},)


def test_looking_changes_nothing(model):
    look(model)
    assert model.commands == []


def test_memory_that_was_plugged_in_counts(model):
    model.monitor.expect("query-memory-size-summary").returns(
        {"base-memory": 1000, "plugged-memory": 24}
    )
    assert look(model).memory_bytes == 1024


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (NIL_UUID, None),
        ("8B4F0F5E-9D2C-4B53-9C4E-6A1F4B7F0C11", "8b4f0f5e-9d2c-4b53-9c4e-6a1f4b7f0c11"),
    ],
)
def test_a_uuid_of_zeros_is_none_and_others_are_lower_case(model, given, seen):
    model.qemu.uuid = given
    assert look(model).uuid == seen


def test_a_guest_without_a_name_has_none(model):
    model.qemu.name = None
    assert look(model).name is None


def test_without_kvm_the_accelerator_is_qemu_itself(model):
    model.monitor.expect("query-kvm").returns({"enabled": False, "present": True})
    assert look(model).accelerator == "qemu"


@pytest.mark.parametrize(("property_value", "suppresses"), [(True, True), (False, False)])
def test_whether_the_machine_leaves_out_the_device_description_is_asked(
    model, property_value, suppresses
):
    model.qemu.suppress_vmdesc = property_value
    assert look(model).suppresses_vmdesc is suppresses


def test_a_machine_without_the_property_suppress_vmdesc_describes_its_devices(model):
    model.qemu.suppress_vmdesc = None
    assert look(model).suppresses_vmdesc is False


def test_the_offer_is_what_qemu_lists(model):
    offer = look(model).offer
    assert (offer.capabilities, offer.parameters) == (CAPABILITIES, PARAMETERS)
    assert offer.migrate_incoming_exit_on_error is False
    assert "query-qmp-schema" not in model.monitor.names


def test_the_schema_is_read_only_for_a_load(model):
    def ask(monitor):
        return query_offer(monitor, incoming=True)

    assert with_monitor(model.qmp_socket, ask).migrate_incoming_exit_on_error is True


@pytest.mark.parametrize(
    ("schema", "known"),
    [
        (SCHEMA, True),
        ([SCHEMA[0], {**SCHEMA[2], "members": [{"name": "uri", "type": "str"}]}], False),
        ([{"name": "migrate-incoming", "meta-type": "command"}], False),
        ([], False),
    ],
    ids=["9.1", "9.0", "without arguments", "without the command"],
)
def test_exit_on_error_is_known_by_the_schema(schema, known):
    assert offers_exit_on_error(schema) is known


# Whose process it is.


def test_the_process_is_that_of_the_vcpus_not_of_a_proxy_on_the_socket(model):
    assert look(model).process.pid == model.qemu.process.pid != os.getpid()


@pytest.mark.parametrize("thread_id", [0, 1 << 30])
def test_without_visible_vcpus_it_is_who_answers_on_the_socket(model, thread_id):
    model.monitor.expect("query-cpus-fast").returns(
        [{"cpu-index": 0, "thread-id": thread_id, "qom-path": "/machine/unattached/device[0]"}]
    )
    assert look(model).process == identify(os.getpid())


def test_a_thread_number_of_another_namespace_is_not_taken_for_qemu(model):
    with subprocess.Popen(["sleep", "600"]) as other:
        model.monitor.expect("query-cpus-fast").returns(
            [{"cpu-index": 0, "thread-id": other.pid, "qom-path": "/machine/unattached/device[0]"}]
        )
        try:
            guest = look(model)
        finally:
            other.kill()
    assert guest.process == identify(os.getpid())


# Files of disks.


@pytest.mark.parametrize(
    ("node", "gone"),
    [
        (a_node(ELSEWHERE), True),
        (a_node(ELSEWHERE, driver="qcow2"), False),
        (a_node("/dev/fdset/3"), False),
        (a_node("relative-and-gone.img"), True),
        (a_node(""), False),
        (a_node('json:{"driver": "file", "filename": "disk.img"}'), False),
        (a_node(os.devnull), False),
        # Deleted while open, and made again by somebody else.
        (a_node(__file__), True),
    ],
)
def test_a_disk_file_counts_as_gone_only_when_qemu_would_not_find_it_either(model, node, gone):
    model.qemu.block_nodes = [node]
    assert look(model).missing_files == (frozenset({node["file"]}) if gone else frozenset())


def test_an_overlay_that_was_unlinked_while_open_is_gone(model, tmp_path):
    overlay = tmp_path / "vl.A1b2C3"
    with overlay.open("wb"):
        overlay.unlink()
        model.qemu.block_nodes = [a_node(overlay)]
        assert look(model).missing_files == {str(overlay)}


def test_a_relative_name_is_looked_for_in_qemus_working_directory(model, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "disk.img").touch()
    model.qemu.block_nodes = [a_node("disk.img")]
    model.qemu.end_process()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model.qemu.start_process(tmp_path, "disk.img")
    monkeypatch.chdir("/")
    assert look(model).missing_files == frozenset()


def test_a_file_in_a_directory_that_may_not_be_entered_does_not_count_as_gone(model, monkeypatch):
    look_at = os.stat

    def stat(path, **options):
        if path == ELSEWHERE:
            raise PermissionError
        return look_at(path, **options)

    model.qemu.block_nodes = [a_node(ELSEWHERE)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat)
        assert look(model).missing_files == frozenset()


def test_an_answer_that_cannot_be_read_is_an_error_not_an_empty_guest(model):
    model.qemu.info_ramblock = "unknown command: 'info ramblock'\r\n"
    with pytest.raises(MonitorError, match="no RAM block"):
        look(model)
