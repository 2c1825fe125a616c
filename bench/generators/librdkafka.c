/* librdkafka as a load of `ringmill-bench compare`: librdkafka HOST:PORT TOPIC RECORDS SIZE. Records are
 * sent as fast as they are taken; what was acknowledged, and how long that took, is one line of JSON.
 *
 * cc -O2 -o librdkafka librdkafka.c -lrdkafka */

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static long long delivered, failed;

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque) {
  (void)rk, (void)opaque;
  message->err ? failed++ : delivered++;
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
  char why[512];
  if (rd_kafka_conf_set(conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK) {
    fprintf(stderr, "%s: %s\n", name, why);
    exit(1);
  }
}

static double seconds_of(const struct timeval *time) { return time->tv_sec + time->tv_usec / 1e6; }

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: librdkafka HOST:PORT TOPIC RECORDS SIZE\n");
    return 2;
  }
  const long long records = atoll(argv[3]);
  const size_t size = (size_t)atoll(argv[4]);
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  set(conf, "bootstrap.servers", argv[1]);
  set(conf, "acks", "all");
  set(conf, "linger.ms", "5");
  set(conf, "batch.size", "262144");
  set(conf, "batch.num.messages", "100000");
  set(conf, "queue.buffering.max.messages", "200000");
  rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
  char why[512];
  rd_kafka_t *producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
  if (!producer) {
    fprintf(stderr, "%s\n", why);
    return 1;
  }
  rd_kafka_topic_t *topic = rd_kafka_topic_new(producer, argv[2], NULL);
  char *value = malloc(size + 1);
  memset(value, 'x', size);
  struct timespec begun, ended;
  clock_gettime(CLOCK_MONOTONIC, &begun);
  for (long long sent = 0; sent < records;) {
    if (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, value, size, NULL, 0, NULL) == 0) {
      sent++;
      if (sent % 1024 == 0) rd_kafka_poll(producer, 0);
    } else if (rd_kafka_last_error() == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
      rd_kafka_poll(producer, 10);
    } else {
      fprintf(stderr, "%s\n", rd_kafka_err2str(rd_kafka_last_error()));
      return 1;
    }
  }
  rd_kafka_flush(producer, 60000);
  clock_gettime(CLOCK_MONOTONIC, &ended);
  if (failed || delivered != records) {
    fprintf(stderr, "%lld of %lld records were acknowledged, %lld failed\n", delivered, records, failed);
    return 1;
  }
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  printf("{\"records\": %lld, \"seconds\": %.6f, \"cpu_seconds\": %.3f, \"version\": \"%s\"}\n", delivered,
         (ended.tv_sec - begun.tv_sec) + (ended.tv_nsec - begun.tv_nsec) / 1e9,
         seconds_of(&used.ru_utime) + seconds_of(&used.ru_stime), rd_kafka_version_str());
  rd_kafka_topic_destroy(topic);
  rd_kafka_destroy(producer);
  free(value);
  return 0;
}
