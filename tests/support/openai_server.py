"""A small real server that speaks OpenAI's protocol, as a process of its own. What a query says tells it how to behave.

A query like ``!busy 2 why?`` is met with status 429 twice and then answered; the others are in `Handler.behave`.
"""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class OpenAIServer:
    """Where the server listens."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def seen(self) -> list[dict[str, Any]]:
        """The requests since this was last asked: path, headers, body, how many were under way, and when it came."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/seen", timeout=10) as reply:
            found: list[dict[str, Any]] = json.load(reply)
        return found


@contextmanager
def openai_server(*models: str, key: str = "") -> Iterator[OpenAIServer]:
    """A server with these models on a free port. ``key`` is the Authorization header it wants to see, if any."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.openai_server", key, *models], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield OpenAIServer(int(process.stdout.readline()))
        finally:
            process.terminate()


class State:
    """What the server has been told and what it has seen."""

    def __init__(self, key: str, models: list[str]) -> None:
        self.key, self.models = key, models
        self.lock = threading.Lock()
        self.seen: list[dict[str, Any]] = []
        self.tries: Counter[str] = Counter()
        self.under_way = 0
        self.meetings: dict[int, threading.Barrier] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State
    under_way = False

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        with self.state.lock:
            seen, self.state.seen = self.state.seen, []
        self.reply(200, seen)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.state.lock:
            self.under_way = True
            self.state.under_way += 1
            self.state.seen.append(
                {
                    "path": self.path,
                    "headers": headers,
                    "body": body,
                    "under_way": self.state.under_way,
                    "at": time.monotonic(),
                }
            )
        try:
            self.receive(body)
        finally:
            self.leave()

    def leave(self) -> None:
        """No longer under way: said before the reply is sent, since the next request may come as soon as it is read."""
        with self.state.lock:
            self.state.under_way -= self.under_way
            self.under_way = False

    def receive(self, body: dict[str, Any]) -> None:
        if self.state.key and self.headers.get("Authorization") != self.state.key:
            self.fail(401, f"Incorrect API key provided: {self.headers.get('Authorization')}", "invalid_api_key")
        elif self.path != "/v1/chat/completions" or body["model"] not in self.state.models:
            self.fail(404, f"The model `{body['model']}` does not exist.", "model_not_found")
        else:
            self.behave(body, body["messages"][-1]["content"])

    def behave(self, body: dict[str, Any], text: str) -> None:
        """As the last line of the query says."""
        words = text.splitlines()[-1].split() if text.strip() else []
        command, number = (words[0], words[1] if len(words) > 1 else "") if words and words[0][0] == "!" else ("", "")
        match command:
            case "!busy" | "!broken" | "!hangup" if self.first(text, int(number)):
                if command == "!hangup":
                    self.close_connection = True
                else:
                    status = 429 if command == "!busy" else 500
                    self.fail(status, "Come again.", headers={"Retry-After": "0.01"})
            case "!later" if self.first(text, 1):
                self.fail(429, "Come again later.", headers={"Retry-After": number})
            case "!status":
                self.fail(int(number), f"Not {text!r}, said {self.headers.get('Authorization')}.", "odd")
            case "!page":
                self.send(int(number), b"<html>A gateway.</html>", "text/html")
            case "!send":
                self.send(200, text.split(maxsplit=1)[1].encode())
            case "!short" if "Passages:" in text:
                self.fail(400, "This model's maximum context length is 10 tokens.")
            case "!long":
                self.fail(400, "Too many.", "context_length_exceeded")
            case "!filtered":
                self.complete(body, "", finish_reason="content_filter")
            case "!decline":
                self.complete(body, None, refusal="I would rather not.")
            case "!silent":
                self.complete(body, None)
            case "!cut":
                self.complete(body, "and so", finish_reason="length")
            case "!delay":
                time.sleep(float(number))
                self.complete(body, f"{body['model']}: {text}")
            case "!trickle":
                self.trickle()
            case "!meet":
                self.meeting(int(number)).wait(10)
                self.complete(body, f"{body['model']}: {text}")
            case _:
                self.complete(body, f"{body['model']}: {text}")

    def first(self, text: str, times: int) -> bool:
        """Whether the text has come at most so many times."""
        with self.state.lock:
            self.state.tries[text] += 1
            return self.state.tries[text] <= times

    def meeting(self, parties: int) -> threading.Barrier:
        with self.state.lock:
            return self.state.meetings.setdefault(parties, threading.Barrier(parties))

    def trickle(self) -> None:
        """A body of three seconds, a byte at a time."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "150")
        self.end_headers()
        try:
            for _ in range(150):
                self.wfile.write(b" ")
                time.sleep(0.02)
        except OSError:
            self.close_connection = True

    def complete(self, body: dict[str, Any], content: str | None, *, finish_reason: str = "stop", **said: str) -> None:
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": content, **said},
            "finish_reason": finish_reason,
        }
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": "a", "logprob": 0.0}, {"token": "b", "logprob": -1.0}]}
        words = sum(len(message["content"].split()) for message in body["messages"])
        usage = {"prompt_tokens": words, "completion_tokens": len((content or "").split()), "total_tokens": 0}
        self.reply(200, {"object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage})

    def fail(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None) -> None:
        self.reply(status, {"error": {"message": message, "type": "error", "code": code}}, headers)

    def reply(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(content).encode(), headers=headers)

    def send(
        self, status: int, data: bytes, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        self.leave()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main() -> None:
    """Serve until killed; the port is the first line of standard output."""
    key, *models = sys.argv[1:]
    Handler.state = State(key, models)
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
