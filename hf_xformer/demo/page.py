# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The page, in Gradio: what stands on it, its HTTP API, and its server, which is all that it asks for anything."""

import html
import socket
from functools import partial

import gradio as gr

from ..decoding.hypotheses import Hypothesis
from ..errors import ArgumentError
from .answers import Answers, described


ENDPOINT = "decode"
WAITING = 64  # calls that may wait; the next ones are told that the queue is full
# Fonts of the reader's machine: those of Gradio's own theme would come from the network, where it does not have them.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
HEADERS = ["text", "log-probability"]


def make_page(answers: Answers, name: str) -> gr.Blocks:
    """
    Returns the page of a model. One text is decoded at a time; the others wait in Gradio's queue.

    Args:
        name: The model's, for the title.
    """
    one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "model"}
    with gr.Blocks(title=name, analytics_enabled=False) as page:
        gr.HTML(f"<h1>{html.escape(name)}</h1>")
        source = gr.Textbox(label="source", lines=1, max_lines=8, autofocus=True, elem_id="source")
        button = gr.Button("Decode", variant="primary", elem_id="decode")
        lines = gr.Textbox(show_label=False, container=False, interactive=False, visible=False, elem_id="lines")
        texts = gr.Dataframe(
            headers=HEADERS, datatype=["str", "number"], interactive=False, wrap=True, elem_id="texts"
        )
        picture = gr.Plot(show_label=False, format="png", elem_id="picture")
        gr.on(
            [button.click, source.submit],
            partial(show, answers),
            inputs=source,
            outputs=[texts, picture, lines],
            api_visibility="private",
            **one_at_a_time,
        )
        gr.api(endpoint_of(answers), api_name=ENDPOINT, **one_at_a_time)
    return page.queue(max_size=WAITING)


def show(answers: Answers, text: str) -> tuple:
    """Returns the values of the page's table, picture and lines."""
    answer = answers.answer(text)
    rows = [[each.text, round_score(each)] for each in answer.hypotheses]
    lines = gr.update(value="\n".join(answer.lines), visible=bool(answer.lines))
    return rows, answer.picture, lines


def endpoint_of(answers: Answers):
    """Returns the function of the HTTP API, whose signature Gradio shows to callers."""

    def decode(text: str) -> list[dict]:
        """Returns the best texts for a source, each with the natural logarithm of its probability."""
        try:
            hypotheses, _ = answers.decode(text)
        except Exception as error:
            raise gr.Error(described(error), print_exception=False) from error
        return [{"text": each.text, "score": each.score} for each in hypotheses]

    return decode


def round_score(hypothesis: Hypothesis) -> float | None:
    return None if hypothesis.score is None else round(hypothesis.score, 4)


def free_port(host: str, port: int) -> int:
    """
    Returns the port if a server can listen there, and for 0 one that is free: looked for before a model is loaded.

    Raises:
        ArgumentError: The port is taken, or the name is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            return trial.getsockname()[1]
    except OSError as error:
        raise ArgumentError(f"--host {host} --port {port}: {error.strerror}") from error


def serve(page: gr.Blocks, host: str, port: int) -> str:
    """Starts the server in a thread of its own, and returns the page's address."""
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        theme=THEME,
        footer_links=["api"],
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
    )
    return address.rstrip("/")
