"""A user's program on confluent-kafka. What it has to do stands in the README one folder up."""

import argparse
import json
import signal
import sys
import time

import confluent_kafka
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import TopicCollection
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType)

PATIENCE = 60  # seconds
# The library has names of its own for these codes.
NAMES = {
    0: "NONE", 1: "OFFSET_OUT_OF_RANGE", 3: "UNKNOWN_TOPIC_OR_PARTITION", 10: "MESSAGE_TOO_LARGE", 17: "INVALID_TOPIC_EXCEPTION",
    36: "TOPIC_ALREADY_EXISTS", 37: "INVALID_PARTITIONS", 40: "INVALID_CONFIG", 68: "NON_EMPTY_GROUP", 69: "GROUP_ID_NOT_FOUND",
}


def tell(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def complain(*words):
    print(time.strftime("%H:%M:%S"), *words, file=sys.stderr, flush=True)


def settings(flags, **more):
    """A broker that restarts is found again within a second."""
    return {"bootstrap.servers": flags.brokers, "client.id": "confluent-kafka", "reconnect.backoff.max.ms": 1000,
            **{name.replace("_", "."): value for name, value in more.items()}}


def about(flags):
    tell({"client": "confluent-kafka", "version": confluent_kafka.version(), "language": "Python",
          "codecs": ["none", "gzip", "snappy", "lz4", "zstd"], "acks": ["0", "1", "all"], "idempotent": True, "static": True,
          "commits": True, "listener": True, "assignors": ["range", "roundrobin", "cooperative-sticky"],
          "notes": ["Built on librdkafka " + confluent_kafka.libversion()[0] + ", which has no eager sticky assignor."]})


def produce(flags):
    first = flags.start
    for codec in flags.codec.split(","):
        for acks in flags.acks.split(","):
            produce_with(flags, codec, acks, first)
            first += flags.count
    tell({"done": first - flags.start})


def produce_with(flags, codec, acks, first):
    more = {"compression_type": codec, "acks": acks, "message_timeout_ms": PATIENCE * 1000}
    if flags.idempotent == "true":
        more["enable_idempotence"] = True
    else:
        more["max_in_flight"] = 1  # keeps the order when a request is sent again
    failures = []

    def delivered(i):
        def callback(err, message):
            if err is not None:
                failures.append("record %d: %s" % (i, err))
            else:
                tell({"acked": i, "partition": message.partition(), "offset": -1 if acks == "0" else message.offset()})
        return callback

    producer = Producer(settings(flags, **more))
    for i in range(first, first + flags.count):
        producer.produce(flags.topic, key="k%d" % (i % 100), value=str(i).ljust(flags.size), headers=[("n", str(i))],
                         on_delivery=delivered(i))
        producer.poll(flags.pace_ms / 1000)
    if producer.flush(PATIENCE) > 0 or failures:
        raise RuntimeError(failures[0] if failures else "not everything was delivered")


def header(message):
    return next((value.decode() for name, value in message.headers() or [] if name == "n"), "")


def text(value):
    return "" if value is None else value.decode()


def consume(flags):
    consumer = Consumer(settings(flags, group_id="none", enable_auto_commit=False))
    partitions = consumer.list_topics(flags.topic, timeout=PATIENCE).topics[flags.topic].partitions
    consumer.assign([TopicPartition(flags.topic, p, confluent_kafka.OFFSET_BEGINNING) for p in partitions])
    deadline = time.monotonic() + PATIENCE
    for n in range(flags.count):
        message = consumer.poll(deadline - time.monotonic())
        if message is None or message.error():
            raise RuntimeError("after %d records: %s" % (n, message and message.error()))
        tell({"partition": message.partition(), "offset": message.offset(), "key": text(message.key()),
              "value": text(message.value()).rstrip(" "), "header": header(message)})
    consumer.close()
    tell({"done": flags.count})


class Member:
    """Keeps what has been read and not yet committed: the next offset, by partition."""

    def __init__(self, flags):
        self.flags, self.next, self.since, self.leaving = flags, {}, 0, False
        more = {"group_id": flags.group, "session_timeout_ms": 30000 if flags.instance else 6000, "heartbeat_interval_ms": 1000,
                "auto_offset_reset": "earliest", "enable_auto_commit": False}
        if flags.instance:
            more["group_instance_id"] = flags.instance
        if flags.assignor:
            more["partition_assignment_strategy"] = flags.assignor
        self.consumer = Consumer(settings(flags, **more))

    def run(self):
        signal.signal(signal.SIGTERM, self.leave)
        self.consumer.subscribe([self.flags.topic], on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.lost)
        while not self.leaving:
            message = self.consumer.poll(0.1)
            if message is None:
                continue
            if message.error():
                complain("poll:", message.error())
                continue
            self.record(message)
        self.commit()
        self.consumer.close()
        tell({"left": True})

    def leave(self, signum, frame):
        self.leaving = True

    def record(self, message):
        tell({"record": {"partition": message.partition(), "offset": message.offset(), "value": text(message.value()).rstrip(" ")}})
        self.next[message.partition()] = message.offset() + 1
        self.since += 1
        if self.since >= self.flags.commit_every:
            self.commit()

    def assigned(self, consumer, partitions):
        tell({"assigned": sorted(p.partition for p in partitions)})

    def revoked(self, consumer, partitions):
        self.commit()
        self.lost(consumer, partitions)

    def lost(self, consumer, partitions):
        for p in partitions:
            self.next.pop(p.partition, None)
        tell({"revoked": sorted(p.partition for p in partitions)})

    def commit(self):
        self.since = 0
        if not self.next:
            return
        try:
            answers = self.consumer.commit(offsets=[TopicPartition(self.flags.topic, p, o) for p, o in self.next.items()], asynchronous=False)
        except KafkaException as e:
            complain("commit:", e)
            return
        done = {a.partition: a.offset for a in answers if a.error is None}
        for p in done:
            del self.next[p]
        tell({"committed": done})


def admin(flags):
    Administrator(flags).steps()


def kafka_error(exception):
    error = exception.args[0] if isinstance(exception, KafkaException) else exception
    if not isinstance(error, KafkaError):
        return repr(exception)
    # A reset that is not allowed hides the broker's code behind one of the library's own.
    if error.code() == KafkaError._AUTO_OFFSET_RESET and "Offset out of range" in error.str():
        return NAMES[1]
    return NAMES.get(error.code(), error.name())


class Administrator:
    def __init__(self, flags):
        self.flags, self.admin = flags, AdminClient(settings(flags))
        self.resource = ConfigResource(ResourceType.TOPIC, flags.topic)

    def steps(self):
        flags, of = self.flags, self.only
        new = NewTopic(flags.topic, 3, 1, config={"retention.ms": "3600000"})
        self.step("create-topic", lambda: of(self.admin.create_topics([new])))
        self.step("describe-topic", lambda: self.partitions(3))
        self.step("describe-config", self.retention)
        self.step("alter-config", self.alter)
        self.step("create-partitions", self.grow)
        self.step("list-offsets", self.offsets)
        self.step("describe-cluster", self.cluster)
        self.step("list-groups", lambda: [g.group_id for g in self.admin.list_consumer_groups().result().valid])
        self.step("describe-group", lambda: of(self.admin.describe_consumer_groups([flags.group])).state.name)
        self.step("fetch-offsets", self.committed)
        self.step("delete-records", self.delete_records)
        self.step("delete-group", lambda: of(self.admin.delete_consumer_groups([flags.group])))
        self.step("delete-topic", lambda: of(self.admin.delete_topics([flags.topic])))

    @staticmethod
    def step(name, do):
        try:
            tell({"step": name, "ok": True, "detail": do()})
        except Exception as e:
            tell({"step": name, "ok": False, "detail": repr(e)})

    @staticmethod
    def only(futures):
        """The result of the one thing that was asked for."""
        return next(iter(futures.values())).result(PATIENCE)

    @staticmethod
    def again(ask, want):
        """What one request changed need not show in the next."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                found = ask()
            except KafkaException as e:
                found = e
            if found == want or time.monotonic() > deadline:
                return found if not isinstance(found, Exception) else repr(found)
            time.sleep(0.1)

    def partitions(self, want):
        topics = TopicCollection([self.flags.topic])
        return self.again(lambda: len(self.only(self.admin.describe_topics(topics)).partitions), want)

    def retention(self):
        return self.only(self.admin.describe_configs([self.resource]))["retention.ms"].value

    def alter(self):
        entry = ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET)
        self.only(self.admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, self.flags.topic, incremental_configs=[entry])]))
        return self.again(self.retention, "7200000")

    def grow(self):
        self.only(self.admin.create_partitions([NewPartitions(self.flags.topic, 5)]))
        return self.partitions(5)

    def offsets(self):
        data = [TopicPartition(self.flags.data, p) for p in range(3)]
        first = self.admin.list_offsets({p: OffsetSpec.earliest() for p in data})
        last = self.admin.list_offsets({p: OffsetSpec.latest() for p in data})
        return {p.partition: [first[p].result(PATIENCE).offset, last[p].result(PATIENCE).offset] for p in data}

    def cluster(self):
        found = self.admin.describe_cluster().result(PATIENCE)
        return {"brokers": [n.id for n in found.nodes], "controller": found.controller.id}

    def committed(self):
        found = self.only(self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(self.flags.group)]))
        return {p.partition: p.offset for p in sorted(found.topic_partitions, key=lambda p: p.partition) if p.topic == self.flags.data}

    def delete_records(self):
        self.only(self.admin.delete_records([TopicPartition(self.flags.data, 0, 10)]))
        return self.offsets()[0][0]


def errors(flags):
    do, of = Administrator(flags), Administrator.only
    adm = do.admin
    case("create-existing", lambda: of(adm.create_topics([NewTopic(flags.topic, 1, 1)])))
    case("bad-name", lambda: of(adm.create_topics([NewTopic("not a name", 1, 1)])))
    case("bad-partitions", lambda: of(adm.create_partitions([NewPartitions(flags.topic, 1)])))
    case("bad-config", lambda: of(adm.create_topics([NewTopic(flags.topic + "-config", 1, 1, config={"retention.ms": "soon"})])))
    case("too-large", lambda: produce_large(flags))
    case("out-of-range", lambda: read_past(flags, 1_000_000))
    case("delete-missing", lambda: of(adm.delete_topics([flags.topic + "-missing"])))
    case("delete-busy-group", lambda: of(adm.delete_consumer_groups([flags.group])))
    case("delete-missing-group", lambda: of(adm.delete_consumer_groups([flags.group + "-missing"])))


def case(name, do):
    try:
        do()
        tell({"case": name, "error": "NONE"})
    except KafkaException as e:
        tell({"case": name, "error": kafka_error(e)})


def produce_large(flags):
    refused = []
    producer = Producer(settings(flags, message_max_bytes=2_000_000))
    producer.produce(flags.topic, value="x" * 5000, on_delivery=lambda err, message: refused.append(err))
    producer.flush(PATIENCE)
    if refused[0] is not None:
        raise KafkaException(refused[0])


def read_past(flags, offset):
    consumer = Consumer(settings(flags, group_id="none", enable_auto_commit=False, auto_offset_reset="error"))
    consumer.assign([TopicPartition(flags.topic, 0, offset)])
    message = consumer.poll(PATIENCE)
    consumer.close()
    if message is not None and message.error():
        raise KafkaException(message.error())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["about", "produce", "consume", "group", "admin", "errors"])
    for name in ("brokers", "topic", "group", "data", "instance", "assignor"):
        parser.add_argument("--" + name, default="")
    parser.add_argument("--codec", default="none")
    parser.add_argument("--acks", default="all")
    parser.add_argument("--idempotent", default="false")
    for name, default in (("start", 0), ("count", 0), ("size", 100), ("pace-ms", 0), ("commit-every", 50)):
        parser.add_argument("--" + name, type=int, default=default)
    flags = parser.parse_args()
    {"about": about, "produce": produce, "consume": consume, "group": lambda f: Member(f).run(), "admin": admin, "errors": errors}[flags.verb](flags)


if __name__ == "__main__":
    main()
