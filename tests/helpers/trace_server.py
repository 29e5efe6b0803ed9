"""A real HTTP server whose behaviour a test chooses, and catalog entries for what it serves."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from traces.catalog import Entry


@dataclass
class Served:
    """What one path of the server does. Tests change it between requests."""

    body: bytes
    ranges: bool = True
    cut_after: int | None = None  # close the connection after that many bytes
    status: int | None = None  # answer with that status and no body
    seen_ranges: list[str | None] = field(default_factory=list)


class Server:
    """A threaded HTTP server on a free local port."""

    def __init__(self) -> None:
        self.paths: dict[str, Served] = {}
        paths = self.paths

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _answer(self, paths.get(self.path))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def serve(self, path: str, body: bytes, **behaviour: object) -> str:
        """Serve `body` at `path` and return its address."""
        self.paths[path] = Served(body, **behaviour)
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _answer(handler: BaseHTTPRequestHandler, served: Served | None) -> None:
    wanted = handler.headers.get("Range")
    if served is None or served.status is not None:
        handler.send_error(404 if served is None else served.status)
        return
    served.seen_ranges.append(wanted)
    body, start = served.body, 0
    if wanted and served.ranges:
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            handler.send_error(416)
            return
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    else:
        handler.send_response(200)
    handler.send_header("Content-Length", str(len(body) - start))
    handler.end_headers()
    handler.wfile.write(body[start : served.cut_after])


AZURE_BODY = (
    b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    b"2023-11-16 18:17:03.9799600,4808,10\r\n"
    b"2023-11-16 18:17:04.0319600,3180,8\r\n"
    b"2023-11-16 18:17:04,110,27"
)


def make_entry(body: bytes = AZURE_BODY, **changes: object) -> Entry:
    """A catalog entry for a file with these bytes."""
    fields = {
        "name": "tiny",
        "url": "http://127.0.0.1:9/tiny.csv",
        "mirrors": (),
        "local": "tiny/tiny.csv",
        "sha256": hashlib.sha256(body).hexdigest(),
        "bytes": len(body),
        "rows": 3,
        "prompt_p50": None,
        "output_p50": None,
        "licence": "CC-BY-4.0",
        "citation": "nobody",
        "reader": "azure-csv",
        "sketch": None,
        "embedded": None,
        "note": "made by a test",
    }
    return Entry.model_validate(fields | changes)
