# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Programs that start in milliseconds: forks of one process that has imported their libraries, which takes ten seconds.

A program gets its own session, environment, folder and streams, and ends as any other does. What it does not get is a
library's first look at the environment: every way of starting is tested by a process of its own too.
"""

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType


TORCH_LAUNCHER = "torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler"
STACKS = signal.SIGUSR1  # has a program print the stacks of its threads
ADDRESS = "WARM_START_ADDRESS"  # where programs that start others find the process to be forked


class Program:
    """
    A program that has been started, with the methods of a `subprocess.Popen`.

    Args:
        address: Socket of the process that is forked.
        argv: The program's words, without the interpreter: a file, `-m` and a module, or `-c` and code.
        streams: Descriptors of its input, output and errors.
    """

    def __init__(self, address: str, argv: list[str], env: dict[str, str], cwd: Path | str, streams: list[int]):
        self.args, self.returncode = argv, None
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(address)
        socket.send_fds(self.connection, [b"."], streams)
        request = {"argv": argv, "env": {**env, ADDRESS: address}, "cwd": str(cwd)}
        self.connection.sendall(json.dumps(request).encode() + b"\n")
        self.answers = self.connection.makefile()
        answer = self.answers.readline()
        if not answer:
            raise ChildProcessError(f"{address}: the process to be forked ended before it started {argv}")
        self.pid = int(answer)

    def poll(self) -> int | None:
        if self.returncode is None and self.ended_within(0):
            # Without an answer, the process that waits for the program was killed.
            self.returncode = int(self.answers.readline() or -signal.SIGKILL)
            self.answers.close()
            self.connection.close()
        return self.returncode

    def ended_within(self, seconds: float | None) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not self.ended_within(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.poll()

    def kill(self) -> None:
        """Kills the program with all processes of its group, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.killpg(self.pid, signal.SIGKILL)


class WarmStart:
    """
    The process that is forked for each program; it ends with the process that made it.

    Args:
        modules: What it imports.
        environment: In which it imports them; this process's by default.
    """

    def __init__(self, *modules: str, environment: dict[str, str] | None = None):
        self.folder = tempfile.TemporaryDirectory(prefix="warm-")  # a short name: a socket's has 107 bytes at most
        self.address = str(Path(self.folder.name, "socket"))
        command = [sys.executable, __file__, self.address, *modules]
        # One thread only: a fork gets the locks that others hold, and would wait for them for ever.
        single = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
        self.environment = {**(os.environ if environment is None else environment), **single}
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment)
        # The server ends when its input is closed everywhere: also in the forks of this process.
        os.register_at_fork(after_in_child=self.server.stdin.close)
        assert self.server.stdout.readline() == b"ready\n"

    def start(self, argv: list[str], env: dict[str, str], cwd: Path, output: int) -> Program:
        """Starts a program whose output and errors go to a descriptor."""
        with open(os.devnull) as nothing:
            return Program(self.address, argv, env, cwd, [nothing.fileno(), output, output])

    def run(
        self, argv: list, env: dict[str, str], cwd: Path | str, input: str = "", timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end, as `subprocess.run` does, and returns what it printed."""
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3)]
            streams[0].write(input)
            streams[0].seek(0)
            words = list(map(str, argv))
            program = Program(self.address, words, env, cwd, [each.fileno() for each in streams])
            try:
                program.wait(timeout)
            finally:
                program.kill()
            for each in streams[1:]:
                each.seek(0)
            return subprocess.CompletedProcess(words, program.wait(), *(each.read() for each in streams[1:]))


def serve(address: str) -> dict:
    """Forks for each program; only in the fork it returns, with the request."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for the programs
        gc.freeze()  # shared with the forks
        if (threads := Path("/proc/self/task")).exists():
            assert len(os.listdir(threads)) == 1, [each.read_text() for each in threads.glob("*/comm")]
        print("ready", flush=True)
        with selectors.DefaultSelector() as selector:
            for each in (listener, sys.stdin):
                selector.register(each, selectors.EVENT_READ)
            while all(key.fileobj is listener for key, _ in selector.select()):
                connection, _ = listener.accept()
                if os.fork() == 0:
                    break
                connection.close()
            else:
                os._exit(0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, *_ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as lines:
        request = json.loads(lines.readline())
    if pid := os.fork():
        for each in streams:
            os.close(each)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(BrokenPipeError):  # who asked for the program has been killed too
            connection.sendall(f"{status}\n".encode())
        os._exit(0)
    os.setsid()
    connection.sendall(f"{os.getpid()}\n".encode())  # not before it leads its group, which may then be killed
    connection.close()
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    return request


def start_program(args, env=None, stdout=None, stderr=None, **options) -> Program | subprocess.Popen:
    """In place of `subprocess.Popen` where launchers start this interpreter."""
    interpreter, *argv = args
    if interpreter != sys.executable:
        return subprocess.Popen(args, env=env, stdout=stdout, stderr=stderr, **options)
    argv = [each for each in argv if each != "-u"]
    streams = [0, stdout.fileno() if stdout else 1, stderr.fileno() if stderr else 2]
    return Program(os.environ[ADDRESS], argv, dict(os.environ) if env is None else env, os.getcwd(), streams)


class Launching:
    """The module `subprocess` for a launcher, whose programs are forked."""

    Popen = staticmethod(start_program)

    def __getattr__(self, name: str):
        return getattr(subprocess, name)


def run(argv: list[str], env: dict[str, str], cwd: str) -> None:
    faulthandler.register(STACKS)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)
    if launcher := sys.modules.get("accelerate.commands.launch"):
        launcher.subprocess = Launching()
    if launcher := sys.modules.get(TORCH_LAUNCHER):
        launcher.Popen = start_program
    # The first is this file's folder, and becomes the program's.
    sys.path[1:1] = [each for each in env.get("PYTHONPATH", "").split(os.pathsep) if each and each not in sys.path[1:]]
    if argv[0] == "-m":
        sys.argv, sys.path[0] = argv[1:], cwd
        if main := getattr(sys.modules.get(argv[1]), "main", None):
            main()
        else:
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    elif argv[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *argv[2:]], ""
        program = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(argv[1], "<string>", "exec"), program.__dict__)
    else:
        sys.argv, sys.path[0] = argv, str(Path(argv[0]).resolve().parent)
        runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    _, where, *names = sys.argv
    for name in names:
        importlib.import_module(name)
    run(**serve(where))
