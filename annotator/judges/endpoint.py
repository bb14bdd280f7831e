"""A chat endpoint: its address, its credentials, and a POST, by aiohttp with nothing in between.

CPU a request, measured on one machine: `AsyncOpenAI...create` 2.8 ms, the HTTP client of an `AsyncOpenAI` 0.25 ms, bare
aiohttp 0.16 ms. And `import openai` takes 1.5 s of CPU, for which the first request of a run would have to wait.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import aiohttp
from yarl import URL

from annotator.errors import BadInput
from annotator.judges.faults import Fault, redact

OPENAI_URL = "https://api.openai.com/v1"
_CONNECT_S = 10.0


class Endpoint:
    """Where chat completions are asked for. Connections are opened on first use, in the event loop that then runs.

    Args:
        base_url: of any OpenAI-compatible server, None = OpenAI itself; a query (`?api-version=...`) is kept for each
            request. With `user:password@` in it these are sent, by basic authentication, instead of the key.
        headers: sent with each request besides our own.
        timeout_s: of one request, from connecting to the last byte of the answer.

    Attributes:
        base_url: without user and password, as messages may show it.

    Raises:
        BadInput: no address of an HTTP server, or a key that no header can carry; neither is quoted.
    """

    def __init__(
        self, base_url: str | None, *, api_key: str | None, headers: Mapping[str, str] | None = None, timeout_s: float
    ) -> None:
        parts = split_address(base_url or OPENAI_URL)
        host = parts.netloc.rpartition("@")[2]
        path = parts.path.rstrip("/")
        self.base_url = urlunsplit((parts.scheme, host, path, "", ""))
        self.host = (parts.hostname or "").lower()
        # Encoded here, once: aiohttp would parse a text anew for each request.
        self._url = URL(urlunsplit((parts.scheme, host, f"{path}/chat/completions", parts.query, "")))
        self._query = dict(pair.split("=", 1) for pair in parts.query.split("&") if "=" in pair)
        self._timeout_s, self._connect_s = timeout_s, min(_CONNECT_S, timeout_s)
        self.api_key = (api_key or "").strip()
        self._secrets = [self.api_key]
        self._headers = {"Content-Type": "application/json", **(headers or {}), **self._credentials(parts)}
        if not all(value.isascii() and value.isprintable() for value in self._headers.values()):
            remedy = "Check OPENAI_API_KEY, OPENAI_ORG_ID and OPENAI_PROJECT_ID for stray characters."
            raise BadInput("the key or the account holds characters that no header can carry", remedy=remedy)
        self._session: aiohttp.ClientSession | None = None

    def _credentials(self, parts: SplitResult) -> dict[str, str]:
        if parts.username is not None:
            password = unquote(parts.password or "")
            pair = base64.b64encode(f"{unquote(parts.username)}:{password}".encode()).decode()
            self._secrets += [password, pair, parts.password or ""]
            return {"Authorization": f"Basic {pair}"}
        key = self.api_key or "none"  # servers without authentication ignore it, and some want one
        azure = self.host.endswith(".azure.com") or "/openai/deployments/" in f"{parts.path}/"
        # On Azure a bearer token is one of Entra's, which begins like every JWT; a resource's key has its own header.
        return {"api-key": key} if azure and not key.startswith("eyJ") else {"Authorization": f"Bearer {key}"}

    def redact(self, text: str) -> str:
        """The text without any of our credentials, and without anything else that has the shape of a key."""
        for secret in self._secrets:
            text = redact(text, secret)
        return text

    async def post(self, content: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """(status, headers, body) of the answer to one chat request.

        Redirects are not followed: they would take the key to a host that the user did not name.

        Raises:
            aiohttp.ClientError, OSError, TimeoutError: there is no whole answer; `fault_of` says what they mean.
        """
        session = self._session or self._open()
        # One limit over all of it: with one for each read, a server that drips a byte a second would never meet it.
        async with (
            asyncio.timeout(self._timeout_s),
            session.post(self._url, data=content, allow_redirects=False, proxy=self._proxy) as response,
        ):
            return response.status, response.headers, await response.read()

    def _open(self) -> aiohttp.ClientSession:
        self._proxy = _proxy_of(self._url.scheme, self._url.raw_authority)
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=0, ssl=_certificates()),  # the gate bounds what is in flight
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self._session

    def fault_of(self, error: BaseException) -> Fault:
        """What it means that `post` raised: a time-out, or a connection that failed or broke."""
        if isinstance(error, aiohttp.ServerTimeoutError):
            return Fault("retry", "timeout", f"no connection within {self._connect_s:g} s")
        if isinstance(error, TimeoutError):
            return Fault("retry", "timeout", f"no answer within {self._timeout_s:g} s")
        if isinstance(error, aiohttp.ClientConnectorError):
            why = error.os_error.strerror or type(error.os_error).__name__
            return Fault("retry", "connection", self.redact(f"no server answers at {self._url.origin()} ({why})"))
        return Fault("retry", "connection", self.redact(f"{type(error).__name__}: {error}"))

    async def close(self) -> None:
        """Close all connections; the next `post` opens others."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def files_client(self) -> Any:
        """OpenAI's own synchronous client of the same endpoint, for its files and batches."""
        import openai

        return openai.OpenAI(
            api_key=self.api_key or "none",
            base_url=self.base_url,
            timeout=self._timeout_s,
            default_headers={name: value for name, value in self._headers.items() if name != "Content-Type"},
            default_query=self._query,
        )


def split_address(base_url: str) -> SplitResult:
    """The parts of a server's address.

    Raises:
        BadInput: it is none; it is not quoted, since there may be a password in it.
    """
    try:
        parts = urlsplit(base_url.strip())
        host = (parts.hostname or "").encode("idna")
        usable = parts.scheme in ("http", "https") and host and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, or a name that no name server could be asked for
        usable = False
    if not usable:
        raise BadInput("this is no address of a server", where="--base-url", remedy="Write http://host:port/v1, say.")
    return parts


def _certificates() -> ssl.SSLContext | bool:
    """As OpenAI's client has it: SSL_CERT_FILE or SSL_CERT_DIR, else the certificates of the operating system.

    OpenSSL finds both by itself where the system keeps them in files; True stands for its defaults.
    """
    if sys.platform not in ("darwin", "win32") or {"SSL_CERT_FILE", "SSL_CERT_DIR"} & os.environ.keys():
        return True
    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _proxy_of(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for an address.

    Looked up once: aiohttp's own `trust_env` reads the environment and .netrc anew for each request, in a thread.
    """
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return None
    if not proxy.startswith(("http://", "https://")):
        remedy = "Only http:// and https:// proxies can be used."
        raise BadInput("this proxy cannot be used", where=f"{scheme.upper()}_PROXY", remedy=remedy)
    return proxy
