// franz-go, unmodified, as foreign_client.py drives it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A record as the harness writes and reads it; bytes are base64 in JSON.
type record struct {
	Partition *int32   `json:"partition,omitempty"`
	Offset    int64    `json:"offset"`
	Timestamp int64    `json:"timestamp"`
	Key       *[]byte  `json:"key"`
	Value     *[]byte  `json:"value"`
	Headers   [][2]any `json:"headers"`
}

// How long nothing may come before the rest is taken to be all.
const quiet = 300 * time.Millisecond

var out = bufio.NewWriter(os.Stdout)

func write(value any) {
	line, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	out.Write(append(line, '\n'))
}

func orNil(bytes *[]byte) []byte {
	if bytes == nil {
		return nil
	}
	return *bytes
}

func pointer(bytes []byte) *[]byte {
	if bytes == nil {
		return nil
	}
	return &bytes
}

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func producer(seed string, more ...kgo.Opt) (*kgo.Client, error) {
	options := []kgo.Opt{kgo.SeedBrokers(seed), kgo.ProducerBatchMaxBytes(3 << 19),
		kgo.RecordPartitioner(partitioner{kgo.StickyKeyPartitioner(nil)})}
	return kgo.NewClient(append(options, more...)...)
}

// The records of standard input.
func input(topic string) ([]*kgo.Record, error) {
	var records []*kgo.Record
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var in record
		if err := json.Unmarshal(lines.Bytes(), &in); err != nil {
			return nil, err
		}
		sent := &kgo.Record{Topic: topic, Key: orNil(in.Key), Value: orNil(in.Value), Partition: -1}
		if in.Partition != nil {
			sent.Partition = *in.Partition
		}
		if in.Timestamp > 0 {
			sent.Timestamp = time.UnixMilli(in.Timestamp)
		}
		for _, header := range in.Headers {
			var value []byte
			text, _ := json.Marshal(header[1])
			if err := json.Unmarshal(text, &value); err != nil {
				return nil, err
			}
			sent.Headers = append(sent.Headers, kgo.RecordHeader{Key: header[0].(string), Value: value})
		}
		records = append(records, sent)
	}
	return records, nil
}

func send(ctx context.Context, client *kgo.Client, topic string) error {
	records, err := input(topic)
	if err != nil {
		return err
	}
	results := client.ProduceSync(ctx, records...)
	if err := results.FirstErr(); err != nil {
		return err
	}
	for _, sent := range records {
		write(map[string]any{"partition": sent.Partition, "offset": sent.Offset})
	}
	return nil
}

func produce(ctx context.Context, seed, topic, codec string) error {
	client, err := producer(seed, kgo.ProducerBatchCompression(codecs[codec]))
	if err != nil {
		return err
	}
	defer client.Close()
	return send(ctx, client, topic)
}

// One transaction with all records of the input.
func transact(ctx context.Context, seed, topic, id, end string) error {
	client, err := producer(seed, kgo.TransactionalID(id))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	if err := send(ctx, client, topic); err != nil {
		return err
	}
	return client.EndTransaction(ctx, kgo.TransactionEndTry(end == "commit"))
}

// Carries so many records from one topic to another, exactly once.
func pipe(ctx context.Context, seed, from, to, group, id string, left int) error {
	session, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(seed), kgo.TransactionalID(id),
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RequireStableFetchOffsets())
	if err != nil {
		return err
	}
	defer session.Close()
	for left > 0 {
		fetches := session.PollRecords(ctx, 10)
		if err := fetches.Err(); err != nil {
			return err
		}
		if err := session.Begin(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			session.Produce(ctx, &kgo.Record{Topic: to, Key: r.Key, Value: r.Value}, nil)
			left--
		})
		committed, err := session.End(ctx, kgo.TryCommit)
		if err != nil {
			return err
		}
		if !committed {
			return errors.New("a transaction was aborted")
		}
	}
	return nil
}

// The record's own partition if it names one, else as the client does it by default.
type partitioner struct{ kgo.Partitioner }

func (p partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	return topicPartitioner{p.Partitioner.ForTopic(topic)}
}

type topicPartitioner struct{ kgo.TopicPartitioner }

func (p topicPartitioner) RequiresConsistency(r *kgo.Record) bool {
	return r.Partition >= 0 || p.TopicPartitioner.RequiresConsistency(r)
}

func (p topicPartitioner) Partition(r *kgo.Record, n int) int {
	if r.Partition >= 0 {
		return int(r.Partition)
	}
	return p.TopicPartitioner.Partition(r, n)
}

func show(r *kgo.Record) {
	headers := [][2]any{}
	for _, header := range r.Headers {
		headers = append(headers, [2]any{header.Key, header.Value})
	}
	write(record{Partition: &r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(),
		Key: pointer(r.Key), Value: pointer(r.Value), Headers: headers})
}

// Shows at least count records, and those that follow at once.
func poll(ctx context.Context, client *kgo.Client, count int) error {
	for count > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) { show(r); count-- })
	}
	rest, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	client.PollFetches(rest).EachRecord(show)
	return nil
}

func consume(ctx context.Context, seed, topic string, count int, start int64, partitions string, isolation kgo.IsolationLevel) error {
	offsets := map[int32]kgo.Offset{}
	for _, text := range strings.Split(partitions, ",") {
		partition, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		offsets[int32(partition)] = kgo.NewOffset().At(start)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(seed), kgo.FetchIsolationLevel(isolation),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}))
	if err != nil {
		return err
	}
	defer client.Close()
	return poll(ctx, client, count)
}

func group(ctx context.Context, seed, topic, name string, count int, more ...kgo.Opt) error {
	options := append(more, kgo.SeedBrokers(seed), kgo.ConsumerGroup(name), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := poll(ctx, client, count); err != nil {
		return err
	}
	if err := client.CommitUncommittedOffsets(ctx); err != nil {
		return err
	}
	return client.LeaveGroupContext(ctx)
}

func admin(ctx context.Context, seed, command, topic string, arguments []string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(seed))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	switch command {
	case "create":
		partitions, err := strconv.Atoi(arguments[0])
		if err != nil {
			return err
		}
		_, err = admin.CreateTopic(ctx, int32(partitions), 1, nil, topic)
		return err
	case "delete":
		_, err := admin.DeleteTopic(ctx, topic)
		return err
	case "list":
		topics, err := admin.ListTopics(ctx)
		if err != nil {
			return err
		}
		write(len(topics[topic].Partitions))
		return nil
	case "offset":
		time, err := strconv.ParseInt(arguments[0], 10, 64)
		if err != nil {
			return err
		}
		found, err := admin.ListOffsetsAfterMilli(ctx, time, topic)
		if err != nil {
			return err
		}
		at, _ := found.Lookup(topic, 0)
		write(at.Offset)
		return at.Err
	}
	return fmt.Errorf("no such command: %s", command)
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if len(os.Args) < 4 {
		return errors.New("usage: BOOTSTRAP COMMAND TOPIC ...")
	}
	seed, command, topic, arguments := os.Args[1], os.Args[2], os.Args[3], os.Args[4:]
	switch command {
	case "produce":
		return produce(ctx, seed, topic, arguments[0])
	case "transact":
		return transact(ctx, seed, topic, arguments[0], arguments[1])
	case "pipe":
		count, _ := strconv.Atoi(arguments[3])
		return pipe(ctx, seed, topic, arguments[0], arguments[1], arguments[2], count)
	case "consume", "committed":
		isolation := kgo.ReadUncommitted()
		if command == "committed" {
			isolation = kgo.ReadCommitted()
		}
		count, _ := strconv.Atoi(arguments[0])
		start, _ := strconv.ParseInt(arguments[1], 10, 64)
		return consume(ctx, seed, topic, count, start, arguments[2], isolation)
	case "group":
		count, _ := strconv.Atoi(arguments[1])
		return group(ctx, seed, topic, arguments[0], count)
	case "static-group":
		count, _ := strconv.Atoi(arguments[1])
		return group(ctx, seed, topic, arguments[0], count, kgo.InstanceID("instance"))
	case "consumer-group":
		count, _ := strconv.Atoi(arguments[1])
		return group(ctx, seed, topic, arguments[0], count, kgo.ServerSideBalancer())
	}
	return admin(ctx, seed, command, topic, arguments)
}

func main() {
	err := run()
	out.Flush()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
