"""From the words of a command line to those that tyro parses, by the signature of the command.

Words stand for a function's positional parameters in their order, lists are separated by commas or spaces, and what is
wrong is one line that names the nearest option of this command.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.habits import unknown_option

__all__ = ["for_tyro", "prepared"]

#: Lists whose values have commas themselves.
_WHOLE = ("axis",)
_EXAMPLES = {
    "task_options": "operands=4",
    "loss_options": "delta=4",
    "method_options": "dropout=0.1",
    "chat_template_kwargs": "enable_thinking=False",
}
_SHORT = {"-q": "--no-progress", "--quiet": "--no-progress"}
_NUMBERS: Mapping[Any, tuple[Callable[[str], Any], str]] = {
    int: (int, "a whole number"),
    float: (float, "a number"),
}
_TRUTHS = {"true": "True", "yes": "True", "1": "True", "false": "False", "no": "False", "0": "False"}


def _kind(hint: Any) -> Any:
    """The type of a parameter, without ``None`` and annotations."""
    if get_origin(hint) is Annotated:
        return _kind(get_args(hint)[0])
    rest = [kind for kind in get_args(hint) if kind is not type(None)]
    return _kind(rest[0]) if type(None) in get_args(hint) and len(rest) == 1 else hint


def _kinds(command: Callable[..., Any]) -> dict[str, Any]:
    return {
        name: _kind(hint) for name, hint in get_type_hints(command, include_extras=True).items() if name != "return"
    }


def _positional(command: Callable[..., Any]) -> list[str]:
    """Parameters that words stand for, save those that tyro takes as words itself."""
    by_tyro = {p.name for p in _words_of(command)}
    found = inspect.signature(command).parameters.values()
    return [p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in by_tyro]


def _words_of(command: Callable[..., Any]) -> list[inspect.Parameter]:
    """Parameters that tyro takes as words, in their order."""
    hints = get_type_hints(command, include_extras=True)
    found = inspect.signature(command).parameters.values()
    return [p for p in found if p.kind is p.POSITIONAL_OR_KEYWORD and get_origin(hints[p.name]) is Annotated]


def _check_count(name: str, command: Callable[..., Any], given: Mapping[str, Any], loose: Sequence[str]) -> None:
    """Refuse a word too many, and the lack of one without which there is nothing to do."""
    words, open_ = _words_of(command), _positional(command)
    kinds = _kinds(command)
    several = any(get_origin(kinds[p.name]) is tuple for p in words)
    if len(loose) > len(words) and not several:
        extra = loose[len(words)]
        left = [name for name in open_ if name not in given]
        said = f": name the option, such as {_flag(left[-1])} {extra}" if left else ""
        raise UserError(f"{name} takes no word {extra!r} there{said}; rlvr-lite {name} --help shows what it takes")
    needed = [p for p in words if p.default is p.empty][len(loose) :]
    needed += [p for n, p in inspect.signature(command).parameters.items() if n in open_ and p.default is p.empty]
    lacking = [p.name for p in needed if p.name not in given]
    if lacking:
        shown = " ".join(n.upper() for n in lacking)
        raise UserError(f"{name} needs {', '.join(lacking)}: rlvr-lite {name} {shown}; --help says more")
    for parameter, word in zip(words, loose, strict=False):
        if kinds[parameter.name] is Path and not word:
            raise UserError(f"{parameter.name} is empty: name a folder")


def prepared(name: str, command: Callable[..., Any], words: Sequence[str]) -> list[str]:
    """The words of a command as tyro parses them.

    Args:
        name: of the command.
        command: what it calls.
        words: what was typed after its name.

    Raises:
        UserError: an option that the command does not have, without a value, or with one of another type.
    """
    kinds, open_ = _kinds(command), _positional(command)
    taken: dict[str, list[str]] = {}
    loose: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            return ["--help"]
        word = _SHORT.get(word, word) if "progress" in kinds else word
        if not word.startswith("--") or len(word) == 2:
            if word.startswith("-") and not _is_number(word):
                raise _unknown(name, word.lstrip("-"), kinds, dashes=1)
            loose.append(word)
            continue
        option, equals, value = word[2:].partition("=")
        option, given = option.replace("-", "_"), [value] if equals else []
        option = "benchmarks" if option == "benchmark" and option not in kinds else option  # one of a list
        if option not in kinds and kinds.get(option.removeprefix("no_")) is bool:
            if equals:
                raise UserError(f"{_flag(option)} takes no value, got {value!r}: leave it out")
            taken[option.removeprefix("no_")] = ["False"]
            continue
        if option not in kinds:
            raise _unknown(name, option, kinds)
        kind = kinds[option]
        if kind is bool:
            if not equals and rest and rest[0].lower() in _TRUTHS and not rest[0].isdigit():
                given = [rest.pop(0)]
            taken[option] = [_truth(option, given[0]) if given else "True"]
        elif get_origin(kind) in (tuple, Mapping) or _is_mapping(kind):
            while not equals and rest and (not rest[0].startswith("-") or _is_number(rest[0])):
                given.append(rest.pop(0))
            taken[option] = taken.get(option, []) + _several(option, kind, given)
        else:
            if not equals:
                if not rest or (rest[0].startswith("--")):
                    raise UserError(f"{_flag(option)} needs a value")
                given = [rest.pop(0)]
            taken[option] = [_checked(option, kind, given[0])]
    for parameter in open_:
        if not loose:
            break
        kind = kinds[parameter]
        if get_origin(kind) is tuple:
            taken[parameter], loose = _several(parameter, kind, loose) + taken.get(parameter, []), []
        else:
            taken[parameter] = [_checked(parameter, kind, loose.pop(0))]
    for place, word_ in enumerate(_words_of(command)):  # what tyro takes as a word alone, typed as an option
        loose[place:place] = taken.pop(word_.name, ())
    _check_count(name, command, taken, loose)
    found = list(loose)
    for option, values in taken.items():
        flag = _flag(option)
        if kinds[option] is bool and inspect.signature(command).parameters[option].default is not None:
            found.append(flag if values == ["True"] else f"--no-{flag[2:]}")
        else:
            found += [flag, *values]
    return found


def _is_mapping(kind: Any) -> bool:
    return isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Mapping)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _unknown(name: str, option: str, kinds: Mapping[str, Any], dashes: int = 2) -> UserError:
    def spelt(other: str) -> str:
        return _flag(other) if other != option else "-" * dashes + other.replace("_", "-")

    return unknown_option(name, option, kinds, spelt, f"rlvr-lite {name} --help lists them")


def _flag(option: str) -> str:
    """An option as it is typed, behind a blank with its value."""
    name, blank, value = option.partition(" ")
    return f"--{name.replace('_', '-')}{blank}{value}"


def _truth(option: str, value: str) -> str:
    if value.lower() not in _TRUTHS:
        raise UserError(f"{_flag(option)} is True or False, got {value!r}")
    return _TRUTHS[value.lower()]


def _several(option: str, kind: Any, given: Sequence[str]) -> list[str]:
    flag = _flag(option)
    if not given:
        raise UserError(f"{flag} needs at least one value")
    if _is_mapping(kind):
        words = [part for word in given for part in word.split("=", 1)]
        if len(words) % 2:
            raise UserError(
                f"{flag} takes names with values, such as {flag} {_EXAMPLES[option]}; got {' '.join(given)}"
            )
        return words
    if option in _WHOLE:
        return list(given)
    parts = [part.strip() for word in given for part in word.split(",") if part.strip()]
    return [_checked(option, get_args(kind)[0], part) for part in parts]


def _checked(option: str, kind: Any, value: str) -> str:
    if kind in _NUMBERS:
        convert, what = _NUMBERS[kind]
        try:
            convert(value)
        except ValueError:
            raise UserError(f"{_flag(option)} must be {what}, got {value!r}") from None
    if kind in (Path, str) and not value.strip():
        raise UserError(f"{_flag(option)} is empty: give it a value, or leave it out")
    words = [str(word) for word in get_args(kind)] if get_origin(kind) is Literal else [value]
    if value not in words:
        raise unknown_name(option.replace("_", " "), value, words)
    return value


def for_tyro(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose options of a run show their type and default in the help, and are ``None`` where not given."""
    signature, hints = inspect.signature(command), get_type_hints(command, include_extras=True)
    usual = vars(RunConfig())

    def run(*args: Any, **options: Any) -> Any:
        return command(*args, **options)

    shown = {}
    for name, parameter in signature.parameters.items():
        hint = hints[name]
        if parameter.default is None and get_origin(hint) is not Annotated:
            default = usual.get(name)
            said = "" if default in (None, (), {}) else f"(default: {_words(default)})"
            hint = Annotated[hint, tyro.conf.arg(metavar=_metavar(_kind(hint)), help_behavior_hint=said)]
        shown[name] = hint
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    run.__annotations__ = dict(shown)
    parameters = [p.replace(annotation=shown[n]) for n, p in signature.parameters.items()]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def _words(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_origin(kind) is tuple:
        return f"{_metavar(get_args(kind)[0])}[,...]"
    if _is_mapping(kind):
        return "NAME=VALUE ..."
    return {int: "INT", float: "FLOAT", bool: "{True,False}"}.get(kind, "STR")
