# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What binds a process, as /proc and the SELinux policy of a made-up root tell it."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._confinement import (
    UNCONFINED,
    Confinement,
    apparmor_allows,
    confinement_of,
    parse_attribute,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._selinux_policy import (
    Policy,
    image_label,
    is_enforcing,
    read_policy,
)

PID = 4711
PROFILE = "libvirt-6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77"
SVIRT = "system_u:system_r:svirt_t:s0:c107,c434"
IMAGE = "system_u:object_r:svirt_image_t:s0:c107,c434"
POLICY = Policy(frozenset({"svirt_t", "svirt_tcg_t"}), "system_u:object_r:svirt_image_t:s0")
CONTEXTS = "etc/selinux/targeted/contexts"


def a_root(root, **files):
    """A root directory with these files; ``__`` in a name stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def with_policy(root, name="targeted"):
    contexts = root / "etc/selinux" / name / "contexts"
    contexts.mkdir(parents=True)
    (contexts / "virtual_domain_context").write_text(
        "system_u:system_r:svirt_t:s0\nsystem_u:system_r:svirt_tcg_t:s0\n"
    )
    (contexts / "virtual_image_context").write_text(
        "system_u:object_r:svirt_image_t:s0\nsystem_u:object_r:virt_content_t:s0\n"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("unconfined\n", UNCONFINED),
        (f"{PROFILE} (enforce)\n", Confinement("apparmor", PROFILE, "enforce")),
        (f"{PROFILE} (complain)\n", Confinement("apparmor", PROFILE, "complain")),
        ("/usr/bin/qemu*{a,b} (kill)\n", Confinement("apparmor", "/usr/bin/qemu*{a,b}", "kill")),
        ("a b (c) (enforce)\n", Confinement("apparmor", "a b (c)", "enforce")),
        ("one:a:two:b (enforce)\n", Confinement("apparmor", "one:a:two:b", "enforce")),
        ("first//&second (mixed)\n", Confinement("apparmor", "first//&second", "mixed")),
        (SVIRT + "\0", Confinement("selinux", SVIRT)),
        ("user_u:user_r:svirt_t", Confinement("selinux", "user_u:user_r:svirt_t")),  # no levels
        ("_\n", UNCONFINED),  # Smack
        ("", UNCONFINED),
    ],
)
def test_an_attribute_is_read(text, found):
    assert parse_attribute(text) == found


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, UNCONFINED),
        ({f"proc__{PID}__attr__current": "unconfined\n"}, UNCONFINED),
        (
            {f"proc__{PID}__attr__current": "p (enforce)\n"},
            Confinement("apparmor", "p", "enforce"),
        ),
        (
            {
                f"proc__{PID}__attr__apparmor__current": "p (enforce)\n",
                f"proc__{PID}__attr__current": "_\n",  # Smack comes first there
            },
            Confinement("apparmor", "p", "enforce"),
        ),
        (
            {f"proc__{PID}__attr__current": SVIRT + "\0"},
            Confinement("selinux", SVIRT, "enforcing", IMAGE),
        ),
        (
            {f"proc__{PID}__attr__current": SVIRT + "\0", "sys__fs__selinux__enforce": "0"},
            Confinement("selinux", SVIRT, "permissive", IMAGE),
        ),
        (
            {f"proc__{PID}__attr__current": "u:r:mine_t:s0\0", "sys__fs__selinux__enforce": "1"},
            Confinement("selinux", "u:r:mine_t:s0", "enforcing", None),
        ),
    ],
)
def test_what_binds_a_process_is_seen(tmp_path, files, found):
    with_policy(tmp_path)
    assert confinement_of(PID, a_root(tmp_path, **files)) == found


@pytest.mark.parametrize(
    ("context", "label"),
    [
        (SVIRT, IMAGE),
        ("system_u:system_r:svirt_tcg_t:s0:c1", "system_u:object_r:svirt_image_t:s0:c1"),
        ("unconfined_u:unconfined_r:svirt_t:s0", "unconfined_u:object_r:svirt_image_t:s0"),
        ("system_u:system_r:svirt_t:s1-s3:c1", "system_u:object_r:svirt_image_t:s1-s3:c1"),
        ("system_u:system_r:svirt_t", "system_u:object_r:svirt_image_t"),
        ("unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023", None),
        ("system_u:system_r:container_t:s0:c1,c2", None),
    ],
)
def test_an_image_is_labelled_as_libvirt_would(context, label):
    assert image_label(context, POLICY) == label


def test_without_a_policy_for_virtual_machines_no_label_is_made_up():
    assert image_label(SVIRT, Policy(POLICY.domain_types, None)) is None


def test_the_policy_is_the_one_that_is_configured(tmp_path):
    with_policy(tmp_path, "mls")
    assert read_policy(str(tmp_path)) == Policy()
    config = "# SELINUXTYPE=targeted\nSELINUX=enforcing\nSELINUXTYPE = mls\n"
    assert read_policy(a_root(tmp_path, etc__selinux__config=config)) == POLICY


@pytest.mark.parametrize(("text", "enforcing"), [("1", True), ("0", False), (None, True)])
def test_selinux_is_taken_to_deny_unless_it_says_that_it_does_not(tmp_path, text, enforcing):
    root = a_root(tmp_path, **({"sys__fs__selinux__enforce": text} if text else {}))
    assert is_enforcing(root) is enforcing


@pytest.mark.parametrize(
    ("answer", "write", "allowed"),
    [
        (b"allow 0x00000006\ndeny 0x00000000\naudit 0x00000000\nquiet 0x00000000\n", True, True),
        (b"allow 0x00000004\ndeny 0x00000000\naudit 0x00000000\nquiet 0x00000000\n", True, False),
        (b"allow 0x00000004\ndeny 0x00000000\naudit 0x00000000\nquiet 0x00000000\n", False, True),
        (b"allow 0x00000006\ndeny 0x00000004\naudit 0x00000000\nquiet 0x00000000\n", False, False),
        (b"allow 0x00000000\ndeny 0x00000000\naudit 0x00000000\nquiet 0x00000000\n", False, False),
        (b"", False, None),
        (b"what is this\n", False, None),
    ],
)
def test_apparmor_is_asked_for_one_file(answer, write, allowed):
    asked = []

    def query(question):
        asked.append(question)
        return answer

    assert apparmor_allows("p", "/store/a.save", write=write, query=query) is allowed
    assert asked == [b"label\0p\0\x02/store/a.save"]


def test_a_kernel_that_cannot_be_asked_leaves_it_open():
    def query(_question):
        raise FileNotFoundError

    assert apparmor_allows("p", "/store/a.save", write=True, query=query) is None
