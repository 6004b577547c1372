# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program on the hosts: its options, what it waits for, what it says."""

from __future__ import annotations

import ast
import asyncio
import json
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils import _program
from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._hold import release
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._journal import Journal
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._journal_file import (
    JournalWriter,
    open_journal,
    read_journals,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._options import (
    resume_request,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._program import (
    DONE,
    NOT_BACK,
    main,
    read_options,
    resume_when_released,
)

LONG_FROM_NOW = "2099-01-01T00:00:00Z"


@pytest.fixture
def place(tmp_path):
    (tmp_path / "store").mkdir(mode=0o700)
    return {"store": str(tmp_path / "store"), "journal": str(tmp_path / "journal")}


@pytest.fixture
def options(tmp_path, place):
    """An options file; gives the words that name it."""
    path = tmp_path / "resume.json"
    path.write_text(json.dumps(place))
    path.chmod(0o600)
    return ["--options", str(path)]


def a_journal(place, **fields):
    return Journal(
        id="1",
        created="2026-11-24T01:30:00Z",
        collection_version="1.0.0",
        store=place["store"],
        **fields,
    )


def a_check(**options):
    return {"guests": [{"name": "web01", "ready_check": options}]}


def write(place, journal):
    async def create():
        await JournalWriter.create(place["journal"], journal).close()

    asyncio.run(create())


def test_without_a_file_the_options_are_the_modules_own(tmp_path):
    params = read_options(str(tmp_path / "none"))
    assert resume_request(params).store == "/var/lib/vmfleet/images"


def test_what_is_left_out_inside_is_as_the_module_has_it(tmp_path):
    path = tmp_path / "resume.json"
    path.write_text(json.dumps(a_check(tcp="web01:22", timeout=None)))
    (guest,) = read_options(str(path))["guests"]
    assert guest["ready_check"] == {"tcp": "web01:22", "agent": False, "timeout": 60}
    assert guest["priority"] == 0


def test_a_null_is_as_if_it_were_left_out(tmp_path):
    path = tmp_path / "resume.json"
    path.write_text('{"guests": null, "load": null, "store": "/x"}')
    assert read_options(str(path)) == {**read_options(str(tmp_path / "none")), "store": "/x"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], r"holds \[\] in place of an object"),
        ({"stores": "/x"}, "option 'stores' that resume does not know"),
        ({"store": 1}, "gives store as 1, and not as path"),
        ({"max_concurrent": True}, "gives max_concurrent as True, and not as int"),
        ({"load": "never"}, "gives load as 'never', and not as one of"),
        ({"guests": [{"name": "web01", "allow": ["all"]}]}, r"gives allow as \['all'\]"),
        ({"guests": ["web01"]}, r"gives guests as \['web01'\], and not as a list of dict"),
        ({"guests": [{"priority": 1}]}, r"holds \{'priority': 1\}, which lacks name"),
        ({"include": "web*"}, r"gives include as 'web\*', and not as a list of str"),
        ({"include": [1]}, r"gives include as \[1\], and not as a list of str"),
        (a_check(tcp=22), "gives tcp as 22, and not as str"),
        (a_check(port=22), "option 'port' that resume does not know"),
    ],
)
def test_options_that_make_no_sense_are_named(tmp_path, given, words):
    path = tmp_path / "resume.json"
    path.write_text(json.dumps(given))
    with pytest.raises(Refused, match=words):
        read_options(str(path))


def test_a_file_that_others_could_have_written_is_not_used(tmp_path):
    path = tmp_path / "resume.json"
    path.write_text("{}")
    path.chmod(0o666)
    with pytest.raises(Refused, match="others could have written it"):
        read_options(str(path))


def test_a_hold_is_looked_at_again_and_again_and_told_once(place):
    write(place, a_journal(place, hold_until=LONG_FROM_NOW))
    said: list[str] = []
    slept: list[float] = []

    async def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            await release(place["journal"], place["store"])

    request = resume_request({**read_options("/nonexistent"), **place})
    outcome = asyncio.run(resume_when_released(request, said.append, sleep))
    assert slept == [5.0] * 3
    (line,) = said
    assert f"held until {LONG_FROM_NOW}" in line
    assert outcome.as_result()["journal"]["closed"] == "resumed"


def test_a_resume_by_somebody_else_is_waited_for(place):
    write(place, a_journal(place))
    said: list[str] = []
    writers: list[JournalWriter] = []

    async def sleep(_seconds):
        await writers[0].close()

    async def both():
        (journal,) = read_journals(place["journal"]).journals
        writers.append(JournalWriter.resume(place["journal"], journal))
        request = resume_request({**read_options("/nonexistent"), **place})
        return await resume_when_released(request, said.append, sleep)

    assert asyncio.run(both()).as_result()["journal"]["closed"] == "resumed"
    assert "Another run suspends or resumes this host" in said[0]


def test_a_journal_of_another_version_is_named_and_left(place, options, capsys):
    write(place, a_journal(place))
    (path,) = Path(place["journal"]).glob("*.json")
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    for verb in ("resume", "status", "release"):
        assert main([*options, verb]) == NOT_BACK
        printed = capsys.readouterr().out
        assert str(path) in printed and "of format 2, written by version 1.0.0" in printed


def test_it_says_where_the_suspend_stands(place, options, capsys):
    assert main([*options, "status"]) == DONE
    assert capsys.readouterr().out == f"No suspend into {place['store']} is open.\n"
    write(place, a_journal(place, hold_until=LONG_FROM_NOW))
    assert main([*options, "status"]) == DONE
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"suspend 1 into {place['store']}"
    assert second.startswith(f"held until {LONG_FROM_NOW} (")
    assert main([*options, "release"]) == DONE
    assert main([*options, "resume"]) == DONE
    assert "held" not in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["resume", "check"])
def test_a_python_without_the_library_is_told_which_one_to_use(options, monkeypatch, capsys, verb):
    monkeypatch.setattr(_program, "QMP_IMPORT_ERROR", "No module named qemu")
    assert main([*options, verb]) == NOT_BACK
    assert "has no qemu.qmp. `systemctl cat" in capsys.readouterr().out
    assert main([*options, "status"]) == DONE


def test_a_check_resumes_nothing(place, options, capsys):
    write(place, a_journal(place))
    assert main([*options, "check"]) == DONE
    assert "can resume what" in capsys.readouterr().out
    assert open_journal(read_journals(place["journal"]), place["store"]) is not None


def test_everything_is_imported_at_once_so_that_an_upgrade_meets_no_run_half_way():
    """A run that waits for the end of a hold has the old program, and must stay with it."""
    package = Path(_program.__file__).parent
    for path in package.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                late = [
                    n for n in ast.walk(function) if isinstance(n, (ast.Import, ast.ImportFrom))
                ]
                assert late == [], f"{path}:{function.name}"
