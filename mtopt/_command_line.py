"""What every command of ``mtopt`` has in common: a strict parser, and completion made from it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from mtopt._text import visible


class Parser(argparse.ArgumentParser):
    """Options are written out, and given once. It remembers what it was given, for completion."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.given: list[argparse.Action] = []
        self.commands: Mapping[str, Parser] = {}
        super().__init__(*arguments, **{**options, "allow_abbrev": False})

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        action = super().add_argument(*names, **options)
        self.given.append(action)
        return action

    def add_subparsers(self, **options: Any) -> Any:
        commands = super().add_subparsers(**options)
        self.commands = commands.choices
        return commands

    def parse_once(self, arguments: Sequence[str]) -> argparse.Namespace:
        """``parse_args``, which refuses an option that is given more than once: which one counts is easily misread."""
        seen: set[str] = set()
        for argument in arguments:
            name = argument.partition("=")[0]
            if name == "--":
                break
            if name.startswith("--") and name in seen:
                self.refuse(f"{name} is given more than once; give it once, with all its values")
            seen.add(name)
        return self.parse_args(arguments)

    def refuse(self, message: str) -> NoReturn:
        """End with status 2."""
        self.error(message)

    def error(self, message: str) -> NoReturn:
        """End with status 2 and the message on one line; what was typed drives no terminal."""
        super().error(visible(message))


def completion(parser: Parser, shell: str, values: Mapping[str, Sequence[str]]) -> str:
    """A script for bash or zsh that completes the commands, options and values of ``parser``.

    Args:
        parser: the command's.
        shell: ``"bash"`` or ``"zsh"``.
        values: what may follow an option or stand for an argument, by its metavar (``RULE``); folders for ``DIR``.
    """
    program = parser.prog
    cases = "\n".join(_cases(parser, values))
    script = f"""\
_{program}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} option="" words="" n
    for ((n = COMP_CWORD - 1; n > 1; n--)); do
        [[ ${{COMP_WORDS[n]}} == --* ]] && {{ option=${{COMP_WORDS[n]}}; break; }}
    done
    if ((COMP_CWORD == 1)); then
        words={shlex.quote(" ".join([*parser.commands, *_options(parser)]))}
    else
        case "${{COMP_WORDS[1]}} $option" in
{cases}
        esac
    fi
    if [[ $words == @folder ]]; then
        COMPREPLY=($(compgen -d -- "$current"))
    else
        COMPREPLY=($(compgen -W "$words" -- "$current"))
    fi
}}
complete -o bashdefault -F _{program} {program}
"""
    return script if shell == "bash" else f"autoload -U +X bashcompinit && bashcompinit\n{script}"


def _cases(parser: Parser, values: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What may stand after each option of each command, and else."""
    for name, command in parser.commands.items():
        names = " ".join(_options(command))
        for action in command.given:
            if action.option_strings and action.nargs != 0:
                found = _values(action, values)
                # after a list of values, and after one value, the next option may follow
                words = found if found == "@folder" else f"{found} {names}"
                pattern = "|".join(f'"{name} {option}"' for option in action.option_strings)
                yield f"            {pattern}) words={shlex.quote(words)} ;;"
        places = [found for action in command.given if not action.option_strings if (found := _values(action, values))]
        plain = places[0] if places == ["@folder"] else " ".join([*places, names])
        yield f'            "{name} "*) words={shlex.quote(plain)} ;;'


def _options(parser: Parser) -> list[str]:
    return [option for action in parser.given for option in action.option_strings if option.startswith("--")]


def _values(action: argparse.Action, values: Mapping[str, Sequence[str]]) -> str:
    if action.choices is not None:
        return " ".join(map(str, action.choices))
    if action.metavar == "DIR":
        return "@folder"
    return " ".join(values.get(str(action.metavar), ()))
