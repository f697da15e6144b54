# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""The page in a browser, its API in a client, and its end, all of one server; nobody looks for the Hub meanwhile."""

import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from hub_server import HubServer
from small_models import make_model
from small_runs import ROOT
from transformers import AutoTokenizer


pytestmark = pytest.mark.slow  # the server imports the libraries and Gradio

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
STARTED = 120  # seconds that it may take beside other tests


class Served:
    """A page's process, its address and what it has printed."""

    def __init__(self, folder, log, environment):
        self.log = log
        command = [sys.executable, "-m", "hf_xformer", "demo", str(folder), "--port", "0"]
        with log.open("w") as output:
            # Tests that run in the background ignore interrupts, and their children would too.
            heeds_interrupts = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=output, preexec_fn=heeds_interrupts
            )
        deadline = time.monotonic() + STARTED
        while "api_name" not in log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        self.address = re.search(r"^(http://127\.0\.0\.1:\d+): ", log.read_text(), re.MULTILINE)[1]


@pytest.fixture(scope="module")
def tokenizer(task):
    return AutoTokenizer.from_pretrained(task.tokenizer, model_max_length=12)


@pytest.fixture(scope="module")
def model(tokenizer):
    model = make_model(vocab_size=len(tokenizer))
    model.generation_config.max_new_tokens = 8
    return model


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def served(model, tokenizer, hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    model.save_pretrained(folder / "<b>small")
    tokenizer.save_pretrained(folder / "<b>small")
    own = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    served = Served(folder / "<b>small", folder / "log", hub.environment(folder / "home") | own)
    yield served
    served.process.kill()
    served.process.wait()


@pytest.fixture(scope="module")
def client(served):
    return Client(served.address, verbose=False)


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_the_api_gives_the_texts_of_generate_and_their_probabilities(client, model, tokenizer):
    hypotheses = client.predict("A B C", api_name="/decode")
    source = tokenizer("A B C", return_tensors="pt")
    tokens = model.generate(**source, num_beams=4, num_return_sequences=3)
    assert [each["text"] for each in hypotheses] == tokenizer.batch_decode(tokens, skip_special_tokens=True)
    for each, row in zip(hypotheses, tokens, strict=True):
        ids = row[1:][row[1:] != tokenizer.pad_token_id][None]
        with torch.no_grad():
            logits = model(**source, labels=ids).logits
        score = logits.log_softmax(dim=-1).gather(-1, ids[..., None]).sum()
        assert each["score"] == pytest.approx(score.item(), abs=1e-4)


def test_the_api_says_why_there_is_no_text(client):
    for text, line in ((" ", "There is no text."), ("A " * 30, "31 tokens, and 12 are the most here")):
        with pytest.raises(AppError, match=line):
            client.predict(text, api_name="/decode")


def test_calls_wait_for_each_other_and_each_gets_its_own_answer(client):
    texts = ["A", "B C", "D E F", "A", "G H"]
    jobs = [client.submit(text, api_name="/decode") for text in texts]
    together = [job.result(timeout=60) for job in jobs]
    assert together == [client.predict(text, api_name="/decode") for text in texts]


def test_a_reader_sees_texts_scores_a_picture_and_lines_and_nothing_is_fetched_from_elsewhere(browser, served, client):
    page = browser.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(served.address)
    assert page.inner_text("h1") == "<b>small"
    page.fill("#source textarea", "A B C")
    page.keyboard.press("Enter")
    page.wait_for_selector("#picture img[src^='data:image/png']", timeout=60_000)
    shown = page.inner_text("#texts")
    for each in client.predict("A B C", api_name="/decode"):
        assert each["text"] in shown and f"{round(each['score'], 4)}" in shown
    page.fill("#source textarea", "A " * 30)
    page.click("#decode")
    said = "The text has 31 tokens, and 12 are the most here."
    page.wait_for_function("said => document.querySelector('#lines textarea')?.value === said", arg=said)
    page.wait_for_selector("#picture img", state="detached")
    assert not errors
    assert [url for url in asked if not url.startswith((served.address, "data:", "blob:"))] == []


def test_an_interrupt_ends_it_in_a_line_and_nobody_has_looked_for_the_hub(served, hub):
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(timeout=60) == 0
    said = served.log.read_text()
    assert said.splitlines()[-1] == "ended" and "Traceback" not in said and f"{served.address}: " in said
    assert hub.requests == []
