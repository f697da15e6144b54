# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""
Functions in processes of their own.

Libraries that compute with threads share the cores badly within a process: a library's threads wait for their next
work for a while, and slow down those of the others up to four times.
"""

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

import torch


def apart(make: Callable[..., Callable], *args) -> Callable:
    """
    Returns a function that hands its arguments to another process, which calls there what `make(*args)` returns.

    The process has as many threads as this one, and ends with it. All that goes to and fro is pickled.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=serve, args=(make, args, torch.get_num_threads(), there), daemon=True).start()
    there.close()  # so that the other process's end is noticed here

    def call(*given):
        here.send(given)
        return here.recv()

    return call


def serve(make: Callable[..., Callable], args: tuple, threads: int, connection: Connection) -> None:
    """Calls what is made with what comes through a connection, until the other end is closed."""
    torch.set_num_threads(threads)
    function = make(*args)
    with suppress(EOFError):
        while True:
            connection.send(function(*connection.recv()))
