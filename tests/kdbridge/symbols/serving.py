"""A symbol server on this machine's loopback, which writes down what it was asked."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answering:
    """Requests so far, and what is answered: `answer` gives a status, headers and a body for each path."""

    def __init__(self, answer: Callable[[str], tuple[int, dict[str, str], bytes]]) -> None:
        self.asked: list[str] = []
        self.answer = answer
        self.url = ""


@contextlib.contextmanager
def server(answer: Callable[[str], tuple[int, dict[str, str], bytes]]) -> Iterator[Answering]:
    answering = Answering(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answering.asked.append(self.path)
            status, headers, body = answering.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        answering.url = f"http://127.0.0.1:{served.server_port}/symbols"
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield answering
        finally:
            served.shutdown()
            thread.join()


def files(by_path: dict[str, bytes]) -> Callable[[str], tuple[int, dict[str, str], bytes]]:
    """Answers from a table; 404 for everything else."""
    return lambda path: (200, {}, by_path[path]) if path in by_path else (404, {}, b"not here")
