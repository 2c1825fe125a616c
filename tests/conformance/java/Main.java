// The Java client's own API, unmodified, as foreign_client.py drives it.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Main {
    /** Nothing for so long: the rest is taken to be all. */
    private static final Duration QUIET = Duration.ofMillis(300);
    private static final ObjectMapper JSON = new ObjectMapper();

    private final PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    private final String bootstrap;
    private final String topic;
    private final String[] rest;

    private Main(String[] arguments) {
        bootstrap = arguments[0];
        topic = arguments[2];
        rest = Arrays.copyOfRange(arguments, 3, arguments.length);
    }

    public static void main(String[] arguments) {
        try {
            Main main = new Main(arguments);
            main.run(arguments[1]);
            main.out.flush();
        } catch (Exception error) {
            Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
            System.err.println(cause);
            System.exit(1);
        }
        System.exit(0);
    }

    private void run(String command) throws Exception {
        switch (command) {
            case "produce" -> produce();
            case "transact" -> transact();
            case "pipe" -> pipe();
            case "consume" -> consume("read_uncommitted");
            case "committed" -> consume("read_committed");
            case "group" -> group(Map.of("group.protocol", "classic"));
            case "consumer-group" -> group(Map.of("group.protocol", "consumer"));
            case "static-group" -> group(Map.of("group.instance.id", "instance"));
            case "offset" -> offset();
            case "create", "delete", "list", "alter", "config" -> administer(command);
            default -> throw new IllegalArgumentException("no such command: " + command);
        }
    }

    private Properties settings(Map<String, String> more) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("client.id", "ringmill-conformance");
        settings.putAll(more);
        return settings;
    }

    private KafkaProducer<byte[], byte[]> producer(Map<String, String> more) {
        Map<String, String> all = new HashMap<>(Map.of("linger.ms", "5", "max.request.size", "8388608"));
        all.putAll(more);
        return new KafkaProducer<>(settings(all), new ByteArraySerializer(), new ByteArraySerializer());
    }

    private KafkaConsumer<byte[], byte[]> consumer(Map<String, String> more) {
        Map<String, String> all = new HashMap<>(
            Map.of("enable.auto.commit", "false", "auto.offset.reset", "earliest"));
        all.putAll(more);
        return new KafkaConsumer<>(settings(all), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    // ---- records as JSON ----

    private static byte[] bytes(JsonNode text) {
        return text == null || text.isNull() ? null : Base64.getDecoder().decode(text.textValue());
    }

    private static String text(byte[] value) {
        return value == null ? null : Base64.getEncoder().encodeToString(value);
    }

    private List<ProducerRecord<byte[], byte[]>> input() throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonNode record = JSON.readTree(line);
            List<Header> headers = new ArrayList<>();
            if (record.has("headers")) {
                record.get("headers").forEach(
                    pair -> headers.add(new RecordHeader(pair.get(0).textValue(), bytes(pair.get(1)))));
            }
            Integer partition = record.has("partition") ? record.get("partition").intValue() : null;
            Long timestamp = record.has("timestamp") ? record.get("timestamp").longValue() : null;
            records.add(new ProducerRecord<>(
                topic, partition, timestamp, bytes(record.get("key")), bytes(record.get("value")), headers));
        }
        return records;
    }

    private void show(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode shown = JSON.createObjectNode();
        shown.put("partition", record.partition()).put("offset", record.offset());
        shown.put("timestamp", record.timestamp());
        shown.put("key", text(record.key())).put("value", text(record.value()));
        var headers = shown.putArray("headers");
        record.headers().forEach(header -> headers.addArray().add(header.key()).add(text(header.value())));
        out.println(shown);
    }

    private void show(RecordMetadata sent) {
        out.println(JSON.createObjectNode().put("partition", sent.partition()).put("offset", sent.offset()));
    }

    // ---- producing ----

    private List<Future<RecordMetadata>> send(KafkaProducer<byte[], byte[]> producer) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (var record : input()) {
            sent.add(producer.send(record));
        }
        return sent;
    }

    private void produce() throws Exception {
        try (var producer = producer(Map.of("compression.type", rest[0]))) {
            for (var sent : send(producer)) {
                show(sent.get());
            }
        }
    }

    /** One transaction with all records of the input. */
    private void transact() throws Exception {
        try (var producer = producer(Map.of("transactional.id", rest[0]))) {
            producer.initTransactions();
            producer.beginTransaction();
            var all = send(producer);
            producer.flush();
            if (rest[1].equals("commit")) {
                producer.commitTransaction();
            } else {
                producer.abortTransaction();
            }
            for (var sent : all) {
                show(sent.get());
            }
        }
    }

    /** Carries so many records from one topic to another, exactly once, ten in a transaction. */
    private void pipe() throws Exception {
        String to = rest[0];
        String group = rest[1];
        int left = Integer.parseInt(rest[3]);
        Map<String, String> reading = Map.of(
            "group.id", group, "isolation.level", "read_committed", "max.poll.records", "10");
        try (var producer = producer(Map.of("transactional.id", rest[2])); var consumer = consumer(reading)) {
            producer.initTransactions();
            consumer.subscribe(List.of(topic));
            while (left > 0) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(100));
                if (records.isEmpty()) {
                    continue;
                }
                producer.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> done = new HashMap<>();
                for (var record : records) {
                    producer.send(new ProducerRecord<>(to, record.partition(), record.key(), record.value()));
                    TopicPartition from = new TopicPartition(record.topic(), record.partition());
                    done.put(from, new OffsetAndMetadata(record.offset() + 1));
                    left--;
                }
                producer.sendOffsetsToTransaction(done, consumer.groupMetadata());
                producer.commitTransaction();
            }
        }
    }

    // ---- consuming ----

    /** Shows records until there are enough of them and nothing more comes. */
    private void follow(KafkaConsumer<byte[], byte[]> consumer, int count) {
        int seen = 0;
        while (true) {
            var records = consumer.poll(QUIET);
            records.forEach(this::show);
            seen += records.count();
            if (seen >= count && records.isEmpty()) {
                return;
            }
        }
    }

    private void consume(String isolation) {
        List<TopicPartition> partitions = new ArrayList<>();
        for (String partition : rest[2].split(",")) {
            partitions.add(new TopicPartition(topic, Integer.parseInt(partition)));
        }
        try (var consumer = consumer(Map.of("isolation.level", isolation))) {
            consumer.assign(partitions);
            partitions.forEach(partition -> consumer.seek(partition, Long.parseLong(rest[1])));
            follow(consumer, Integer.parseInt(rest[0]));
        }
    }

    private void group(Map<String, String> more) {
        Map<String, String> all = new HashMap<>(more);
        all.put("group.id", rest[0]);
        try (var consumer = consumer(all)) {
            consumer.subscribe(List.of(topic));
            follow(consumer, Integer.parseInt(rest[1]));
            consumer.commitSync();
        }
    }

    private void offset() {
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var consumer = consumer(Map.of())) {
            OffsetAndTimestamp found = consumer
                .offsetsForTimes(Map.of(partition, Long.parseLong(rest[0]))).get(partition);
            out.println(found == null ? -1 : found.offset());
        }
    }

    // ---- administration ----

    private ConfigResource resource() {
        return new ConfigResource(ConfigResource.Type.TOPIC, topic);
    }

    private void administer(String command) throws Exception {
        try (Admin admin = Admin.create(settings(Map.of()))) {
            switch (command) {
                case "create" -> {
                    NewTopic made = new NewTopic(topic, Integer.parseInt(rest[0]), (short) 1);
                    admin.createTopics(List.of(made)).all().get();
                }
                case "delete" -> admin.deleteTopics(List.of(topic)).all().get();
                case "alter" -> {
                    var change = new AlterConfigOp(new ConfigEntry(rest[0], rest[1]), AlterConfigOp.OpType.SET);
                    admin.incrementalAlterConfigs(Map.of(resource(), List.of(change))).all().get();
                }
                case "config" -> {
                    var found = admin.describeConfigs(List.of(resource())).all().get().get(resource());
                    out.println(JSON.writeValueAsString(found.get(rest[0]).value()));
                }
                default -> {
                    int partitions = 0;
                    if (admin.listTopics().names().get().contains(topic)) {
                        TopicDescription found =
                            admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
                        partitions = found.partitions().size();
                    }
                    out.println(partitions);
                }
            }
        }
    }
}
