// Makes ../kafka.txt.gz: record batches as Apache Kafka builds them, and what Kafka's leader says of them and of broken
// ones. Run with the jars of Apache Kafka 4.3.1 on the class path:
//
//	java -cp 'LIB/*' Golden.java | gzip -9n > ../kafka.txt.gz
//
// Lines are tab-separated:
//
//	batch    NAME  BASE64  RECORDS
//	marker   NAME  BASE64  COMMIT PRODUCER_ID EPOCH COORDINATOR_EPOCH TIMESTAMP
//	verdict  NAME  BASE64  RULES  VERDICT  MAX_TIMESTAMP  INDEXES  BASE64 of the batch to store
//
// RECORDS is a list (;) of offset,timestamp,key,value[,header key,header value]*, each field in hexadecimal or "null".
// RULES is now,timestamp type,before,after,compacted,codec,client|coordinator,max bytes.
import java.nio.ByteBuffer;
import java.util.*;
import org.apache.kafka.common.InvalidRecordException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.utils.*;
import org.apache.kafka.storage.internals.log.*;

public class Golden {
    static final long NOW = 1_700_000_000_000L;
    static final int CRC_AT = 17, ATTRIBUTES_AT = 21;

    record Spec(String name, CompressionType codec, TimestampType type, int count, boolean keys, boolean headers,
                int valueBytes, long producerId, boolean transactional, boolean control, long timestamp) {}

    record Rules(TimestampType type, long before, long after, boolean compacted, CompressionType codec,
                 AppendOrigin origin, int maxBytes) {
        static Rules plain(CompressionType c) {
            return new Rules(TimestampType.CREATE_TIME, Long.MAX_VALUE, 3_600_000L, false, c, AppendOrigin.CLIENT, 1 << 20);
        }
        public String toString() {
            return NOW + "," + type.name + "," + before + "," + after + "," + compacted + "," + codec.name + ","
                + (origin == AppendOrigin.CLIENT ? "client" : "coordinator") + "," + maxBytes;
        }
    }

    static final List<Spec> specs = new ArrayList<>();

    public static void main(String[] args) {
        for (CompressionType c : CompressionType.values()) {
            String n = c.name;
            specs.add(new Spec(n + "/nulls", c, TimestampType.CREATE_TIME, 1, false, false, -1, -1, false, false, NOW));
            specs.add(new Spec(n + "/headers", c, TimestampType.CREATE_TIME, 5, true, true, 10, -1, false, false, NOW));
            specs.add(new Spec(n + "/idempotent", c, TimestampType.CREATE_TIME, 3, true, false, 100, 4711, false, false, NOW));
            specs.add(new Spec(n + "/transactional", c, TimestampType.CREATE_TIME, 2, false, true, 100, 1L << 40, true, false, NOW));
            specs.add(new Spec(n + "/many", c, TimestampType.CREATE_TIME, 70, true, false, 20, -1, false, false, NOW));
            specs.add(new Spec(n + "/untimed", c, TimestampType.CREATE_TIME, 2, true, false, 5, -1, false, false, -1));
            specs.add(new Spec(n + "/appendtime", c, TimestampType.LOG_APPEND_TIME, 2, true, false, 5, -1, false, false, NOW));
            if (c != CompressionType.NONE) {
                specs.add(new Spec(n + "/large", c, TimestampType.CREATE_TIME, 3, true, false, 150_000, -1, false, false, NOW));
            }
        }
        for (Spec s : specs) {
            byte[] b = build(s);
            System.out.println("batch\t" + s.name + "\t" + base64(b) + "\t" + (s.valueBytes > 1000 ? "-" : describe(b)));
        }
        marker("commit", ControlRecordType.COMMIT, 4711, (short) 3, 17);
        marker("abort", ControlRecordType.ABORT, 1L << 33, (short) 0, 0);
        level("gzip-9", Compression.gzip().level(9).build());
        level("lz4-1", Compression.lz4().level(1).build());
        level("lz4-17", Compression.lz4().level(17).build());
        level("zstd-22", Compression.zstd().level(22).build());
        for (Spec s : specs) {
            if (s.valueBytes < 1000) {
                rules(s);
                headers(s);
            }
        }
        for (CompressionType c : CompressionType.values()) {
            recordsOf(c);
            flips(c);
        }
    }

    static byte[] build(Spec s) {
        Compression c = Compression.of(s.codec).build();
        ByteBufferOutputStream out = new ByteBufferOutputStream(1024);
        MemoryRecordsBuilder b = new MemoryRecordsBuilder(out, RecordBatch.MAGIC_VALUE_V2, c, s.type, 0L, NOW,
            s.producerId, s.producerId < 0 ? -1 : (short) 7, s.producerId < 0 ? -1 : 2147483646, s.transactional, s.control,
            RecordBatch.NO_PARTITION_LEADER_EPOCH, 1 << 20);
        for (int i = 0; i < s.count; i++) {
            byte[] key = s.keys ? ("key-" + i).getBytes() : null;
            byte[] value = null;
            if (s.valueBytes >= 0) {
                value = new byte[s.valueBytes];
                for (int j = 0; j < value.length; j++) value[j] = (byte) ('a' + (i + j * j) % 13);
            }
            Header[] headers = s.headers ? new Header[] {new RecordHeader("first", new byte[] {1, 2, (byte) i}),
                new RecordHeader("", null), new RecordHeader("first", new byte[0])} : Record.EMPTY_HEADERS;
            long timestamp = s.timestamp < 0 ? s.timestamp : s.timestamp + (i % 3) * 1000L - i;
            b.appendWithOffset(i, timestamp, key, value, headers);
        }
        return bytes(b.build());
    }

    static void marker(String name, ControlRecordType type, long id, short epoch, int coordinator) {
        MemoryRecords r = MemoryRecords.withEndTransactionMarker(0, NOW, 5, id, epoch, new EndTransactionMarker(type, coordinator));
        System.out.println("marker\t" + name + "\t" + base64(bytes(r)) + "\t" + (type == ControlRecordType.COMMIT) + " " + id + " "
            + epoch + " " + coordinator + " " + NOW);
    }

    static void level(String name, Compression c) {
        SimpleRecord[] records = new SimpleRecord[200];
        for (int i = 0; i < records.length; i++) records[i] = new SimpleRecord(NOW + i, ("k" + i % 7).getBytes(), ("value " + i * i).getBytes());
        byte[] b = bytes(MemoryRecords.withRecords(c, records));
        System.out.println("batch\tlevel/" + name + "\t" + base64(b) + "\t" + describe(b));
    }

    // Every rule that a topic can have.
    static void rules(Spec s) {
        byte[] b = build(s);
        for (CompressionType target : CompressionType.values()) {
            verdict(s.name + " stored as " + target.name, b, Rules.plain(target));
        }
        CompressionType c = s.codec;
        for (TimestampType t : new TimestampType[] {TimestampType.CREATE_TIME, TimestampType.LOG_APPEND_TIME}) {
            verdict(s.name + " compacted " + t, b, new Rules(t, Long.MAX_VALUE, Long.MAX_VALUE, true, c, AppendOrigin.CLIENT, 1 << 20));
            verdict(s.name + " times " + t, b, new Rules(t, 500, 1500, false, c, AppendOrigin.CLIENT, 1 << 20));
            verdict(s.name + " times compacted " + t, b, new Rules(t, 0, 0, true, c, AppendOrigin.CLIENT, 1 << 20));
            verdict(s.name + " coordinator " + t, b, new Rules(t, Long.MAX_VALUE, Long.MAX_VALUE, false, c, AppendOrigin.COORDINATOR, 1 << 20));
        }
        verdict(s.name + " too large", b, new Rules(TimestampType.CREATE_TIME, Long.MAX_VALUE, 3_600_000L, false, c, AppendOrigin.CLIENT, b.length - 1));
        verdict(s.name + " just fits", b, new Rules(TimestampType.CREATE_TIME, Long.MAX_VALUE, 3_600_000L, false, c, AppendOrigin.CLIENT, b.length));
    }

    // Headers that lie.
    static void headers(Spec s) {
        if (!s.name.endsWith("/headers") && !s.name.endsWith("/idempotent")) return;
        Rules r = Rules.plain(s.codec);
        int n = s.count;
        int[][] countAndDelta = {{n + 1, n - 1}, {n - 1, n - 1}, {n, n}, {n, n - 2}, {n + 1, n}, {n - 1, n - 2}, {0, -1}, {0, 0}, {-1, -2},
            {-1, n - 1}, {Integer.MAX_VALUE, Integer.MAX_VALUE - 1}, {Integer.MIN_VALUE, Integer.MAX_VALUE}};
        for (int[] c : countAndDelta) {
            ByteBuffer b = ByteBuffer.wrap(build(s));
            b.putInt(57, c[0]).putInt(23, c[1]);
            verdict(s.name + " count " + c[0] + " delta " + c[1], fix(b), r);
        }
        for (long base : new long[] {1, -1, Long.MAX_VALUE}) {
            verdict(s.name + " base offset " + base, fix(ByteBuffer.wrap(build(s)).putLong(0, base)), r);
        }
        for (int flag : new int[] {8, 16, 32, 64, 128}) {
            ByteBuffer b = ByteBuffer.wrap(build(s));
            b.putShort(ATTRIBUTES_AT, (short) (b.getShort(ATTRIBUTES_AT) ^ flag));
            verdict(s.name + " attribute " + flag, fix(b), r);
        }
        for (int codec = 0; codec < 8; codec++) {
            ByteBuffer b = ByteBuffer.wrap(build(s));
            b.putShort(ATTRIBUTES_AT, (short) (b.getShort(ATTRIBUTES_AT) & ~7 | codec));
            verdict(s.name + " codec id " + codec, fix(b), r);
        }
        for (long max : new long[] {0, -1, NOW + 12345, Long.MAX_VALUE, Long.MIN_VALUE}) {
            verdict(s.name + " max timestamp " + max, fix(ByteBuffer.wrap(build(s)).putLong(35, max)), r);
        }
        for (long base : new long[] {0, -1, -1000, Long.MAX_VALUE, Long.MIN_VALUE}) {
            verdict(s.name + " base timestamp " + base, fix(ByteBuffer.wrap(build(s)).putLong(27, base)), r);
        }
        for (int sequence : new int[] {-1, -2, Integer.MIN_VALUE}) {
            verdict(s.name + " sequence " + sequence, fix(ByteBuffer.wrap(build(s)).putInt(53, sequence)), r);
        }
        for (int magic : new int[] {0, 1, 3, -1}) {
            verdict(s.name + " magic " + magic, ByteBuffer.wrap(build(s)).put(16, (byte) magic).array(), r);
        }
        verdict(s.name + " wrong checksum", ByteBuffer.wrap(build(s)).putInt(CRC_AT, 1).array(), r);
        byte[] whole = build(s);
        verdict(s.name + " short payload", fix(ByteBuffer.wrap(Arrays.copyOf(whole, whole.length - 1))), r);
        verdict(s.name + " long payload", fix(ByteBuffer.wrap(Arrays.copyOf(whole, whole.length + 1))), r);
        verdict(s.name + " no payload", fix(ByteBuffer.wrap(Arrays.copyOf(whole, 61))), r);
    }

    // Records that lie, written by hand. The first is fine.
    static void recordsOf(CompressionType c) {
        String[][] cases = {
            {"fine", sized("000000026b027600")}, {"fine without key", sized("00000001027600")},
            {"length too small", "0e000000026b027600"}, {"length too large", "12000000026b027600"},
            {"length zero", "00"}, {"length negative", "01"}, {"length huge", "feffffff0f000000026b027600"},
            {"length in five bytes", "9080808000000000026b027600"}, {"length in six bytes", "908080808000000000026b027600"},
            {"key length past record", sized("0000007e6b027600")}, {"value length past record", sized("000000026b7e7600")},
            {"key length -2", sized("00000003027600")}, {"value length -2", sized("000000026b0300")},
            {"headers negative", sized("000000026b027601")}, {"headers too many", sized("000000026b027602")},
            {"headers huge", sized("000000026b0276feffffff0f")},
            {"header", sized("000000026b02760202680278")}, {"header null value", sized("000000026b027602026801")},
            {"header null key", sized("000000026b0276020101")}, {"header value length -2", sized("000000026b027602026803")},
            {"header key past record", sized("000000026b0276027e6801")}, {"headers two", sized("000000026b0276040268026902680401ff")},
            {"offset delta 1", sized("000002026b027600")}, {"offset delta -1", sized("000001026b027600")},
            {"offset delta in five bytes", sized("00008080808000026b027600")}, {"attributes", sized("ff0000026b027600")},
            {"timestamp in ten bytes", sized("0080808080808080808000" + "00026b027600")},
            {"timestamp in eleven bytes", sized("008080808080808080808000" + "00026b027600")},
            {"timestamp minus one day", sized("00ffb7b25200026b027600")}, {"timestamp plus one day", sized("0080b8b25200026b027600")},
            {"timestamp least", sized("00ffffffffffffffffff01" + "00026b027600")}, {"timestamp greatest", sized("00feffffffffffffffff01" + "00026b027600")},
        };
        for (String[] k : cases) {
            byte[] payload = HexFormat.of().parseHex(k[1]);
            verdict(c.name + " record: " + k[0], wrap(c, payload, 1), Rules.plain(c));
        }
        for (int[] deltas : new int[][] {{0, 1, 2}, {1, 2, 3}, {0, 2, 1}, {0, 0, 0}, {0, 1, 3}, {0, 1, 1}}) {
            StringBuilder all = new StringBuilder();
            for (int d : deltas) all.append(sized(String.format("0000%02x026b027600", d * 2)));
            verdict(c.name + " offset deltas " + Arrays.toString(deltas), wrap(c, HexFormat.of().parseHex(all.toString()), 3), Rules.plain(c));
        }
    }

    static String sized(String body) { return String.format("%02x", body.length()) + body; } // the varint of half as many bytes

    // Random damage under a good checksum.
    static void flips(CompressionType c) {
        Random random = new Random(c.id);
        for (int i = 0; i < 150; i++) {
            Spec s = new Spec("", c, TimestampType.CREATE_TIME, 1 + random.nextInt(4), random.nextBoolean(), random.nextBoolean(),
                random.nextInt(20), -1, false, false, NOW);
            byte[] b = build(s);
            for (int n = 1 + random.nextInt(2); n > 0; n--) b[61 + random.nextInt(b.length - 61)] ^= (byte) (1 << random.nextInt(8));
            verdict(c.name + " flip " + i, fix(ByteBuffer.wrap(b)), Rules.plain(c));
        }
    }

    static byte[] wrap(CompressionType c, byte[] payload, int count) {
        ByteBufferOutputStream out = new ByteBufferOutputStream(256);
        try (var stream = Compression.of(c).build().wrapForOutput(out, RecordBatch.MAGIC_VALUE_V2)) {
            stream.write(payload);
        } catch (java.io.IOException e) {
            throw new RuntimeException(e);
        }
        ByteBuffer packed = out.buffer();
        packed.flip();
        ByteBuffer b = ByteBuffer.allocate(61 + packed.remaining());
        b.putInt(12, -1).put(16, (byte) 2).putShort(ATTRIBUTES_AT, c.id).putInt(23, count - 1).putLong(27, NOW).putLong(35, NOW)
            .putLong(43, -1).putShort(51, (short) -1).putInt(53, -1).putInt(57, count);
        b.position(61);
        b.put(packed);
        return fix(b);
    }

    static byte[] fix(ByteBuffer b) {
        byte[] a = b.array();
        b.putInt(8, a.length - 12);
        b.putInt(CRC_AT, (int) Crc32C.compute(a, ATTRIBUTES_AT, a.length - ATTRIBUTES_AT));
        return a;
    }

    // What UnifiedLog.append does to a client's batch before it assigns offsets.
    static void verdict(String name, byte[] input, Rules r) {
        String verdict, indexes = "", stored = "";
        long max = -1;
        TopicPartition tp = new TopicPartition("t", 0);
        try {
            MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(input.clone()));
            MutableRecordBatch batch = records.batches().iterator().next();
            if (batch.magic() < 2) throw new UnsupportedForMessageFormatException("magic");
            if (r.origin == AppendOrigin.CLIENT && batch.baseOffset() != 0) throw new InvalidRecordException("base offset");
            if (batch.sizeInBytes() > r.maxBytes) throw new RecordTooLargeException("size");
            if (!batch.isValid()) throw new CorruptRecordException("checksum");
            CompressionType source = batch.compressionType();
            var v = new LogValidator(records, tp, new MockTime(), source, Compression.of(r.codec).build(), r.compacted,
                RecordBatch.MAGIC_VALUE_V2, r.type, r.before, r.after, RecordBatch.NO_PARTITION_LEADER_EPOCH, r.origin)
                .validateMessagesAndAssignOffsets(PrimitiveRef.ofLong(0), new NoMetrics(), BufferSupplier.create());
            byte[] out = bytes(v.validatedRecords());
            if (v.messageSizeMaybeChanged() && out.length > r.maxBytes) throw new RecordTooLargeException("size after");
            verdict = v.messageSizeMaybeChanged() ? "REBUILT" : "OK";
            max = v.maxTimestampMs();
            stored = base64(out);
        } catch (RecordValidationException e) {
            verdict = e.invalidException() instanceof InvalidTimestampException ? "INVALID_TIMESTAMP" : "INVALID_RECORD";
            StringJoiner j = new StringJoiner(",");
            e.recordErrors().forEach(x -> j.add("" + x.batchIndex));
            indexes = j.toString();
        } catch (InvalidTimestampException e) {
            verdict = "INVALID_TIMESTAMP";
        } catch (InvalidRecordException e) {
            verdict = "INVALID_RECORD";
        } catch (RecordTooLargeException e) {
            verdict = "TOO_LARGE";
        } catch (UnsupportedForMessageFormatException e) {
            verdict = "MAGIC";
        } catch (CorruptRecordException e) {
            verdict = "CORRUPT";
        } catch (RuntimeException | Error e) {
            verdict = "OTHER " + e.getClass().getSimpleName();
        }
        System.out.println(String.join("\t", "verdict", name, base64(input), r.toString(), verdict, "" + max, indexes, stored));
    }

    static final class MockTime extends SystemTime0 {}

    static class SystemTime0 implements Time {
        public long milliseconds() { return NOW; }
        public long hiResClockMs() { return NOW; }
        public long nanoseconds() { return NOW * 1_000_000; }
        public void sleep(long ms) {}
        public void waitObject(Object o, java.util.function.Supplier<Boolean> c, long d) {}
        public org.apache.kafka.common.utils.Timer timer(long ms) { return null; }
    }

    static final class NoMetrics implements LogValidator.MetricsRecorder {
        public void recordInvalidMagic() {}
        public void recordInvalidOffset() {}
        public void recordInvalidSequence() {}
        public void recordInvalidChecksums() {}
        public void recordNoKeyCompactedTopic() {}
    }

    static String describe(byte[] b) {
        StringJoiner all = new StringJoiner(";");
        for (Record r : MemoryRecords.readableRecords(ByteBuffer.wrap(b)).records()) {
            StringJoiner one = new StringJoiner(",");
            one.add("" + r.offset()).add("" + r.timestamp()).add(hex(r.key())).add(hex(r.value()));
            for (Header h : r.headers()) one.add(HexFormat.of().formatHex(h.key().getBytes())).add(h.value() == null ? "null" : HexFormat.of().formatHex(h.value()));
            all.add(one.toString());
        }
        return all.toString();
    }

    static String hex(ByteBuffer b) { return b == null ? "null" : HexFormat.of().formatHex(Utils.toArray(b)); }

    static byte[] bytes(MemoryRecords r) { return Utils.toArray(r.buffer()); }

    static String base64(byte[] b) { return Base64.getEncoder().encodeToString(b); }
}
