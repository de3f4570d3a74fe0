//! The program for rdkafka: see ../README.md for what it has to do.

mod admin;
mod group;
mod produce;

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{json, Value};

/// What any program may wait for.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The flags of the command line, by name.
pub struct Flags(HashMap<String, String>);

impl Flags {
    fn parse(args: &[String]) -> Outcome<Flags> {
        let mut flags = HashMap::new();
        for pair in args.chunks(2) {
            match pair {
                [name, value] if name.starts_with("--") => flags.insert(name[2..].to_string(), value.clone()),
                _ => return Err(format!("flags come as --name value, not {pair:?}").into()),
            };
        }
        Ok(Flags(flags))
    }

    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub fn number(&self, name: &str, default: usize) -> Outcome<usize> {
        self.0.get(name).map_or(Ok(default), |v| Ok(v.parse()?))
    }

    /// A client's settings: a broker that restarts is found again within a second.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.text("brokers")).set("client.id", "rdkafka-rust").set("reconnect.backoff.max.ms", "1000");
        config
    }
}

/// Prints one line of JSON.
pub fn tell(line: Value) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1); // nobody reads any more
    }
}

/// Kafka's name of a code; the library has names of its own.
pub fn error_name(code: RDKafkaErrorCode) -> String {
    match code {
        RDKafkaErrorCode::NoError => "NONE",
        RDKafkaErrorCode::OffsetOutOfRange => "OFFSET_OUT_OF_RANGE",
        RDKafkaErrorCode::UnknownTopicOrPartition => "UNKNOWN_TOPIC_OR_PARTITION",
        RDKafkaErrorCode::MessageSizeTooLarge => "MESSAGE_TOO_LARGE",
        RDKafkaErrorCode::InvalidTopic => "INVALID_TOPIC_EXCEPTION",
        RDKafkaErrorCode::TopicAlreadyExists => "TOPIC_ALREADY_EXISTS",
        RDKafkaErrorCode::InvalidPartitions => "INVALID_PARTITIONS",
        RDKafkaErrorCode::InvalidConfig => "INVALID_CONFIG",
        RDKafkaErrorCode::NonEmptyGroup => "NON_EMPTY_GROUP",
        RDKafkaErrorCode::GroupIdNotFound => "GROUP_ID_NOT_FOUND",
        other => return format!("{other:?}"),
    }
    .to_string()
}

fn about() {
    let built = rdkafka::util::get_rdkafka_version().1;
    tell(json!({
        "client": "rdkafka", "version": env!("RDKAFKA_VERSION"), "language": "Rust",
        "codecs": ["none", "gzip", "snappy", "lz4", "zstd"], "acks": ["0", "1", "all"],
        "idempotent": true, "static": true, "commits": true, "listener": true,
        "assignors": ["range", "roundrobin", "cooperative-sticky"],
        "notes": [format!("Built on librdkafka {built}, which has no eager sticky assignor.")],
    }));
}

pub fn value_of(message: &BorrowedMessage<'_>) -> String {
    text_of(message.payload()).trim_end_matches(' ').to_string()
}

pub fn text_of(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

fn header_of(message: &BorrowedMessage<'_>) -> String {
    let found = message.headers().and_then(|all| all.iter().find(|h| h.key == "n").and_then(|h| h.value.map(<[u8]>::to_vec)));
    text_of(found.as_deref())
}

fn consume(flags: &Flags) -> Outcome<()> {
    let mut config = flags.client();
    config.set("group.id", "none").set("enable.auto.commit", "false");
    let consumer = BaseConsumer::from_config(&config)?;
    let metadata = consumer.fetch_metadata(Some(flags.text("topic")), PATIENCE)?;
    let mut from = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        from.add_partition_offset(flags.text("topic"), partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&from)?;
    let count = flags.number("count", 0)?;
    for n in 0..count {
        let message = consumer.poll(PATIENCE).ok_or(format!("nothing more came after {n} records"))??;
        tell(json!({
            "partition": message.partition(), "offset": message.offset(), "key": text_of(message.key()),
            "value": value_of(&message), "header": header_of(&message),
        }));
    }
    tell(json!({ "done": count }));
    Ok(())
}

fn run() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let verb = args.first().ok_or("no verb: about, produce, consume, group, admin or errors")?;
    let flags = Flags::parse(&args[1..])?;
    match verb.as_str() {
        "about" => about(),
        "produce" => produce::produce(&flags)?,
        "consume" => consume(&flags)?,
        "group" => group::group(&flags)?,
        "admin" => admin::admin(&flags)?,
        "errors" => admin::errors(&flags)?,
        other => return Err(format!("unknown verb {other}").into()),
    }
    Ok(())
}

fn main() {
    if let Err(err) = run() {
        eprintln!("{err}");
        std::process::exit(1);
    }
}
