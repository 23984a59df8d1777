"""Just enough of a NATS client to publish, to be told by JetStream what became of it, and to hear what others publish."""

import json
import os
import socket
from urllib.parse import unquote, urlsplit

ANSWER_SECONDS_MAX = 10


class Refused(Exception):
    """What the server answered instead of a receipt."""


class Connection:
    def __init__(self, url):
        address = urlsplit(url if "://" in url else f"nats://{url}")
        if address.scheme != "nats":
            raise Refused(f"{address.scheme}:// is more than this small client speaks: the address must begin with nats://")
        self.socket = socket.create_connection((address.hostname, address.port or 4222), timeout=ANSWER_SECONDS_MAX)
        self.lines = self.socket.makefile("rb")
        self.inbox = f"_INBOX.{os.urandom(8).hex()}"
        self.requests = 0
        # Messages that have come and that nobody has asked for yet: subject, headers, body.
        self.messages = []
        self.read_line()
        options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "lang": "python", "version": "0"}
        if address.username:
            options.update(user=unquote(address.username), **{"pass": unquote(address.password or "")})
        self.send(f"CONNECT {json.dumps(options)}\r\nSUB {self.inbox}.* 1\r\n".encode())
        # An answer to PING means that the server took the credentials.
        self.round_trip()

    def send(self, data):
        self.socket.sendall(data)

    def read_line(self):
        line = self.lines.readline().rstrip(b"\r\n")
        if not line:
            raise Refused("the NATS server closed the connection")
        if line.startswith(b"-ERR"):
            raise Refused(line.decode())
        if line == b"PING":
            self.send(b"PONG\r\n")
        words = line.split(b" ")
        if words[0] in (b"MSG", b"HMSG"):
            data = self.lines.read(int(words[-1]) + 2)[:-2]
            head = int(words[-2]) if words[0] == b"HMSG" else 0
            self.messages.append((words[1].decode(), data[:head], data[head:]))
        return line

    def round_trip(self):
        """Afterwards, all that the server has sent until now is here."""
        self.send(b"PING\r\n")
        while self.read_line() != b"PONG":
            pass

    def subscribe(self, subject):
        self.send(f"SUB {subject} 2\r\n".encode())
        self.round_trip()

    def heard(self):
        """The JSON messages that have come on what was subscribed to, with their subjects."""
        self.round_trip()
        return [(subject, json.loads(body)) for subject, _, body in self.messages if not subject.startswith(self.inbox)]

    def request(self, subject, payload=b""):
        """Sends one message and returns the JSON that comes back."""
        self.requests += 1
        reply = f"{self.inbox}.{self.requests}"
        self.send(f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n")
        while True:
            self.read_line()
            if not self.messages or self.messages[-1][0] != reply:
                continue
            _, head, body = self.messages.pop()
            if head and not body:
                raise Refused(f"nothing listens on {subject}: {head.splitlines()[0].decode()}")
            return json.loads(body)

    def publish(self, subject, payload):
        """Publishes one message to a stream; returns the stream's name and the message's sequence in it."""
        receipt = self.request(subject, payload)
        if "error" in receipt:
            raise Refused(f"{subject}: {receipt['error'].get('description', receipt['error'])}")
        return receipt["stream"], receipt["seq"]

    def close(self):
        self.socket.close()
