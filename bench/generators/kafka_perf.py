"""Kafka's own kafka-producer-perf-test as a load of `ringmill-bench compare`.

kafka_perf.py JARS HOST:PORT TOPIC RECORDS SIZE, with JARS the folder of Kafka's jars.
"""

import json
import re
import resource
import subprocess
import sys

PROGRAM = "org.apache.kafka.tools.ProducerPerformance"
# As the other clients of the comparison have it.
SETTINGS = ["acks=all", "batch.size=262144", "linger.ms=5"]


def main():
    jars, address, topic, records, size = sys.argv[1:]
    command = ["java", "-cp", f"{jars}/*", PROGRAM, "--topic", topic, "--num-records", records,
               "--record-size", size, "--throughput", "-1", "--producer-props",
               f"bootstrap.servers={address}", *SETTINGS]
    done = subprocess.run(command, capture_output=True, text=True)
    told = re.findall(r"(\d+) records sent, ([\d.]+) records/sec", done.stdout)
    if done.returncode != 0 or not told:
        sys.exit(f"{PROGRAM} failed:\n{done.stdout}{done.stderr}")
    # the last line is of all of them
    count, rate = int(told[-1][0]), float(told[-1][1])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"records": count, "seconds": count / rate, "cpu_seconds": used.ru_utime + used.ru_stime}))


if __name__ == "__main__":
    main()
