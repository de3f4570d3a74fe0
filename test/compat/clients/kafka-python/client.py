"""A user's program on kafka-python. What it has to do stands in the README one folder up."""

import argparse
import itertools
import json
import logging
import signal
import sys
import threading
import time

import kafka
from kafka import AsyncConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.structs import OffsetAndMetadata

PATIENCE = 60  # seconds
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
ASSIGNORS = {a.name: a for a in (
    RangePartitionAssignor, RoundRobinPartitionAssignor, StickyPartitionAssignor, CooperativeStickyAssignor)}
# Where the library's name of a code is not that of Apache Kafka's table.
NAMES = {10: "MESSAGE_TOO_LARGE", 17: "INVALID_TOPIC_EXCEPTION"}

printing = threading.Lock()  # the library calls back in a thread of its own


def tell(**line):
    with printing:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def about(flags):
    tell(client="kafka-python", version=kafka.__version__, language="Python", codecs=CODECS, acks=["0", "1", "all"],
         idempotent=True, static=True, commits=True, listener=True, assignors=sorted(ASSIGNORS), notes=[])


# ---- produce

def produce(flags):
    next_number = flags.start
    for codec, acks in itertools.product(flags.codec.split(","), flags.acks.split(",")):
        send(flags, codec, acks, range(next_number, next_number + flags.count))
        next_number += flags.count
    tell(done=next_number - flags.start)


def send(flags, codec, acks, numbers):
    failures = []
    producer = KafkaProducer(
        bootstrap_servers=flags.brokers,
        acks=acks if acks == "all" else int(acks),
        compression_type=None if codec == "none" else codec,
        enable_idempotence=flags.idempotent == "true",
        delivery_timeout_ms=PATIENCE * 1000,
        **({} if flags.idempotent == "true" else {"max_in_flight_requests_per_connection": 1}),
    )
    for i in numbers:
        text = str(i).encode()
        sent = producer.send(flags.topic, key=b"k%d" % (i % 100), value=text.ljust(flags.size), headers=[("n", text)])
        sent.add_callback(lambda m, i=i: tell(acked=i, partition=m.partition, offset=m.offset))
        sent.add_errback(failures.append)
        if flags.pace_ms:
            time.sleep(flags.pace_ms / 1000)
    producer.flush()
    producer.close()
    if failures:
        raise failures[0]


# ---- consume

def consume(flags):
    consumer = KafkaConsumer(bootstrap_servers=flags.brokers, enable_auto_commit=False)
    partitions = [TopicPartition(flags.topic, p) for p in consumer.partitions_for_topic(flags.topic)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    seen, deadline = 0, time.monotonic() + PATIENCE
    while seen < flags.count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{seen} of {flags.count} records within {PATIENCE} s")
        for r in itertools.chain.from_iterable(consumer.poll(timeout_ms=500).values()):
            if seen < flags.count:
                tell(partition=r.partition, offset=r.offset, key=(r.key or b"").decode(), value=unpadded(r.value),
                     header=dict(r.headers).get("n", b"").decode())
            seen += 1
    tell(done=flags.count)
    consumer.close()


def unpadded(value):
    return (value or b"").decode().rstrip(" ")


# ---- group

class Member(AsyncConsumerRebalanceListener):
    """A member of a group that says what it is given, reads and commits."""

    def __init__(self, consumer, commit_every):
        self.consumer, self.commit_every = consumer, commit_every
        self.uncommitted, self.since_commit = {}, 0

    def read(self, r):
        tell(record={"partition": r.partition, "offset": r.offset, "value": unpadded(r.value)})
        self.uncommitted[TopicPartition(r.topic, r.partition)] = OffsetAndMetadata(r.offset + 1, "", -1)
        self.since_commit += 1
        if self.since_commit >= self.commit_every:
            self.commit()

    def commit(self):
        """Commits what has been printed. What is refused stays, and goes with the next commit."""
        self.since_commit = 0
        offsets = dict(self.uncommitted)
        if not offsets:
            return
        try:
            self.consumer.commit(offsets)
        except errors.KafkaError as e:
            print(f"commit {offsets}: {e!r}", file=sys.stderr)
        else:
            self.committed(offsets)

    def committed(self, offsets):
        self.uncommitted.clear()
        tell(committed={str(p.partition): o.offset for p, o in offsets.items()})

    async def on_partitions_assigned(self, assigned):
        tell(assigned=sorted(p.partition for p in assigned))

    async def on_partitions_revoked(self, revoked):
        offsets = dict(self.uncommitted)
        if offsets:
            try:
                await self.consumer.commit_async(offsets)  # the blocking call is not for the library's own thread
            except errors.KafkaError as e:
                print(f"commit {offsets}: {e!r}", file=sys.stderr)
            else:
                self.committed(offsets)
        await self.on_partitions_lost(revoked)

    async def on_partitions_lost(self, lost):
        for p in lost:
            self.uncommitted.pop(p, None)
        if lost:
            tell(revoked=sorted(p.partition for p in lost))


def group(flags):
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    options = {}
    if flags.instance:
        options["group_instance_id"] = flags.instance
    if flags.assignor:
        options["partition_assignment_strategy"] = [ASSIGNORS[flags.assignor]]
    consumer = KafkaConsumer(
        bootstrap_servers=flags.brokers, group_id=flags.group, auto_offset_reset="earliest", enable_auto_commit=False,
        session_timeout_ms=30_000 if flags.instance else 6_000, heartbeat_interval_ms=1_000, **options)
    member = Member(consumer, flags.commit_every)
    consumer.subscribe([flags.topic], listener=member)
    # Known before the first join: a leader that learns of the partitions later joins again, and where its poll
    # ends meanwhile, it takes itself for a member and sends no heartbeats.
    consumer.partitions_for_topic(flags.topic)
    while not stopping.is_set():
        for r in itertools.chain.from_iterable(consumer.poll(timeout_ms=200).values()):
            member.read(r)
    member.commit()
    consumer.close()
    tell(left=True)


# ---- admin

def admin(flags):
    client = KafkaAdminClient(bootstrap_servers=flags.brokers)
    topic, data = flags.topic, [TopicPartition(flags.data, p) for p in range(3)]

    def partitions():
        return len(client.describe_topics([topic])[0]["partitions"])

    def retention():
        found = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
        return found["topic"][topic]["retention.ms"]["value"]

    def alter_config():
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "7200000"})])
        return eventually(retention, "7200000")

    def create_partitions():
        client.create_partitions({topic: 5})
        return eventually(partitions, 5)

    def offsets(spec):
        return {p.partition: o.offset for p, o in client.list_partition_offsets({p: spec for p in data}).items()}

    def list_offsets():
        earliest, latest = offsets(OffsetSpec.EARLIEST), offsets(OffsetSpec.LATEST)
        return {str(p): [earliest[p], latest[p]] for p in sorted(earliest)}

    def describe_cluster():
        found = client.describe_cluster()
        return {"brokers": sorted(b["broker_id"] for b in found["brokers"]), "controller": found["controller_id"]}

    def fetch_offsets():
        found = client.list_group_offsets({flags.group: None})[flags.group]
        return {str(p.partition): o.offset for p, o in sorted(found.items()) if p.topic == flags.data}

    def delete_records():
        client.delete_records({data[0]: 10})
        return offsets(OffsetSpec.EARLIEST)[0]

    step("create-topic", lambda: client.create_topics(
        {topic: {"num_partitions": 3, "replication_factor": 1, "configs": {"retention.ms": "3600000"}}},
        wait_for_metadata=True) and None)
    step("describe-topic", partitions)
    step("describe-config", retention)
    step("alter-config", alter_config)
    step("create-partitions", create_partitions)
    step("list-offsets", list_offsets)
    step("describe-cluster", describe_cluster)
    step("list-groups", lambda: sorted(g["group_id"] for g in client.list_groups()))
    step("describe-group", lambda: client.describe_groups([flags.group])[flags.group]["group_state"])
    step("fetch-offsets", fetch_offsets)
    step("delete-records", delete_records)
    step("delete-group", lambda: delete_group(client, flags.group))
    step("delete-topic", lambda: client.delete_topics([topic]) and None)
    client.close()


def eventually(ask, wanted):
    """Asks until the answer is the one that is wanted: a broker's metadata may be a moment behind."""
    deadline = time.monotonic() + PATIENCE
    while (answer := ask()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


def step(name, action):
    try:
        detail = action()
    except Exception as e:  # the next step follows
        tell(step=name, ok=False, detail=repr(e))
    else:
        tell(step=name, ok=True, detail=detail)


def delete_group(client, name):
    outcome = client.delete_groups([name])[name]
    if outcome != "OK":  # the name of the error's class
        raise getattr(errors, outcome)()


# ---- errors

def refusals(flags):
    client = KafkaAdminClient(bootstrap_servers=flags.brokers)
    one = {"num_partitions": 1, "replication_factor": 1}

    def too_large():
        producer = KafkaProducer(bootstrap_servers=flags.brokers, max_request_size=10_000_000)
        producer.send(flags.topic, value=bytes(5_000)).get(timeout=PATIENCE)

    def out_of_range():
        first = TopicPartition(flags.topic, 0)
        consumer = KafkaConsumer(bootstrap_servers=flags.brokers, auto_offset_reset="none", enable_auto_commit=False)
        consumer.assign([first])
        consumer.seek(first, 1_000_000)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            consumer.poll(timeout_ms=1000)

    refused("create-existing", lambda: client.create_topics({flags.topic: one}))
    refused("bad-name", lambda: client.create_topics({"not a name": one}))
    refused("bad-partitions", lambda: client.create_partitions({flags.topic: 1}))
    refused("bad-config", lambda: client.create_topics({flags.topic + "-config": {**one, "configs": {"retention.ms": "soon"}}}))
    refused("too-large", too_large)
    refused("out-of-range", out_of_range)
    refused("delete-missing", lambda: client.delete_topics([flags.topic + "-missing"]))
    refused("delete-busy-group", lambda: delete_group(client, flags.group))
    refused("delete-missing-group", lambda: delete_group(client, flags.group + "-missing"))
    client.close()


def refused(name, action):
    try:
        action()
    except errors.BrokerResponseError as e:
        tell(case=name, error=NAMES.get(e.errno, e.message))
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
    verbs[flags.verb](flags)


if __name__ == "__main__":
    main()
