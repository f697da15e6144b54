# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Lines for people: options that YAML reads back as they are, bars as long as the counts are large."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hf_xformer.data.advice import Option, row_options
from hf_xformer.data.report import BAR_WIDTH, BARS, histogram, recipe_line
from hf_xformer.data.statistics import Lengths, Statistics
from hf_xformer.yaml_files import read_yaml


VALUES = st.one_of(st.text(max_size=12), st.integers(), st.booleans(), st.lists(st.text(max_size=4), max_size=3))


@given(value=VALUES)
@example("no")
@example("a: b # c")
@example(".nan")
@example("1e5")
@example(".inf")
@example("\x7f\x85\u2028\ufeff\U0001f600é")
def test_a_line_of_a_recipe_is_read_as_the_value_that_it_was_made_of(value):
    assert read_yaml(recipe_line(Option("seed", value, "a reason: of # some kind"))) == {"seed": value}


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40))
def test_the_longest_bar_is_that_of_the_largest_count(values):
    lines = list(histogram(Lengths(values), "#"))
    counts = [int(line.rpartition("#")[2].rpartition(" ")[2].replace(",", "")) for line in lines]
    lengths = [line.count("#") for line in lines]
    assert sum(counts) == len(values) and len(lines) <= BARS
    assert lengths == [round(BAR_WIDTH * count / max(counts)) for count in counts]


@pytest.mark.parametrize(
    ("bad", "why"),
    [(1, "1 bad row is left out; or mend it"), (1234, "1,234 bad rows are left out; or mend them")],
)
def test_bad_rows_that_would_be_left_out_are_counted(bad, why):
    assert row_options(Statistics(), bad) == [Option("on_bad_row", "skip", why)]
