# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image needs so that a confined QEMU may use it: the table of security.rst.

Every row of the page is computed here; ``pytest --write-docs`` writes them.
"""

from __future__ import annotations

import errno
import os
import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._image_access import (
    NOTHING_NEEDED,
    ImageAccess,
    confined_by,
    decide_access,
    is_asked,
    lost_confinement,
    unlabelled,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._confinement import (
    UNCONFINED,
    Confinement,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._publish import (
    check_target,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._squash import (
    owner_warning,
    squash_advice,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._store_kind import Mount

PAGE = Path(__file__).resolve().parents[2] / "docs" / "docsite" / "rst" / "security.rst"
BEGIN = ".. Written by tests/unit/test_image_access.py (pytest --write-docs) from here"
END = ".. to here"
HEADINGS = ("what is found", "what is done")

PATH = "/var/lib/vmfleet/images/.web01.save.partial"
LABEL = "system_u:object_r:svirt_image_t:s0:c107,c434"
SVIRT = Confinement("selinux", "system_u:system_r:svirt_t:s0:c107,c434", "enforcing", LABEL)
LENIENT_SVIRT = Confinement("selinux", SVIRT.label, "permissive", LABEL)
NEEDS_LABEL = ImageAccess(LABEL, enforced=True)


def selinux(name, mode="enforcing"):
    return Confinement("selinux", f"system_u:system_r:{name}:s0", mode)


def apparmor(mode, name="libvirt-6f3c1c7e"):
    return Confinement("apparmor", name, mode)


CONFINED_RUN = apparmor("enforce", "ansible")


@dataclass(frozen=True)
class Row:
    """``found`` and ``done`` are what the page says; ``outcome``: what the code says, in kind."""

    found: str
    outcome: t.Callable[[], str]
    done: str


def access(process, own=UNCONFINED, allowed=None, write=True):
    """The kind of decision about a QEMU."""
    decided = decide_access(process, own, PATH, write=write, allowed=allowed)
    if decided.label is not None:
        assert decided == ImageAccess(process.image_label, process.mode == "enforcing")
        return LABELLED
    return WARNED if decided.warnings else NOTHING


def failure(number, filesystem, *, enforced=True):
    """The kind of decision about a label that could not be set."""
    assert unlabelled(ImageAccess(LABEL, enforced), PATH, number, filesystem)
    return WARNED


def squash(kind, user_id=0):
    return TOLD if squash_advice(Mount(kind, "filer:/images", "0:48"), 64055, user_id) else REFUSED


def owner(owner_id):
    return WARNED if owner_warning(PATH, owner_id, 0) else NOTHING


NOTHING = "nothing"
LABELLED = "labelled"
WARNED = "warned"
REFUSED = "refused"
TOLD = "refused, with advice"

GIVEN_BACK = (
    "the image is labelled ``svirt_image_t`` with the guest's own level and categories before QEMU "
    "gets it, and as before once QEMU is done with it"
)
ADVISED = "refused, with the rule to add"
WARNING = "done, with a warning"

ROWS = [
    Row("neither SELinux nor AppArmor confines QEMU", lambda: access(UNCONFINED), NOTHING),
    Row(
        "SELinux; QEMU runs as libvirt runs it (``svirt_t``, ``svirt_tcg_t``)",
        lambda: access(SVIRT),
        GIVEN_BACK,
    ),
    Row("the same, SELinux permissive", lambda: access(LENIENT_SVIRT), "the same"),
    Row(
        "SELinux; QEMU runs as an unconfined type, such as ``unconfined_service_t``",
        lambda: access(selinux("unconfined_service_t")),
        NOTHING,
    ),
    Row(
        "SELinux; QEMU runs as another type, or the policy names no label for images",
        lambda: access(selinux("container_t")),
        "done, with a warning: the image keeps the label of its directory",
    ),
    Row(
        "the same, SELinux permissive",
        lambda: access(selinux("container_t", "permissive")),
        NOTHING,
    ),
    Row(
        "the label is needed, and setting it is not permitted",
        lambda: failure(errno.EPERM, "xfs"),
        "refused before QEMU is told anything; a new image is removed",
    ),
    Row(
        "the same, SELinux permissive",
        lambda: failure(errno.EPERM, "xfs", enforced=False),
        WARNING,
    ),
    Row(
        "the label is needed, and the filesystem has one for all its files: NFS, SMB, FUSE",
        lambda: failure(errno.EOPNOTSUPP, "nfs4"),
        "done, with a warning that names the boolean (``virt_use_nfs``, ``virt_use_samba``, "
        "``virt_use_fusefs``)",
    ),
    Row(
        "the same on others, mounted with ``context=`` for instance",
        lambda: failure(errno.EOPNOTSUPP, "vfat"),
        WARNING,
    ),
    Row(
        "AppArmor; the profile of QEMU is in mode complain or unconfined",
        lambda: access(apparmor("complain"), CONFINED_RUN),
        NOTHING,
    ),
    Row(
        "AppArmor enforces, and this run is not confined: the kernel lets QEMU use what an "
        "unconfined process opened for it",
        lambda: access(apparmor("enforce")),
        NOTHING,
    ),
    Row(
        "AppArmor enforces, this run is confined too, and QEMU's profile has the path",
        lambda: access(apparmor("enforce"), CONFINED_RUN, allowed=True),
        NOTHING,
    ),
    Row(
        "the same, and QEMU's profile does not have the path",
        lambda: access(apparmor("enforce"), CONFINED_RUN, allowed=False),
        ADVISED,
    ),
    Row(
        "the same, and the kernel does not say whether it has",
        lambda: access(apparmor("enforce"), CONFINED_RUN),
        "done, with a warning: QEMU is refused the descriptor then, before it is stopped",
    ),
    Row(
        "AppArmor kills what it denies, and QEMU's profile has the path",
        lambda: access(apparmor("kill"), allowed=True),
        NOTHING,
    ),
    Row(
        "the same, and it does not have the path, or that is not known",
        lambda: access(apparmor("kill")),
        f"{ADVISED}, whoever runs this: the guest would be lost",
    ),
    Row(
        "a store that denies root what it does (NFS with root squash)",
        lambda: squash("nfs4"),
        "refused; run it as the store's owner (``become_user``)",
    ),
    Row(
        "a store that makes what root creates another user's",
        lambda: owner(65534),
        WARNING,
    ),
]
OUTCOMES = {
    NOTHING: (NOTHING,),
    LABELLED: (GIVEN_BACK, "the same"),
    WARNED: (WARNING, "done, with a warning"),
    REFUSED: ("refused before", ADVISED),
    TOLD: ("refused; run it as",),
}


def kind_of(row):
    try:
        return row.outcome()
    except Refused:
        return REFUSED


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.found)
def test_the_table_says_what_is_done(row):
    assert row.done.startswith(OUTCOMES[kind_of(row)])


def test_the_page_shows_the_table(request):
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 60 40", ""]
    for found, done in (HEADINGS, *((row.found, row.done) for row in ROWS)):
        lines += [f"   * - {found}", f"     - {done}"]
    table = "\n".join(["", "", *lines, "", ""])
    text = PAGE.read_text(encoding="utf-8")
    before, _begin, rest = text.partition(BEGIN)
    shown, _end, after = rest.partition(END)
    if request.config.getoption("--write-docs"):
        PAGE.write_text(f"{before}{BEGIN}{table}{END}{after}", encoding="utf-8")
        return
    assert shown == table


# Beside the kind: what exactly is said.


@pytest.mark.parametrize(
    ("process", "own", "asked"),
    [
        (apparmor("enforce"), CONFINED_RUN, True),
        (apparmor("kill"), CONFINED_RUN, True),
        (apparmor("kill"), UNCONFINED, True),
        (apparmor("mixed"), apparmor("complain"), True),
        (apparmor("enforce"), UNCONFINED, False),
        (apparmor("enforce"), apparmor("unconfined"), False),
        (apparmor("complain"), CONFINED_RUN, False),
        (SVIRT, SVIRT, False),
        (UNCONFINED, CONFINED_RUN, False),
    ],
)
def test_apparmor_is_asked_only_where_it_decides(process, own, asked):
    assert is_asked(process, own) is asked


@pytest.mark.parametrize(("write", "rule"), [(True, "rw"), (False, "r")])
def test_the_refusal_names_profile_path_rule_and_file(write, rule):
    with pytest.raises(Refused) as refused:
        access(apparmor("enforce"), CONFINED_RUN, allowed=False, write=write)
    said = refused.value.message
    assert f'"{os.path.dirname(PATH)}/**" {rule},' in said
    for words in (PATH, "libvirt-6f3c1c7e", "local/abstractions/libvirt-qemu", "apparmor_parser"):
        assert words in said


@pytest.mark.parametrize("allowed", [False, None])
def test_a_profile_that_kills_is_never_tried(allowed):
    with pytest.raises(Refused, match="would kill it, with the guest") as refused:
        access(apparmor("kill"), allowed=allowed)
    assert "unconfined" not in refused.value.message


@pytest.mark.parametrize("mode", ["enforce", "mixed", "prompt"])
def test_a_profile_that_only_denies_is_left_to_the_kernel_when_it_cannot_be_asked(mode):
    assert access(apparmor(mode), CONFINED_RUN) == WARNED


@pytest.mark.parametrize(
    ("filesystem", "switch"),
    [
        ("nfs", "virt_use_nfs"),
        ("nfs4", "virt_use_nfs"),
        ("cifs", "virt_use_samba"),
        ("smb3", "virt_use_samba"),
        ("fuse.sshfs", "virt_use_fusefs"),
    ],
)
def test_the_boolean_of_a_filesystem_without_labels_is_named(filesystem, switch):
    said = unlabelled(NEEDS_LABEL, PATH, errno.EOPNOTSUPP, filesystem)
    assert f"setsebool -P {switch} on" in said


def test_nothing_is_in_the_plan_where_nothing_is_needed():
    assert NOTHING_NEEDED.as_dict() == {}
    assert NEEDS_LABEL.as_dict() == {"image_label": LABEL}


@pytest.mark.parametrize("kind", ["symlink", "dangling", "fifo", "directory"])
def test_only_a_regular_file_is_replaced(tmp_path, kind):
    target = tmp_path / "web01.save"
    if kind == "fifo":
        os.mkfifo(target)
    elif kind == "directory":
        target.mkdir()
    else:
        target.symlink_to(tmp_path if kind == "symlink" else tmp_path / "gone")
    with pytest.raises(Refused, match="not a regular file"):
        check_target(str(target))


@pytest.mark.parametrize(
    ("kind", "user_id", "told"), [("nfs4", 0, True), ("nfs4", 1000, False), ("ext4", 0, False)]
)
def test_only_root_on_a_network_is_told_of_squashing(kind, user_id, told):
    assert (squash(kind, user_id) == TOLD) is told


@pytest.mark.parametrize(
    ("process", "words"),
    [
        (SVIRT, "SELinux (type svirt_t)"),
        (selinux("unconfined_t"), None),
        (apparmor("enforce"), "AppArmor (profile libvirt-6f3c1c7e)"),
        (apparmor("complain"), None),
        (UNCONFINED, None),
    ],
)
def test_what_denies_a_qemu_something_is_recorded_and_its_loss_is_a_warning(process, words):
    assert confined_by(process) == words
    assert (lost_confinement("SELinux (type svirt_t)", process) == ()) is (words is not None)
    assert lost_confinement(None, process) == ()
