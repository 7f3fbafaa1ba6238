"""A server on this machine that speaks as much of the Hugging Face Hub's protocol as a download needs."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by name: their files, a (status, code) that all requests for them are answered with, or the new name
    of one that has moved. `asked` are the requests so far."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes] | tuple[int, str] | str] = {}
        self.asked: list[str] = []
        self.damages = False
        """Whether the weights get another last byte on their way."""
        self.url = ""


@contextmanager
def serve_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            if (content := self.answer()) is not None:
                damages = hub.damages and self.path.endswith(".safetensors")
                self.wfile.write(content[:-1] + b"!" if damages else content)

        def answer(self) -> bytes | None:
            hub.asked.append(f"{self.command} {self.path}")
            if "/resolve/" not in self.path:
                return self.say(404, {})
            owner, name, _, revision, file = self.path.lstrip("/").split("/", 4)
            found = hub.repositories.get(f"{owner}/{name}", (401, "RepoNotFound"))
            if isinstance(found, str):
                return self.say(307, {"Location": self.path.replace(f"{owner}/{name}", found)})
            if isinstance(found, tuple):
                return self.say(found[0], {"X-Error-Code": found[1]})
            if revision not in ("main", "v1", COMMIT):
                return self.say(404, {"X-Error-Code": "RevisionNotFound"})
            if file not in found:
                return self.say(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            content = found[file]
            digest = hashlib.sha256(content).hexdigest() if file.endswith(".safetensors") else "0" * 40
            self.say(200, {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"', "Content-Length": str(len(content))})
            return content

        def say(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": "0"} | headers).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
