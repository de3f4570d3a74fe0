"""librdkafka's part in what TestOurClient exchanges between libraries: see client_exchange_test.go, which runs it.

    exchange.py write BROKERS TOPIC TRANSACTIONS      the records of the table, with every codec
    exchange.py read BROKERS TOPIC,TOPIC.. COUNT      so many of each topic, a line for each: TOPIC tab KEY|VALUE|HEADERS
    exchange.py member BROKERS TOPIC GROUP PROTOCOL ASSIGNOR   a line for each record, until SIGTERM: record PARTITION OFFSET
"""

import signal
import sys

from confluent_kafka import Consumer, Producer, TopicPartition, OFFSET_BEGINNING

PATIENCE = 120  # seconds
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
TABLE = [
    (b"k", b"v", [("a", b"1"), ("b", None)]),
    (None, b"v", []),
    (b"k", None, []),
    (b"", b"", []),
    (None, None, []),
    (b"k", b"x" * 5000, [("a", b"1"), ("a", b"2"), ("c", b"")]),
]


def shown(value):
    if value is None:
        return "-"
    if len(value) > 64:
        return "%d*%s" % (len(value), value[:1].hex())
    return value.hex()


def write(brokers, topic, transactions):
    for codec in CODECS:
        settings = {"bootstrap.servers": brokers, "compression.type": codec, "linger.ms": 50}
        if transactions == "true":
            settings["transactional.id"] = topic + codec
        failures = []
        producer = Producer(settings)

        def send(records):
            for key, value, headers in records:
                producer.produce(topic, partition=0, key=key, value=value, headers=headers,
                                 on_delivery=lambda err, message: err is not None and failures.append(err))
            if producer.flush(PATIENCE) > 0 or failures:
                raise RuntimeError(failures or "not everything was delivered")

        if transactions == "true":
            producer.init_transactions(PATIENCE)
            producer.begin_transaction()
            send(TABLE)
            producer.commit_transaction(PATIENCE)
            producer.begin_transaction()
            send([(b"aborted", b"aborted", [])] * 3)
            producer.abort_transaction(PATIENCE)
            producer.begin_transaction()
            send([(b"last", codec.encode(), [])])
            producer.commit_transaction(PATIENCE)
        else:
            send(TABLE + [(b"last", codec.encode(), [])])


def read(brokers, topics, count):
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "none", "enable.auto.commit": False, "isolation.level": "read_committed"})
    for topic in topics.split(","):
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        for _ in range(int(count)):
            message = consumer.poll(PATIENCE)
            if message is None or message.error():
                raise RuntimeError("%s: %s" % (topic, message and message.error()))
            headers = ",".join("%s=%s" % (name, shown(value)) for name, value in message.headers() or [])
            print("%s\t%s|%s|%s" % (topic, shown(message.key()), shown(message.value()), headers), flush=True)
    consumer.close()


def member(brokers, topic, group, protocol, assignor):
    settings = {"bootstrap.servers": brokers, "group.id": group, "auto.offset.reset": "earliest", "auto.commit.interval.ms": 200}
    if protocol == "consumer":
        settings["group.protocol"] = "consumer"
        settings["group.remote.assignor"] = assignor
    else:
        settings["partition.assignment.strategy"] = assignor
        settings["session.timeout.ms"] = 6000
    leaving = []
    signal.signal(signal.SIGTERM, lambda signum, frame: leaving.append(True))
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    while not leaving:
        message = consumer.poll(0.1)
        if message is None:
            continue
        if message.error():
            print(message.error(), file=sys.stderr, flush=True)
            continue
        print("record %d %d" % (message.partition(), message.offset()), flush=True)
    consumer.close()


if __name__ == "__main__":
    {"write": write, "read": read, "member": member}[sys.argv[1]](*sys.argv[2:])
