# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Lets the tests here import each other's helpers, and fails skips of the pinned release that `skips.py` lacks."""

import re
import sys
from pathlib import Path

import pytest
import transformers


HERE = Path(__file__).parent
# Under `--import-mode=importlib` a test file's folder is not on the path.
sys.path.insert(0, str(HERE))

from skips import NEEDS, NEVER, explain, names_of  # noqa: E402


collect_ignore = ["stand_ins"]

# Marks of transformers' own tests, and ours for the same.
OUR_MARKERS = {"is_fsdp_test": "distributed", "is_tensor_parallel_test": "distributed", "is_training_test": "slow"}
UPSTREAM_MARKERS = (
    *OUR_MARKERS,
    "accelerate_tests",
    "flash_attn_test",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "torch_compile_test",
)
# Tests of `test_upstream_modeling.py` that wait for the night on these two kinds of models: the library's code is the
# same for every kind, or it is what `test_modeling_xformer.py` compares for all of them in single precision.
REPEATED = re.compile(r"test_bc_torch_dtype|test_eager_matches_sdpa_inference_\d+_(fp16|bf16)")
# `skips.py` is about the tests of the release that is in constraints.txt.
PINNED = f"transformers=={transformers.__version__}" in (HERE.parents[1] / "constraints.txt").read_text().split()
SKIPPED = pytest.StashKey[bool]()


def pytest_configure(config):
    for marker in UPSTREAM_MARKERS:
        config.addinivalue_line("markers", f"{marker}: set by transformers' own tests")


# First, because the marks decide what is left out.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        for theirs, ours in OUR_MARKERS.items():
            if item.get_closest_marker(theirs):
                item.add_marker(ours)
        kind = getattr(item.cls, "__name__", "")
        if kind.startswith(("Vanilla", "Relative")) and REPEATED.match(item.name):
            item.add_marker("nightly")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if HERE not in item.path.parents:
        return report
    if not PINNED:  # another release has other tests
        return report
    names = names_of(item.cls, item.name)
    never = explain(names, NEVER)
    if report.skipped and not hasattr(report, "wasxfail"):
        item.stash[SKIPPED] = True
        if not (never or explain(names, NEEDS)):
            report.outcome = "failed"
            report.longrepr = f"{item.name} was skipped and skips.py does not say why: {report.longrepr[-1]}"
    elif report.when == "teardown" and never and SKIPPED not in item.stash:
        report.outcome = "failed"
        report.longrepr = f"{item.name} ran although skips.py says '{never}': take the entry out"
    return report
