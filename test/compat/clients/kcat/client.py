"""kcat, made to speak the language of the README one folder up. What kcat cannot do is said to be unsupported."""

import argparse
import json
import re
import signal
import subprocess
import sys
import threading
import time
import zlib

PATIENCE = 60  # seconds
STEPS = ["create-topic", "describe-topic", "describe-config", "alter-config", "create-partitions", "list-offsets", "describe-cluster",
         "list-groups", "describe-group", "fetch-offsets", "delete-records", "delete-group", "delete-topic"]
CASES = ["create-existing", "bad-name", "bad-partitions", "bad-config", "too-large", "out-of-range", "delete-missing",
         "delete-busy-group", "delete-missing-group"]
# What kcat prints of a broker's errors, and Apache Kafka's names for them.
TEXTS = {"Message size too large": "MESSAGE_TOO_LARGE", "Offset out of range": "OFFSET_OUT_OF_RANGE"}


def tell(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def kcat(flags, *args):
    return ["kcat", "-b", flags.brokers, "-X", "reconnect.backoff.max.ms=1000", *args]


def ask(flags, *args, stdin=None):
    """Runs kcat to its end and returns what it printed on either stream."""
    ended = subprocess.run(kcat(flags, "-m", "30", *args), input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE)
    return ended.stdout


def about(flags):
    version, built = re.search(r"Version (\S+) \(.*librdkafka (\S+)", subprocess.run(["kcat", "-V"], stdout=subprocess.PIPE, text=True).stdout).groups()
    tell({"client": "kcat", "version": version, "language": "C", "codecs": ["none", "gzip", "snappy", "lz4", "zstd"],
          "acks": ["0", "1", "all"], "idempotent": True, "static": True, "commits": False, "listener": True,
          "assignors": ["range", "roundrobin", "cooperative-sticky"], "lacks": ["headers", "in-hand"],
          "notes": ["Built on librdkafka " + built + ".", "All records of one run have the same headers.",
                    "A group's offsets are committed by time and on leaving, never by a command.",
                    "Asked to end, it may commit a record that it does not print."]})


def produce(flags):
    partitions = len(json.loads(ask(flags, "-L", "-J", "-t", flags.topic))["topics"][0]["partitions"])
    first = flags.start
    for codec in flags.codec.split(","):
        for acks in flags.acks.split(","):
            produce_with(flags, codec, acks, first, partitions)
            first += flags.count
    tell({"done": first - flags.start})


def produce_with(flags, codec, acks, first, partitions):
    """Asked to say much, kcat tells the partition and offset of each delivery: in order within a partition, and a
    key's partition is the remainder of its checksum."""
    args = ["-P", "-E", "-vvv", "-t", flags.topic, "-K", ":", "-z", codec, "-X", "acks=" + acks, "-X", "message.timeout.ms=%d" % (PATIENCE * 1000)]
    args += ["-X", "enable.idempotence=true"] if flags.idempotent == "true" else ["-X", "max.in.flight=1"]
    sender = subprocess.Popen(kcat(flags, *args), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    waiting = [[] for _ in range(partitions)]
    for i in range(first, first + flags.count):
        waiting[zlib.crc32(b"k%d" % (i % 100)) % partitions].append(i)

    def send():
        for i in range(first, first + flags.count):
            sender.stdin.write("k%d:%s\n" % (i % 100, str(i).ljust(flags.size)))
            if flags.pace_ms:
                sender.stdin.flush()
                time.sleep(flags.pace_ms / 1000)
        sender.stdin.close()

    threading.Thread(target=send, daemon=True).start()
    for line in sender.stderr:
        delivered = re.match(r"% Message delivered to partition (\d+) \(offset (-?\d+)\)", line)
        if delivered is None:
            sys.stderr.write(line)
            continue
        partition, offset = map(int, delivered.groups())
        tell({"acked": waiting[partition].pop(0), "partition": partition, "offset": -1 if acks == "0" else offset})
    if sender.wait() != 0 or any(waiting):
        raise SystemExit("kcat ended with %d; records without delivery: %s" % (sender.returncode, waiting))


def consume(flags):
    reader = subprocess.Popen(kcat(flags, "-C", "-t", flags.topic, "-o", "beginning", "-q", "-u", "-J", "-c", str(flags.count)),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    for line in reader.stdout:
        r = json.loads(line)
        named = dict(zip(r.get("headers", [])[::2], r.get("headers", [])[1::2]))
        tell({"partition": r["partition"], "offset": r["offset"], "key": r.get("key") or "", "value": (r.get("payload") or "").rstrip(" "),
              "header": named.get("n", "")})
    if reader.wait() != 0:
        raise SystemExit("kcat ended with %d" % reader.returncode)
    tell({"done": flags.count})


def group(flags):
    """Both streams come through one pipe, so that records and rebalances keep their order."""
    args = ["-E", "-u", "-f", "R %p %o %s\n", "-X", "session.timeout.ms=%d" % (30000 if flags.instance else 6000), "-X", "heartbeat.interval.ms=1000",
            "-X", "auto.offset.reset=earliest", "-X", "auto.commit.interval.ms=250"]
    if flags.instance:
        args += ["-X", "group.instance.id=" + flags.instance]
    if flags.assignor:
        args += ["-X", "partition.assignment.strategy=" + flags.assignor]
    member = subprocess.Popen(kcat(flags, *args, "-G", flags.group, flags.topic), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    signal.signal(signal.SIGTERM, lambda signum, frame: member.send_signal(signal.SIGTERM))
    for line in member.stdout:
        record = re.match(r"R (\d+) (\d+) (\d+) *$", line)
        if record is not None:
            p, o, value = record.groups()
            tell({"record": {"partition": int(p), "offset": int(o), "value": value}})
            continue
        rebalance = re.match(r"% Group \S+ rebalanced(?:: incremental (assignment|revoke) of .*?\):| .*?\): (assigned|revoked):)(.*)$", line)
        if rebalance is not None:
            what = "assigned" if (rebalance[1] or rebalance[2]).startswith("assign") else "revoked"
            tell({what: [int(p) for p in re.findall(r"\[(\d+)\]", rebalance[3])]})
            continue
        sys.stderr.write(line)
    if member.wait() != 0:
        raise SystemExit("kcat ended with %d" % member.returncode)
    tell({"left": True})


def admin(flags):
    able = {"list-offsets": list_offsets, "describe-cluster": describe_cluster}
    for step in STEPS:
        if step not in able:
            tell({"step": step, "unsupported": "by this client"})
            continue
        try:
            tell({"step": step, "ok": True, "detail": able[step](flags)})
        except (ValueError, AttributeError, subprocess.SubprocessError) as e:
            tell({"step": step, "ok": False, "detail": repr(e)})


def list_offsets(flags):
    def at(partition, time):
        answer = ask(flags, "-Q", "-t", "%s:%d:%d" % (flags.data, partition, time))
        return int(re.search(r"offset (-?\d+)", answer)[1])
    return {str(p): [at(p, -2), at(p, -1)] for p in range(3)}


def describe_cluster(flags):
    listing = json.loads(ask(flags, "-L", "-J", "-t", flags.data))
    return {"brokers": [b["id"] for b in listing["brokers"]], "controller": listing["controllerid"]}


def errors(flags):
    able = {
        "too-large": lambda: ask(flags, "-P", "-t", flags.topic, stdin="x" * 5000 + "\n"),
        "out-of-range": lambda: ask(flags, "-C", "-t", flags.topic, "-p", "0", "-o", "1000000", "-e", "-X", "topic.auto.offset.reset=error"),
    }
    for name in CASES:
        if name not in able:
            tell({"case": name, "unsupported": "by this client"})
            continue
        answer = able[name]()
        tell({"case": name, "error": next((error for text, error in TEXTS.items() if text in answer), "NONE: " + answer)})


def main():
    parser = argparse.ArgumentParser()
    verbs = {"about": about, "produce": produce, "consume": consume, "group": group, "admin": admin, "errors": errors}
    parser.add_argument("verb", choices=verbs)
    for name in ("brokers", "topic", "group", "data", "instance", "assignor"):
        parser.add_argument("--" + name, default="")
    parser.add_argument("--codec", default="none")
    parser.add_argument("--acks", default="all")
    parser.add_argument("--idempotent", default="false")
    for name, default in (("start", 0), ("count", 0), ("size", 100), ("pace-ms", 0), ("commit-every", 50)):
        parser.add_argument("--" + name, type=int, default=default)
    flags = parser.parse_args()
    verbs[flags.verb](flags)


if __name__ == "__main__":
    main()
