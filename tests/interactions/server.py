"""A loopback server whose behaviour a test chooses."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise


@dataclass
class Behaviour:
    """What the server has and how it answers."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    validators: bool = True
    cut_after: int | None = None
    """Close the connection after so many bytes of a body, ``cuts`` times."""
    cuts: int = 0
    pause: float = 0.0
    """Seconds between pieces of 64 KiB."""
    status: int | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(behaviour: Behaviour) -> Iterator[Behaviour]:
    """Serve on a free loopback port."""
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = behaviour.files.get(self.path)
            asked = self.headers.get("Range")
            behaviour.asked.append((self.path, asked))
            if content is None or behaviour.status:
                self.send_error(behaviour.status or 404)
                return
            tag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
            start = 0
            if asked and behaviour.ranges and self.headers.get("If-Range", tag) == tag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            if behaviour.validators:
                self.send_header("ETag", tag)
            self.end_headers()
            body = content[start:]
            if behaviour.cuts:
                behaviour.cuts -= 1
                body = body[: behaviour.cut_after]
            edges = [*range(0, len(body), 1 << 16), len(body)]
            for first, last in pairwise(edges):
                try:
                    self.wfile.write(body[first:last])
                except OSError:
                    return
                if behaviour.pause and stop.wait(behaviour.pause):
                    return
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    behaviour.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield behaviour
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
