# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""A server on this machine that speaks the Hub's HTTP API, for clients that push and load by name in a process."""

import hmac
import os
import re
import secrets
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from hub_repository import HubError, Repository, Upload
from hub_routes import ROUTES, Call, Reply, Unsupported, reply_json


USER, TOKEN = "tester", "hf_of_the_tester"


class Request(NamedTuple):
    """What was asked and how it was answered, in the order of the answers."""

    method: str
    path: str
    status: int


class HubServer:
    """
    The Hub of one user, in memory. Requests are answered one at a time.

    Attributes:
        repositories: What there is, by kind ("model", "dataset", "space") and full name.
        uploads: What each commit named, in order.
        stored: Kind, name and SHA-256 of each object whose bytes came by LFS, in order.
        requests: All that was asked.
        unknown: What was asked and is not served, or failed here, in words; a test asserts that it is empty.
    """

    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.uploads: list[Upload] = []
        self.stored: list[tuple[str, str, str]] = []
        self.requests: list[Request] = []
        self.unknown: list[str] = []
        self._lock, self._key = Lock(), secrets.token_bytes(16)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # Another origin than the Hub's, to which clients must not send their token.
        self._storage_url = f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> "HubServer":
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def environment(self, folder: Path | str, token: str | None = TOKEN) -> dict[str, str]:
        """
        The whole environment of a client's process, of which the libraries read theirs when they are imported.

        Args:
            folder: Where the client keeps its caches; another folder is another machine.
            token: None for a client that is not logged in.
        """
        ours = ("HF_", "HUGGING", "TRANSFORMERS_", "HTTP_PROXY", "ALL_PROXY")
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(ours)}
        return {
            **inherited,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(folder),
            "HF_TOKEN": token or "",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def page(self, kind: str, name: str) -> str:
        return f"{self.url}/{'' if kind == 'model' else f'{kind}s/'}{name}"

    def sign(self, method: str, path: str) -> str:
        return hmac.digest(self._key, f"{method} {path}".encode(), "sha256").hex()

    def address(self, method: str, kind: str, name: str, oid: str) -> str:
        """Under which the store takes or gives one object, from or to whoever has the address."""
        path = f"/storage/{kind}/{name}/{oid}"
        return f"{self._storage_url}{path}?signature={self.sign(method, path)}"

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        with self._lock:
            reply = self._refuse_or_answer(method, target, headers, body)
            self.requests.append(Request(method, unquote(urlsplit(target).path), reply.status))
        return reply

    def _refuse_or_answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        try:
            return self._dispatch(method, target, headers, body)
        except HubError as error:
            return reply_json({"error": str(error)}, error.status, **error.headers)
        except Unsupported as error:
            message = f"Not served by {Path(__file__).name}: {error}, asked by {method} {target}"
        except Exception:
            message = f"{method} {target} failed: {traceback.format_exc()}"
        self.unknown.append(message)
        # Of all errors of a server the only one after which clients do not try again.
        return reply_json({"error": message}, 501, **{"X-Error-Message": message.splitlines()[0]})

    def _dispatch(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        parts = urlsplit(target)
        call = Call(method, parts.path, parse_qs(parts.query), headers, body, find_user(headers))
        for known, pattern, endpoint in ROUTES:
            match = re.fullmatch(pattern, parts.path)
            if match and known == ("GET" if method == "HEAD" else method):
                groups = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
                if "folder_of_kind" in match.re.groupindex:
                    groups["kind"] = groups.pop("folder_of_kind", "models/").removesuffix("s/")
                return endpoint(self, call, **groups)
        raise Unsupported("no such route")


def find_user(headers: dict[str, str]) -> str | None:
    if "authorization" not in headers:
        return None
    if not hmac.compare_digest(headers["authorization"], f"Bearer {TOKEN}"):
        raise HubError(401, "Invalid credentials in Authorization header")
    return USER


class Handler(BaseHTTPRequestHandler):
    """The HTTP around an answer. Connections stay open, and an answer is sent in one piece: small ones would wait."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.hub.answer(self.command, self.path, headers, self._read_body(headers))
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
            self.send_header(name, value.encode("ascii", "replace").decode())
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _answer

    def _read_body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def log_message(self, format: str, *values) -> None:
        """Nothing: the server keeps its own record."""
