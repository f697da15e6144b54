# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A page that shows a model to people: a text in, its best outputs and a picture out, by browser and by HTTP."""
