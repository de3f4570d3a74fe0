//! The verbs admin and errors.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde_json::{json, Value};

use crate::{error_name, tell, Flags, Outcome, PATIENCE};

struct Administrator<'a> {
    flags: &'a Flags,
    admin: AdminClient<DefaultClientContext>,
    consumer: BaseConsumer,
    options: AdminOptions,
}

/// What the broker refused, or what kept it from being asked.
enum Refusal {
    Code(RDKafkaErrorCode),
    Other(String),
}

impl From<KafkaError> for Refusal {
    fn from(err: KafkaError) -> Refusal {
        err.rdkafka_error_code().map_or_else(|| Refusal::Other(err.to_string()), Refusal::Code)
    }
}

impl Refusal {
    fn name(&self) -> String {
        match self {
            Refusal::Code(code) => error_name(*code),
            Refusal::Other(text) => text.clone(),
        }
    }
}

type Answer<T> = Result<T, Refusal>;

/// The answer about the one thing that was asked for.
fn only(answers: Vec<Result<String, (String, RDKafkaErrorCode)>>) -> Answer<Value> {
    match answers.into_iter().next() {
        Some(Ok(_)) => Ok(Value::Null),
        Some(Err((_, code))) => Err(Refusal::Code(code)),
        None => Err(Refusal::Other("there is no answer".to_string())),
    }
}

/// Asks until the answer is the one wanted: what one request changed need not show in the next.
fn again<T: PartialEq>(want: T, ask: impl Fn() -> Answer<T>) -> Answer<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = ask();
        if found.as_ref().is_ok_and(|f| *f == want) || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl<'a> Administrator<'a> {
    fn new(flags: &'a Flags) -> Outcome<Self> {
        let mut grouped = flags.client();
        grouped.set("group.id", flags.text("group")).set("enable.auto.commit", "false");
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(30))).operation_timeout(Some(Duration::from_secs(30)));
        Ok(Self { flags, admin: flags.client().create()?, consumer: grouped.create()?, options })
    }

    fn create(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) -> Answer<Value> {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in config {
            new = new.set(key, value);
        }
        only(block_on(self.admin.create_topics([&new], &self.options))?)
    }

    fn partitions(&self, want: usize) -> Answer<usize> {
        let topic = self.flags.text("topic");
        again(want, || Ok(self.consumer.fetch_metadata(Some(topic), PATIENCE)?.topics()[0].partitions().len()))
    }

    fn retention(&self) -> Answer<String> {
        let topic = ResourceSpecifier::Topic(self.flags.text("topic"));
        let answers = block_on(self.admin.describe_configs([&topic], &self.options))?;
        match answers.into_iter().next() {
            Some(Ok(found)) => found
                .get("retention.ms")
                .and_then(|e| e.value.clone())
                .ok_or(Refusal::Other("there is no retention.ms".to_string())),
            Some(Err(code)) => Err(Refusal::Code(code)),
            None => Err(Refusal::Other("there is no answer".to_string())),
        }
    }

    fn alter(&self, retention: &str) -> Answer<String> {
        let config = AlterConfig::new(ResourceSpecifier::Topic(self.flags.text("topic"))).set("retention.ms", retention);
        match block_on(self.admin.alter_configs([&config], &self.options))?.into_iter().next() {
            Some(Err((_, code))) => Err(Refusal::Code(code)),
            _ => again(retention.to_string(), || self.retention()),
        }
    }

    fn grow(&self, to: usize) -> Answer<usize> {
        let new = NewPartitions::new(self.flags.text("topic"), to);
        only(block_on(self.admin.create_partitions([&new], &self.options))?)?;
        self.partitions(to)
    }

    fn offsets(&self) -> Answer<BTreeMap<i32, (i64, i64)>> {
        let data = self.flags.text("data");
        (0..3).map(|p| Ok((p, self.consumer.fetch_watermarks(data, p, PATIENCE)?))).collect()
    }

    fn cluster(&self) -> Answer<Value> {
        let metadata = self.consumer.fetch_metadata(Some(self.flags.text("data")), PATIENCE)?;
        Ok(json!({ "brokers": metadata.brokers().iter().map(|b| b.id()).collect::<Vec<_>>() }))
    }

    fn groups(&self) -> Answer<Value> {
        let listed = self.consumer.fetch_group_list(None, PATIENCE)?;
        Ok(json!(listed.groups().iter().map(|g| g.name()).collect::<Vec<_>>()))
    }

    fn describe(&self) -> Answer<Value> {
        let listed = self.consumer.fetch_group_list(Some(self.flags.text("group")), PATIENCE)?;
        Ok(json!(listed.groups().first().map(|g| g.state().to_string())))
    }

    fn committed(&self) -> Answer<BTreeMap<i32, i64>> {
        let mut ask = TopicPartitionList::new();
        ask.add_partition_range(self.flags.text("data"), 0, 2);
        let found = self.consumer.committed_offsets(ask, PATIENCE)?;
        Ok(found.elements().iter().map(|e| (e.partition(), e.offset().to_raw().unwrap_or(-1))).collect())
    }

    fn delete_records(&self, before: i64) -> Answer<i64> {
        let mut up_to = TopicPartitionList::new();
        up_to.add_partition_offset(self.flags.text("data"), 0, Offset::Offset(before))?;
        block_on(self.admin.delete_records(&up_to, &self.options))?;
        Ok(self.offsets()?[&0].0)
    }

    fn delete_group(&self, group: &str) -> Answer<Value> {
        only(block_on(self.admin.delete_groups(&[group], &self.options))?)
    }

    fn delete_topic(&self, topic: &str) -> Answer<Value> {
        only(block_on(self.admin.delete_topics(&[topic], &self.options))?)
    }

    fn produce_large(&self) -> Answer<()> {
        let mut config = self.flags.client();
        config.set("message.max.bytes", "2000000");
        let producer: BaseProducer<Last> = config.create_with_context(Last(std::sync::Mutex::new(None)))?;
        let value = "x".repeat(5000);
        let record: BaseRecord<'_, str, str> = BaseRecord::to(self.flags.text("topic")).payload(&value);
        if let Err((err, _)) = producer.send(record) {
            return Err(err.into());
        }
        producer.flush(PATIENCE)?;
        let failed = producer.context().0.lock().unwrap().take();
        failed.map_or(Ok(()), |err| Err(err.into()))
    }
}

/// Keeps the failure of the one record that is sent.
struct Last(std::sync::Mutex<Option<KafkaError>>);

impl ClientContext for Last {}

impl ProducerContext for Last {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((err, _)) = result {
            *self.0.lock().unwrap() = Some(err.clone());
        }
    }
}

pub fn admin(flags: &Flags) -> Outcome<()> {
    let a = Administrator::new(flags)?;
    report("create-topic", a.create(flags.text("topic"), 3, &[("retention.ms", "3600000")]));
    report("describe-topic", a.partitions(3).map(|n| json!(n)));
    report("describe-config", a.retention().map(|v| json!(v)));
    report("alter-config", a.alter("7200000").map(|v| json!(v)));
    report("create-partitions", a.grow(5).map(|n| json!(n)));
    report("list-offsets", a.offsets().map(|o| json!(o)));
    report("describe-cluster", a.cluster());
    report("list-groups", a.groups());
    report("describe-group", a.describe());
    report("fetch-offsets", a.committed().map(|o| json!(o)));
    report("delete-records", a.delete_records(10).map(|o| json!(o)));
    report("delete-group", a.delete_group(flags.text("group")));
    report("delete-topic", a.delete_topic(flags.text("topic")));
    Ok(())
}

fn report(step: &str, answer: Answer<Value>) {
    match answer {
        Ok(detail) => tell(json!({ "step": step, "ok": true, "detail": detail })),
        Err(refusal) => tell(json!({ "step": step, "ok": false, "detail": refusal.name() })),
    }
}

pub fn errors(flags: &Flags) -> Outcome<()> {
    let a = Administrator::new(flags)?;
    let (topic, group) = (flags.text("topic"), flags.text("group"));
    case("create-existing", a.create(topic, 1, &[]));
    case("bad-name", a.create("not a name", 1, &[]));
    case("bad-partitions", a.grow(1));
    case("bad-config", a.create(&format!("{topic}-config"), 1, &[("retention.ms", "soon")]));
    case("too-large", a.produce_large());
    // The library answers with an error of its own for a reset that is not allowed, whatever the broker said.
    tell(json!({ "case": "out-of-range", "unsupported": "by this client" }));
    case("delete-missing", a.delete_topic(&format!("{topic}-missing")));
    case("delete-busy-group", a.delete_group(group));
    case("delete-missing-group", a.delete_group(&format!("{group}-missing")));
    Ok(())
}

fn case<T>(name: &str, answer: Answer<T>) {
    tell(json!({ "case": name, "error": answer.map_or_else(|refusal| refusal.name(), |_| "NONE".to_string()) }));
}
