// Package sim runs whole clusters in one process, in a testing/synctest bubble, harms them by a seed, and checks
// what their clients saw. It decides which harms come when, and what must hold in spite of them; it knows the
// broker only through clustertest and the wire. Tests only.
//
// A Run is one world: a cluster over memory disks and a memory network, guests that produce, consume, commit in groups and
// change topics, each with dice of its own, and a nemesis that harms the nodes in rounds. What the guests asked and were told
// is a History; Check judges it once the world is over.
//
// # What is promised
//
// Nothing acknowledged by all in-sync replicas is lost while one of them lives. So in one round at most one node is wounded: it loses
// records that it had (its disk is wiped, fails or rots), and before the next is, the cluster has become whole. Everything else may come
// at any time and to all nodes at once. Where a topic is acknowledged from page caches (flush.before.ack=false; a third of the
// worlds) a node that dies without a word counts as wounded too, for it cannot say what it lost, and all of them never lose
// their power together. Acknowledged with acks=1, records may be lost, but not doubled, reordered or made up.
//
// Bits flip below a log's recovery point only. What lies beyond it is looked through after a crash, and cut where it is not whole, as what
// a crash has torn: one flipped bit there, before a checkpoint and with a power cut after it, takes the rest of that log with it.
// And they flip where a checksum sees it: Kafka's format leaves a batch's first offset and its leader's epoch out.
//
// # What is not modelled
//
// A paused node's network and disk stand still, its timers do not: what they cause stays in the node. Machine code, sendfile, TLS, a real
// kernel's page cache and scheduler are left to test/chaos. Clocks jump, they do not drift, and by less than an hour, since brokers refuse
// records from the future (message.timestamp.after.max.ms). Packets are late or cut off, never lost one by one: that is TCP's
// business. Compaction, retention by time and DeleteRecords are not at work on the topics that are checked.
package sim
