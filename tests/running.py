"""The command line, called in this process: what it prints, and with which code it ends."""

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
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
    return result


def refused(*arguments, code=1):
    """Give the error of a call that must fail and print nothing else: 1 for failed, 2 for wrong usage."""
    result = run(*arguments, code=code)
    assert result.stdout == "" and result.stderr.startswith("Error: " if code == 1 else "Usage: ")
    return result.stderr
