"""The command line, called in this process: what it prints, and with which code it ends."""

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
