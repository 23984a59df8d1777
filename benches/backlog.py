"""A backlog of mixed audit events: made once, published once, drained by each contender in its turn."""

import hashlib
import json
import multiprocessing
import random
import re
from datetime import datetime, timezone

from nats_publish import Connection
from sample_events import GOOD
from servers import CHECKOUT, Trouble

IN_FLIGHT_MAX = 2_000
FIRST_MS = 1_767_225_600_000
# Any registered agent may report a scan or ask for a tool.
ACTORS = re.findall(r"sim_id: ([A-Z]{3}-[A-Z0-9-]+)", (CHECKOUT / "registry" / "agent_schema.yaml").read_text())
EVERYBODYS = ("SEC", "TOOL")


def event(number, chance):
    """One of LDG-002's own kinds, with an id of its own. About 400 bytes, as agents send them."""
    lane, actor, action, outcome, others = GOOD[number % len(GOOD)]
    if lane in EVERYBODYS:
        actor = ACTORS[number // len(GOOD) % len(ACTORS)]
    milliseconds = FIRST_MS + number
    moment = datetime.fromtimestamp(milliseconds // 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    made = {"event_id": f"{lane}-{actor}-{milliseconds}", "actor": actor, "action": action, "outcome": outcome,
            "timestamp": f"{moment}.{milliseconds % 1000:03}Z"}
    made["integrity_hash"] = hashlib.sha256("".join(made.values()).encode()).hexdigest()
    if "details" not in others:
        made["details"] = {"note": f"{chance.getrandbits(400):0100x}", "attempt": number % 5}
    made["task_id"] = f"TASK-{number // 7}"
    made.update(others)
    return f"ledger.{lane}.{actor}", json.dumps(made, ensure_ascii=False, separators=(",", ":"))


def events(count, first=0):
    chance = random.Random(first)
    return (event(number, chance) for number in range(first, first + count))


def write(path, count):
    """The payloads alone, one per line; returns their mean size in bytes."""
    size = 0
    with open(path, "w", encoding="utf-8") as file:
        for _, payload in events(count):
            size += len(payload.encode())
            file.write(payload + "\n")
    return size / count


def write_with_subjects(path, count):
    """Subject and payload, one event per line."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{subject} {payload}\n" for subject, payload in events(count))


def publish_by_two(url, count, first):
    """The same by two processes: one alone takes longer to write the events than the server to store them."""
    half = count // 2
    other = multiprocessing.Process(target=publish, args=(url, half, first))
    other.start()
    publish(url, count - half, first + half)
    other.join()
    if other.exitcode != 0:
        raise Trouble("a publisher failed")


def publish(url, count, first=0):
    """Publishes the backlog, and waits for the stream's answer to each message."""
    connection = Connection(url)
    reply = f"{connection.inbox}.0"
    buffer, waiting = [], 0
    for number, (subject, payload) in enumerate(events(count, first), start=1):
        data = payload.encode()
        buffer.append(f"PUB {subject} {reply} {len(data)}\r\n".encode() + data + b"\r\n")
        if len(buffer) == 500 or number == count:
            connection.send(b"".join(buffer))
            waiting += len(buffer)
            buffer.clear()
        while waiting > (0 if number == count else IN_FLIGHT_MAX):
            connection.read_line()
            while connection.messages:
                _, _, answer = connection.messages.pop()
                waiting -= 1
                if b'"seq":' not in answer:
                    raise Trouble(f"the stream does not take the backlog: {answer.decode()}")
