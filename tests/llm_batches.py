"""The Files and Batches endpoints of the test server, with everything held in memory.

A batch is looked at `Faults.batch_polls` times before it has ended; then all its lines are executed at once. Result
lines come shuffled; failed and expired ones are in the error file.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web
from llm_faults import Faults, error_body, uniform

MAX_LINES = 50_000
MAX_BYTES = 200_000_000
CREATED = 1_750_000_000
# body of a line -> (status, body of the response)
Execute = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


class Batches:
    """All files and batches of one server; `execute` runs one line, `faults` gives the current faults."""

    def __init__(self, execute: Execute, faults: Callable[[], Faults]) -> None:
        self._execute, self._faults = execute, faults
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._polls: dict[str, int] = {}
        self.lines = 0

    def __len__(self) -> int:
        return len(self._batches)

    async def handle(self, request: web.BaseRequest) -> tuple[int, Any]:
        """(status, JSON value or bytes) of one request below /v1/files or /v1/batches."""
        match request.method, *request.path.strip("/").split("/")[1:]:
            case "POST", "files":
                return await self._upload(request)
            case "GET", "files":
                return 200, _listed([file for file, _ in self._files.values()], request)
            case "GET", "files", name, *rest if name in self._files and rest in ([], ["content"]):
                return 200, self._files[name][1] if rest else self._files[name][0]
            case "POST", "batches":
                return self._create(orjson.loads(await request.read()))
            case "GET", "batches":
                return 200, _listed(list(self._batches.values()), request)
            case "GET", "batches", name if name in self._batches:
                return 200, self._poll(self._batches[name])
            case "POST", "batches", name, "cancel" if name in self._batches:
                return 200, self._cancel(self._batches[name])
        return 404, _error(f"No such object: {request.path}")

    async def _upload(self, request: web.BaseRequest) -> tuple[int, Any]:
        purpose = name = content = None
        async for part in await request.multipart():
            if part.name == "purpose":
                purpose = await part.text()
            elif part.name == "file":
                name, content = part.filename, bytes(await part.read())
        if content is None or purpose is None:
            return 400, _error("Missing required parameter: 'file' or 'purpose'.")
        if purpose == "batch" and len(content) > MAX_BYTES:
            return 413, _error(f"A batch file has at most {MAX_BYTES} bytes.")
        return 200, self._store(content, name or "upload.jsonl", purpose)

    def _store(self, content: bytes, name: str, purpose: str) -> dict[str, Any]:
        file = {
            "id": f"file-{len(self._files) + 1:06d}",
            "object": "file",
            "bytes": len(content),
            "created_at": CREATED,
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        self._files[file["id"]] = file, content
        return file

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        if wanted.get("completion_window") != "24h":
            return 400, _error("Invalid value for 'completion_window': expected '24h'.")
        if wanted.get("input_file_id") not in self._files:
            return 404, _error(f"No such File object: {wanted.get('input_file_id')}")
        batch = {
            "id": f"batch_{len(self._batches) + 1:06d}",
            "object": "batch",
            "endpoint": wanted.get("endpoint"),
            "errors": None,
            "input_file_id": wanted["input_file_id"],
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": CREATED,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": wanted.get("metadata"),
        }
        self._batches[batch["id"]] = batch
        self._polls[batch["id"]] = 0
        return 200, batch

    def _poll(self, batch: dict[str, Any]) -> dict[str, Any]:
        if batch["status"] in ("validating", "in_progress"):
            self._polls[batch["id"]] += 1
            batch["status"] = "in_progress"
            if self._polls[batch["id"]] >= self._faults().batch_polls:
                self._run(batch, share=1, status="completed")
        return batch

    def _cancel(self, batch: dict[str, Any]) -> dict[str, Any]:
        if batch["status"] in ("validating", "in_progress"):
            self._run(batch, share=0.5, status="cancelled")
        return batch

    def _run(self, batch: dict[str, Any], *, share: float, status: str) -> None:
        """Executes the first `share` of the lines, and closes the batch with its files."""
        lines, problems = _read(self._files[batch["input_file_id"]][1], batch["endpoint"])
        if problems:
            batch |= {"status": "failed", "errors": {"object": "list", "data": problems}}
            return
        faults = self._faults()
        output, errors = [], []
        for at, line in enumerate(lines):
            of_line = (faults.seed, batch["id"], line["custom_id"])
            if at >= share * len(lines):
                result = _result(line, at, error=("batch_cancelled", "This request was cancelled."))
            elif uniform(*of_line, "expired") < faults.batch_expired:
                status = "expired"
                said = "This request could not be executed before the completion window expired."
                result = _result(line, at, error=("batch_expired", said))
            elif uniform(*of_line, "failed") < faults.batch_failed:
                result = _result(line, at, response=(500, _error("The server had an error.", "server_error")))
            else:
                self.lines += 1
                result = _result(line, at, response=self._execute(line["body"]))
            right = result["response"] is not None and result["response"]["status_code"] == 200
            (output if right else errors).append(result)
        batch |= {
            "status": status,
            "output_file_id": self._results(output, batch, "output"),
            "error_file_id": self._results(errors, batch, "error") or ("" if faults.batch_empty_error_file else None),
            "request_counts": {"total": len(lines), "completed": len(output), "failed": len(errors)},
        }

    def _results(self, results: list[dict[str, Any]], batch: dict[str, Any], kind: str) -> str | None:
        if not results:
            return None
        random.Random(f"{self._faults().seed} {batch['id']}").shuffle(results)
        content = b"".join(orjson.dumps(result) + b"\n" for result in results)
        return self._store(content, f"{batch['id']}_{kind}.jsonl", "batch_output")["id"]


def _result(
    line: dict[str, Any],
    at: int,
    *,
    response: tuple[int, dict[str, Any]] | None = None,
    error: tuple[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "id": f"batch_req_{at:06d}",
        "custom_id": line["custom_id"],
        "response": response and {"status_code": response[0], "request_id": f"req_{at:06d}", "body": response[1]},
        "error": error and {"code": error[0], "message": error[1]},
    }


def _read(content: bytes, endpoint: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(lines, problems) of an input file, by the documented rules."""
    lines: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []

    def problem(code: str, message: str, number: int | None, param: str | None = None) -> None:
        problems.append({"code": code, "line": number, "message": message, "param": param})

    seen: set[str] = set()
    for number, text in enumerate(content.splitlines(), 1):
        try:
            line = orjson.loads(text)
            name, body = line["custom_id"], line["body"]
            if not isinstance(name, str) or not 1 <= len(name) <= 64 or not isinstance(body, dict):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            problem("invalid_json_line", "This line is not a request object.", number)
            continue
        if name in seen:
            problem("duplicate_custom_id", f"The custom_id {name!r} is used twice.", number, "custom_id")
        if line.get("method") != "POST":
            problem("invalid_method", "The method must be POST.", number, "method")
        if line.get("url") != endpoint:
            problem("mismatched_url", f"The url must be the batch's endpoint, {endpoint}.", number, "url")
        if lines and body.get("model") != lines[0]["body"].get("model"):
            problem("mismatched_model", "All lines must have the same model.", number, "body.model")
        seen.add(name)
        lines.append(line)
    if not lines and not problems:
        problem("empty_file", "The input file is empty.", None)
    if len(lines) > MAX_LINES:
        problem("too_many_tasks", f"A batch has at most {MAX_LINES} lines.", None)
    return lines, problems


def _listed(newest_last: list[dict[str, Any]], request: web.BaseRequest) -> dict[str, Any]:
    """One page of a listing, newest first, with OpenAI's `after` and `limit`."""
    items = newest_last[::-1]
    if after := request.query.get("after"):
        names = [item["id"] for item in items]
        items = items[names.index(after) + 1 :] if after in names else []
    page = items[: int(request.query.get("limit", "20"))]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
    return {"object": "list", "data": page, "has_more": len(page) < len(items), **ends}


def _error(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    return orjson.loads(error_body(kind, None, message))
