"""What a user would write: `peer.py single` first, one message, one transaction, one acknowledgement; `peer.py batch` second, a thousand at
a time, acknowledged after the commit. Both know of no hash, no custody, no dead letter and no duplicate.

    peer.py single|batch NATS_URL DATABASE_URL MESSAGES"""

import asyncio
import json
import sys
from datetime import datetime

import asyncpg
import nats
from nats.js.api import ConsumerConfig

INSERT = """
    insert into audit_events (event_id, actor, action, outcome, details, task_id, timestamp, integrity_hash)
    values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (event_id) do nothing"""
BATCH = 1_000


def row(message):
    event = json.loads(message.data)
    details = event.get("details")
    return (event["event_id"], event["actor"], event["action"], event["outcome"], None if details is None else json.dumps(details),
            event.get("task_id"), datetime.fromisoformat(event["timestamp"].removesuffix("Z")), event["integrity_hash"])


async def single(subscription, database, messages):
    for _ in range(messages):
        [message] = await subscription.fetch(1, timeout=10)
        async with database.transaction():
            await database.execute(INSERT, *row(message))
        await message.ack()


async def batch(subscription, database, messages):
    done = 0
    while done < messages:
        batch = await subscription.fetch(min(BATCH, messages - done), timeout=10)
        async with database.transaction():
            await database.executemany(INSERT, [row(message) for message in batch])
        for message in batch:
            await message.ack()
        done += len(batch)


async def main(way, nats_url, database_url, messages):
    client = await nats.connect(nats_url)
    database = await asyncpg.connect(database_url)
    config = ConsumerConfig(max_ack_pending=10_000)
    subscription = await client.jetstream().pull_subscribe("ledger.>", durable=f"peer-{way}", stream="LEDGER", config=config)
    await {"single": single, "batch": batch}[way](subscription, database, int(messages))
    await client.flush()
    await client.close()


asyncio.run(main(*sys.argv[1:]))
