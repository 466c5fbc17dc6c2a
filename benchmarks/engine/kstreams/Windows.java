import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

/** The peers' job on Kafka Streams: counts and sums of each user and type over windows of 5 minutes and of an hour. */
public final class Windows {
  /** One record of `events`; times in microseconds. */
  public static final class Event {
    public String event_id, user_id, item_id, type;
    public double value;
    public long event_time, arrival;
    public String[] categories;
  }

  /** Of one user and window: type -> count and sum. */
  public static final class Cells {
    public Map<String, double[]> of = new HashMap<>();
  }

  /** One record of the output: the window's length in seconds and its start in milliseconds. */
  public static final class Out {
    public String user;
    public long length, start;
    public Map<String, double[]> cells;
  }

  private static final ObjectMapper JSON = new ObjectMapper();

  private static <T> Serde<T> json(Class<T> type) {
    ObjectReader reader = JSON.readerFor(type);
    ObjectWriter writer = JSON.writerFor(type);
    return Serdes.serdeFrom(
        (topic, value) -> {
          try {
            return value == null ? null : writer.writeValueAsBytes(value);
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        },
        (topic, data) -> {
          try {
            return data == null ? null : reader.readValue(data);
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        });
  }

  /** Arguments: brokers, application id, input, output, folder of the state, `rocksdb` or `memory`. */
  public static void main(String[] args) {
    Properties settings = new Properties();
    settings.put("bootstrap.servers", args[0]);
    settings.put("application.id", args[1]);
    settings.put("state.dir", args[4]);
    settings.put("processing.guarantee", "exactly_once_v2");
    settings.put("commit.interval.ms", "300");
    settings.put("num.stream.threads", "1");
    settings.put("auto.offset.reset", "earliest");
    settings.put("replication.factor", "1");

    StreamsBuilder builder = new StreamsBuilder();
    KGroupedStream<String, Event> events =
        builder
            .stream(
                args[2],
                Consumed.with(Serdes.String(), json(Event.class))
                    .withTimestampExtractor((record, before) -> ((Event) record.value()).event_time / 1_000))
            .groupByKey(Grouped.with(Serdes.String(), json(Event.class)));
    for (long length : new long[] {300, 3_600}) {
      String name = "cells-" + length;
      Duration kept = Duration.ofDays(1);
      Materialized<String, Cells, WindowStore<Bytes, byte[]>> store =
          args[5].equals("memory")
              ? Materialized.as(Stores.inMemoryWindowStore(name, kept, Duration.ofSeconds(length), false))
              : Materialized.<String, Cells, WindowStore<Bytes, byte[]>>as(name).withRetention(kept);
      events
          .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofSeconds(length), Duration.ofMinutes(1)))
          .aggregate(
              Cells::new,
              (user, event, cells) -> {
                double[] cell = cells.of.computeIfAbsent(event.type, type -> new double[2]);
                cell[0]++;
                cell[1] += event.value;
                return cells;
              },
              store.withKeySerde(Serdes.String()).withValueSerde(json(Cells.class)))
          .toStream()
          .map(
              (window, cells) -> {
                Out out = new Out();
                out.user = window.key();
                out.length = length;
                out.start = window.window().start();
                out.cells = cells.of;
                return KeyValue.pair(window.key(), out);
              })
          .to(args[3], Produced.with(Serdes.String(), json(Out.class)));
    }
    KafkaStreams streams = new KafkaStreams(builder.build(), settings);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
    streams.start();
  }
}
