"""Apache Kafka's own command-line tools (Java), unmodified, put through what administrators and
benchmarks do with them.

The jars are in the folder that KAFKA_LIB names, and KAFKA_LOG4J is their logging's configuration;
RINGMILL_DATA, if set, is the broker's data folder, whose segments Kafka's dump tool reads.
"""

import glob
import json
import os
import re
import subprocess
import time

from harness import PUSH_TELEMETRY, NotOffered, eventually, feature, main, offered
from history import Broken, check, dense, same

# How long a tool may take: a Java machine starts in a second or two, or ten on a busy one.
SECONDS = 90

TOOLS = "org.apache.kafka.tools."
SHORT = {
    "topics": TOOLS + "TopicCommand",
    "configs": "kafka.admin.ConfigCommand",
    "console-producer": TOOLS + "ConsoleProducer",
    "console-consumer": TOOLS + "consumer.ConsoleConsumer",
    "consumer-groups": TOOLS + "consumer.group.ConsumerGroupCommand",
    "groups": TOOLS + "GroupsCommand",
    "get-offsets": TOOLS + "GetOffsetShell",
    "delete-records": TOOLS + "DeleteRecordsCommand",
    "log-dirs": TOOLS + "LogDirsCommand",
    "transactions": TOOLS + "TransactionsCommand",
    "client-metrics": TOOLS + "ClientMetricsCommand",
    "broker-api-versions": TOOLS + "BrokerApiVersionsCommand",
    "cluster": TOOLS + "ClusterTool",
    "features": TOOLS + "FeatureCommand",
    "producer-perf-test": TOOLS + "ProducerPerformance",
    "consumer-perf-test": TOOLS + "ConsumerPerformance",
    "e2e-latency": TOOLS + "EndToEndLatency",
    "verifiable-producer": TOOLS + "VerifiableProducer",
    "verifiable-consumer": TOOLS + "VerifiableConsumer",
    "dump-log": TOOLS + "DumpLogSegments",
}


def java(tool, *arguments, stdin="", fails=False, logging=None):
    """Runs a tool to its end; returns what it printed, both streams where it is meant to fail.
    Its logging is as usual, or as another file says."""
    command = [
        "java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", os.environ["KAFKA_LIB"] + "/*",
        "-Dlog4j2.configurationFile=" + (logging or os.environ["KAFKA_LOG4J"]), SHORT[tool], *arguments,
    ]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=SECONDS, text=True)
    words = (done.stdout + done.stderr).strip()
    if fails:
        check(done.returncode != 0, f"kafka-{tool} did not fail: {words}")
        return words
    check(done.returncode == 0, f"kafka-{tool} {' '.join(arguments)} exited {done.returncode}: {words[-500:]}")
    return done.stdout


def kafka(run, tool, *arguments, **how):
    """The same, told where the broker is."""
    return java(tool, "--bootstrap-server", run.bootstrap, *arguments, **how)


def consume(run, topic, count, *arguments):
    """The console consumer's lines, from the topic's beginning."""
    out = kafka(run, "console-consumer", "--topic", topic, "--from-beginning",
                "--max-messages", str(count), "--timeout-ms", "30000", *arguments)
    return out.splitlines()


def produce(run, topic, lines, *arguments):
    """Sends lines by the console producer."""
    kafka(run, "console-producer", "--topic", topic, *arguments, stdin="\n".join(lines) + "\n")


def rows(out, first):
    """A table's rows that begin with this word, split into their fields."""
    return [line.split() for line in out.splitlines() if line.split()[:1] == [first]]


@feature("versions of every API")
def api_versions(run):
    out = kafka(run, "broker-api-versions")
    served = re.findall(r"(\w+)\((\d+)\): (\d+ to \d+|\d+) \[usable: (\d+)\]", out)
    check(len(served) >= 25, f"only {len(served)} are usable: {out}")
    check("UNSUPPORTED_VERSION" not in out, out)


@feature("consumer protocol")
def consumer_protocol(run):
    topic, group_id = run.create("consumer-protocol", partitions=3), run.name("consumer-protocol")
    lines = [f"line {i}" for i in range(90)]
    produce(run, topic, lines)
    got = consume(run, topic, 90, "--group", group_id, "--command-property", "group.protocol=consumer")
    same(sorted(lines), sorted(got))
    listed = [row for row in rows(kafka(run, "groups", "--list", "--consumer"), group_id)]
    check(listed and listed[0][1] == "Consumer", f"listed as {listed}")
    state = rows(kafka(run, "consumer-groups", "--describe", "--group", group_id, "--state"), group_id)
    check(state and "Empty" in state[0], f"state {state}")
    offsets = rows(kafka(run, "consumer-groups", "--describe", "--group", group_id), group_id)
    check(sum(int(row[3]) for row in offsets) == 90, f"committed {offsets}")
    kafka(run, "consumer-groups", "--delete", "--group", group_id)
    out = kafka(run, "features", "describe")
    check("group.version" in out and "FinalizedVersionLevel: 1" in out, out)


def led(out):
    """The partitions of a description that have a leader: which node it is, a cluster decides."""
    return re.findall(r"Partition: \d+\tLeader: [1-9]", out)


@feature("metadata")
def metadata(run):
    topic = run.create("metadata", partitions=3)
    out = kafka(run, "topics", "--describe", "--topic", topic)
    check("PartitionCount: 3" in out and len(led(out)) == 3, out)
    check("Cluster ID:" in java("cluster", "cluster-id", "--bootstrap-server", run.bootstrap), "the cluster has no id")


@feature("admin: topics")
def topics(run):
    topic = run.name("topics")
    kafka(run, "topics", "--create", "--topic", topic, "--partitions", "2", "--config", "retention.ms=360000")
    check(topic in kafka(run, "topics", "--list").split(), "it is not listed")
    out = kafka(run, "topics", "--describe", "--topic", topic)
    check("retention.ms=360000" in out, out)
    kafka(run, "topics", "--alter", "--topic", topic, "--partitions", "5")
    eventually(lambda: len(led(kafka(run, "topics", "--describe", "--topic", topic))), 5, "partitions")
    words = kafka(run, "topics", "--create", "--topic", topic, fails=True)
    check("already exists" in words, words)
    kafka(run, "topics", "--delete", "--topic", topic)
    eventually(lambda: topic in kafka(run, "topics", "--list").split(), False, "it is listed")


@feature("topics described in pages")
def pages(run):
    names = [run.create(f"page{n}", partitions=7) for n in range(3)]
    for size in ["2", "100"]:
        out = kafka(run, "topics", "--describe", "--topic", "|".join(names), "--partition-size-limit-per-response", size)
        found = re.findall(r"Topic: (\S+)\tPartition: (\d+)", out)
        want = {(name, str(partition)) for name in names for partition in range(7)}
        same(sorted(want), sorted(found), "partition")


@feature("keys")
def keys(run):
    topic = run.create("keys")
    produce(run, topic, [f"key{n}:value{n}" for n in range(50)],
            "--reader-property", "parse.key=true", "--reader-property", "key.separator=:")
    got = consume(run, topic, 50, "--formatter-property", "print.key=true",
                  "--formatter-property", "print.offset=true")
    same([f"Offset:{n}\tkey{n}\tvalue{n}" for n in range(50)], got)


@feature("headers")
def headers(run):
    topic = run.create("headers")
    produce(run, topic, ["a:1,b:2\tvalue", "c:3\tother"], "--reader-property", "parse.headers=true")
    got = consume(run, topic, 2, "--formatter-property", "print.headers=true")
    same(["a:1,b:2\tvalue", "c:3\tother"], got)


def codec(run, name):
    topic = run.create(name)
    lines = [f"line {n} " + "x" * (n % 300) for n in range(500)]
    produce(run, topic, lines, "--compression-codec", name)
    same(lines, consume(run, topic, 500))


for each in ["none", "gzip", "snappy", "lz4", "zstd"]:
    feature(f"codec {each}")(lambda run, each=each: codec(run, each))


@feature("read committed")
def read_committed(run):
    topic = run.create("committed")
    produce(run, topic, ["one", "two"])
    same(["one", "two"], consume(run, topic, 2, "--isolation-level", "read_committed"))


@feature("resume from committed offsets")
def groups(run):
    topic, group = run.create("group"), run.name("group")
    produce(run, topic, [str(n) for n in range(30)])
    same([str(n) for n in range(10)], consume(run, topic, 10, "--group", group))
    check(group in kafka(run, "consumer-groups", "--list").split(), "it is not listed")
    check(any(row[0] == group for row in rows(kafka(run, "groups", "--list"), group)), "it is not among all groups")
    [row] = rows(kafka(run, "consumer-groups", "--describe", "--group", group), group)
    same([group, topic, "0", "10", "30", "20"], row[:6], "field")
    kafka(run, "consumer-groups", "--group", group, "--topic", topic, "--reset-offsets", "--to-offset", "25", "--execute")
    same([str(n) for n in range(25, 30)], consume(run, topic, 5, "--group", group))
    state = kafka(run, "consumer-groups", "--describe", "--group", group, "--state")
    check("Empty" in state, state)
    kafka(run, "consumer-groups", "--group", group, "--topic", topic, "--delete-offsets")
    kafka(run, "consumer-groups", "--group", group, "--delete")
    check(group not in kafka(run, "consumer-groups", "--list").split(), "it is still listed")


@feature("admin: configs")
def configs(run):
    topic = run.create("configs")
    of_topic = ["--entity-type", "topics", "--entity-name", topic]
    kafka(run, "configs", "--alter", *of_topic, "--add-config", "retention.ms=5000,cleanup.policy=[compact,delete]")
    out = kafka(run, "configs", "--describe", *of_topic)
    check("retention.ms=5000" in out and "cleanup.policy=compact,delete" in out, out)
    out = kafka(run, "configs", "--describe", *of_topic, "--all")
    check("segment.bytes=1073741824" in out, out)
    kafka(run, "configs", "--alter", *of_topic, "--delete-config", "retention.ms")
    check("retention.ms=5000" not in kafka(run, "configs", "--describe", *of_topic), "it was deleted")
    words = kafka(run, "configs", "--alter", *of_topic, "--add-config", "no.such=1", fails=True)
    check("Unknown topic config name" in words, words)
    brokers = ["--entity-type", "brokers", "--entity-default"]
    kafka(run, "configs", "--alter", *brokers, "--add-config", "log.retention.ms=99000000")
    check("log.retention.ms=99000000" in kafka(run, "configs", "--describe", *brokers), "it was set")
    kafka(run, "configs", "--alter", *brokers, "--delete-config", "log.retention.ms")
    same([], kafka(run, "client-metrics", "--list").split(), "client metrics")


@feature("offsets by timestamp")
def offsets(run):
    topic = run.create("offsets", partitions=2)
    produce(run, topic, [str(n) for n in range(40)])
    total = lambda time: sum(int(line.rsplit(":", 1)[1]) for line in
                             kafka(run, "get-offsets", "--topic", topic, "--time", time).split())
    same([40, 0], [total("latest"), total("earliest")], "sum")
    check(total("0") == 0, "the first record is not older than 1970")
    check(total("max-timestamp") > 0, "no record is the newest")


@feature("admin: delete records")
def delete_records(run):
    topic = run.create("delete")
    produce(run, topic, [str(n) for n in range(20)])
    path = run.path("delete.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": 15}]}, file)
    out = kafka(run, "delete-records", "--offset-json-file", path)
    check("low_watermark: 15" in out, out)
    same([str(n) for n in range(15, 20)], consume(run, topic, 5))


@feature("log dirs")
def log_dirs(run):
    topic = run.create("dirs", partitions=2)
    produce(run, topic, ["x" * 1000])
    out = kafka(run, "log-dirs", "--describe", "--topic-list", topic)
    found = json.loads(out.splitlines()[-1])
    copies = []
    for broker in found["brokers"]:
        [folder] = broker["logDirs"]
        sizes = {p["partition"]: p["size"] for p in folder["partitions"]}
        same([f"{topic}-0", f"{topic}-1"], sorted(sizes), "partition")
        check(folder["error"] is None, out)
        copies.append(sum(sizes.values()))
    # followers are about to copy what their leader has
    check(copies and max(copies) > 1000, out)


@feature("producers described")
def producers(run):
    topic = run.create("producers")
    produce(run, topic, ["one", "two"])
    out = kafka(run, "transactions", "describe-producers", "--topic", topic, "--partition", "0")
    rows_of = [line.split() for line in out.splitlines() if line[:1].isdigit()]
    check(len(rows_of) == 1 and rows_of[0][1] == "0", out)


@feature("transactions listed")
def transactions_listed(run):
    topic, identity = run.create("listed"), run.name("listed-txn")
    java("producer-perf-test", "--topic", topic, "--num-records", "100", "--record-size", "10",
         "--throughput", "-1", "--transactional-id", identity, "--transaction-duration-ms", "100",
         "--producer-props", f"bootstrap.servers={run.bootstrap}")
    listed = rows(kafka(run, "transactions", "list"), identity)
    check(listed and listed[0][-1] == "CompleteCommit", f"listed as {listed}")
    out = kafka(run, "transactions", "describe", "--transactional-id", identity)
    check("CompleteCommit" in out, out)
    same([], rows(kafka(run, "transactions", "find-hanging", "--broker-id", "1"), topic), "hanging one")


@feature("telemetry")
def telemetry(run):
    offered(run, PUSH_TELEMETRY)
    topic, name = run.create("telemetry"), run.name("metrics")
    kafka(run, "client-metrics", "--alter", "--name", name, "--metrics", "*", "--interval", "1000")
    out = kafka(run, "client-metrics", "--describe", "--name", name)
    check("interval.ms=1000" in out, out)
    logging = run.path("telemetry.properties")
    with open(os.environ["KAFKA_LOG4J"], encoding="utf-8") as usual, open(logging, "w", encoding="utf-8") as more:
        more.write(usual.read() + "logger.t.name = org.apache.kafka.common.telemetry\nlogger.t.level = DEBUG\n")
    produce(run, topic, ["one"])
    # a time-out ends it: it waits for a record that does not come
    out = kafka(run, "console-consumer", "--topic", topic, "--from-beginning",
                "--timeout-ms", "8000", logging=logging)
    check("from PUSH_IN_PROGRESS to PUSH_NEEDED" in out, f"nothing was pushed: {out[-500:]}")
    kafka(run, "client-metrics", "--delete", "--name", name)
    check(name not in kafka(run, "client-metrics", "--list").split(), "it was deleted")


@feature("performance tools")
def performance(run):
    topic = run.create("perf", partitions=3)
    out = java("producer-perf-test", "--bootstrap-server", run.bootstrap, "--topic", topic, "--num-records", "50000",
               "--record-size", "100", "--throughput", "-1")
    check("50000 records sent" in out, out)
    out = kafka(run, "consumer-perf-test", "--topic", topic, "--num-records", "50000", "--timeout", "30000")
    check(out.splitlines()[-1].split(", ")[4] == "50000", out)
    out = kafka(run, "e2e-latency", "--topic", run.create("latency"), "--num-records", "50",
                "--producer-acks", "all", "--record-size", "100")
    check("Percentiles" in out, out)


@feature("verifiable producer and consumer")
def verifiable(run):
    topic = run.create("verifiable")
    events = [json.loads(line) for line in
              kafka(run, "verifiable-producer", "--topic", topic, "--max-messages", "500").splitlines()]
    sent = [event for event in events if event["name"] == "producer_send_success"]
    dense([event["offset"] for event in sent])
    check(len(sent) == 500, f"{len(sent)} of 500 were acknowledged")
    out = kafka(run, "verifiable-consumer", "--topic", topic, "--group-id", run.name("verifiable"),
                "--max-messages", "500", "--reset-policy", "earliest", "--verbose")
    events = [json.loads(line) for line in out.splitlines()]
    got = [event for event in events if event["name"] == "record_data"]
    same([event["value"] for event in sent], [event["value"] for event in got])


@feature("segments read by Kafka's dump tool")
def dump(run):
    if not os.environ.get("RINGMILL_DATA"):
        raise NotOffered("the broker's folder is not known")
    topic = run.create("dump", config={"segment.bytes": "1048576"})
    lines = [f"{n} " + "x" * 500 for n in range(4000)]
    produce(run, topic, lines)
    files = sorted(glob.glob(os.path.join(os.environ["RINGMILL_DATA"], f"{topic}-0", "*.log")))
    check(len(files) > 1, f"one segment only: {files}")
    # the last one may end in zeros, written ahead, which the tool takes for damage
    out = java("dump-log", "--files", ",".join(files[:-1]), "--print-data-log", "--deep-iteration")
    found = re.findall(r"offset: (\d+) .*payload: (.*)", out)
    dense([int(offset) for offset, _ in found])
    check(len(found) == int(os.path.basename(files[-1])[:20]), f"{len(found)} records before {files[-1]}")
    same(lines[:len(found)], [payload for _, payload in found])
    check("isvalid: false" not in out, "a checksum is wrong")


@feature("compacted segments read by Kafka's dump tool")
def dump_compacted(run):
    if not os.environ.get("RINGMILL_DATA"):
        raise NotOffered("the broker's folder is not known")
    config = {"cleanup.policy": "compact", "segment.bytes": "65536", "min.cleanable.dirty.ratio": "0.01"}
    topic = run.create("dump-compacted", config=config)
    lines = [f"key{n % 25}:{n} " + "x" * 500 for n in range(1500)]
    produce(run, topic, lines, "--reader-property", "parse.key=true", "--reader-property", "key.separator=:")
    folder = os.path.join(os.environ["RINGMILL_DATA"], f"{topic}-0")
    found = []
    for _ in range(60):
        files = sorted(glob.glob(os.path.join(folder, "*.log")))
        # the last one may end in zeros, written ahead, which the tool takes for damage
        try:
            out = java("dump-log", "--files", ",".join(files[:-1]), "--print-data-log", "--deep-iteration")
        except Broken:
            # the cleaner has replaced one of them since they were listed
            check(not all(map(os.path.exists, files[:-1])), "the tool fails on files that are there")
            continue
        found = re.findall(r"offset: (\d+) .*key: (\S+) payload: (.*)", out)
        if 0 < len(found) < 500:
            break
        time.sleep(1)
    check(0 < len(found) < 500, f"{len(found)} records after a minute")
    check("isvalid: false" not in out, "a checksum is wrong")
    for offset, key, payload in found:
        check(f"{key}:{payload}" == lines[int(offset)], f"another record at {offset}")
    indexes = [file.replace(".log", ".timeindex") for file in files[:-1]]
    java("dump-log", "--files", ",".join(indexes))


if __name__ == "__main__":
    main()
