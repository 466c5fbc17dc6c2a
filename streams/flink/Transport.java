package freshet;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.api.common.functions.FlatMapFunction;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.types.Row;
import org.apache.flink.util.Collector;

/** What PyFlink cannot say: records with their partitions and offsets, and many of them in one crossing to Python. */
public final class Transport {
    static final TypeInformation<byte[]> BYTES = PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;

    /** A record of Kafka as a row: partition, offset, key, value. */
    public static final class Read implements KafkaRecordDeserializationSchema<Row> {
        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Row> out) {
            out.collect(Row.of(record.partition(), record.offset(), record.key(), record.value()));
        }

        @Override
        public TypeInformation<Row> getProducedType() {
            return Types.ROW(Types.INT, Types.LONG, BYTES, BYTES);
        }
    }

    /**
     * Rows of Read, gathered to one row for many: partition, and the records as bytes. Whatever is held goes on before a
     * checkpoint's barrier, so none of it has to be in the checkpoint.
     */
    public static final class Gather extends AbstractStreamOperator<Row>
            implements OneInputStreamOperator<Row, Row>, BoundedOneInput {
        private final int most;
        private transient Map<Integer, Held> held;

        private static final class Held {
            final ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            final DataOutputStream out = new DataOutputStream(bytes);
            int count;
        }

        public Gather(int most) {
            this.most = most;
        }

        @Override
        public void open() throws Exception {
            super.open();
            held = new HashMap<>();
        }

        @Override
        public void processElement(StreamRecord<Row> element) throws IOException {
            Row row = element.getValue();
            Integer partition = (Integer) row.getField(0);
            Held mine = held.computeIfAbsent(partition, p -> new Held());
            mine.out.writeLong((Long) row.getField(1));
            write(mine.out, (byte[]) row.getField(2));
            write(mine.out, (byte[]) row.getField(3));
            if (++mine.count == most) {
                emit(partition, mine);
            }
        }

        private static void write(DataOutputStream out, byte[] bytes) throws IOException {
            out.writeInt(bytes == null ? -1 : bytes.length);
            if (bytes != null) {
                out.write(bytes);
            }
        }

        private void emit(Integer partition, Held mine) {
            output.collect(new StreamRecord<>(Row.of(partition, mine.bytes.toByteArray())));
            mine.bytes.reset();
            mine.count = 0;
        }

        private void emitAll() {
            held.forEach((partition, mine) -> {
                if (mine.count > 0) {
                    emit(partition, mine);
                }
            });
        }

        @Override
        public void prepareSnapshotPreBarrier(long checkpoint) {
            emitAll();
        }

        @Override
        public void endInput() {
            emitAll();
        }
    }

    /** The other way: the records that one fold gave as bytes, as rows of topic, partition, key, value. */
    public static final class Scatter implements FlatMapFunction<byte[], Row> {
        @Override
        public void flatMap(byte[] records, Collector<Row> out) {
            ByteBuffer in = ByteBuffer.wrap(records);
            while (in.hasRemaining()) {
                String topic = new String(read(in), StandardCharsets.UTF_8);
                int partition = in.getInt();
                byte[] key = read(in);
                out.collect(Row.of(topic, partition, key, read(in)));
            }
        }

        private static byte[] read(ByteBuffer in) {
            int size = in.getInt();
            if (size < 0) {
                return null;
            }
            byte[] bytes = new byte[size];
            in.get(bytes);
            return bytes;
        }
    }

    /** A row of Scatter as a record for Kafka. */
    public static final class Write implements KafkaRecordSerializationSchema<Row> {
        @Override
        public ProducerRecord<byte[], byte[]> serialize(Row row, KafkaSinkContext context, Long timestamp) {
            return new ProducerRecord<>(
                    (String) row.getField(0), (Integer) row.getField(1), (byte[]) row.getField(2), (byte[]) row.getField(3));
        }
    }

    private Transport() {}
}
