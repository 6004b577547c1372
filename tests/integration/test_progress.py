# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress as ansible-playbook shows it, over ssh and here; and a controller that is killed."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._monitor import Monitor
from ansible_collections.vmfleet.suspend.tests.support.drive import goes_on, image_info
from ansible_collections.vmfleet.suspend.tests.support.ssh_hosts import SshHosts, why_not

# Slow enough to be seen, on a busy machine too: 48 MiB, a few seconds.
SLOWLY = {"max_bandwidth": 4 << 20}
PROGRESS = (
    r"\[{host}\] {guest}: writing the guest's state, \d+ %, [\d.]+ MiB of [\d.]+ MiB, "
    r"[\d.]+ [KM]iB/s, [\d.]+ s left"
)


@pytest.fixture(scope="module")
def ssh_hosts(tmp_path_factory):
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    hosts = SshHosts(tmp_path_factory.mktemp("ssh"), ["kvm1", "kvm2"])
    yield hosts
    hosts.close()


@pytest.fixture
def local_host(tmp_path):
    inventory = tmp_path / "inventory.ini"
    inventory.write_text(
        f"kvm1 ansible_connection=local ansible_python_interpreter={sys.executable}\n"
    )
    return inventory


@pytest.fixture
def slow_guest(tiny_guest):
    def make(name, inside=list):
        guest = tiny_guest(128, 48, 4, name=name)
        guest.run(inside(guest.argv())).wait_passes(1)
        return guest

    return make


def begin(tmp_path, inventory, tasks, *words, controller=None, **play):
    playbook = tmp_path / "play.json"
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks, **play}
    playbook.write_text(json.dumps([play]))
    program = (controller or Path(sys.executable).parent) / "ansible-playbook"
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
    }
    return subprocess.Popen(
        [program, "-i", inventory, *words, playbook],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def run(*arguments, **options):
    """What ansible-playbook prints."""
    playbook = begin(*arguments, **options)
    printed, _none = playbook.communicate(timeout=180)
    assert playbook.returncode == 0, printed
    return printed


def saving(guest, store, **options):
    options = {"qmp_socket": guest.qmp_socket, "path": f"{store}/{guest.name}.save", **options}
    return {"vmfleet.suspend.qemu_save": {**SLOWLY, **options}}


@pytest.mark.parametrize(
    "controller",
    ["newest", *(pytest.param(v, marks=pytest.mark.full) for v in ("2.18", "2.19"))],
    indirect=True,
)
def test_what_two_hosts_do_is_shown_while_they_do_it(ssh_hosts, slow_guest, tmp_path, controller):
    guests = {
        host: slow_guest(name, functools.partial(ssh_hosts.inside, host))
        for host, name in (("kvm1", "web01"), ("kvm2", "db01"))
    }
    options = {
        "store": f"{tmp_path}/{{{{ inventory_hostname }}}}/store",
        "journal": f"{tmp_path}/{{{{ inventory_hostname }}}}/journal",
    }
    for host, guest in guests.items():
        (tmp_path / host / "store").mkdir(parents=True, mode=0o700)
        (tmp_path / host / "qmp").symlink_to(guest.qmp_socket)
    suspend = {
        **options,
        "qmp_sockets": [f"{tmp_path}/{{{{ inventory_hostname }}}}/qmp"],
        "guests": [{"name": guest.name, **SLOWLY} for guest in guests.values()],
    }
    printed = run(
        tmp_path,
        ssh_hosts.inventory,
        [
            {"vmfleet.suspend.qemu_host_suspend": suspend},
            {"vmfleet.suspend.qemu_host_resume": options},
        ],
        controller=controller,
        become=True,
        become_method="ansible.builtin.su",
    )
    for host, guest in guests.items():
        assert re.search(PROGRESS.format(host=host, guest=guest.name), printed), printed
        assert re.search(rf"\[{host}\] {guest.name}: saved in [\d.]+ s\n", printed)
        assert re.search(rf"\[{host}\] {guest.name}: restored in [\d.]+ s\n", printed)
        assert goes_on(guest)
    assert "WARNING" not in printed, printed
    # What watches a job looks every 5 s, and removes its files then.
    end = time.monotonic() + 30
    while any(leftovers(ssh_hosts.inventory.parent / host) for host in guests):
        assert time.monotonic() < end
        time.sleep(0.2)


def lines_of(printed):
    return [line for line in printed.splitlines() if line.startswith("[kvm")]


def leftovers(host):
    return [p.name for p in (host / "home").rglob("*") if p.is_file() and ".ssh" not in p.parts]


@pytest.mark.full
def test_the_result_is_the_same_whether_progress_is_shown_or_not(
    local_host, tiny_guest, tmp_path, store
):
    kept = tmp_path / "kept"
    kept.mkdir()
    tasks = []
    for number, shown in enumerate((True, False)):
        guest = tiny_guest(name=f"web0{number}").start()
        guest.wait_passes(1)
        tasks += [
            {**saving(guest, store, show_progress=shown), "register": "result"},
            {
                "ansible.builtin.copy": {
                    "content": "{{ result | to_json }}",
                    "dest": f"{kept}/{number}",
                }
            },
        ]
    run(tmp_path, local_host, tasks)
    with_lines, without = (json.loads((kept / name).read_text()) for name in ("0", "1"))
    assert set(with_lines) == set(without)
    assert with_lines["changed"] is without["changed"] is True


@pytest.mark.parametrize(
    ("words", "play", "options"),
    [
        (["-e", "vmfleet_progress=false"], {}, {}),
        ([], {}, {"show_progress": False}),
        ([], {"no_log": True}, {}),
        ([], {"tasks_async": True}, {}),
    ],
    ids=["variable", "option", "no_log", "async"],
)
@pytest.mark.full
def test_nothing_is_shown_when_it_is_not_wanted(
    local_host, slow_guest, tmp_path, store, words, play, options
):
    guest = slow_guest("web01")
    task = saving(guest, store, **options)
    if play.pop("tasks_async", False):
        task |= {"async": 60, "poll": 1}
    printed = run(tmp_path, local_host, [task], *words, **play)
    assert lines_of(printed) == []
    assert image_info(store / "web01.save")["state"] == "ready"


def test_check_mode_shows_nothing_and_a_failure_is_the_modules_own(
    local_host, tiny_guest, tmp_path, store
):
    guest = tiny_guest(name="web01").start()
    guest.wait_passes(1)
    task = saving(guest, store, path="/nonexistent/web01.save")
    fails = {
        **task,
        "register": "result",
        "failed_when": "'The directory /nonexistent cannot be used' not in result.msg",
    }
    checked = {**saving(guest, store), "check_mode": True}
    printed = run(tmp_path, local_host, [fails, checked])
    assert lines_of(printed) == []
    assert guest.alive()


def test_a_run_whose_controller_was_killed_ends_by_itself_and_the_next_one_waits_for_it(
    local_host, tiny_guest, tmp_path, store
):
    beside = tmp_path / "beside"
    extra = ("-qmp", f"unix:{beside},server=on,wait=off")
    guest = tiny_guest(128, 100, 4, name="web01", extra=extra).start()
    guest.wait_passes(1)
    guests = [{"name": "web01", **SLOWLY}]
    place = {"store": str(store), "journal": str(tmp_path / "journal")}
    options = {**place, "qmp_sockets": [guest.qmp_socket], "guests": guests}
    task = {"vmfleet.suspend.qemu_host_suspend": options}
    first = begin(tmp_path, local_host, [task])
    read_until(first, "[kvm1] web01: writing")
    # However long the second run takes to begin, the first one's save lasts until then.
    os.kill(guest.pid, signal.SIGSTOP)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert guest.alive()

    second = begin(tmp_path, local_host, [task])
    read_until(second, "Another run suspends or resumes this host")
    os.kill(guest.pid, signal.SIGCONT)
    asyncio.run(hurry(str(beside)))
    printed, _none = second.communicate(timeout=120)
    assert second.returncode == 0, printed
    assert re.search(r"ok=1 +changed=0", printed), printed
    assert not guest.alive()
    (image,) = store.glob("*.save")
    assert image_info(image)["state"] == "ready"


@pytest.mark.full
def test_a_run_that_ends_without_a_result_as_when_its_host_is_started_anew_is_told_of(
    local_host, tiny_guest, tmp_path, store
):
    guest, jobs = tiny_guest(128, 100, 4, name="web01").start(), tmp_path / "jobs"
    guest.wait_passes(1)
    variables = {"ansible_async_dir": str(jobs)}
    playbook = begin(tmp_path, local_host, [saving(guest, store)], vars=variables)
    read_until(playbook, "[kvm1] web01: writing")
    os.kill(guest.pid, signal.SIGSTOP)  # its save does not end
    (progress,) = jobs.glob("*.progress")
    # The module, and who waits for what it prints.
    os.killpg(os.getpgid(json.loads(progress.read_text())["pid"]), signal.SIGKILL)
    printed, _none = playbook.communicate(timeout=60)
    assert playbook.returncode == 2, printed
    assert "ended on the host without a result" in printed
    assert list(jobs.iterdir()) == []


def read_until(playbook, words):
    assert playbook.stdout is not None
    read = []
    for line in playbook.stdout:
        read.append(line)
        if words in line:
            return
    raise AssertionError("".join(read))


async def hurry(socket):
    monitor = await Monitor.connect(socket)
    try:
        await monitor.execute("migrate-set-parameters", {"max-bandwidth": 0})
    finally:
        await monitor.close()
