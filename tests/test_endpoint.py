"""Where requests go, what they carry to get in, and what never leaves the process."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys

import pytest
from llm_faults import Faults
from llm_server import LLMServer
from test_label import QUICK, judge_at, write_items

from annotator.errors import BadInput, ServiceFailure
from annotator.judges import account_headers
from annotator.judges.endpoint import Endpoint
from annotator.label import label

BODY = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'


def post(endpoint: Endpoint) -> int:
    """The status of one request."""

    async def once():
        try:
            return (await endpoint.post(BODY))[0]
        finally:
            await endpoint.close()

    return asyncio.run(once())


def test_the_key_and_the_account_go_with_each_request():
    """As OpenAI's own client sends them, from the same variables."""
    headers = account_headers({"OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "proj-2", "OPENAI_API_KEY": "k"})
    with LLMServer() as server:
        assert post(Endpoint(server.base_url, api_key=" secret\n", headers=headers, timeout_s=5)) == 200
        assert dict(server.stats().keys) == {"Bearer secret": 1, "org-1": 1, "proj-2": 1}


def test_azure_gets_its_own_header_and_keeps_the_api_version_in_the_query():
    """A deployment's address with `?api-version=`; a bearer token of Entra ID stays a bearer token."""
    with LLMServer() as server:
        deployment = f"http://127.0.0.1:{server.port}/openai/deployments/mine?api-version=2024-10-21"
        assert post(Endpoint(deployment, api_key="resource-key", timeout_s=5)) == 200
        assert post(Endpoint(deployment, api_key="eyJ0eXAi.token", timeout_s=5)) == 200
        stats = server.stats()
    assert dict(stats.keys) == {"resource-key": 1, "Bearer eyJ0eXAi.token": 1}
    assert dict(stats.queries) == {"api-version=2024-10-21": 2}
    assert Endpoint("https://r.openai.azure.com/openai/v1/", api_key="k", timeout_s=5)._headers["api-key"] == "k"


def test_a_user_and_password_in_the_address_are_sent_and_never_shown(tmp_path):
    """By basic authentication, instead of the key; messages name the address without them."""
    pair = base64.b64encode(b"user:pass@word").decode()
    items = write_items(tmp_path / "items.jsonl", 3)
    with LLMServer(Faults(api_key=f"Basic {pair}", echoes_key=True)) as server:
        address = f"http://user:pass%40word@127.0.0.1:{server.port}/v1"
        done = label([items], out=tmp_path / "l.parquet", judge=judge_at(address), cache_dir=tmp_path / "cache")
        server.configure(Faults(rates={"unauthorized": 1}, echoes_key=True))
        with pytest.raises(ServiceFailure) as failure:
            label([items], out=tmp_path / "m.parquet", judge=judge_at(address), cache_dir=None)
    assert done.labelled == 3
    assert f"at http://127.0.0.1:{server.port}/v1" in str(failure.value)
    assert "pass" not in str(failure.value)
    assert pair not in str(failure.value)


@pytest.mark.parametrize(
    "base_url",
    [
        "ftp://host/v1",
        "http://a..b/v1",
        f"http://{'a' * 64}.com/v1",
        "localhost:8000/v1",
        "http://user:hidden-password@host:port/v1",
        "http:///v1",
        "v1",
    ],
)
def test_an_address_of_no_server_is_refused_in_one_line_that_does_not_quote_it(base_url):
    """There may be a password in it."""
    with pytest.raises(BadInput, match="--base-url: this is no address") as refused:
        Endpoint(base_url, api_key=None, timeout_s=5)
    assert "hidden" not in str(refused.value)


def test_a_key_that_no_header_can_carry_is_refused_without_showing_it():
    """A line break in the middle would end the header; aiohttp's own message would quote it."""
    with pytest.raises(BadInput, match="OPENAI_API_KEY") as refused:
        Endpoint(None, api_key="first\nsecond", timeout_s=5)
    assert "second" not in str(refused.value)


def test_requests_go_through_the_proxy_of_the_environment_but_for_exempt_hosts(monkeypatch):
    """HTTP_PROXY is obeyed, NO_PROXY too."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with LLMServer() as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
        # A proxy is asked for the whole address, and this one answers what it knows the path of.
        assert post(Endpoint("http://nowhere.invalid/v1", api_key="k", timeout_s=5)) == 200
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert post(Endpoint(server.base_url, api_key="k", timeout_s=5)) == 200
        monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
        with pytest.raises(BadInput, match="HTTP_PROXY"):
            post(Endpoint("http://nowhere.invalid/v1", api_key="k", timeout_s=5))


def test_a_redirect_is_not_followed_but_named(tmp_path):
    """It would take the key to a host that the user did not name."""

    async def run():
        async def redirect(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 308 Moved\r\nlocation: https://elsewhere.example/v1\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(redirect, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        items = write_items(tmp_path / "items.jsonl", 1)
        judge = judge_at(f"http://127.0.0.1:{port}/v1", pace=QUICK)
        async with server:
            out = tmp_path / "l.parquet"
            await asyncio.to_thread(label, [items], out=out, judge=judge, cache_dir=None)

    with pytest.raises(ServiceFailure, match="redirects to https://elsewhere"):
        asyncio.run(run())


def test_batches_go_to_the_same_endpoint_with_the_same_credentials():
    """OpenAI's own client is used there, and is told everything."""
    pair = base64.b64encode(b"user:word").decode()
    with LLMServer(Faults(api_key=f"Basic {pair}")) as server:
        address = f"http://user:word@127.0.0.1:{server.port}/v1?api-version=7"
        with Endpoint(address, api_key="k", timeout_s=5).files_client() as client:
            assert client.batches.list(limit=1).data == []


def test_the_first_request_goes_before_anything_heavy_that_it_does_not_need_is_imported(tmp_path):
    """The real command, ended when it is about to send: what it has loaded by then, somebody has waited for."""
    items = write_items(tmp_path / "items.jsonl", 1)
    program = (
        "import os, sys\n"
        "from annotator.judges.endpoint import Endpoint\n"
        "async def post(self, content):\n"
        "    print('LOADED', *sys.modules, flush=True)\n"
        "    os._exit(0)\n"
        "Endpoint.post = post\n"
        "from annotator.cli import main\n"
        f"sys.argv[1:] = ['label', {str(items)!r}, '-o', 'l.parquet', '--kind', 'item', '--judge', 'openai:m',"
        " '--base-url', 'http://127.0.0.1:9/v1']\n"
        "main()"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    loaded = set(done.stdout.rsplit("LOADED", 1)[1].split())
    assert "polars" in loaded
    assert not loaded & {"openai", "instructor", "httpx2", "numpy", "scipy", "sklearn", "pydantic", "tenacity", "rich"}
