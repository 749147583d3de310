"""What stands in the way of a card is said in one line, from facts alone."""

from __future__ import annotations

import dataclasses

import pytest

from rlvr_lite import host
from rlvr_lite.errors import UserError
from rlvr_lite.host import Host, Process, check_host, obstacles

GIB = 2**30
T4 = Host(
    nvidia=True,
    driver="570.1",
    driver_cuda=(12, 8),
    torch_cuda="12.8",
    cards=1,
    name="Tesla T4",
    capability=(7, 5),
    memory=15 * GIB,
    free=14 * GIB,
    architectures=("sm_75", "sm_80", "sm_86", "sm_90"),
    bitsandbytes=((11, 8), (12, 8)),
)
UNSEEN = dataclasses.replace(T4, cards=0)


def test_nothing_stands_in_the_way_of_a_card_or_of_a_machine_without_one():
    assert not obstacles(T4)
    assert not obstacles(Host())
    assert not obstacles(dataclasses.replace(T4, architectures=("sm_70", "sm_90"), capability=(8, 6)))


#: What stands in the way, of which kind it is, whether nothing runs, and words that its line has.
IN_THE_WAY = [
    (dataclasses.replace(UNSEEN, driver=None, driver_cuda=None), "driver", True, ("no driver", "--gpus all")),
    (dataclasses.replace(UNSEEN, driver_cuda=(11, 4), driver="470.57"), "driver", True, ("470.57", "11.4", "12.8")),
    (dataclasses.replace(UNSEEN, torch_cuda=None), "driver", True, ("CPU build",)),
    (dataclasses.replace(UNSEEN, visible="-1"), "driver", True, ("CUDA_VISIBLE_DEVICES='-1'",)),
    (dataclasses.replace(T4, forked=True, cards=0), "fork", True, ("forked", "spawn")),
    (dataclasses.replace(T4, capability=(6, 0), name="P100"), "capability", True, ("P100", "6.0", "7.5")),
    (dataclasses.replace(T4, capability=(12, 0)), "capability", True, ("12.0", "up to 9.0", "newer PyTorch")),
    (
        dataclasses.replace(T4, capability=(6, 0), architectures=("sm_60", "sm_90")),
        "capability",
        False,
        ("no bf16", "fp16"),
    ),
    (
        dataclasses.replace(T4, others=(Process(41, "python", 9 * GIB), Process(7, "Xorg", GIB))),
        "memory",
        False,
        ("10.0 of 15.0 GiB", "python, process 41"),
    ),
    (dataclasses.replace(T4, free=4 * GIB), "memory", False, ("10.0 of 15.0 GiB", "container")),
    (dataclasses.replace(T4, torch_cuda="13.0"), "bitsandbytes", True, ("13.0", "11.8, 12.8", "pip install")),
]


@pytest.mark.parametrize(("facts", "about", "fatal", "words"), IN_THE_WAY)
def test_each_is_one_line_with_a_way_out(facts, about, fatal, words):
    (found,) = obstacles(facts)
    assert (found.about, found.fatal) == (about, fatal)
    assert "\n" not in str(found)
    assert found.remedy
    assert not [word for word in words if word not in str(found)]


def test_a_desktop_on_the_card_is_nobody_in_the_way():
    assert not obstacles(dataclasses.replace(T4, others=(Process(7, "Xorg", GIB),)))
    assert not obstacles(dataclasses.replace(T4, free=4 * GIB, own=9 * GIB))


def test_a_base_is_refused_only_where_it_could_not_run(monkeypatch, caplog):
    monkeypatch.setattr(host, "this_host", lambda: dataclasses.replace(T4, torch_cuda="13.0"))
    check_host("bf16")
    assert not caplog.records
    with pytest.raises(UserError, match="bitsandbytes"):
        check_host("nf4")
    monkeypatch.setattr(host, "this_host", lambda: dataclasses.replace(UNSEEN, torch_cuda=None))
    check_host("fp32")  # it runs on the CPU, and says so
    assert "CPU build" in caplog.text


def test_processes_of_this_card_that_are_not_this_one():
    rows = [["GPU-a1", "5", "/usr/bin/python", "100"], ["GPU-b2", "6", "x", "1"], ["GPU-a1", "9", "me", "7"], ["junk"]]
    assert host.others_of(rows, "a1", own=9) == (Process(5, "python", 100 * 2**20),)
