# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The launchable face of `hf_xformer.commands.merge`."""

from _launch import run


if __name__ == "__main__":
    run("merge")
