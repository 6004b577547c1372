# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role kvm_host on a host without network: from a controller's wheel, and from an index."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from ansible_collections.vmfleet.suspend.tests.support.bare_host import BareHost, fetch_wheel
from ansible_collections.vmfleet.suspend.tests.support.drive import bring_back

ROLE = [{"ansible.builtin.include_role": {"name": "vmfleet.suspend.kvm_host"}}]
VENV = "/opt/vmfleet/venv"
IN_VENV = f"{VENV}/bin/python"
EL = 'ID="rocky"\nNAME="Rocky Linux"\nVERSION_ID="9.5"\nID_LIKE="rhel centos fedora"\n'


@pytest.fixture(scope="session")
def wheel(request):
    """qemu.qmp as a controller has it for hosts without network."""
    return fetch_wheel(request.config.rootpath / ".build" / "wheels")


@pytest.fixture
def host(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can make a host in namespaces")
    host = BareHost(tmp_path / "host")
    try:
        yield host.start()
    finally:
        host.close()


def changes(said):
    """How many tasks changed something. Raises AssertionError when the play failed."""
    assert said.returncode == 0, said.stdout + said.stderr
    return int(re.findall(r"changed=(\d+)", said.stdout)[-1])


def refusal(said):
    """What a play that failed said."""
    assert said.returncode != 0, said.stdout
    return " ".join(re.findall(r'"msg": "(.*?)(?<!\\)"', said.stdout)).replace('\\"', '"')


def look(host):
    """What the environment's Python says of itself."""
    program = "import json, sys, qemu.qmp, libvirt; print(json.dumps([sys.prefix, sys.version]))"
    return json.loads(host.run(IN_VENV, "-c", program))


@pytest.mark.full
def test_a_host_without_network_gets_all_from_the_controller_and_a_second_run_changes_nothing(
    host, wheel, tiny_guest, store
):
    variables = {"kvm_host_wheels": [str(wheel)]}
    assert changes(host.play(ROLE, "--check", **variables)) == 2  # the directories, the environment
    assert host.run("ls", "/opt").split() == sorted(os.listdir("/opt"))
    assert changes(host.play(ROLE, **variables)) >= 3
    assert look(host)[0] == VENV
    modes = host.run("stat", "-c", "%a %U", "/var/lib/vmfleet/images", "/var/lib/vmfleet/journal")
    assert modes.splitlines() == ["700 root", "700 root"]
    assert list(host.temporary.iterdir()) == []

    # A second run, after which the modules run in what the first one made.
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    path = store / "guest.save"
    said = host.play(
        [
            *ROLE,
            {
                "vmfleet.suspend.qemu_save": {"qmp_socket": guest.qmp_socket, "path": str(path)},
                "vars": {"ansible_python_interpreter": "{{ vmfleet_python }}"},
            },
        ],
        **variables,
    )
    assert (changes(said), guest.alive()) == (1, False)
    bring_back(path, argv=tuple(guest.argv()), qmp_socket=guest.qmp_socket)
    guest.wait_passes(1)
    assert guest.mismatches == []


@pytest.mark.full
def test_a_host_is_prepared_as_the_guide_of_a_window_and_the_role_vm_resume_say(host, wheel):
    pages = Path(__file__).resolve().parents[2]
    guide = (pages / "docs" / "docsite" / "rst" / "window.rst").read_text()
    (prepare,) = re.findall(r"   # prepare.yml\n((?:   .*\n)+)", guide)
    readme = (pages / "roles" / "vm_resume" / "README.md").read_text()
    first = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)[0]
    for text, changed in ((prepare, True), (first, False)):
        said = host.playbook(yaml.safe_load(text), kvm_host_wheels=[str(wheel)])
        assert (changes(said) > 0) is changed, said.stdout
        program = host.run(IN_VENV, "-I", "/usr/local/libexec/vmfleet-suspend", "status")
        assert program == "No suspend into /var/lib/vmfleet/images is open.\n"
        assert IN_VENV in host.run("cat", "/etc/systemd/system/vmfleet-resume.service")


@pytest.mark.full
def test_a_store_that_others_use_is_left_to_them(host, wheel):
    host.write("/var/lib/vmfleet/shared/disk.qcow2", "a guest's disk")
    host.run("chmod", "711", "/var/lib/vmfleet/shared")
    variables = {"kvm_host_wheels": [str(wheel)], "kvm_host_store": "/var/lib/vmfleet/shared"}
    for check in (["--check"], []):
        said = refusal(host.play(ROLE, *check, **variables))
        assert "/var/lib/vmfleet/shared is root's with mode 0711, and is not empty" in said
        assert host.run("stat", "-c", "%a", "/var/lib/vmfleet/shared") == "711\n"

    # Its own, once the operator has made it so.
    host.run("chmod", "700", "/var/lib/vmfleet/shared")
    changes(host.play(ROLE, **variables))


@pytest.mark.full
def test_a_host_with_an_index_takes_qemu_qmp_from_there(host, wheel):
    index = host.directory / "index" / "qemu-qmp"
    index.mkdir(parents=True)
    shutil.copy(wheel, index)
    (index / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    variables = {"kvm_host_pip_arguments": ["--index-url", f"file://{index.parent}"]}
    assert changes(host.play(ROLE, **variables)) >= 3
    assert look(host)[0] == VENV


@pytest.mark.full
def test_without_index_and_wheel_the_refusal_says_what_to_do(host):
    variables = {"kvm_host_pip_arguments": ["--retries", "0", "--timeout", "1"]}
    assert "name wheels on the controller (kvm_host_wheels)" in refusal(
        host.play(ROLE, **variables)
    )


@pytest.mark.full
def test_a_password_in_an_indexs_address_is_told_to_nobody(host):
    index = "http://operator:s3cret@127.0.0.1:9/simple"
    variables = {"kvm_host_pip_arguments": ["--retries", "0", "--index-url", index]}
    said = host.play(ROLE, "-vvv", **variables)
    assert "pip could not install qemu.qmp" in refusal(said)
    # The play's own variables, which -vvv echoes nowhere else, are the operator's.
    assert "s3cret" not in said.stdout + said.stderr


BROKEN = {
    "half made": f"rm {VENV}/bin/pip* {VENV}/pyvenv.cfg",
    "of a Python that was upgraded": f"sed -i 's/^version = .*/version = 3.7.3/' {VENV}/pyvenv.cfg",
    "without the distribution's packages": f"sed -i 's/= true/= false/' {VENV}/pyvenv.cfg",
    "without its Python": f"rm {VENV}/bin/python*",
    "without libvirt's binding": f"cd {VENV}/lib/python3*/site-packages; mkdir libvirt; "
    "echo raise ImportError >libvirt/__init__.py",
    "without qemu.qmp": f"rm -r {VENV}/lib/python3*/site-packages/qemu",
}


@pytest.mark.full
def test_an_environment_that_is_not_whole_is_made_again(host, wheel):
    variables = {"kvm_host_wheels": [str(wheel)]}
    changes(host.play(ROLE, **variables))
    for what, command in BROKEN.items():
        host.run("sh", "-ec", command)
        assert changes(host.play(ROLE, "--check", **variables)) == 1, what
        assert changes(host.play(ROLE, **variables)) > 0, what
        assert look(host)[0] == VENV, what
        assert changes(host.play(ROLE, **variables)) == 0, what


@pytest.mark.full
def test_a_directory_with_something_else_in_it_is_left_alone(host):
    host.write("/opt/mine/data", "precious")
    said = refusal(host.play(ROLE, kvm_host_venv="/opt/mine"))
    assert "/opt/mine/data is there, and would be lost" in said
    assert host.run("cat", "/opt/mine/data") == "precious"


@pytest.mark.full
def test_a_pip_that_installs_for_the_user_installs_into_the_environment(host, wheel):
    host.write("/etc/pip.conf", "[install]\nuser = true\n")
    assert changes(host.play(ROLE, kvm_host_wheels=[str(wheel)])) >= 3
    assert host.run(IN_VENV, "-c", "import qemu.qmp as q; print(q.__file__)").startswith(VENV)


# As a new cloud image is: no lists of what is offered. What is offered comes from a directory.
NEW_DEBIAN = """
mkdir -p /opt/repository /opt/deb/DEBIAN
printf '%s\n' 'Package: python3-venv' 'Version: 99' 'Architecture: all' \
    'Maintainer: nobody' 'Description: a stand-in' >/opt/deb/DEBIAN/control
dpkg-deb --build /opt/deb /opt/repository/python3-venv.deb
cd /opt/repository
{ cat /opt/deb/DEBIAN/control; echo Filename: ./python3-venv.deb
  echo Size: $(stat -c %s python3-venv.deb); echo SHA256: $(sha256sum <python3-venv.deb | cut -c-64)
} >Packages
rm -rf /etc/apt/sources.list* /var/lib/apt/lists/* /var/cache/apt/*.bin
echo 'deb [trusted=yes] file:/opt/repository ./' >/etc/apt/sources.list
sed -i '/^Package: python3-venv$/,/^$/d' /var/lib/dpkg/status
"""


@pytest.mark.full
def test_a_missing_package_is_installed_though_apt_knows_of_none_yet(host, wheel):
    host.run("sh", "-ec", NEW_DEBIAN)
    variables = {"kvm_host_wheels": [str(wheel)]}
    said = host.play(ROLE, "--check", **variables)
    assert (changes(said), "python3-venv would be installed" in said.stdout) == (3, True)
    assert changes(host.play(ROLE, **variables)) >= 4
    assert host.run("dpkg-query", "--show", "python3-venv").split() == ["python3-venv", "99"]
    assert changes(host.play(ROLE, **variables)) == 0


def qemu_that_says(host, path, version):
    host.write(path, f"#!/bin/sh\necho 'QEMU emulator version {version}'\n", 0o755)


@pytest.mark.full
def test_a_qemu_that_is_too_old_is_refused_before_anything_is_changed(host):
    qemu_that_says(host, "/opt/qemu", "8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)")
    said = refusal(host.play(ROLE, kvm_host_qemu="/opt/qemu"))
    assert "/opt/qemu is QEMU 8.2.2, and 9.0 is needed" in said
    assert "the backports of Debian" in said
    assert not host.run("sh", "-c", "ls -d /opt/vmfleet /var/lib/vmfleet/images", check=False)
    assert "There is no QEMU at /opt/none" in refusal(host.play(ROLE, kvm_host_qemu="/opt/none"))


@pytest.mark.full
def test_an_older_qemu_is_taken_when_its_age_is_named(host, wheel):
    qemu_that_says(host, "/opt/qemu", "8.2.2")
    options = {"kvm_host_qemu": "/opt/qemu", "kvm_host_qemu_minimum": "8.2"}
    said = host.play(ROLE, kvm_host_wheels=[str(wheel)], **options)
    assert changes(said) >= 3
    assert "bypass_cache needs 9.1" in said.stdout


# An rpm that knows of python3 alone.
RPM = """#!/bin/sh
for last; do :; done
[ "$last" = python3 ] && echo installed || { echo "no package provides $last"; exit 1; }
"""


@pytest.mark.full
def test_els_qemu_is_found_where_el_puts_it(host, wheel):
    """As far as a Debian can stand for an EL: its os-release, and QEMU outside of the path."""
    host.write("/etc/os-release", EL)
    host.write("/etc/redhat-release", "Rocky Linux release 9.5 (Blue Onyx)\n")
    qemu_that_says(host, "/usr/libexec/qemu-kvm", "8.2.0 (qemu-kvm-8.2.0-11.el9)")
    options = {
        "kvm_host_qemu_candidates": ["/usr/bin/qemu-system-none", "/usr/libexec/qemu-kvm"],
        "kvm_host_install_packages": False,
        "kvm_host_wheels": [str(wheel)],
    }
    said = refusal(host.play(ROLE, **options))
    assert "/usr/libexec/qemu-kvm is QEMU 8.2.0, and 9.0 is needed" in said
    assert "EL 9.5 or later" in said
    host.write("/usr/local/bin/rpm", RPM, 0o755)
    qemu_that_says(host, "/usr/libexec/qemu-kvm", "9.1.0 (qemu-kvm-9.1.0-15.el9)")
    told = host.play(ROLE, "--check", **{**options, "kvm_host_install_packages": True})
    assert changes(told) == 3
    assert "python3-pip, python3-libvirt would be installed" in told.stdout
    assert changes(host.play(ROLE, **options)) >= 3


@pytest.mark.full
def test_another_family_is_refused(host):
    host.write("/etc/os-release", 'ID="opensuse-leap"\nNAME="openSUSE Leap"\nID_LIKE="suse"\n')
    host.write("/etc/SuSE-release", "openSUSE 15.6\nVERSION = 15.6\n")
    assert "kvm_host knows the families Debian" in refusal(host.play(ROLE))


@pytest.mark.full
def test_a_python_without_venv_or_binding_is_refused_with_the_packages_name(host):
    seen = '{"version": "3.11", "environment": null, "qmp": null, "libvirt": %s, "venv": %s}'
    python = f"#!/bin/sh\necho '{seen}'\n"
    options = {"kvm_host_python": "/opt/python", "kvm_host_install_packages": False}
    host.write("/opt/python", python % ("true", "false"), 0o755)
    assert "its module venv or ensurepip is missing" in refusal(host.play(ROLE, **options))
    host.write("/opt/python", python % ("false", "true"), 0o755)
    assert "does not see libvirt's binding: the package python3-libvirt" in refusal(
        host.play(ROLE, **options)
    )
    host.write("/opt/python", python.replace("3.11", "3.6") % ("true", "true"), 0o755)
    assert "is there and a Python 3.8 or later" in refusal(host.play(ROLE, **options))


# A policy store that remembers rules, and takes one that is there as little as EL 8's does.
SEMANAGE = """#!/bin/sh
case "$*" in
*--list*) cat /opt/rules 2>/dev/null || : ;;
*--add*) ! grep -qF "$5 " /opt/rules 2>/dev/null || exit 1 ;;
*--modify*) grep -qF "$5 " /opt/rules || exit 1 ;;
esac
case "$*" in
*--list*) ;;
*) printf '%s   all files   system_u:object_r:%s:s0\n' "$5" "$4" >/opt/rules ;;
esac
"""
RESTORECON = """#!/bin/sh
[ "$(cat /opt/labels 2>/dev/null)" = "$(cat /opt/rules)" ] || echo "Would relabel, or relabelled"
case "$*" in *-n*) ;; *) cat /opt/rules >/opt/labels ;; esac
"""
SELINUX = [
    {
        "ansible.builtin.include_role": {
            "name": "vmfleet.suspend.kvm_host",
            "tasks_from": "selinux",
        },
        "vars": {
            "kvm_host_install_packages": False,
            "kvm_host_selinux_packages": ["policycoreutils-python-utils"],
        },
    }
]


def test_the_store_gets_its_selinux_type_once(host):
    """With stand-ins for the policy's programs: there is no SELinux here."""
    host.write("/usr/local/bin/semanage", SEMANAGE, 0o755)
    host.write("/usr/local/bin/restorecon", RESTORECON, 0o755)
    assert changes(host.play(SELINUX)) == 2
    rule = r"/var/lib/vmfleet/images(/.*)?   all files   system_u:object_r:virt_image_t:s0"
    assert host.run("cat", "/opt/rules").strip() == rule
    assert changes(host.play(SELINUX)) == 0


@pytest.mark.full
def test_check_mode_tells_what_selinux_would_get(host):
    # On a host that does not have its programs yet, too.
    assert changes(host.play(SELINUX, "--check")) == 1
    assert "semanage, which gives the store its type, is missing" in refusal(host.play(SELINUX))
    host.write("/usr/local/bin/semanage", SEMANAGE, 0o755)
    host.write("/usr/local/bin/restorecon", RESTORECON, 0o755)
    assert changes(host.play(SELINUX, "--check")) == 1
    assert not host.run("sh", "-c", "ls /opt/rules", check=False)
    changes(host.play(SELINUX))
    assert changes(host.play(SELINUX, "--check")) == 0
    host.run("rm", "/opt/labels")
    assert changes(host.play(SELINUX, "--check")) == 1


@pytest.mark.full
def test_another_selinux_type_replaces_the_first_and_a_slash_at_the_end_says_nothing(host):
    host.write("/usr/local/bin/semanage", SEMANAGE, 0o755)
    host.write("/usr/local/bin/restorecon", RESTORECON, 0o755)
    changes(host.play(SELINUX, kvm_host_store="/srv/images"))
    other = {"kvm_host_store": "/srv/images/", "kvm_host_store_selinux_type": "virt_var_lib_t"}
    assert changes(host.play(SELINUX, **other)) == 2
    assert host.run("cat", "/opt/rules").split()[0] == "/srv/images(/.*)?"
    assert ":virt_var_lib_t:" in host.run("cat", "/opt/rules")
    assert changes(host.play(SELINUX, **other)) == 0
