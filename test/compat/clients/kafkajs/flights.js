'use strict'

// A member of the group that counts flights. Per partition it keeps the next offset and the sums per
// airport in one file that is replaced as a whole, so a flight that comes again counts once, whoever
// read it first. What it prints is described in flights_group_test.go, two folders up.

const fs = require('node:fs')
const path = require('node:path')
const { ENDURING, connect, fail, follow, leave, member, tell } = require('./client')

/** Replaces a partition's file by what has been counted, and returns once the disk has it. */
function save (folder, partition, sums) {
  const fresh = path.join(folder, `${partition}.js.${process.pid}`)
  const flushed = (name, flags, work) => {
    const file = fs.openSync(name, flags)
    try {
      work(file)
      fs.fsyncSync(file)
    } finally {
      fs.closeSync(file)
    }
  }
  flushed(fresh, 'w', file => fs.writeFileSync(file, JSON.stringify(sums)))
  fs.renameSync(fresh, path.join(folder, `${partition}.json`))
  flushed(folder, 'r', () => {})
  tell({ saved: { partition, next: sums.next } })
}

function load (folder, partition) {
  const name = path.join(folder, `${partition}.json`)
  return fs.existsSync(name) ? JSON.parse(fs.readFileSync(name)) : { next: 0, airports: {} }
}

function count (sums, partition, { key, offset, value }) {
  if (Number(offset) < sums.next) return
  if (Number(offset) > sums.next) throw new Error(`partition ${partition}: offset ${offset} came where ${sums.next} should`)
  const flight = JSON.parse(value)
  const airport = (sums.airports[flight.origin] ??= { flights: 0, delays: 0 })
  if (flight.n !== airport.flights + 1 || flight.origin !== key.toString()) {
    throw new Error(`partition ${partition}, offset ${offset}: ${value} came after flight ${airport.flights}`)
  }
  airport.flights++
  airport.delays += flight.delay
  sums.next++
}

async function run (flags) {
  const { topic, state } = flags
  const consumer = member(flags)
  const admin = connect(flags, ENDURING).admin()
  await admin.connect()
  const mine = new Map()
  /** Says what the group has committed of the partitions that have just come. */
  const took = async partitions => {
    const at = Date.now()
    const next = new Map(partitions.map(p => [p, mine.get(p).next]))
    try {
      const [found] = await admin.fetchOffsets({ groupId: flags.group, topics: [topic] })
      for (const { partition, offset } of found.partitions) {
        if (next.has(partition)) tell({ took: { partition, committed: Number(offset), next: next.get(partition) }, at })
      }
    } catch (e) {
      process.stderr.write(`committed offsets: ${e}\n`)
    }
  }
  follow(consumer, topic, partitions => {
    mine.clear()
    for (const partition of partitions) {
      const sums = load(state, partition)
      mine.set(partition, sums)
      consumer.seek({ topic, partition, offset: String(sums.next) })
    }
    if (partitions.length > 0) took(partitions)
  })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat, commitOffsetsIfNecessary, isRunning, isStale }) => {
      const { partition } = batch
      const sums = mine.get(partition)
      try {
        for (const message of batch.messages) count(sums, partition, message)
        save(state, partition, sums)
      } catch (e) {
        fail(e) // the library would hand out the batch again
      }
      resolveOffset(batch.lastOffset())
      try {
        await commitOffsetsIfNecessary({ topics: [{ topic, partitions: [{ partition, offset: String(sums.next) }] }] })
        tell({ committed: { [partition]: sums.next }, at: Date.now() })
      } catch (e) {
        process.stderr.write(`commit ${partition}: ${sums.next}: ${e}\n`)
      }
      await heartbeat()
    }
  })
  process.once('SIGTERM', () => leave(consumer))
}

module.exports = { run }
