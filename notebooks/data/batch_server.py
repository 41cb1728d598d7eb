"""
A small stand-in for a service with OpenAI's batch API, for the notebook about batch jobs.

    python batch_server.py [ROWS_PER_SECOND]

It prints its address. It answers the question of the notebook with a list of words, not with a
model, and counts what it bills. Its batches are in memory, and go on when a notebook ends.
"""

from __future__ import annotations

import json
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

ROWS_PER_S = float(sys.argv[1]) if len(sys.argv) > 1 else 400.0
BAD = re.compile(r"\b(not|n't|never|no|bad|poor|broke\w*|die[ds]?|fail\w*|worse|worst|return\w*|disappoint\w*|useless|problem\w*|terrible|waste|unfortunately|only)\b|n't")  # fmt: skip

files: dict[str, bytes] = {}
batches: dict[str, dict[str, Any]] = {}
billed = {"live": 0, "batch": 0}


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to one request, as the chat API does."""
    prompt = body["messages"][-1]["content"]
    label = "negative" if BAD.search(prompt.lower()) else "positive"
    text = json.dumps({"label": label})
    message = {"role": "assistant", "content": text}
    used = {"prompt_tokens": len(prompt) // 4 + 60, "completion_tokens": 6}
    return {
        "id": f"chatcmpl-{uuid4().hex[:12]}",
        "object": "chat.completion",
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {**used, "total_tokens": sum(used.values())},
    }


def refresh(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the current state of the batch; its results are written when it has ended."""
    lines = batch["_lines"]
    done = min(len(lines), int((time.time() - batch["created_at"]) * ROWS_PER_S))
    batch["request_counts"] = {"total": len(lines), "completed": done, "failed": 0}
    if done < len(lines):
        batch["status"] = "in_progress"
    elif batch["status"] != "completed":
        results = [
            {
                "id": f"batch_req_{number}",
                "custom_id": line["custom_id"],
                "response": {"status_code": 200, "request_id": "", "body": answer(line["body"])},
                "error": None,
            }
            for number, line in enumerate(lines)
        ]
        billed["batch"] += len(results)
        batch["output_file_id"] = f"file-{uuid4().hex[:12]}"
        files[batch["output_file_id"]] = "\n".join(map(json.dumps, results)).encode()
        batch |= {"status": "completed", "completed_at": int(time.time())}
    return {name: value for name, value in batch.items() if not name.startswith("_")}


class Handler(BaseHTTPRequestHandler):
    """Answers the requests that batch jobs and single prompts need."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """List or show batches, or send a file."""
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if path == "/v1/batches":
            listed = [refresh(each) for each in reversed(batches.values())]
            self.say({"object": "list", "data": listed, "has_more": False})
        elif path.startswith("/v1/batches/") and name in batches:
            self.say(refresh(batches[name]))
        elif path.endswith("/content") and path.split("/")[3] in files:
            self.say(files[path.split("/")[3]])
        elif path == "/billed":
            self.say(billed)
        else:
            self.say({"error": {"message": f"nothing at {path}"}}, 404)

    def do_DELETE(self) -> None:
        """Delete a file."""
        name = self.path.rpartition("/")[2]
        files.pop(name, None)
        self.say({"id": name, "object": "file", "deleted": True})

    def do_POST(self) -> None:
        """Receive a file, a batch or a prompt."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/files":
            lines = re.findall(rb'^\{"custom_id".*\}$', content, re.MULTILINE)
            name = f"file-{uuid4().hex[:12]}"
            files[name] = b"\n".join(lines)
            self.say({"id": name, "object": "file", "purpose": "batch", "bytes": len(content)})
        elif self.path == "/v1/batches":
            asked = json.loads(content)
            batch = {
                "id": f"batch_{uuid4().hex[:12]}",
                "object": "batch",
                "status": "in_progress",
                "created_at": time.time(),
                "expires_at": int(time.time()) + 86_400,
                "output_file_id": None,
                "error_file_id": None,
                **asked,
                "_lines": [
                    json.loads(line) for line in files[asked["input_file_id"]].splitlines()
                ],
            }
            batches[batch["id"]] = batch
            self.say(refresh(batch))
        else:
            billed["live"] += 1
            self.say(answer(json.loads(content)))

    def say(self, body: Any, status: int = 200) -> None:
        """Send a response."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()
