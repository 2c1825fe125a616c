import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's own client as one under test by the matrix of faults: produces until its standard input ends,
 * and tells what became of each record, a line each.
 */
public class Load {
    public static void main(String[] args) throws Exception {
        String topic = args[1];
        int partitions = Integer.parseInt(args[2]);
        int rate = Integer.parseInt(args[3]);
        long number = Long.parseLong(args[4]);
        Properties settings = new Properties();
        settings.put("bootstrap.servers", args[0]);
        settings.put("acks", "all");
        settings.put("linger.ms", "0");
        settings.put("max.block.ms", "120000");
        settings.put("request.timeout.ms", "1500");
        settings.put("key.serializer", ByteArraySerializer.class.getName());
        settings.put("value.serializer", ByteArraySerializer.class.getName());
        AtomicBoolean over = new AtomicBoolean();
        Thread reader = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                }
            } catch (IOException e) {
                // it has ended, too
            }
            over.set(true);
        });
        reader.setDaemon(true);
        reader.start();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
            long due = System.nanoTime();
            while (!over.get()) {
                for (int partition = 0; partition < partitions; partition++) {
                    final long record = number++;
                    final int to = partition;
                    tell("sent " + record + " " + to);
                    // the value's head alone, as ringmill_tests::history::value has it
                    byte[] value = ByteBuffer.allocate(12).putLong(record).putInt(0).array();
                    producer.send(new ProducerRecord<>(topic, to, null, value), (done, error) -> tell(error == null
                            ? "acked " + record + " " + to + " " + done.offset()
                            : "failed " + record + " " + to + " " + error.getClass().getSimpleName()));
                }
                due = Math.max(due + 1_000_000_000L / rate, System.nanoTime() - 1_000_000_000L);
                long wait = due - System.nanoTime();
                if (wait > 0) {
                    Thread.sleep(wait / 1_000_000, (int) (wait % 1_000_000));
                }
            }
        }
    }

    private static synchronized void tell(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
