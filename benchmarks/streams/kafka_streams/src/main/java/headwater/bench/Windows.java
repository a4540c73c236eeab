package headwater.bench;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.WindowedSerdes;
import org.apache.kafka.streams.state.WindowStore;

/**
 * The benchmark's job on Kafka Streams: count, sum, min and max by device in tumbling windows,
 * in the default store (RocksDB, cached, with a changelog), one stream thread, at least once.
 *
 * <p>Arguments: bootstrap servers, application id, state folder, input topic, output topic,
 * records to take, window in ms, grace in ms, {@code update} or {@code close}. Prints
 * {@code first NS} and {@code done NS}, the wall clock at the first and at the last record; then
 * closes, which flushes and commits, and ends.
 */
public final class Windows {
    private static final ObjectMapper JSON = new ObjectMapper();

    private Windows() {}

    /** One reading; the fields are those of the JSON object. */
    public record Reading(long t_ms, int boot, long seq, double temperature) {}

    /** The state of one window. */
    public record Stats(long count, double sum, double min, double max) {
        static final Stats EMPTY =
                new Stats(0, 0.0, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY);

        Stats with(double value) {
            return new Stats(count + 1, sum + value, Math.min(min, value), Math.max(max, value));
        }

        byte[] toBytes() {
            return ByteBuffer.allocate(32)
                    .putLong(count).putDouble(sum).putDouble(min).putDouble(max).array();
        }

        static Stats fromBytes(byte[] bytes) {
            ByteBuffer in = ByteBuffer.wrap(bytes);
            return new Stats(in.getLong(), in.getDouble(), in.getDouble(), in.getDouble());
        }
    }

    public static void main(String[] arguments) throws InterruptedException {
        long wanted = Long.parseLong(arguments[5]);
        CountDownLatch done = new CountDownLatch(1);
        StreamsBuilder builder = new StreamsBuilder();
        build(builder, arguments, new Counter(wanted, done));
        try (KafkaStreams streams = new KafkaStreams(builder.build(), settings(arguments))) {
            streams.setUncaughtExceptionHandler(error -> {
                error.printStackTrace();
                Runtime.getRuntime().halt(1);
                return null;
            });
            streams.start();
            if (!done.await(30, TimeUnit.MINUTES)) {
                throw new IllegalStateException("the input did not bring " + wanted + " records");
            }
        }
    }

    private static void build(StreamsBuilder builder, String[] arguments, Counter counter) {
        Duration size = Duration.ofMillis(Long.parseLong(arguments[6]));
        Duration grace = Duration.ofMillis(Long.parseLong(arguments[7]));
        EmitStrategy emit = arguments[8].equals("close")
                ? EmitStrategy.onWindowClose() : EmitStrategy.onWindowUpdate();
        Serde<Reading> readings = Serdes.serdeFrom(
                (topic, reading) -> { throw new UnsupportedOperationException(); },
                (topic, bytes) -> parse(bytes));
        Serde<Stats> stats = Serdes.serdeFrom(
                (topic, state) -> state == null ? null : state.toBytes(),
                (topic, bytes) -> bytes == null ? null : Stats.fromBytes(bytes));
        builder.stream(arguments[3], Consumed.with(Serdes.String(), readings)
                        .withTimestampExtractor((record, before) -> ((Reading) record.value()).t_ms()))
                .peek((key, reading) -> counter.count())
                .groupByKey()
                .windowedBy(TimeWindows.ofSizeAndGrace(size, grace))
                .emitStrategy(emit)
                .aggregate(() -> Stats.EMPTY, (key, reading, state) -> state.with(reading.temperature()),
                        Materialized.<String, Stats, WindowStore<Bytes, byte[]>>as("stats")
                                .withKeySerde(Serdes.String()).withValueSerde(stats))
                .toStream()
                .to(arguments[4], Produced.with(
                        WindowedSerdes.timeWindowedSerdeFrom(String.class, size.toMillis()), stats));
    }

    private static Reading parse(byte[] bytes) {
        try {
            return JSON.readValue(bytes, Reading.class);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static Properties settings(String[] arguments) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[1]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[2]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        return settings;
    }

    /** Tells when the first and the last record came; one stream thread uses it. */
    private static final class Counter {
        private final long wanted;
        private final CountDownLatch done;
        private long seen;

        Counter(long wanted, CountDownLatch done) {
            this.wanted = wanted;
            this.done = done;
        }

        void count() {
            seen++;
            if (seen == 1) {
                tell("first");
            }
            if (seen == wanted) {
                tell("done");
                done.countDown();
            }
        }

        private static void tell(String what) {
            java.time.Instant now = java.time.Instant.now();
            System.out.println(what + " " + (now.getEpochSecond() * 1_000_000_000L + now.getNano()));
        }
    }
}
