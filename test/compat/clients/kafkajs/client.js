'use strict'

// A user's program on kafkajs. What it has to do stands in the README one folder up.

const { parseArgs } = require('node:util')
const { setTimeout: sleep } = require('node:timers/promises')
const { AssignerProtocol, CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, Partitioners, logLevel } = require('kafkajs')
const Connection = require('kafkajs/src/network/connection')
const LZ4Codec = require('kafkajs-lz4')
const SnappyCodec = require('kafkajs-snappy')
const { ZstdCodec } = require('zstd-codec')

const PATIENCE = 60_000 // ms
// A broker that is killed is back within seconds; the default gives up after ten of them.
const ENDURING = { initialRetryTime: 100, maxRetryTime: 1000, retries: 60 }
const CODECS = {
  none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD
}

// kafkajs 2.2.4 keeps what has come of an answer when a connection breaks, and takes the next connection's first bytes for the rest
// of it: after a broker was killed in the middle of an answer all requests time out until the consumer starts anew.
const { disconnect } = Connection.prototype
Connection.prototype.disconnect = async function () {
  const done = await disconnect.call(this)
  this.chunks = []
  this.bytesBuffered = 0
  this.bytesNeeded = 4 // the length of the next answer
  return done
}

/** Prints one line; writes to a pipe are done when this returns. */
function tell (line) {
  process.stdout.write(JSON.stringify(line) + '\n')
}

function connect (flags, retry) {
  return new Kafka({ brokers: flags.brokers.split(','), clientId: 'kafkajs', retry, logLevel: logLevel.WARN, logCreator })
}

/** The library's own log goes to standard output, which here has another use. */
function logCreator () {
  return ({ namespace, label, log }) => process.stderr.write(`${label} ${namespace} ${log.message} ${log.error || ''}\n`)
}

async function codecs () {
  const zstd = await new Promise(resolve => ZstdCodec.run(resolve))
  const stream = new zstd.Streaming() // frames of other clients do not tell their size
  CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
  CompressionCodecs[CompressionTypes.LZ4] = new LZ4Codec().codec
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async encoder => Buffer.from(stream.compress(encoder.buffer)),
    decompress: async buffer => Buffer.from(stream.decompress(buffer))
  })
}

async function about () {
  tell({
    client: 'kafkajs', version: require('kafkajs/package.json').version, language: 'JavaScript', codecs: Object.keys(CODECS),
    acks: ['0', '1', 'all'], idempotent: true, static: false, commits: true, listener: false, assignors: Object.keys(ASSIGNORS),
    notes: [
      'no static members', 'no reading without a group', 'no choice but to go on where an offset is out of range',
      'range and roundrobin under their own names are written by the user'
    ]
  })
}

// ---- produce

const BATCH = 200 // records that are given to the library at once

async function produce (flags) {
  let next = flags.start
  for (const codec of (flags.codec ?? 'none').split(',')) {
    for (const acks of (flags.acks ?? 'all').split(',')) {
      await send(flags, codec, { all: -1, 1: 1, 0: 0 }[acks], next, next + flags.count)
      next += flags.count
    }
  }
  tell({ done: next - flags.start })
}

async function send (flags, codec, acks, from, to) {
  const partitions = new Map() // of the messages that are being sent: the library tells offsets by partition only
  const createPartitioner = () => {
    const choose = Partitioners.DefaultPartitioner()
    return args => {
      const partition = choose(args)
      partitions.set(args.message, partition)
      return partition
    }
  }
  const producer = connect(flags, ENDURING).producer({ createPartitioner, idempotent: flags.idempotent === 'true', maxInFlightRequests: 1 })
  await producer.connect()
  const batch = flags['pace-ms'] > 0 ? 1 : BATCH
  for (let first = from; first < to; first += batch) {
    const messages = []
    for (let i = first; i < Math.min(first + batch, to); i++) {
      messages.push({ key: `k${i % 100}`, value: `${i}`.padEnd(flags.size), headers: { n: `${i}` } })
    }
    // One batch after the other: one that is sent again would be overtaken by the next.
    const answers = await producer.send({ topic: flags.topic, messages, acks, compression: CODECS[codec] })
    const offsets = new Map((answers || []).map(a => [a.partition, Number(a.baseOffset)]))
    messages.forEach((message, i) => {
      const partition = partitions.get(message)
      const offset = offsets.get(partition) ?? -1
      if (offset >= 0) offsets.set(partition, offset + 1)
      tell({ acked: first + i, partition, offset: acks === 0 ? -1 : offset })
    })
    partitions.clear()
    if (flags['pace-ms'] > 0) await sleep(flags['pace-ms'])
  }
  await producer.disconnect()
}

// ---- consume

const unpadded = value => (value || '').toString().trimEnd()

/** The library has no reader without a group: this one has a group of its own, and commits nothing. */
async function consume (flags) {
  const consumer = connect(flags).consumer({ groupId: `consume-${process.pid}-${Date.now()}`, maxWaitTimeInMs: 500 })
  await consumer.connect()
  await consumer.subscribe({ topic: flags.topic, fromBeginning: true })
  let seen = 0
  const late = setTimeout(() => fail(new Error(`${seen} of ${flags.count} records within ${PATIENCE} ms`)), PATIENCE)
  await new Promise(resolve => consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      if (seen++ >= flags.count) return
      tell({
        partition, offset: Number(message.offset), key: (message.key || '').toString(), value: unpadded(message.value),
        header: (message.headers.n || '').toString()
      })
      if (seen === flags.count) resolve()
    }
  }))
  clearTimeout(late)
  await consumer.disconnect()
  tell({ done: flags.count })
}

// ---- group

/** An assignor under Kafka's own name, so that members on other libraries agree to it. */
function assignor (name, deal) {
  return ({ cluster }) => ({
    name,
    version: 0,
    protocol: ({ topics }) => ({ name, metadata: AssignerProtocol.MemberMetadata.encode({ version: 0, topics, userData: Buffer.alloc(0) }) }),
    assign: async ({ members, topics }) => {
      const ids = members.map(m => m.memberId).sort()
      const shares = new Map(ids.map(id => [id, {}]))
      deal(ids, topics.map(topic => [topic, cluster.findTopicPartitionMetadata(topic).map(p => p.partitionId).sort((a, b) => a - b)]),
        (id, topic, partition) => (shares.get(id)[topic] ??= []).push(partition))
      return ids.map(id => ({
        memberId: id,
        memberAssignment: AssignerProtocol.MemberAssignment.encode({ version: 0, assignment: shares.get(id), userData: Buffer.alloc(0) })
      }))
    }
  })
}

const range = assignor('range', (ids, topics, give) => {
  for (const [topic, partitions] of topics) {
    const share = Math.floor(partitions.length / ids.length)
    const larger = partitions.length % ids.length
    partitions.forEach((p, i) => {
      const inLarger = larger * (share + 1)
      give(i < inLarger ? ids[Math.floor(i / (share + 1))] : ids[larger + Math.floor((i - inLarger) / share)], topic, p)
    })
  }
})

const roundrobin = assignor('roundrobin', (ids, topics, give) => {
  topics.flatMap(([topic, partitions]) => partitions.map(p => [topic, p])).forEach(([topic, p], i) => give(ids[i % ids.length], topic, p))
})

const ASSIGNORS = { own: undefined, range, roundrobin }

function member (flags) {
  const chosen = ASSIGNORS[flags.assignor || 'own']
  return connect(flags, ENDURING).consumer({
    groupId: flags.group,
    sessionTimeout: 6000,
    heartbeatInterval: 1000,
    maxWaitTimeInMs: 500, // heartbeats go out between two fetches only
    ...(chosen ? { partitionAssigners: [chosen] } : {})
  })
}

/**
 * Says what a consumer has and has no more. What it had counts as revoked when it has joined again: the library stops
 * reading before it does, but where a broker that is gone keeps it from joining, it goes on with what it had.
 */
function follow (consumer, topic, assigned = () => {}) {
  const { GROUP_JOIN, CRASH } = consumer.events
  let owned = []
  const revoke = () => {
    if (owned.length > 0) tell({ revoked: owned })
    owned = []
  }
  consumer.on(CRASH, ({ payload }) => {
    revoke()
    if (!payload.restart) fail(payload.error)
  })
  consumer.on(GROUP_JOIN, ({ payload }) => {
    revoke()
    owned = [...(payload.memberAssignment[topic] || [])].sort((a, b) => a - b)
    assigned(owned)
    tell({ assigned: owned })
  })
}

async function group (flags) {
  const { topic } = flags
  const consumer = member(flags)
  follow(consumer, topic)
  process.once('SIGTERM', () => leave(consumer))
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat, commitOffsetsIfNecessary, isRunning, isStale }) => {
      const { partition } = batch
      let next = null // what is to be committed
      let since = 0
      const commit = async () => {
        if (next === null) return
        try {
          await commitOffsetsIfNecessary({ topics: [{ topic, partitions: [{ partition, offset: String(next) }] }] })
        } catch (e) {
          process.stderr.write(`commit ${partition}: ${next}: ${e}\n`)
          return
        }
        tell({ committed: { [partition]: next } })
        next = null
        since = 0
      }
      try {
        for (const message of batch.messages) {
          if (!isRunning() || isStale()) break
          tell({ record: { partition, offset: Number(message.offset), value: unpadded(message.value) } })
          resolveOffset(message.offset)
          next = Number(message.offset) + 1
          if (++since >= flags['commit-every']) await commit()
          await heartbeat()
        }
      } finally {
        await commit() // nobody asks before partitions are taken away
      }
    }
  })
}

async function leave (consumer) {
  await consumer.disconnect()
  tell({ left: true })
  process.exit(0)
}

// ---- admin

async function admin (flags) {
  const { topic, data } = flags
  const client = connect(flags).admin()
  await client.connect()
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  const partitions = async () => (await client.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length
  const retention = async () => {
    const found = await client.describeConfigs({ resources: [{ ...resource, configNames: ['retention.ms'] }], includeSynonyms: false })
    return found.resources[0].configEntries.find(e => e.configName === 'retention.ms').configValue
  }
  const sorted = entries => Object.fromEntries(entries.sort((a, b) => a[0] - b[0]))
  const offsets = async () => sorted((await client.fetchTopicOffsets(data)).map(o => [o.partition, [Number(o.low), Number(o.high)]]))

  await step('create-topic', async () => {
    await client.createTopics({
      topics: [{ topic, numPartitions: 3, replicationFactor: 1, configEntries: [{ name: 'retention.ms', value: '3600000' }] }]
    })
  })
  await step('describe-topic', partitions)
  await step('describe-config', retention)
  await step('alter-config', async () => {
    await client.alterConfigs({ resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: '7200000' }] }], validateOnly: false })
    return eventually(retention, '7200000')
  })
  await step('create-partitions', async () => {
    await client.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
    return eventually(partitions, 5)
  })
  await step('list-offsets', offsets)
  await step('describe-cluster', async () => {
    const { brokers, controller } = await client.describeCluster()
    return { brokers: brokers.map(b => b.nodeId).sort((a, b) => a - b), controller }
  })
  await step('list-groups', async () => (await client.listGroups()).groups.map(g => g.groupId).sort())
  await step('describe-group', async () => (await client.describeGroups([flags.group])).groups[0].state)
  await step('fetch-offsets', async () => {
    const [found] = await client.fetchOffsets({ groupId: flags.group, topics: [data] })
    return sorted(found.partitions.map(p => [p.partition, Number(p.offset)]))
  })
  await step('delete-records', async () => {
    await client.deleteTopicRecords({ topic: data, partitions: [{ partition: 0, offset: '10' }] })
    return (await offsets())[0][0]
  })
  await step('delete-group', async () => { await client.deleteGroups([flags.group]) })
  await step('delete-topic', async () => { await client.deleteTopics({ topics: [topic] }) })
  await client.disconnect()
}

/** Asks until the answer is the one that is wanted: a broker's metadata may be a moment behind. */
async function eventually (ask, wanted) {
  for (const deadline = Date.now() + PATIENCE; ; await sleep(50)) {
    const answer = await ask()
    if (answer === wanted || Date.now() > deadline) return answer
  }
}

async function step (name, action) {
  try {
    tell({ step: name, ok: true, detail: (await action()) ?? null })
  } catch (e) { // the next step follows
    tell({ step: name, ok: false, detail: `${nameOf(e)} ${e}` })
  }
}

// ---- errors

/** The name of the code in an answer, however deep the library has wrapped it. */
function nameOf (error) {
  if (!error) return undefined
  const [first] = error.errors || error.groups || []
  return (typeof error.type === 'string' && error.type) || nameOf(first && (first.error || first)) || nameOf(error.cause)
}

async function errors (flags) {
  const { topic } = flags
  const kafka = connect(flags, { retries: 0 })
  const client = kafka.admin()
  await client.connect()
  const creates = wanted => async () => {
    // false is how this library says that the topic is there already, and nothing else.
    if (!await client.createTopics({ topics: [{ numPartitions: 1, replicationFactor: 1, ...wanted }] })) return 'TOPIC_ALREADY_EXISTS'
  }
  await refused('create-existing', creates({ topic }))
  await refused('bad-name', creates({ topic: 'not a name' }))
  await refused('bad-partitions', () => client.createPartitions({ topicPartitions: [{ topic, count: 1 }] }))
  await refused('bad-config', creates({ topic: `${topic}-config`, configEntries: [{ name: 'retention.ms', value: 'soon' }] }))
  await refused('too-large', async () => {
    const producer = kafka.producer()
    await producer.connect()
    try {
      await producer.send({ topic, messages: [{ value: Buffer.alloc(5000) }] })
    } finally {
      await producer.disconnect()
    }
  })
  tell({ case: 'out-of-range', unsupported: 'by this client' }) // it goes on at the reset offset, whatever it is told
  await refused('delete-missing', () => client.deleteTopics({ topics: [`${topic}-missing`] }))
  await refused('delete-busy-group', () => client.deleteGroups([flags.group]))
  await refused('delete-missing-group', () => client.deleteGroups([`${flags.group}-missing`]))
  await client.disconnect()
}

async function refused (name, action) {
  let answer = 'NONE'
  try {
    const said = await action()
    if (typeof said === 'string') answer = said
  } catch (e) {
    answer = nameOf(e)
    if (!answer) throw e
  }
  tell({ case: name, error: answer })
}

// ----

function fail (error) {
  process.stderr.write(`${(error && error.stack) || error}\n`)
  process.exit(1)
}

async function main () {
  const verbs = { about, produce, consume, group, admin, errors, flights: flags => require('./flights').run(flags) }
  const texts = ['brokers', 'topic', 'group', 'instance', 'assignor', 'codec', 'acks', 'data', 'idempotent', 'state']
  const numbers = ['start', 'count', 'size', 'pace-ms', 'commit-every']
  const { values, positionals: [verb] } = parseArgs({
    allowPositionals: true,
    options: Object.fromEntries([...texts, ...numbers].map(name => [name, { type: 'string' }]))
  })
  for (const name of numbers) values[name] = Number(values[name] ?? (name === 'commit-every' ? 50 : 0))
  if (!verbs[verb]) throw new Error(Object.keys(verbs).join(', '))
  await codecs()
  await verbs[verb](values)
}

module.exports = { ENDURING, connect, fail, follow, leave, member, tell }

if (require.main === module) main().catch(fail)
