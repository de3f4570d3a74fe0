//! The verb produce.

use std::sync::Mutex;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use serde_json::json;

use crate::{tell, Flags, Outcome, PATIENCE};

/// Prints what is delivered and keeps what failed first.
struct Deliveries {
    told: bool, // with acks 0 there is no offset
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        match result {
            Ok(m) => tell(json!({ "acked": *number, "partition": m.partition(), "offset": if self.told { m.offset() } else { -1 } })),
            Err((err, _)) => {
                self.failed.lock().unwrap().get_or_insert(err.clone());
            }
        }
    }
}

pub fn produce(flags: &Flags) -> Outcome<()> {
    let (start, count) = (flags.number("start", 0)?, flags.number("count", 0)?);
    let mut first = start;
    for codec in flags.text("codec").split(',') {
        for acks in flags.text("acks").split(',') {
            produce_with(flags, codec, acks, first, count)?;
            first += count;
        }
    }
    tell(json!({ "done": first - start }));
    Ok(())
}

fn produce_with(flags: &Flags, codec: &str, acks: &str, first: usize, count: usize) -> Outcome<()> {
    let (size, pace) = (flags.number("size", 100)?, flags.number("pace-ms", 0)?);
    let mut config = flags.client();
    config.set("message.timeout.ms", PATIENCE.as_millis().to_string());
    config.set("compression.type", if codec.is_empty() { "none" } else { codec });
    config.set("acks", if acks.is_empty() { "all" } else { acks });
    if flags.text("idempotent") == "true" {
        config.set("enable.idempotence", "true");
    } else {
        config.set("max.in.flight", "1"); // keeps the order when a request is sent again
    }
    let deliveries = Deliveries { told: acks != "0", failed: Mutex::new(None) };
    let producer: BaseProducer<Deliveries> = config.create_with_context(deliveries)?;
    for i in first..first + count {
        let (key, number) = (format!("k{}", i % 100), i.to_string());
        let value = format!("{i:<size$}");
        let headers = OwnedHeaders::new().insert(Header { key: "n", value: Some(&number) });
        let mut record = BaseRecord::with_opaque_to(flags.text("topic"), Box::new(i)).key(&key).payload(&value).headers(headers);
        while let Err((err, refused)) = producer.send(record) {
            if err.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(err.into());
            }
            producer.poll(Duration::from_millis(10));
            record = refused;
        }
        producer.poll(Duration::from_millis(pace as u64));
    }
    producer.flush(PATIENCE)?;
    let failed = producer.context().failed.lock().unwrap().take();
    failed.map_or(Ok(()), |err| Err(err.into()))
}
