# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With what a recorded QEMU is started again, given what this run may do."""

from __future__ import annotations

import os
import resource
from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._limits import LIMITS
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._setting import (
    Own,
    Setting,
    choose_setting,
    own_facts,
    plan_launch,
    user_name,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._surroundings import (
    Surroundings,
)
from ansible_collections.vmfleet.suspend.tests.support.observing import printed_by

ROOT, VM, OTHER = 0, 107, 1000
KVM, DISK = 36, 6
NOFILE = {"RLIMIT_NOFILE": (1024, 4096)}
RECORDED = Surroundings(
    argv=("qemu",),
    executable="/usr/bin/qemu",
    executable_deleted=False,
    cwd="/srv/vm",
    user_id=VM,
    group_id=VM,
    groups=(KVM,),
    limits=NOFILE,
    umask=0o27,
    environment={"PATH": "/opt/bin", "TZ": "UTC"},
    namespaces={},
)
AS_ROOT = Own(ROOT, ROOT, (), NOFILE, raises_limits=True, path="/bin")
AS_VM = Own(VM, VM, (KVM,), NOFILE, raises_limits=False, path="/bin")


def plan(recorded=RECORDED, own=AS_ROOT, cwd_exists=True):
    return plan_launch(recorded, own, name="vm", cwd_exists=cwd_exists)


def test_everything_is_as_it_was():
    assert plan() == Setting(
        cwd="/srv/vm",
        environment={"PATH": "/opt/bin", "TZ": "UTC"},
        umask=0o27,
        limits={},
        credentials=(VM, VM, (KVM,)),
        notes=(),
    )


# As whom.

AS_ROOT_RECORDED = replace(RECORDED, user_id=ROOT, group_id=ROOT, groups=())


@pytest.mark.parametrize(
    ("recorded", "own", "credentials"),
    [
        (RECORDED, AS_ROOT, (VM, VM, (KVM,))),
        (replace(RECORDED, groups=()), AS_ROOT, (VM, VM, ())),
        (AS_ROOT_RECORDED, AS_ROOT, None),
        (replace(AS_ROOT_RECORDED, groups=(KVM,)), AS_ROOT, (ROOT, ROOT, (KVM,))),
        (AS_ROOT_RECORDED, replace(AS_ROOT, groups=(KVM,)), (ROOT, ROOT, ())),
        (RECORDED, AS_VM, None),
        (RECORDED, replace(AS_VM, groups=(DISK, KVM)), None),
        # newgrp(1): the same groups, another of them first
        (replace(RECORDED, group_id=KVM, groups=(VM,)), AS_VM, None),
    ],
)
def test_it_runs_as_the_user_that_it_was(recorded, own, credentials):
    assert plan(recorded, own).credentials == credentials


@pytest.mark.parametrize(
    ("recorded", "own", "words"),
    [
        (RECORDED, replace(AS_VM, user_id=OTHER), r"as root \(become\) or as user vm"),
        (AS_ROOT_RECORDED, AS_VM, r"run the restore as root \(become\)\."),
        (RECORDED, replace(AS_VM, groups=()), "with the groups 36, which"),
        (replace(RECORDED, group_id=DISK), AS_VM, "with the groups 6, which"),
    ],
)
def test_who_cannot_become_that_user_is_refused_with_the_way_out(recorded, own, words):
    with pytest.raises(Refused, match=words):
        plan(recorded, own)


# Where, and with what words of the environment.


def test_without_its_directory_it_is_refused():
    with pytest.raises(Refused, match=r"the directory /srv/vm, .* does not exist"):
        plan(cwd_exists=False)


@pytest.mark.parametrize(
    ("recorded", "path", "environment"),
    [
        ({"PATH": "/opt/bin"}, "/bin", {"PATH": "/opt/bin"}),
        ({"TZ": "UTC"}, "/bin", {"TZ": "UTC", "PATH": "/bin"}),
        ({"TZ": "UTC"}, None, {"TZ": "UTC"}),
    ],
)
def test_of_this_runs_environment_it_gets_a_path_at_most(recorded, path, environment):
    setting = plan(replace(RECORDED, environment=recorded), replace(AS_ROOT, path=path))
    assert setting.environment == environment


# With which limits.

CAN_RAISE, CANNOT_RAISE = AS_ROOT, replace(AS_ROOT, raises_limits=False)


def limited(name, recorded, own, who):
    return plan(replace(RECORDED, limits={name: recorded}), replace(who, limits={name: own}))


@pytest.mark.parametrize(
    ("who", "recorded", "own", "to_set"),
    [
        (CANNOT_RAISE, (10, 20), (10, 20), None),
        (CANNOT_RAISE, (10, 20), (5, 20), (10, 20)),
        (CANNOT_RAISE, (10, 20), (30, 30), (10, 20)),
        (CANNOT_RAISE, (10, 20), (None, None), (10, 20)),
        (CANNOT_RAISE, (None, None), (8, None), (None, None)),
        (CAN_RAISE, (10, 20), (5, 5), (10, 20)),
        (CAN_RAISE, (None, None), (5, 5), (None, None)),
    ],
)
def test_a_limit_is_as_it_was(who, recorded, own, to_set):
    setting = limited("RLIMIT_MEMLOCK", recorded, own, who)
    assert setting.limits == ({} if to_set is None else {"RLIMIT_MEMLOCK": to_set})
    assert setting.notes == ()


@pytest.mark.parametrize(
    ("name", "recorded", "own", "to_set", "note"),
    [
        ("RLIMIT_MEMLOCK", (10, 20), (5, 15), (10, 15), "Its hard RLIMIT_MEMLOCK was 20, and"),
        ("RLIMIT_NOFILE", (10, None), (10, 15), None, "Its hard RLIMIT_NOFILE was unlimited"),
        ("RLIMIT_CORE", (None, None), (0, 0), None, "Its RLIMIT_CORE was unlimited"),
        ("RLIMIT_CORE", (9, 10), (0, 8), (8, 8), "this run can have at most 8"),
        # What QEMU made of it by itself, in a session that may have more.
        ("RLIMIT_NOFILE", (8192, 8192), (1024, 4096), (4096, 4096), "can have at most 4096"),
    ],
)
def test_what_qemu_cannot_feel_is_given_as_far_as_it_can_be_had(name, recorded, own, to_set, note):
    setting = limited(name, recorded, own, CANNOT_RAISE)
    assert setting.limits == ({} if to_set is None else {name: to_set})
    assert note in "".join(setting.notes)


@pytest.mark.parametrize("who", [CANNOT_RAISE, AS_VM])
@pytest.mark.parametrize(
    "name",
    ["RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_MEMLOCK", "RLIMIT_NOFILE", "RLIMIT_NPROC"],
)
def test_less_than_its_guest_had_is_refused(name, who):
    with pytest.raises(Refused, match=f"its {name} was 10, and this run .* at most 5") as refusal:
        limited(name, (10, 20), (5, 5), who)
    assert ("as root" in str(refusal.value)) == (who is AS_VM)


def test_every_reason_is_told_at_once():
    with pytest.raises(Refused) as refusal:
        plan(own=replace(AS_VM, user_id=OTHER), cwd_exists=False)
    assert "/srv/vm" in str(refusal.value) and "become" in str(refusal.value)


# What this run is.


def test_this_run_is_seen_as_it_is():
    own = own_facts()
    assert (own.user_id, own.group_id) == (os.geteuid(), os.getegid())
    assert own.path == os.environ["PATH"]
    assert set(own.limits) == set(LIMITS.values())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert own.limits["RLIMIT_NOFILE"] == (soft, hard)


RAISES_A_LIMIT = f"""
import resource
from {own_facts.__module__} import own_facts
resource.setrlimit(resource.RLIMIT_CORE, (0, 1))
try:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 2))
    print(own_facts().raises_limits, True)
except ValueError:
    print(own_facts().raises_limits, False)
"""


def test_whether_this_run_may_raise_limits_is_what_the_kernel_says():
    said, true = printed_by(RAISES_A_LIMIT).split()
    assert said == true


def test_a_user_is_named_as_people_know_it():
    assert user_name(0) == "root"
    assert user_name(4294967294) == "4294967294"


def test_a_setting_is_chosen_from_what_is_on_this_host(tmp_path):
    here = replace(
        RECORDED,
        user_id=os.geteuid(),
        group_id=os.getegid(),
        groups=tuple(os.getgroups()),
        limits=own_facts().limits,
        cwd=str(tmp_path),
    )
    assert choose_setting(here) == Setting(
        str(tmp_path), here.environment, here.umask, {}, None, ()
    )
    with pytest.raises(Refused, match="does not exist"):
        choose_setting(replace(here, cwd=str(tmp_path / "gone")))
