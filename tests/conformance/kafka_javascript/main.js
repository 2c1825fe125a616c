// confluent-kafka-javascript, unmodified, as foreign_client.py drives it.
"use strict";

const { KafkaJS: { Kafka, logLevel } } = require("@confluentinc/kafka-javascript");

const QUIET_MS = 300; // nothing for so long: the rest is taken to be all

const [bootstrap, command, topic, ...rest] = process.argv.slice(2);
const kafka = new Kafka({ kafkaJS: { brokers: [bootstrap], logLevel: logLevel.NOTHING } });
const write = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const bytes = (text) => (text == null ? null : Buffer.from(text, "base64"));
const text = (value) => (value == null ? null : Buffer.from(value).toString("base64"));

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
  const kafkaJS = { idempotent: true, acks: -1 };
  if (transactionalId) kafkaJS.transactionalId = transactionalId;
  const owner = kafka.producer({ kafkaJS, "compression.codec": codec, "linger.ms": 5, "message.max.bytes": 8388608 });
  await owner.connect();
  const producer = transactionalId ? await owner.transaction() : owner;
  const send = async (record) => {
    const [answer] = await producer.send({ topic, messages: [message(record)] });
    return { partition: answer.partition, offset: Number(answer.baseOffset) };
  };
  const answers = await Promise.all((await input()).map(send));
  if (transactionalId) await producer[end]();
  answers.forEach(write);
  await owner.disconnect();
}

function show({ partition, message }) {
  const headers = Object.entries(message.headers || {}).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).map((one) => [name, text(one)]));
  write({
    partition, offset: Number(message.offset), timestamp: Number(message.timestamp),
    key: text(message.key), value: text(message.value), headers });
}

function consumer(groupId, kafkaJS, more) {
  return kafka.consumer({ kafkaJS: { groupId, fromBeginning: true, autoCommit: false, ...kafkaJS }, ...more });
}

// Shows records until there are enough of them and nothing more comes.
async function follow(consumer, count, start, wanted) {
  await consumer.connect();
  await consumer.subscribe({ topics: [topic] });
  let seen = 0, last = Date.now();
  const ends = new Map();
  await consumer.run({
    eachMessage: async (record) => {
      if (wanted && (!wanted.includes(record.partition) || Number(record.message.offset) < start)) return;
      show(record);
      seen += 1;
      last = Date.now();
      ends.set(record.partition, String(Number(record.message.offset) + 1));
    } });
  while (seen < count || Date.now() - last < QUIET_MS) await new Promise((next) => setTimeout(next, 20));
  return [...ends].map(([partition, offset]) => ({ topic, partition, offset }));
}

async function joined(groupId, count, kafkaJS, more) {
  const member = consumer(groupId, kafkaJS, more);
  await member.commitOffsets(await follow(member, Number(count)));
  return member.disconnect();
}

async function main() {
  switch (command) {
    case "produce":
      return produce(rest[0]);
    case "transact":
      return produce("none", rest[0], rest[1]);
    case "committed": // as it reads by default
    case "consume": {
      const group = `${topic}-${process.pid}`;
      const member = consumer(group, { readUncommitted: command === "consume" });
      await follow(member, Number(rest[0]), Number(rest[1]), rest[2].split(",").map(Number));
      return member.disconnect();
    }
    case "group":
      return joined(rest[0], rest[1], {});
    case "static-group":
      return joined(rest[0], rest[1], {}, { "group.instance.id": "instance" });
    case "consumer-group":
      return joined(rest[0], rest[1], {}, { "group.protocol": "consumer" });
    default: {
      const admin = kafka.admin();
      await admin.connect();
      await administer(admin);
      return admin.disconnect();
    }
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
      if (!(await admin.listTopics()).includes(topic)) return write(0);
      const [found] = await admin.fetchTopicMetadata({ topics: [topic] });
      return write(found.partitions.length);
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
