#!/usr/bin/python3
"""Writes the completion of `tide` for bash, zsh and fish, from the command's own parser.

    completions/generate.py TOOLS_DIR OUT_DIR

Files made at build time and not argcomplete, because Python then does not start for each press of Tab, nothing needs to
be installed or registered, and zsh and fish show the help beside each option. What an argument is follows from its
metavar: FILE, PATH and DIR are files, PID is a process, PROGRAM is a command with arguments of its own.
"""

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

ASKED = ("stat", "flush")  # they ask the process's keeper: offer only processes that have one


@dataclass
class Argument:
    names: list  # of an option; of an operand: none
    kind: str  # none, words, file, folder, pid, keeper, pid or program, program, shell
    help: str
    words: list = field(default_factory=list)
    takes_value: bool = False


@dataclass
class Command:
    name: str
    help: str
    options: list
    operand: Argument | None

    @property
    def wraps(self):
        """Where a program with arguments of its own begins: at the first "word", behind "dashes" only, or ""."""
        return {"program": "word", "pid or program": "dashes"}.get(self.operand.kind if self.operand else "", "")

    def valued(self):
        return [name for option in self.options if option.takes_value for name in option.names]


def kind_of(action, command):
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if action.choices:
        return "words"
    if metavar == "ALLOCATOR":
        return "words"
    if "PROGRAM" in metavar:
        return "pid or program" if "PID" in metavar else "program"
    if "PID" in metavar:
        return "keeper" if command in ASKED else "pid"
    if metavar == "COMMAND":
        return "shell"
    if metavar.startswith("DIR"):
        return "folder"
    return "file" if metavar.startswith(("FILE", "PATH")) else "none"


def read_command(name, summary, parser):
    from tide import allocators

    options, operand = [], None
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        kind = kind_of(action, name)
        words = list(map(str, action.choices or (allocators.PEERS if action.metavar == "ALLOCATOR" else ())))
        help_text = " ".join((action.help or "").replace("%%", "%").split())
        found = Argument(list(action.option_strings), kind, help_text, words, action.nargs != 0)
        if action.option_strings:
            options.append(found)
        else:
            operand = found
    return Command(name, summary, options, operand)


def read_all(tools):
    sys.path.insert(0, str(tools))
    from tide import cli

    parser = cli.build_parser()
    subparsers = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {choice.dest: choice.help for choice in subparsers._choices_actions}
    return [read_command(name, summaries.get(name, ""), sub) for name, sub in subparsers.choices.items()]


# ------------------------------------------------------------------------------------------------------------ bash

BASH = r"""# bash completion for tide(1); made from its parser by completions/generate.py

# The processes of this user; with "keeper" only those on tidemalloc that can be asked.
_tide_pids() {
    local directory
    if [ "$1" = keeper ]; then
        grep -ls '^tide-keeper$' /proc/[0-9]*/task/*/comm 2>/dev/null | cut -d / -f 3 | sort -nu
    else
        for directory in /proc/[0-9]*; do
            if [ -O "$directory" ]; then echo "${directory#/proc/}"; fi
        done
    fi
}

_tide_value() {
    local current=$3
    case $1 in
    words) mapfile -t COMPREPLY < <(compgen -W "$2" -- "$current") ;;
    file)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        ;;
    folder)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
        ;;
    pid | keeper | 'pid or program') mapfile -t COMPREPLY < <(compgen -W "$(_tide_pids "$1")" -- "$current") ;;
    program | shell) mapfile -t COMPREPLY < <(compgen -c -- "$current") ;;
    esac
}

_tide() {
    local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} flags='' valued='' wraps='' kind=none words=''
    local place previous begun=''
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W '@COMMANDS@ --help --version' -- "$current")
        return
    fi
    case $command in
@TABLE@
    *) return ;;
    esac

    # Where the wrapped program begins: behind --, or at the first word that is neither an option nor its value.
    for ((place = 2; place < COMP_CWORD; place++)); do
        case ${COMP_WORDS[place]} in
        --)
            begun=$((place + 1))
            break
            ;;
        -*)
            if [[ " $valued " == *" ${COMP_WORDS[place]} "* ]]; then
                if [ "${COMP_WORDS[place + 1]}" = '=' ]; then place=$((place + 1)); fi
                place=$((place + 1))
            fi
            ;;
        *)
            if [ "$wraps" = word ]; then
                begun=$place
                break
            fi
            ;;
        esac
    done
    if [ -n "$wraps" ] && [ -n "$begun" ]; then
        if declare -F _command_offset >/dev/null; then
            _command_offset "$begun"
        elif [ "$begun" -eq "$COMP_CWORD" ]; then
            _tide_value program '' "$current"
        else
            _tide_value file '' "$current"
        fi
        return
    fi

    previous=${COMP_WORDS[COMP_CWORD - 1]}
    if [ "$current" = '=' ]; then
        current=''
    elif [ "$previous" = '=' ]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case $command:$previous in
@VALUES@
    esac
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$current")
    else
        _tide_value "$kind" "$words" "$current"
    fi
}

complete -F _tide tide
"""


def bash(commands):
    table, values = [], []
    for command in commands:
        flags = " ".join(name for option in command.options for name in option.names)
        operand = command.operand or Argument([], "none", "")
        table.append(
            f"    {command.name})\n        flags='{flags}' valued='{' '.join(command.valued())}'\n"
            f"        wraps='{command.wraps}' kind='{operand.kind}' words='{' '.join(operand.words)}'\n"
            "        ;;"
        )
        for option in command.options:
            if option.takes_value:
                names = " | ".join(f"{command.name}:{name}" for name in option.names)
                call = f"_tide_value '{option.kind}' '{' '.join(option.words)}' \"$current\""
                values.append(f"    {names})\n        {call}\n        return\n        ;;")
    text = BASH.replace("@COMMANDS@", " ".join(command.name for command in commands))
    return text.replace("@TABLE@", "\n".join(table)).replace("@VALUES@", "\n".join(values))


# ------------------------------------------------------------------------------------------------------------- zsh

ZSH = r"""#compdef tide
# zsh completion for tide(1); made from its parser by completions/generate.py

_tide_pids() {
    local -a found
    local directory name
    for directory in /proc/<->(NU); do
        if [[ $1 == keeper ]]; then
            grep -qs '^tide-keeper$' $directory/task/*/comm(N) || continue
        fi
        name=$(cat $directory/comm 2>/dev/null) || continue
        found+=("${directory:t}:$name")
    done
    _describe -V process found
}

_tide() {
    local curcontext=$curcontext state line
    local -A opt_args
    local -a subcommands=(
@COMMANDS@
    )
    _arguments -C '(- *)'{-h,--help}'[show the help]' '(- *)--version[show the version]' \
        '1:command:->command' '*::argument:->argument'
    case $state in
    command) _describe command subcommands ;;
    argument)
        curcontext=${curcontext%:*:*}:tide-$words[1]:
        local -i dashes=$words[(i)--]
        if (( dashes < CURRENT )) && [[ " @WRAPPERS@ " == *" $words[1] "* ]]; then
            shift $dashes words
            (( CURRENT -= dashes ))
            _normal
            return
        fi
        case $words[1] in
@TABLE@
        esac
        ;;
    esac
}

_tide "$@"
"""

ZSH_ACTIONS = {  # a space in front keeps zsh from putting arguments of its own between the words
    "none": " ",
    "file": "_files",
    "folder": "_files -/",
    "pid": " _tide_pids any",
    "keeper": " _tide_pids keeper",
    "pid or program": " _tide_pids any",
    "program": " _command_names -e",
    "shell": "_cmdstring",
}


def zsh_quote(text):
    return text.replace("'", "'\\''")


def zsh_text(text):
    """For the inside of brackets, and before a colon."""
    for letter in "\\[]:":
        text = text.replace(letter, "\\" + letter)
    return zsh_quote(text)


def zsh_action(argument):
    return f"({' '.join(argument.words)})" if argument.kind == "words" else ZSH_ACTIONS[argument.kind]


def zsh(commands):
    names = "\n".join(f"        '{command.name}:{zsh_quote(command.help)}'" for command in commands)
    table = []
    for command in commands:
        specs = []
        for option in command.options:
            value = f":value:{zsh_action(option)}" if option.takes_value else ""
            for name in option.names:
                once = "*" if option.takes_value else f"({' '.join(option.names)})"
                specs.append(f"'{once}{name}[{zsh_text(option.help)}]{value}'")
        if command.wraps == "word":
            specs += ["'(-):program: _command_names -e'", "'*::argument:_normal'"]
        elif command.operand is not None:
            specs.append(f"'*:argument:{zsh_action(command.operand)}'")
        joined = " \\\n                ".join(specs)
        table.append(f"        {command.name})\n            _arguments -S \\\n                {joined}\n            ;;")
    wrappers = " ".join(command.name for command in commands if command.wraps)
    return ZSH.replace("@COMMANDS@", names).replace("@WRAPPERS@", wrappers).replace("@TABLE@", "\n".join(table))


# ------------------------------------------------------------------------------------------------------------ fish

FISH = r"""# fish completion for tide(1); made from its parser by completions/generate.py

function __tide_pids
    for directory in (string match -r '^/proc/[0-9]+$' /proc/*)
        if test "$argv[1]" = keeper
            set -l names $directory/task/*/comm
            grep -qs '^tide-keeper$' /dev/null $names; or continue
        else
            test -O $directory; or continue
        end
        printf '%s\t%s\n' (path basename $directory) (cat $directory/comm 2>/dev/null)
    end
end

# The words of the wrapped program so far, one a line; fails when it has not begun: it does behind --, or, if the first
# argument is "word", at the first word that is neither an option nor the value of one of the options named.
function __tide_program
    set -l words (commandline -opc)
    set -l place 3
    while test $place -le (count $words)
        switch $words[$place]
            case --
                set place (math $place + 1)
                test $place -le (count $words); and printf '%s\n' $words[$place..-1]
                return 0
            case '-*'
                contains -- $words[$place] $argv; and set place (math $place + 1)
            case '*'
                test $argv[1] = word; or return 1
                printf '%s\n' $words[$place..-1]
                return 0
        end
        set place (math $place + 1)
    end
    return 1
end

function __tide_complete_program
    set -l words (__tide_program $argv)
    complete -C (string join ' ' -- (string escape -- $words) (commandline -ct))
end

function __tide_command
    set -l words (commandline -opc)
    test (count $words) -ge 2; and contains -- $words[2] $argv
end

complete -c tide -f
complete -c tide -n 'test (count (commandline -opc)) -eq 1' -s h -l help -d 'show the help'
complete -c tide -n 'test (count (commandline -opc)) -eq 1' -l version -d 'show the version'
"""

FISH_ACTIONS = {
    "none": "-x",
    "file": "-r -F",
    "folder": "-x -a '(__fish_complete_directories (commandline -ct))'",
    "pid": "-x -a '(__tide_pids any)'",
    "keeper": "-x -a '(__tide_pids keeper)'",
    "pid or program": "-x -a '(__tide_pids any)'",
    "program": "-x -a '(__fish_complete_command)'",
    "shell": "-x -a '(__fish_complete_command)'",
}


def fish_quote(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def fish_action(argument):
    return f"-x -a {fish_quote(' '.join(argument.words))}" if argument.kind == "words" else FISH_ACTIONS[argument.kind]


def fish(commands):
    lines = [FISH]
    for command in commands:
        here = f"__tide_command {command.name}"
        first = "test (count (commandline -opc)) -eq 1"
        lines.append(f"complete -c tide -n '{first}' -a {command.name} -d {fish_quote(command.help)}")
        if command.wraps:
            program = f"{command.wraps} {' '.join(command.valued())}"
            lines.append(
                f"complete -c tide -n {fish_quote(f'{here}; and __tide_program {program} >/dev/null')} "
                f"-a {fish_quote(f'(__tide_complete_program {program})')}"
            )
            here += f"; and not __tide_program {program} >/dev/null"
        if command.operand is not None and command.operand.kind != "none":
            action = fish_action(command.operand).replace("-x ", "").replace("-r -F", "-F")
            lines.append(f"complete -c tide -n {fish_quote(here)} {action}")
        for option in command.options:
            spelt = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = f" {fish_action(option)}" if option.takes_value else ""
            lines.append(f"complete -c tide -n {fish_quote(here)} {spelt}{value} -d {fish_quote(option.help)}")
    return "\n".join(lines) + "\n"


# What each shell looks for, in its own folder.
FILES = {"bash/tide": bash, "zsh/_tide": zsh, "fish/tide.fish": fish}


def main():
    tools, out = map(Path, sys.argv[1:])
    commands = read_all(tools)
    for name, write in FILES.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(write(commands))


if __name__ == "__main__":
    main()
