<?php
// php-rdkafka, unmodified, as foreign_client.py drives it.

const QUIET_S = 0.3; // nothing for so long: the rest is taken to be all
const LIMIT_MS = 30000;

[, $bootstrap, $command, $topic] = $argv;
$rest = array_slice($argv, 4);

function write($value): void
{
    echo json_encode($value), "\n";
}

function bytes(?string $text): ?string
{
    return $text === null ? null : base64_decode($text);
}

function text(?string $value): ?string
{
    return $value === null ? null : base64_encode($value);
}

function settings(array $more): RdKafka\Conf
{
    global $bootstrap;
    $settings = new RdKafka\Conf();
    foreach (['bootstrap.servers' => $bootstrap, 'log_level' => '0', ...$more] as $name => $value) {
        $settings->set($name, $value);
    }
    return $settings;
}

function check(int $code): void
{
    if ($code !== RD_KAFKA_RESP_ERR_NO_ERROR) {
        throw new Exception(rd_kafka_err2str($code));
    }
}

// ---- producing ----

// Sends the input; returns what tells where each record went, once it is known.
function send(RdKafka\Producer $producer): int
{
    global $topic;
    $handle = $producer->newTopic($topic);
    for ($place = 0; ($line = fgets(STDIN)) !== false; $place++) {
        $record = json_decode($line, true);
        $headers = [];
        foreach ($record['headers'] ?? [] as [$name, $value]) {
            $headers[$name] = bytes($value);
        }
        $handle->producev(
            $record['partition'] ?? RD_KAFKA_PARTITION_UA, 0, bytes($record['value'] ?? null),
            bytes($record['key'] ?? null), $headers, $record['timestamp'] ?? 0, (string) $place
        );
        $producer->poll(0);
    }
    return $place;
}

function produce(array $more, ?string $end = null): void
{
    $delivered = [];
    $settings = settings([
        'linger.ms' => '5', 'enable.idempotence' => 'true', 'message.max.bytes' => '8388608', ...$more]);
    $settings->setDrMsgCb(function ($producer, $message) use (&$delivered) {
        $delivered[(int) $message->opaque] = $message;
    });
    $producer = new RdKafka\Producer($settings);
    if ($end !== null) {
        $producer->initTransactions(LIMIT_MS);
        $producer->beginTransaction();
    }
    $sent = send($producer);
    check($producer->flush(2 * LIMIT_MS));
    match ($end) {
        'commit' => $producer->commitTransaction(LIMIT_MS),
        'abort' => $producer->abortTransaction(LIMIT_MS),
        null => null,
    };
    for ($place = 0; $place < $sent; $place++) {
        check($delivered[$place]->err);
        write(['partition' => $delivered[$place]->partition, 'offset' => $delivered[$place]->offset]);
    }
}

// ---- consuming ----

function consumer(array $more): RdKafka\KafkaConsumer
{
    return new RdKafka\KafkaConsumer(settings([
        'enable.auto.commit' => 'false', 'auto.offset.reset' => 'earliest',
        'group.id' => 'none', // required even of one that joins no group
        ...$more]));
}

function show(RdKafka\Message $message): void
{
    $headers = [];
    foreach ($message->headers ?? [] as $name => $value) {
        $headers[] = [$name, text($value)];
    }
    write([
        'partition' => $message->partition, 'offset' => $message->offset,
        'timestamp' => $message->timestamp, 'key' => text($message->key),
        'value' => text($message->payload), 'headers' => $headers]);
}

// Shows records until there are enough of them and nothing more comes.
function follow(RdKafka\KafkaConsumer $consumer, int $count): void
{
    for ($seen = 0, $last = microtime(true); $seen < $count || microtime(true) - $last < QUIET_S;) {
        $message = $consumer->consume(20);
        if ($message->err === RD_KAFKA_RESP_ERR__TIMED_OUT) {
            continue;
        }
        check($message->err);
        show($message);
        $seen++;
        $last = microtime(true);
    }
}

function consume(string $isolation): void
{
    global $topic, $rest;
    $consumer = consumer(['isolation.level' => $isolation]);
    $partition = fn ($index) => new RdKafka\TopicPartition($topic, (int) $index, (int) $rest[1]);
    $consumer->assign(array_map($partition, explode(',', $rest[2])));
    follow($consumer, (int) $rest[0]);
}

function group(array $more): void
{
    global $topic, $rest;
    $consumer = consumer(['group.id' => $rest[0], ...$more]);
    $consumer->subscribe([$topic]);
    follow($consumer, (int) $rest[1]);
    $consumer->commit();
}

function offset(): void
{
    global $topic, $rest;
    $asked = [new RdKafka\TopicPartition($topic, 0, (int) $rest[0])];
    [$found] = consumer([])->offsetsForTimes($asked, LIMIT_MS);
    write(max($found->getOffset(), -1));
}

function partitions(): int
{
    global $topic;
    foreach (consumer([])->getMetadata(true, null, LIMIT_MS)->getTopics() as $found) {
        if ($found->getTopic() === $topic) {
            return count($found->getPartitions());
        }
    }
    return 0;
}

try {
    match ($command) {
        'produce' => produce(['compression.codec' => $rest[0]]),
        'transact' => produce(['transactional.id' => $rest[0]], $rest[1]),
        'consume' => consume('read_uncommitted'),
        'committed' => consume('read_committed'),
        'group' => group([]),
        'static-group' => group(['group.instance.id' => 'instance']),
        'offset' => offset(),
        'list' => write(partitions()),
    };
} catch (Throwable $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}
