"""The local web server of the review page: this machine only, and no page of anybody else's."""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from annotator.errors import AnnotatorError, BadInput
from annotator.fingerprint import without_surrogates
from annotator.reviewing.desk import Desk

_FILES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    # Nothing inline and nothing from elsewhere: a script in a record would not run even if it got into the page.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HOSTS = ("127.0.0.1", "localhost")  # with any port: `ssh -L` may give it another one
_MOST_BYTES = 64 * 1024


class ReviewServer(ThreadingHTTPServer):
    """Serves one desk at `url`, on a free port of 127.0.0.1 and under a path that nobody can guess.

    A request is refused (403) if its Host is not this machine (a foreign name that was bound to 127.0.0.1), if a page
    of another origin sent it, or if the token in the path is wrong.
    """

    daemon_threads = True

    def __init__(self, desk: Desk) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.desk, self.token = desk, secrets.token_urlsafe(24)
        self.lock = threading.Lock()  # the browser may send two requests at once; the gold is one file

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error; anything else is ours, and is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "annotator", ""
    timeout = 60  # seconds; a silent connection does not hold its thread for ever

    def do_GET(self) -> None:
        place = self._place()
        if place is None:
            return
        if place in _FILES:
            name, media = _FILES[place]
            self._send(HTTPStatus.OK, Path(__file__).with_name(name).read_bytes(), media)
        elif place == "session":
            self._result(self.server.desk.session)
        elif place.startswith("record/") and place[7:].isascii() and place[7:].isdigit() and len(place) < 20:
            self._result(lambda: self.server.desk.record(int(place[7:])))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        self.close_connection = True  # a refused request may have a body that nobody reads
        place = self._place()
        if place is None:
            return
        if self.headers.get_content_type() != "application/json":  # what a form of another page cannot send
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "answers are JSON")
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 10 and int(length) <= _MOST_BYTES):
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"an answer has up to {_MOST_BYTES} bytes")
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST, "this is not JSON")
            return
        if place == "answer":
            self._result(lambda: self.server.desk.answer(body))
        elif place == "undo":
            self._result(self.server.desk.undo)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def _place(self) -> str | None:
        """What is asked for, below the token; None if the request was refused."""
        host = self.headers.get("Host", "")
        origin = self.headers.get("Origin")
        own_name = host.rpartition(":")[0] if ":" in host else host
        token, _, place = self.path.removeprefix("/").partition("/")
        trusted = (
            own_name in _HOSTS
            and (origin is None or origin == f"http://{host}")
            and secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode())
        )
        if trusted:
            return place
        self._refuse(HTTPStatus.FORBIDDEN, "forbidden: open the address that `annotator review` printed")
        return None

    def _result(self, make: Callable[[], dict[str, Any]]) -> None:
        try:
            with self.server.lock:
                value = make()
        except BadInput as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except AnnotatorError as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        else:
            self._json(HTTPStatus.OK, value)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True
        self._json(status, {"error": reason})

    def _json(self, status: HTTPStatus, value: Any) -> None:
        self._send(status, json.dumps(without_surrogates(value)).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, media: str) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is for the person."""
