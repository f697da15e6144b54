# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The list of skips speaks of tests that there are."""

import fnmatch
import unittest

import skips
import test_upstream_modeling
import test_upstream_training


def test_every_explained_skip_names_a_test():
    modules = (test_upstream_modeling, test_upstream_training)
    classes = {each for module in modules for each in vars(module).values() if isinstance(each, type)}
    tests = {
        name
        for test_class in classes
        if issubclass(test_class, unittest.TestCase)
        for test in dir(test_class)
        for name in skips.names_of(test_class, test)
    }
    patterns = {p for reasons in (skips.NEEDS, skips.NEVER) for patterns in reasons.values() for p in patterns}
    assert {pattern for pattern in patterns if not fnmatch.filter(tests, pattern)} == set()
