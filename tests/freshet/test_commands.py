"""The commands of the program."""

from freshet.cli.app import app


def test_every_command_is_there_once() -> None:
    names = [command.callback.__name__ for command in app.registered_commands if command.callback]
    assert sorted(names) == sorted(set(names))
