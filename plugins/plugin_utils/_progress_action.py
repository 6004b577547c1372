# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Running a long module while what it does is shown.

The module runs as Ansible's own asynchronous job, so that it ends by itself whatever becomes of the
controller. It writes its progress into a file beside the job's, which is read now and then.
"""

from __future__ import annotations

import json
import os
import shlex
import time
import typing as t
import uuid

from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._progress_lines import ProgressLines

VARIABLE = "vmfleet_progress"
# Ansible ends the job after this: ten years, later than any timeout of ours.
_LIMIT_SECONDS = 10 * 365 * 24 * 3600
_LOOK_EVERY_SECONDS = 0.5
# The longer a job runs, the less often: each look is a command on the host.
_LOOK_LATER_SECONDS = 2.0
# The job's file is looked at directly; Ansible's own look, which costs more, has the last word.
_ASK_EVERY_SECONDS = 10.0
# A connection that breaks while the job runs: the job goes on, and is looked for again.
_TRIES = 20
_TRY_AGAIN_SECONDS = 3.0
# What async_wrapper and async_status add to a module's own result.
_OF_THE_JOB = ("ansible_job_id", "results_file", "started", "finished")
_PRINTED = ("stdout", "stdout_lines", "stderr", "stderr_lines")
# Only where the module gave no result: then what it printed is all that tells why.
_NO_RESULT = "cmd"
_ENDED, _GONE = "vmfleet-job-ended", "vmfleet-process-gone"
# A job ends a moment after its module's process.
_LOOKS_FOR_THE_END = 3

Result = t.Dict[str, t.Any]


class ProgressAction(ActionBase):
    """The action of each long module. Its result is the module's own."""

    _task: t.Any
    _supports_check_mode = True
    _supports_async = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """Run the module, and show what it does unless something speaks against it."""
        task_vars = task_vars if task_vars is not None else {}
        result: Result = super().run(tmp, task_vars)
        del tmp
        if self._shows(task_vars):
            result.update(self._watched(task_vars))
        else:
            wrap = bool(self._task.async_val)
            result.update(self._execute_module(task_vars=task_vars, wrap_async=wrap))
        return result

    def _shows(self, task_vars: Result) -> bool:
        task = self._task
        if task.async_val or task.check_mode or task.no_log:
            return False
        wanted = (task.args.get("show_progress", True), task_vars.get(VARIABLE, True))
        return all(boolean(self._templar.template(one), strict=False) for one in wanted)

    def _watched(self, task_vars: Result) -> Result:
        if not self._jobs_can_be():
            return t.cast("Result", self._execute_module(task_vars=task_vars))
        name = f"vmfleet-{uuid.uuid4().hex}.progress"
        job = self._start(name, task_vars)
        if "ansible_job_id" not in job:
            return job
        path = os.path.join(os.path.dirname(job["results_file"]), name)
        status = self._follow(job, path, task_vars)
        # Not when this is interrupted: the job goes on.
        self._status(job, "cleanup", task_vars)
        self._low_level_execute_command(f"rm -f {shlex.quote(path)} {shlex.quote(path)}.new")
        return own_result(status)

    def _jobs_can_be(self) -> bool:
        """Whether the host has room for files of jobs: a home may be missing, full or read-only."""
        home, slash, rest = self._directory().partition("/")
        # The host's shell knows what its ~ is.
        path = (
            f"{home}{slash}{shlex.quote(rest)}"
            if home.startswith("~")
            else shlex.quote(self._directory())
        )
        answer = self._low_level_execute_command(f"mkdir -p -m 700 {path} && test -w {path}")
        if answer.get("rc") != 0:
            self._display.warning(
                f"Progress of {self._task.action} is not shown: {self._directory()}, where Ansible "
                "keeps its jobs, cannot be written on the host."
            )
        return bool(answer.get("rc") == 0)

    def _directory(self) -> str:
        return str(self.get_shell_option("async_dir", "~/.ansible_async"))

    def _start(self, name: str, task_vars: Result) -> Result:
        # As it is: the host expands it for itself, as it does for the job.
        original = self._task
        self._task = original.copy()
        self._task.async_val = _LIMIT_SECONDS
        try:
            arguments = {**original.args, "progress_file": f"{self._directory()}/{name}"}
            return t.cast(
                "Result",
                self._execute_module(module_args=arguments, task_vars=task_vars, wrap_async=True),
            )
        finally:
            self._task = original

    def _follow(self, job: Result, path: str, task_vars: Result) -> Result:
        """Show what is new until the job has ended; what async_status says then."""
        lines, tries, began = ProgressLines(), 0, time.monotonic()
        asked, gone, pid = began, 0, None
        while True:
            time.sleep(look_after_seconds(time.monotonic() - began))
            try:
                command = look_command(path, job["results_file"], pid)
                answer = self._look(command, lines, task_vars)
                tries = 0
                pid = pid_of(answer) or pid
                gone = gone + 1 if _GONE in answer else 0
                if _ENDED in answer or gone or time.monotonic() - asked >= _ASK_EVERY_SECONDS:
                    asked = time.monotonic()
                    status = self._status(job, "status", task_vars)
                    if status.get("finished"):
                        if _ENDED not in answer:  # only since then
                            self._look(command, lines, task_vars)
                        return status
                    if gone == _LOOKS_FOR_THE_END:
                        return self._without_end()
            except AnsibleConnectionFailure as exc:
                tries += 1
                if tries == _TRIES:
                    raise AnsibleConnectionFailure(
                        f"The host was lost while {self._task.action} ran there. Unless the host "
                        "itself is down that goes on, and the next run waits for it or finds it "
                        f"done. {exc}"
                    ) from exc
                time.sleep(_TRY_AGAIN_SECONDS)

    def _without_end(self) -> Result:
        return {
            "failed": True,
            "changed": True,
            "msg": f"{self._task.action} ended on the host without a result: it was killed, or the "
            "host was started anew. Run this again, which goes on where that stands.",
        }

    def _look(self, command: str, lines: ProgressLines, task_vars: Result) -> str:
        answer = str(self._low_level_execute_command(command).get("stdout", ""))
        self._show(lines.lines(entries_of(answer), time.monotonic()), task_vars)
        return answer

    def _show(self, lines: t.Iterable[str], task_vars: Result) -> None:
        for line in lines:
            self._display.display(f"[{task_vars.get('inventory_hostname', '')}] {line}")

    def _status(self, job: Result, mode: str, task_vars: Result) -> Result:
        arguments = {
            "jid": job["ansible_job_id"],
            "mode": mode,
            "_async_dir": os.path.dirname(job["results_file"]),
        }
        return t.cast(
            "Result",
            self._execute_module(
                module_name="ansible.builtin.async_status",
                module_args=arguments,
                task_vars=task_vars,
            ),
        )


def look_after_seconds(running_seconds: float) -> float:
    """How long to wait for the next look at a job that has run for so long."""
    return min(_LOOK_LATER_SECONDS, _LOOK_EVERY_SECONDS + running_seconds / 20)


def look_command(path: str, results_file: str, pid: int | None) -> str:
    """What a look at a job runs on the host. ``pid``: of its module's process, once known."""
    # While it runs its file holds nothing but its number. Whether it has ended is asked first, for
    # then its last word is there to be shown.
    command = (
        f"grep -q ansible_job_id {shlex.quote(results_file)}; running=$?; "
        f"cat {shlex.quote(path)} 2>/dev/null; echo; test $running -eq 0 || echo {_ENDED}"
    )
    return command if pid is None else f"{command}; kill -0 {pid} 2>/dev/null || echo {_GONE}"


def pid_of(answer: str) -> int | None:
    """The process that writes a progress file; None where it is not there yet."""
    try:
        return int(json.loads(answer.partition("\n")[0])["pid"])
    except (ValueError, KeyError, TypeError):
        return None


def entries_of(answer: str) -> list[t.Any]:
    """Guests of a progress file; none where it is not there yet."""
    try:
        return list(json.loads(answer.partition("\n")[0])["guests"])
    except (ValueError, KeyError, TypeError):
        return []


def own_result(status: Result) -> Result:
    """What the module returned, without what came with the job."""
    others = _OF_THE_JOB if _NO_RESULT in status else (*_OF_THE_JOB, *_PRINTED)
    result = {key: value for key, value in status.items() if key not in others}
    arguments = result.get("invocation", {}).get("module_args", {})
    if "progress_file" in arguments:
        arguments["progress_file"] = None
    return result
