"""One central loop in threads: a thread for each dialogue in flight, a blocking client, the same tool."""

import json
import queue
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai

sys.path.insert(0, str(Path(__file__).parents[1] / "common"))
import work

threading.stack_size(256 * 1024)


def tools(spec):
    """The processes of the tool, those that are free."""
    free = queue.Queue()
    command = [sys.executable, "-I", "-S", spec.tool]
    for _ in range(spec.tools):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        free.put(subprocess.Popen(command, **pipes))
    return free


def dialogue(spec, client, free, number):
    """One dialogue from its request to its last step."""
    row = spec.rows_[number]
    messages = [
        {"role": "system", "content": spec.system},
        {"role": "user", "content": row["request"]},
    ]
    for _ in range(row["exchanges"]):
        reply = client.chat.completions.create(model=spec.model, messages=messages)
        text = reply.choices[0].message.content
        messages.append({"role": "assistant", "content": text})
        process = free.get()
        process.stdin.write(json.dumps({"dialogue": number, "text": text}).encode() + b"\n")
        process.stdin.flush()
        messages.append({"role": "user", "content": json.loads(process.stdout.readline())["text"]})
        free.put(process)
    return len(messages)


def main(spec):
    limits = openai.DefaultHttpxClient(timeout=3_600)
    client = openai.OpenAI(base_url=spec.url, api_key="none", max_retries=0, http_client=limits)
    free = tools(spec)
    begin = time.time()
    with ThreadPoolExecutor(spec.in_flight) as pool:
        done = list(pool.map(lambda number: dialogue(spec, client, free, number), range(spec.tasks)))
    assert len(done) == spec.tasks
    work.said(begin, len(done))
    while not free.empty():
        process = free.get()
        process.stdin.close()
        process.wait()


main(work.spec())
