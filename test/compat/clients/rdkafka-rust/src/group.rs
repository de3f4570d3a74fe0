//! The verb group.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;

use crate::{tell, value_of, Flags, Outcome};

static LEAVING: AtomicBool = AtomicBool::new(false);

extern "C" fn leave(_signal: libc::c_int) {
    LEAVING.store(true, Ordering::SeqCst);
}

/// What a member has read and not yet committed. The library calls back while it is polled, in the same thread.
struct Member {
    topic: String,
    every: usize,
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    next: BTreeMap<i32, i64>,
    since: usize,
}

impl ClientContext for Member {}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(given) => tell(json!({ "assigned": partitions(given) })),
            Rebalance::Revoke(gone) => {
                if !consumer.assignment_lost() {
                    self.commit(consumer);
                }
                let gone = partitions(gone);
                self.read.lock().unwrap().next.retain(|p, _| !gone.contains(p));
                tell(json!({ "revoked": gone }));
            }
            Rebalance::Error(err) => eprintln!("rebalance: {err}"),
        }
    }
}

fn partitions(of: &TopicPartitionList) -> Vec<i32> {
    let mut all: Vec<i32> = of.elements().iter().map(|e| e.partition()).collect();
    all.sort_unstable();
    all
}

impl Member {
    fn config(flags: &Flags) -> ClientConfig {
        let mut config = flags.client();
        config.set("group.id", flags.text("group")).set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
        config.set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "1000");
        if !flags.text("instance").is_empty() {
            config.set("session.timeout.ms", "30000"); // the time to come back
            config.set("group.instance.id", flags.text("instance"));
        }
        if !flags.text("assignor").is_empty() {
            config.set("partition.assignment.strategy", flags.text("assignor"));
        }
        config
    }

    fn record(&self, consumer: &BaseConsumer<Self>, message: &BorrowedMessage<'_>) {
        tell(json!({ "record": { "partition": message.partition(), "offset": message.offset(), "value": value_of(message) } }));
        let due = {
            let mut read = self.read.lock().unwrap();
            read.next.insert(message.partition(), message.offset() + 1);
            read.since += 1;
            read.since >= self.every
        };
        if due {
            self.commit(consumer);
        }
    }

    fn commit(&self, consumer: &BaseConsumer<Self>) {
        let next = {
            let mut read = self.read.lock().unwrap();
            read.since = 0;
            read.next.clone()
        };
        if next.is_empty() {
            return;
        }
        let mut positions = TopicPartitionList::new();
        for (p, o) in &next {
            if let Err(err) = positions.add_partition_offset(&self.topic, *p, Offset::Offset(*o)) {
                eprintln!("commit: {err}");
                return;
            }
        }
        match consumer.commit(&positions, CommitMode::Sync) {
            Ok(()) => {
                self.read.lock().unwrap().next.clear();
                tell(json!({ "committed": next }));
            }
            Err(err) => eprintln!("commit: {err}"),
        }
    }
}

pub fn group(flags: &Flags) -> Outcome<()> {
    // SAFETY: the handler does nothing but set a flag.
    unsafe { libc::signal(libc::SIGTERM, leave as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    let member = Member { topic: flags.text("topic").to_string(), every: flags.number("commit-every", 50)?, read: Mutex::default() };
    let consumer: BaseConsumer<Member> = Member::config(flags).create_with_context(member)?;
    consumer.subscribe(&[flags.text("topic")])?;
    while !LEAVING.load(Ordering::SeqCst) {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => consumer.context().record(&consumer, &message),
            Some(Err(err)) => eprintln!("poll: {err}"),
            None => (),
        }
    }
    consumer.context().commit(&consumer);
    drop(consumer); // leaves
    tell(json!({ "left": true }));
    Ok(())
}
