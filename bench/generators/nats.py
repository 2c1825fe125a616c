"""NATS's own `nats bench` as a load of `ringmill-bench compare`: a stream in a file, published to with an
acknowledgement of each message, many of them in flight.

nats.py NATS HOST:PORT TOPIC RECORDS SIZE, with NATS the command line program.
"""

import json
import re
import resource
import subprocess
import sys

# Messages in flight; the server's own default is 500.
BATCH = "500"


def main():
    program, address, topic, records, size = sys.argv[1:]
    subject = "".join(c for c in topic if c.isalnum())
    server = ["--server", f"nats://{address}"]
    stream = ["--stream", subject, "--storage", "file"]
    command = [program, "bench", "js", "pub", "async", subject, *server, *stream, "--create", "--purge",
               "--msgs", records, "--size", size, "--batch", BATCH, "--no-progress"]
    done = subprocess.run(command, capture_output=True, text=True)
    told = re.findall(r"([\d,]+) msgs/sec", done.stdout + done.stderr)
    if done.returncode != 0 or not told:
        sys.exit(f"nats bench failed:\n{done.stdout}{done.stderr}")
    rate = int(told[-1].replace(",", ""))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([program, *server, "stream", "rm", "-f", subject], capture_output=True, check=True)
    print(json.dumps({"records": int(records), "seconds": int(records) / max(rate, 1),
                      "cpu_seconds": used.ru_utime + used.ru_stime}))


if __name__ == "__main__":
    main()
