# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Programs on machines that have the local Hub for the real one.

They are forks of a process that has imported the libraries with this Hub's address in the environment: the libraries
read it when they are imported. The folder of their caches they read then too, so that it is a link, which leads to
another folder for every machine.
"""

import functools
import json
import subprocess
import tempfile
from pathlib import Path
from textwrap import dedent

from hub_server import HubServer
from warm_start import WarmStart


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


@functools.cache
def client_of(hub: HubServer) -> WarmStart:
    """The process that the programs are forked from."""
    home = tempfile.TemporaryDirectory(prefix="home-")
    client = WarmStart("warm_commands", environment=hub.environment(Path(home.name, "link")))
    client.home = home  # which goes when the client does
    return client


def run_with(hub: HubServer, home: Path, argv: list, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """
    Runs a program to its end, and returns what it printed.

    Args:
        home: Where its caches are; another folder is another machine.
        environment: Its whole environment, as `HubServer.environment` makes it, but for the folder of the caches.
    """
    client = client_of(hub)
    link = Path(client.environment["HF_HOME"])
    link.unlink(missing_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    link.symlink_to(home)
    return client.run(argv, {**environment, "HF_HOME": str(link)}, cwd)


def run_client(hub: HubServer, folder: Path, code: str, **options) -> dict:
    """
    What the code leaves in `answer`.

    Args:
        folder: Where it runs, and where its caches are; another folder is another machine.
        options: Of the environment, such as another token.
    """
    folder.mkdir(exist_ok=True)
    home = folder / "home"
    end = "Path('answer.json').write_text(json.dumps(answer))"
    # Without an input, because transformers asks there whether to run a repository's code.
    words = ["-c", f"{START}\n{dedent(code)}\n{end}"]
    done = run_with(hub, home, words, folder, **hub.environment(home, **options))
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "answer.json").read_text())
