// KafkaJS, unmodified, as foreign_client.py drives it.
"use strict";

const { CompressionTypes, Kafka, Partitioners, logLevel } = require("kafkajs");

const QUIET_MS = 300; // nothing for so long: the rest is taken to be all
const CODECS = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP };

const [bootstrap, command, topic, ...rest] = process.argv.slice(2);
const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.NOTHING });
const write = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const bytes = (text) => (text == null ? null : Buffer.from(text, "base64"));
const text = (value) => (value == null ? null : value.toString("base64"));

async function input() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const lines = Buffer.concat(chunks).toString().split("\n");
  return lines.filter((line) => line).map((line) => JSON.parse(line));
}

function message(record) {
  const headers = {};
  for (const [name, value] of record.headers || []) headers[name] = bytes(value);
  const sent = { key: bytes(record.key), value: bytes(record.value), headers };
  if (record.partition != null) sent.partition = record.partition;
  if (record.timestamp != null) sent.timestamp = String(record.timestamp);
  return sent;
}

async function produce(codec, transactionalId, end) {
  const owner = kafka.producer({
    createPartitioner: Partitioners.DefaultPartitioner, idempotent: true, maxInFlightRequests: 1,
    transactionalId });
  await owner.connect();
  const producer = transactionalId ? await owner.transaction() : owner;
  // one batch for each call: so large that none exceeds a topic's limit
  let batch = [], size = 0;
  const send = async () => {
    const answers = await producer.send({ topic, compression: CODECS[codec], acks: -1, messages: batch });
    // of each partition the first offset; its messages follow
    const next = Object.fromEntries(answers.map((a) => [a.partition, Number(a.baseOffset)]));
    for (const sent of batch) {
      const partition = sent.partition ?? -1;
      write({ partition, offset: partition in next ? next[partition]++ : -1 });
    }
    batch = [];
    size = 0;
  };
  for (const record of await input()) {
    const sent = message(record);
    const bytes = (sent.value?.length ?? 0) + 100;
    if (batch.length && size + bytes > 1_200_000) await send();
    batch.push(sent);
    size += bytes;
  }
  if (batch.length) await send();
  if (transactionalId) await producer[end]();
  await owner.disconnect();
}

function show({ partition, message }) {
  const headers = Object.entries(message.headers || {}).map(([name, value]) => [name, text(value)]);
  write({
    partition, offset: Number(message.offset), timestamp: Number(message.timestamp),
    key: text(message.key), value: text(message.value), headers });
}

// Shows records until there are enough of them and nothing more comes.
async function follow(consumer, count, start, wanted) {
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  let seen = 0, last = Date.now();
  const ends = new Map();
  await consumer.run({
    autoCommit: false,
    eachMessage: async (record) => {
      if (wanted && (!wanted.includes(record.partition) || Number(record.message.offset) < start)) return;
      show(record);
      seen += 1;
      last = Date.now();
      ends.set(record.partition, String(Number(record.message.offset) + 1));
    } });
  for (const partition of wanted || []) consumer.seek({ topic, partition, offset: String(start) });
  while (seen < count || Date.now() - last < QUIET_MS) await new Promise((next) => setTimeout(next, 20));
  return [...ends].map(([partition, offset]) => ({ topic, partition, offset }));
}

async function main() {
  const admin = kafka.admin();
  switch (command) {
    case "produce":
      return produce(rest[0]);
    case "transact":
      return produce("none", rest[0], rest[1]);
    case "committed": // as it reads by default
    case "consume": {
      const group = `${topic}-${process.pid}`;
      const consumer = kafka.consumer({ groupId: group, readUncommitted: command === "consume" });
      await follow(consumer, Number(rest[0]), Number(rest[1]), rest[2].split(",").map(Number));
      return consumer.disconnect();
    }
    case "group": {
      const consumer = kafka.consumer({ groupId: rest[0] });
      await consumer.commitOffsets(await follow(consumer, Number(rest[1])));
      return consumer.disconnect();
    }
    default:
      await admin.connect();
      await administer(admin);
      return admin.disconnect();
  }
}

async function administer(admin) {
  switch (command) {
    case "create": {
      const made = await admin.createTopics({ topics: [{ topic, numPartitions: Number(rest[0]) }] });
      if (!made) throw new Error("the topic exists");
      return;
    }
    case "delete":
      return admin.deleteTopics({ topics: [topic] });
    case "list": {
      const listed = (await admin.listTopics()).includes(topic);
      const found = listed ? await admin.fetchTopicMetadata({ topics: [topic] }) : { topics: [{ partitions: [] }] };
      return write(found.topics[0].partitions.length);
    }
    case "offset": {
      const found = await admin.fetchTopicOffsetsByTimestamp(topic, Number(rest[0]));
      return write(Number(found.find((each) => each.partition === 0).offset));
    }
    default:
      throw new Error(`no such command: ${command}`);
  }
}

// what was written must have left before the process does
main().then(() => process.stdout.write("", () => process.exit(0)), (error) => {
  console.error(`${error.name}: ${error.message}`);
  process.exit(1);
});
