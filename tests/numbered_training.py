# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""`scripts/train.py` whose processes leave their numbers under their ranks in the folder NUMBERS, to be killed."""

import os
from pathlib import Path

from hf_xformer.commands.train import main


if __name__ == "__main__":
    Path(os.environ["NUMBERS"], os.environ.get("RANK", "0")).write_text(str(os.getpid()))
    main()
