# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Code run against the local Hub by a process of its own, as the libraries read their addresses when imported."""

import json
from pathlib import Path
from textwrap import dedent

from hub_server import HubServer
from small_runs import libraries


START = """
import json
from pathlib import Path
from huggingface_hub import HfApi, HfFileSystem, ModelCard, hf_hub_download, snapshot_download

def refusal(call, *values, **options):
    try:
        call(*values, **options)
    except Exception as error:
        return [type(error).__name__, str(error)]

def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in Path(folder).rglob("*") if path.is_file()}

api, answer = HfApi(), {}
"""


def run_client(hub: HubServer, folder: Path, code: str, **options) -> dict:
    """
    What the code leaves in `answer`.

    Args:
        folder: Where it runs, and where its caches are; another folder is another machine.
        options: Of the environment, such as another token.
    """
    folder.mkdir(exist_ok=True)
    environment = hub.environment(folder / "home", **options)
    end = "Path('answer.json').write_text(json.dumps(answer))"
    # Without an input, because transformers asks there whether to run a repository's code.
    done = libraries().run(["-c", f"{START}\n{dedent(code)}\n{end}"], environment, folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "answer.json").read_text())
