"""A user's program on aiokafka. What it has to do stands in the README one folder up."""

import argparse
import asyncio
import itertools
import json
import logging
import signal
import sys

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

PATIENCE = 60  # seconds
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
ASSIGNORS = {a.name: a for a in (RangePartitionAssignor, RoundRobinPartitionAssignor, StickyPartitionAssignor)}
# Where the library's name of a code is not that of Apache Kafka's table.
NAMES = {10: "MESSAGE_TOO_LARGE", 17: "INVALID_TOPIC_EXCEPTION"}


def tell(**line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def about(flags):
    tell(client="aiokafka", version=aiokafka.__version__, language="Python", codecs=CODECS, acks=["0", "1", "all"],
         idempotent=True, static=True, commits=True, listener=True, assignors=sorted(ASSIGNORS),
         notes=["no cooperative rebalancing", "no call that deletes a group"])


# ---- produce

async def produce(flags):
    next_number = flags.start
    for codec, acks in itertools.product(flags.codec.split(","), flags.acks.split(",")):
        await send(flags, codec, acks, range(next_number, next_number + flags.count))
        next_number += flags.count
    tell(done=next_number - flags.start)


async def send(flags, codec, acks, numbers):
    # Without idempotence too the library has one request per partition in flight, so nothing is overtaken.
    producer = AIOKafkaProducer(
        bootstrap_servers=flags.brokers,
        acks=acks if acks == "all" else int(acks),
        compression_type=None if codec == "none" else codec,
        enable_idempotence=flags.idempotent == "true",
        request_timeout_ms=PATIENCE * 1000,  # also how long a batch is sent again
    )
    await producer.start()
    acknowledgements = []
    try:
        for i in numbers:
            text = str(i).encode()
            sent = await producer.send(flags.topic, key=b"k%d" % (i % 100), value=text.ljust(flags.size), headers=[("n", text)])
            acknowledgements.append(asyncio.create_task(acknowledged(i, sent)))
            if flags.pace_ms:
                await asyncio.sleep(flags.pace_ms / 1000)
        await asyncio.gather(*acknowledgements)
    finally:
        await producer.stop()


async def acknowledged(number, sent):
    metadata = await sent
    if metadata is None:  # acks 0: sent, and nobody says where it lies
        tell(acked=number, partition=-1, offset=-1)
    else:
        tell(acked=number, partition=metadata.partition, offset=metadata.offset)


# ---- consume

async def consume(flags):
    consumer = AIOKafkaConsumer(flags.topic, bootstrap_servers=flags.brokers, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        seen = 0
        async with asyncio.timeout(PATIENCE):
            while seen < flags.count:
                for r in itertools.chain.from_iterable((await consumer.getmany(timeout_ms=500)).values()):
                    if seen < flags.count:
                        tell(partition=r.partition, offset=r.offset, key=(r.key or b"").decode(), value=unpadded(r.value),
                             header=dict(r.headers).get("n", b"").decode())
                    seen += 1
        tell(done=flags.count)
    finally:
        await consumer.stop()


def unpadded(value):
    return (value or b"").decode().rstrip(" ")


# ---- group

class Member(ConsumerRebalanceListener):
    """A member of a group that says what it is given, reads and commits."""

    def __init__(self, consumer, commit_every):
        self.consumer, self.commit_every = consumer, commit_every
        self.uncommitted, self.since_commit = {}, 0
        self.owned, self.assignments = set(), 0

    async def read(self, records):
        """Prints records. Where partitions are taken away meanwhile, the rest belongs to their next owner."""
        assignment = self.assignments
        for r in records:
            if self.assignments != assignment or r.partition not in self.owned:
                return
            tell(record={"partition": r.partition, "offset": r.offset, "value": unpadded(r.value)})
            self.uncommitted[TopicPartition(r.topic, r.partition)] = r.offset + 1
            self.since_commit += 1
            if self.since_commit >= self.commit_every:
                await self.commit()

    async def commit(self):
        """Commits what has been printed. What is refused stays, and goes with the next commit."""
        self.since_commit = 0
        offsets = dict(self.uncommitted)
        if not offsets:
            return
        try:
            await self.consumer.commit(offsets)
        except errors.KafkaError as e:
            print(f"commit {offsets}: {e!r}", file=sys.stderr)
            return
        for p, o in offsets.items():
            if self.uncommitted.get(p) == o:
                del self.uncommitted[p]
        tell(committed={str(p.partition): o for p, o in offsets.items()})

    async def on_partitions_revoked(self, revoked):
        self.owned.clear()  # eager: all of them go
        if revoked:
            await self.commit()
            self.uncommitted.clear()
            tell(revoked=sorted(p.partition for p in revoked))

    async def on_partitions_assigned(self, assigned):
        self.assignments += 1
        self.owned = {p.partition for p in assigned}
        tell(assigned=sorted(self.owned))


async def group(flags):
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    options = {}
    if flags.instance:
        options["group_instance_id"] = flags.instance
    if flags.assignor:
        options["partition_assignment_strategy"] = [ASSIGNORS[flags.assignor]]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=flags.brokers, group_id=flags.group, auto_offset_reset="earliest", enable_auto_commit=False,
        session_timeout_ms=30_000 if flags.instance else 6_000, heartbeat_interval_ms=1_000, **options)
    member = Member(consumer, flags.commit_every)
    consumer.subscribe([flags.topic], listener=member)
    await consumer.start()
    while not stopping.is_set():
        for records in (await consumer.getmany(timeout_ms=200)).values():
            await member.read(records)
    await member.commit()
    await consumer.stop()
    tell(left=True)


# ---- admin

class Unsupported(Exception):
    """The library does not offer it."""


async def unsupported():
    raise Unsupported


async def admin(flags):
    client = AIOKafkaAdminClient(bootstrap_servers=flags.brokers)
    await client.start()
    topic, data = flags.topic, [TopicPartition(flags.data, p) for p in range(3)]
    consumer = AIOKafkaConsumer(bootstrap_servers=flags.brokers)
    await consumer.start()

    async def eventually(holds, attempt):
        async with asyncio.timeout(PATIENCE):
            while not holds(found := await attempt()):
                await asyncio.sleep(0.05)
            return found

    async def partitions():
        found = await client.describe_topics([topic])
        return len(found[0]["partitions"])

    async def retention():
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": ""})
        answer, = await client.describe_configs([resource])
        code, _, _, _, entries = answer.resources[0]
        check(code)
        return next(value for name, value, *_ in entries if name == "retention.ms")

    async def alter_config():
        answers = await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "7200000"})])
        for answer in answers:
            for code, *_ in answer.resources:
                check(code)
        return await eventually(lambda value: value == "7200000", retention)

    async def create_partitions():
        await client.create_partitions({topic: NewPartitions(5)})
        return await eventually(lambda n: n == 5, partitions)

    async def list_offsets():
        earliest, latest = await consumer.beginning_offsets(data), await consumer.end_offsets(data)
        return {str(p.partition): [earliest[p], latest[p]] for p in data}

    async def describe_cluster():
        found = await client.describe_cluster()
        return {"brokers": sorted(b["node_id"] for b in found["brokers"]), "controller": found["controller_id"]}

    async def list_groups():
        return sorted(name for name, *_ in await client.list_consumer_groups())

    async def describe_group():
        answer, = await client.describe_consumer_groups([flags.group])
        code, _, state, *_ = answer.groups[0]
        check(code)
        return state

    async def fetch_offsets():
        found = await client.list_consumer_group_offsets(flags.group)
        return {str(p.partition): o.offset for p, o in sorted(found.items()) if p.topic == flags.data}

    async def delete_records():
        await client.delete_records({data[0]: RecordsToDelete(10)})
        return (await consumer.beginning_offsets(data[:1]))[data[0]]

    async def describe_topic():
        return await eventually(lambda n: n > 0, partitions)  # a broker's metadata may be a moment behind

    await step("create-topic", lambda: create(client, NewTopic(topic, 3, 1, topic_configs={"retention.ms": "3600000"})))
    await step("describe-topic", describe_topic)
    await step("describe-config", retention)
    await step("alter-config", alter_config)
    await step("create-partitions", create_partitions)
    await step("list-offsets", list_offsets)
    await step("describe-cluster", describe_cluster)
    await step("list-groups", list_groups)
    await step("describe-group", describe_group)
    await step("fetch-offsets", fetch_offsets)
    await step("delete-records", delete_records)
    await step("delete-group", unsupported)
    await step("delete-topic", lambda: delete(client, topic))
    await consumer.stop()
    await client.close()


async def step(name, action):
    try:
        detail = await action()
    except Unsupported:
        tell(step=name, unsupported="by this client")
    except Exception as e:  # the next step follows
        tell(step=name, ok=False, detail=repr(e))
    else:
        tell(step=name, ok=True, detail=detail)


def check(code, message=""):
    if code:
        raise errors.for_code(code)(message)


async def create(client, topic):
    for _, code, message in (await client.create_topics([topic])).topic_errors:
        check(code, message)


async def delete(client, topic):
    for _, code in (await client.delete_topics([topic])).topic_error_codes:
        check(code)


# ---- errors

async def refusals(flags):
    client = AIOKafkaAdminClient(bootstrap_servers=flags.brokers)
    await client.start()

    async def too_large():
        async with AIOKafkaProducer(bootstrap_servers=flags.brokers, max_request_size=10_000_000) as producer:
            await producer.send_and_wait(flags.topic, bytes(5_000))

    async def out_of_range():
        first = TopicPartition(flags.topic, 0)
        consumer = AIOKafkaConsumer(bootstrap_servers=flags.brokers, auto_offset_reset="none", enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign([first])
            consumer.seek(first, 1_000_000)
            async with asyncio.timeout(PATIENCE):
                await consumer.getone()
        finally:
            await consumer.stop()

    await refused("create-existing", lambda: create(client, NewTopic(flags.topic, 1, 1)))
    await refused("bad-name", lambda: create(client, NewTopic("not a name", 1, 1)))
    await refused("bad-partitions", lambda: client.create_partitions({flags.topic: NewPartitions(1)}))
    await refused("bad-config", lambda: create(client, NewTopic(flags.topic + "-config", 1, 1, topic_configs={"retention.ms": "soon"})))
    await refused("too-large", too_large)
    await refused("out-of-range", out_of_range)
    await refused("delete-missing", lambda: delete(client, flags.topic + "-missing"))
    await refused("delete-busy-group", unsupported)
    await refused("delete-missing-group", unsupported)
    await client.close()


async def refused(name, action):
    try:
        await action()
    except Unsupported:
        tell(case=name, unsupported="by this client")
    except errors.BrokerResponseError as e:
        tell(case=name, error=NAMES.get(e.errno, e.message))
    except errors.OffsetOutOfRangeError:
        tell(case=name, error="OFFSET_OUT_OF_RANGE")
    else:
        tell(case=name, error="NONE")


def main():
    verbs = {"about": about, "produce": produce, "consume": consume, "group": group, "admin": admin, "errors": refusals}
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=verbs)
    for name in ("brokers", "topic", "group", "instance", "assignor", "data"):
        parser.add_argument("--" + name)
    parser.add_argument("--codec", default="none")
    parser.add_argument("--acks", default="all")
    parser.add_argument("--idempotent", default="false")
    for name, otherwise in (("start", 0), ("count", 0), ("size", 0), ("pace-ms", 0), ("commit-every", 50)):
        parser.add_argument("--" + name, type=int, default=otherwise)
    flags = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(verbs[flags.verb](flags))


if __name__ == "__main__":
    main()
