"""The server of the page: this machine alone, and only who knows the address.

Everybody on a machine reaches its 127.0.0.1, and so does every page that a browser shows. Therefore

- the address holds a random token, and what does not begin with it is refused;
- the `Host` must be this machine by number or name: another site's name that was made to point here is none;
- nobody is allowed to read across sites, to frame the page, or to have it run anything but its own files;
- answers come from a fixed list of things (`wsiseg.view.content`); no path of a request reaches the disk.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from wsiseg.errors import ConfigError, WsisegError, brief
from wsiseg.version import __version__
from wsiseg.view.content import Answer, Content

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"

IDLE = 60.0
"""Seconds after which a connection that says nothing is closed."""

OPENSEADRAGON_STYLE = "'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
"""The one style that OpenSeadragon writes into the page (no focus ring on touch screens)."""

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' {OPENSEADRAGON_STYLE}; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Tissue is a patient's: nothing of it stays in the browser's cache on disk.
    "Cache-Control": "no-store",
}


class ViewServer(ThreadingHTTPServer):
    """Serves a `Content` on 127.0.0.1 until it is closed, and the content with it.

    Parameters
    ----------
    port
        0 takes a free one.

    Attributes
    ----------
    url : str    what a browser is given; it holds the token

    Raises
    ------
    ConfigError
        If the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, content: Content, port: int = 0) -> None:
        self._ready = False
        self.content = content
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((ADDRESS, port), Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"port {port} cannot be had ({getattr(error, 'strerror', None) or error}); "
                "choose another, or leave out --port for a free one"
            ) from error
        self._ready = True
        self.hosts = {f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")}

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def server_bind(self) -> None:
        """Bind, without asking a name server for this machine's name as `HTTPServer` does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.socket.getsockname()[1]

    def server_close(self) -> None:
        """Stop listening, and let go of the slide."""
        super().server_close()
        # The base class comes here too when there is no port to be had: then the slide is still its owner's.
        if self._ready:
            self.content.close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: ViewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"wsiseg/{__version__}", ""
    timeout = IDLE

    def do_GET(self) -> None:
        """Answer, or refuse."""
        refusal = self.refusal()
        if refusal:
            self.refuse(*refusal)
            return
        path = self.path.removeprefix(f"/{self.server.token}")
        if not path:
            self.respond(
                HTTPStatus.MOVED_PERMANENTLY, Answer(b"", "text/plain"), {"Location": self.server.url}
            )
            return
        try:
            answer = self.server.content.answer(path.removeprefix("/"))
        except WsisegError as error:
            log.warning("%s", error)
            self.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the slide cannot be read there")
        except Exception as error:
            log.warning("%s: %s", path, brief(error))
            self.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "this cannot be read")
        else:
            if answer is None:
                self.refuse(HTTPStatus.NOT_FOUND, "there is no such thing")
            else:
                self.respond(HTTPStatus.OK, answer)

    do_HEAD = do_GET

    def refusal(self) -> tuple[HTTPStatus, str] | None:
        """Why a request is not answered; None where it may be."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].strip().lower() not in self.server.hosts:
            return HTTPStatus.FORBIDDEN, "this is no name of this machine"
        token = self.path.split("/")[1] if self.path.startswith("/") else ""
        if not hmac.compare_digest(token.encode("latin-1", "replace"), self.server.token.encode()):
            return HTTPStatus.FORBIDDEN, "open the whole address that wsiseg view printed"
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # it would be taken for the next request
            return HTTPStatus.BAD_REQUEST, "a request has no body"
        return None

    def refuse_method(self) -> None:
        """Nothing here can be changed."""
        self.close_connection = True  # whatever body was sent is not read
        self.refuse(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD only", {"Allow": "GET, HEAD"})

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = refuse_method

    def refuse(self, status: HTTPStatus, text: str, more: dict[str, str] | None = None) -> None:
        """Say no."""
        self.respond(status, Answer(f"{text}\n".encode(), "text/plain; charset=utf-8"), more)

    def respond(self, status: HTTPStatus, answer: Answer, more: dict[str, str] | None = None) -> None:
        """Send an answer with the headers that all have."""
        self.send_response(status)
        about = {"Content-Type": answer.kind, "Content-Length": str(len(answer.body))}
        for name, value in {**about, **HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class says of requests that are none: in our words, with our headers."""
        self.close_connection = True
        self.refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: object) -> None:  # the base class's name
        """Requests go to the log, without the token that is in them."""
        log.debug(format, *(str(arg).replace(self.server.token, "...") for arg in args))
