# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Input errors are one line; every other error is a bug of ours, and keeps its traceback."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_xformer.errors import (
    ArgumentError,
    DataError,
    InputError,
    LaunchError,
    blame,
    did_you_mean,
    one_line,
    one_line_errors,
    refuse_misspelt,
)


@pytest.mark.parametrize("kind", [ArgumentError, DataError, LaunchError, OSError])
@pytest.mark.parametrize(("value", "traceback"), [("", False), ("1", True)])
def test_an_input_error_is_one_line_and_its_traceback_is_there_for_the_asking(
    kind, value, traceback, capsys, monkeypatch
):
    @one_line_errors()
    def fail():
        raise kind("first\n second")

    monkeypatch.setenv("HF_XFORMER_DEBUG", value)
    with pytest.raises(SystemExit, match="2"):
        fail()
    error = capsys.readouterr().err
    assert error.endswith("error: first second\n") and ("Traceback" in error) == traceback
    assert traceback or error.count("\n") == 1


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, ImportError, KeyError, TypeError, BrokenPipeError])
def test_a_bug_keeps_its_traceback(kind):
    with pytest.raises(kind), one_line_errors():
        raise kind("bug")


def test_of_several_processes_one_speaks(capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit), one_line_errors():
        raise ArgumentError("wrong")
    assert capsys.readouterr().err == ""


@given(st.text())
def test_a_message_is_one_line_whatever_it_holds(text):
    for kind in (InputError, RuntimeError, OSError):
        line = one_line(kind(text))
        assert line and len(line.splitlines()) == 1 and line.split() == (text.split() or [kind.__name__])


def test_a_system_errors_line_begins_with_its_file(tmp_path):
    with pytest.raises(OSError) as error:
        (tmp_path / "none.txt").read_text()
    assert one_line(error.value) == f"{tmp_path}/none.txt: No such file or directory"


def test_a_librarys_refusal_gets_its_origin_and_no_other_error_does():
    with pytest.raises(ArgumentError, match="^--seed 7: no such seed$"), blame("--seed 7", KeyError, ValueError):
        raise ValueError("no such seed\nsecond line")
    with pytest.raises(DataError, match="^there$"), blame("--seed 7", ValueError):
        raise DataError("there")
    with pytest.raises(RuntimeError), blame("--seed 7", ValueError):
        raise RuntimeError


KNOWN = ["--output_dir", "--overwrite", "-h", "--help"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--outptu_dir", "x"], "--outptu_dir: unknown option; did you mean --output_dir?"),
        (["x", "--overwirte=1"], "--overwirte: unknown option; did you mean --overwrite?"),
        (["--zzz"], "--zzz: unknown option; --help lists those there are"),
    ],
)
def test_a_misspelt_option_gets_the_nearest_one(words, said):
    with pytest.raises(ArgumentError) as error:
        refuse_misspelt(words, KNOWN)
    assert str(error.value) == said


def test_values_are_not_taken_for_options():
    refuse_misspelt(["-", "-1", "-.5", "--output_dir", "x=1", "- two words", "--", "--nothing"], KNOWN)


def test_another_case_is_understood():
    assert did_you_mean("<2DE>", ["<2fr>", "<2de>"]) == "; did you mean <2de>?"


@given(st.sampled_from(KNOWN[:2]), st.data())
def test_one_slip_of_the_finger_is_understood(name, data):
    place = data.draw(st.integers(2, len(name) - 1))
    assert did_you_mean(name[:place] + name[place + 1 :], KNOWN) == f"; did you mean {name}?"
