"""The command line: called in this process, in one of its own, or killed before any of its steps on the disk."""

import json
import subprocess
import sys

from click.testing import CliRunner

from minisbert.cli import main


def run(*arguments, code=0, **more):
    """Call ``minisbert`` and expect an exit code; an exception that the program does not handle goes through."""
    try:
        runner = CliRunner(mix_stderr=False)  # click before 8.2
    except TypeError:
        runner = CliRunner()
    result = runner.invoke(main, list(map(str, arguments)), **more)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert code is None or result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
    return result


def told(*arguments, **more):
    """What a verb says as JSON."""
    return json.loads(run(*arguments, "--json", **more).stdout)


def refused(*arguments, code=1, **more):
    """Give the error of a call that must fail and print nothing else: 1 for failed, 2 for wrong usage."""
    result = run(*arguments, code=code, **more)
    assert result.stdout == "" and result.stderr.startswith("Error: " if code == 1 else "Usage: ")
    return result.stderr


def process(*arguments, **options):
    """Call ``minisbert`` as a user does, in a process of its own."""
    options = {"capture_output": True, "timeout": 60, **options}
    return subprocess.run([sys.executable, "-m", "minisbert", *map(str, arguments)], check=False, **options)


def stand_in(folder, monkeypatch, model):
    """Stand in a folder, with this model as the default."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("MINISBERT_MODEL", str(model))


KILLED = """
import os, shutil, signal, sys
from itertools import count
from pathlib import Path
import filelock, tqdm, minisbert.cli.embed, minisbert.cli.train, minisbert.encoder  # once for all children
from minisbert.cli import main

def counted(function, steps=[0]):
    def step(*arguments, **options):
        if steps[0] == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        steps[0] += 1
        return function(*arguments, **options)
    return step

def child(is_harmed):
    pid = os.fork()
    if not pid:
        if is_harmed:
            for name in ("fsync", "replace", "unlink", "mkdir", "rmdir"):
                setattr(os, name, counted(getattr(os, name)))
        main()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def content():
    files = [out] if out.is_file() else out.rglob("*")
    return {str(x): x.read_bytes() for x in files if x.is_file() and x.name not in ("training.json", "README.md")}

def finished():
    found = content()
    shutil.rmtree(out) if out.is_dir() else out.unlink()
    return found if sorted(os.listdir()) == inputs else os.listdir()

out, inputs = Path(sys.argv.pop(1)), sorted(os.listdir())
assert child(False) == 0
whole = finished()
for limit in count():
    ended = child(True)
    assert not out.exists() or content() == whole
    if ended != -signal.SIGKILL:
        break
    assert child(False) == 0 and finished() == whole
assert ended == 0 and finished() == whole
print(limit)
"""


def killed_at_every_step(out, *arguments):
    """Run a verb in processes that kill themselves, as ``kill -9`` does, before the step on the disk of each number.

    What has the name of the output is whole or is not there; the same command, which has ``--resume``, goes on to the
    bytes of a run that nothing disturbs, and leaves nothing else. Returns the number of steps.
    """
    command = [sys.executable, "-c", KILLED, out, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=240, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])
