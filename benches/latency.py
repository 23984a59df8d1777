"""At a steady 500 events in a second: how long from an event's publication to its acknowledgement, which follows its commit? Beside it, how
long one row and its commit take over one connection."""

import statistics
import threading
import time

import backlog
import drains
from bench_servers import SPEC_TABLE
from nats_publish import Connection, Refused
from processes import Watched

PER_SECOND = 500
EVENTS = 10_000
# Until the daemon is ready, and so that no start is measured.
WARM_EVENTS = 1_000


def p99(values):
    return statistics.quantiles(values, n=100)[98]


class Ear:
    """When each message of a subject was heard, by what `key` makes of its subject and body."""

    def __init__(self, url, subject, key):
        self.connection = Connection(url)
        self.connection.subscribe(subject)
        self.key = key
        self.heard = {}
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            try:
                self.connection.read_line()
            except OSError:
                continue
            except Refused:
                # The server was stopped: all was heard.
                return
            now = time.monotonic()
            while self.connection.messages:
                subject, _, body = self.connection.messages.pop()
                for key, value in self.key(subject.split("."), body):
                    self.heard.setdefault(key, value or now)


def acknowledged_sequence(words, body):
    """`$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.…`; newer servers put a domain and an account before the stream."""
    if body.startswith(b"+ACK"):
        yield int(words[5] if len(words) < 11 else words[7]), None


def published_sequence(words, body):
    """The stream's answer says which sequence a publication has got."""
    if b'"seq":' in body:
        yield int(words[-1]), int(body.split(b'"seq":')[1].split(b",")[0].split(b"}")[0])


def steady(servers, programs):
    url, _ = servers.new_database(SPEC_TABLE)
    committed, _ = drains.plain(servers, programs, "commit", url, str(EVENTS))
    with servers.nats_of_its_own("steady"):
        return measure(servers, programs, committed["milliseconds"])


def measure(servers, programs, commits_ms):
    url, _ = servers.new_database()
    environment = drains.prepare(servers, programs, url)
    watched = Watched([programs.ledgerd, "run"], servers.folder / "ledgerd.log", environment)
    acknowledged = Ear(servers.nats.url(), "$JS.ACK.>", acknowledged_sequence)
    answers = Ear(servers.nats.url(), "bench.answer.*", published_sequence)
    published_at = publish_steadily(servers.nats.url())
    drains.wait(watched, lambda: len(answers.heard) == len(published_at) and len(acknowledged.heard) >= len(published_at))
    watched.stop()
    taken = [(acknowledged.heard[answers.heard[number]] - at) * 1_000 for number, at in published_at.items() if number >= WARM_EVENTS]
    return {"events": len(taken), "p50_ms": round(statistics.median(taken), 2), "p99_ms": round(p99(taken), 2),
            "commit_p50_ms": round(statistics.median(commits_ms), 2), "commit_p99_ms": round(p99(commits_ms), 2)}


def publish_steadily(url):
    connection = Connection(url)
    published_at, begun = {}, time.monotonic()
    for number, (subject, payload) in enumerate(backlog.events(WARM_EVENTS + EVENTS)):
        time.sleep(max(0, begun + number / PER_SECOND - time.monotonic()))
        data = payload.encode()
        published_at[number] = time.monotonic()
        connection.send(f"PUB {subject} bench.answer.{number} {len(data)}\r\n".encode() + data + b"\r\n")
    return published_at
