# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The knobs of the fleet's playbooks, as a command line or a file of variables gives them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_knobs import (
    NAMES,
    KnobInvalid,
    read_knobs,
)


def test_nothing_given_means_all_of_kvm_hosts_at_once_without_a_window():
    knobs = read_knobs({}, "/srv/plays").as_dict()
    assert knobs == {
        "hosts": "kvm_hosts",
        "include": [],
        "exclude": [],
        "protected": [],
        "serial": ["100%"],
        "throttle": 0,
        "max_fail_percentage": 0.0,
        "window_start": None,
        "window_end": None,
        "hold_until": None,
        "reserve_seconds": 0,
        "window_tasks": None,
        "beside_guests": False,
        "report": "/srv/plays/vmfleet-report",
    }


@pytest.mark.parametrize(
    ("name", "given", "key", "expected"),
    [
        ("fleet_hosts", "rack1", "hosts", "rack1"),
        ("fleet_guests", "tenant1-*,!tenant1-db", "include", ("tenant1-*",)),
        ("fleet_guests", "tenant1-*,!tenant1-db", "exclude", ("tenant1-db",)),
        ("fleet_guests", ["web01", "web02"], "include", ("web01", "web02")),
        ("fleet_guests", '["web01", "!web02"]', "exclude", ("web02",)),
        ("protected_guests", "ctl*", "protected", ("ctl*",)),
        ("fleet_serial", "1,25%,100%", "serial", (1, "25%", "100%")),
        ("fleet_serial", 5, "serial", (5,)),
        ("fleet_serial", [1, "50%"], "serial", (1, "50%")),
        ("fleet_throttle", "4", "throttle", 4),
        ("fleet_max_fail_percentage", "12.5", "max_fail_percentage", 12.5),
        ("window_start", "1970-01-01T01:00:00+01:00", "window_start", 0.0),
        ("window_end", "1970-01-01T00:01:00Z", "window_end", 60.0),
        ("window_end", "1970-01-01T00:01:00Z", "hold_until", "1970-01-01T00:01:00Z"),
        ("fleet_report", "out", "report", "/srv/plays/out"),
        ("fleet_report", "/var/reports", "report", "/var/reports"),
        ("fleet_hosts", ["rack1", "!kvm3"], "hosts", "rack1,!kvm3"),
        ("window_beside_guests", "true", "beside_guests", True),
        ("window_beside_guests", False, "beside_guests", False),
    ],
)
def test_what_is_given_is_read_as_text_or_as_it_is(name, given, key, expected):
    assert getattr(read_knobs({name: given}, "/srv/plays"), key) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fleet_gests": "web*"}, "fleet_gests: no such knob"),
        ({"fleet_serial": "0"}, "fleet_serial names '0'"),
        ({"fleet_serial": "many"}, "fleet_serial names 'many'"),
        ({"fleet_throttle": "fast"}, "fleet_throttle is 'fast'"),
        ({"fleet_throttle": "-1"}, "fleet_throttle"),
        ({"fleet_max_fail_percentage": "-5"}, "fleet_max_fail_percentage"),
        ({"fleet_guests": {"web": 1}}, "fleet_guests"),
        ({"fleet_guests": '["web"'}, "not JSON"),
        ({"window_end": "tomorrow"}, "window_end must be a time in ISO 8601"),
        ({"window_start": "2026-11-24T04:00:00"}, "with its offset"),
        (
            {"window_start": "2026-11-24T04:00:00Z", "window_end": "2026-11-24T04:00:00Z"},
            "window_end is not after window_start",
        ),
        ({"reserve_seconds": 600}, "needs window_end"),
        ({"window_tasks": "missing.yml"}, "there is no file /srv/plays/missing.yml"),
        ({"window_tasks": __file__}, "window_tasks needs window_end"),
        ({"window_beside_guests": "perhaps"}, "takes true or false"),
        ({"fleet_guests": ""}, "fleet_guests is empty"),
        ({"fleet_hosts": " "}, "fleet_hosts is empty"),
    ],
)
def test_what_cannot_be_is_named(given, words):
    with pytest.raises(Exception) as caught:
        read_knobs(given, "/srv/plays")
    assert words in str(caught.value)


def test_a_file_of_tasks_is_meant_from_the_callers_directory(tmp_path):
    (tmp_path / "upgrade.yml").write_text("[]")
    given = {"window_tasks": "upgrade.yml", "window_end": "2099-01-01T00:00:00Z"}
    assert read_knobs(given, str(tmp_path)).window_tasks == str(tmp_path / "upgrade.yml")
    with pytest.raises(KnobInvalid):
        read_knobs({"window_tasks": str(tmp_path)}, "/")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("fleet_guest", "fleet_guests"),
        ("window_task", "window_tasks"),
        ("protected_guest", "protected_guests"),
        ("flet_hosts", "fleet_hosts"),
    ],
)
def test_a_variable_that_is_nearly_a_knob_is_refused_and_the_knob_named(name, meant):
    with pytest.raises(KnobInvalid, match=f"{name}: no such knob. Is {meant} meant"):
        read_knobs({}, "/", [name, "ansible_user"])


def test_the_playbooks_own_variables_are_nobodys_misspelling():
    playbooks = Path(__file__).resolve().parents[3] / "playbooks"
    names = set()
    for path in playbooks.glob("**/*.yml"):
        names |= set(re.findall(r"\b(?:fleet|window|reserve|protected|vm)_\w+", path.read_text()))
    assert len(names) > 20
    read_knobs({}, "/", names)


def test_the_playbooks_know_every_knob():
    variables = Path(__file__).resolve().parents[3] / "playbooks" / "vars" / "fleet.yml"
    assert sorted(yaml.safe_load(variables.read_text())["vmfleet_knob_names"]) == sorted(NAMES)
