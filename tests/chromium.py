"""A real browser for tests of pages: Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp

PATH = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
    "--window-size=1280,800",
)  # fmt: skip
_CODES = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
_PATIENCE_S = 30


class Chromium:
    """One page of one browser; `with Chromium(folder) as page: page.open(url); page.press("Enter")`.

    Attributes:
        errors: what the page wrote to its console as errors, refusals by its content policy among them.
    """

    def __init__(self, folder: Path) -> None:
        self._profile = folder / "profile"
        self._profile.mkdir(parents=True)
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self.errors: list[str] = []

    def __enter__(self) -> Chromium:
        command = [str(PATH), *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._run(self._connect())
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._process.terminate()
        self._process.wait(timeout=_PATIENCE_S)
        self._loop.close()

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def press(self, *keys: str) -> None:
        """Press and release keys, one after the other; a key is a character or a name such as ArrowDown."""
        for key in keys:
            typed = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
            codes = {"windowsVirtualKeyCode": _CODES[key]} if key in _CODES else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **typed, **codes)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **codes)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until a JavaScript expression is true."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self.value(expression):
            assert time.monotonic() < deadline, f"never true: {expression}\n{self.value('document.body.innerText')}"
            time.sleep(0.02)

    def screenshot(self, path: Path) -> None:
        """What the page looks like, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the DevTools protocol."""
        return self._run(self._call(method, parameters))

    def _run(self, work: Any) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(work, _PATIENCE_S))

    async def _connect(self) -> None:
        port_file = self._profile / "DevToolsActivePort"
        while not (port_file.exists() and "\n" in port_file.read_text()):
            assert self._process.poll() is None, "the browser ended at once"
            await asyncio.sleep(0.05)
        port = port_file.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=_PATIENCE_S) as answer:
            page = next(target for target in json.load(answer) if target["type"] == "page")
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        about = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(about["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.errors.append(about["entry"]["text"])

    async def _close(self) -> None:
        await self._socket.close()
        await self._session.close()
