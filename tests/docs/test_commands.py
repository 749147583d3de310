"""Every command, option, name and link that the documents show is one that the package has."""

from __future__ import annotations

import ast
import re

import pytest

from rlvr_lite import methods
from tests.docs import rules
from tests.docs.reader import REPOSITORY, Block, Command, blocks, commands, links, spans

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "tests/benchmarks/README.md", "notebooks/RESULTS.md"]


def _text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def _commands(text: str) -> list[Command]:
    """The commands of shell blocks and those between the lines."""
    found = [command for block in blocks(text) if block.language == "bash" for command in commands(block)]
    for span, line in spans(text):
        if span.split()[0] in rules.PROGRAMS and (" " in span or span in ("pytest", "mypy")):
            found += commands(Block("bash", span, line))
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_is_taken_by_the_parser_that_will_read_it(name):
    found = _commands(_text(name))
    assert len(found) > 3
    for command in found:
        rules.check(command)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_option_extra_and_name_between_the_lines_exists(name):
    text = _text(name)
    rules.check_extras(text)
    for span, line in spans(text):
        try:
            if span.startswith("--"):
                rules.check_option(span)
            elif span.startswith("rlvr_lite."):
                rules.check_name(span)
            elif re.match(r"^\w+=\S", span):
                rules.check_assignment(span)
            elif re.match(r"^(notebooks|tests|rlvr_lite|\.ci)/[\w./-]*$", span):
                assert (REPOSITORY / span).exists(), "there is no such file"
            elif re.match(r"^\d\d_\w+$", span):
                assert (REPOSITORY / "notebooks" / f"{span}.ipynb").is_file(), "there is no such notebook"
        except (AssertionError, AttributeError) as error:
            raise AssertionError(f"{name}, line {line}: `{span}`: {error}") from error


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name):
    for target in links(_text(name)):
        place = (REPOSITORY / name).parent / target
        assert re.match(r"https://\S+$", target) or place.exists(), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_block_is_of_a_kind_that_is_checked(name):
    for block in blocks(_text(name)):
        assert block.language in ("bash", "python"), f"{name}, line {block.line}: nothing checks {block.language!r}"
        if block.language == "python":
            ast.parse(block.text)


def test_the_number_of_methods_is_theirs():
    said = re.search(r"any of (\d+) methods and variants", _text("README.md"))
    assert said is not None
    assert int(said[1]) == len(methods.names())


@pytest.mark.parametrize(
    "line",
    [
        "rlvr-lite train --methd dora",
        "rlvr-lite train --method dorra",
        "rlvr-lite train --task chainsum",
        "rlvr-lite train --kl-coef much",
        "rlvr-lite compare lora,dorra",
        "rlvr-lite trian",
        "accelerate launch --multi_gpus -m rlvr_lite train ...",
        "accelerate launch -m rlvr_light train ...",
        "pip install -e '.[tests]'",
        "pytest -m slwo",
        "pytest tests/method",
        "python -m tests.benchmarks.main_jobs learn",
        "python -m tests.benchmarks.main_job lern",
        "python -m tests.benchmarks.grpo_core --memry",
        "python -m tests.benchmarks.grpo_core --mem",
        "python -m tests.benchmarks.unsloth_parity now",
        "ruff check rlvr-lite",
        "make docs",
        "git clone https://example.org/other",
        "jupyter lab notebook",
        "pip install 'rlvr-lite[tests] @ git+$REPOSITORY'",
    ],
)
def test_a_mistake_in_a_command_is_noticed(line):
    (command,) = commands(Block("bash", line, 1))
    with pytest.raises(AssertionError, match="line 1"):
        rules.check(command)


@pytest.mark.parametrize(
    ("check", "span"),
    [
        (rules.check_option, "--spectrum-stepp 10"),
        (rules.check_name, "rlvr_lite.trian()"),
        (rules.check_name, 'rlvr_lite.train(..., backnd="unsloth")'),
        (rules.check_assignment, 'engin="ray"'),
        (rules.check_extras, "the extra `[unslot]`"),
    ],
)
def test_a_mistake_between_the_lines_is_noticed(check, span):
    with pytest.raises((AssertionError, AttributeError)):
        check(span)
