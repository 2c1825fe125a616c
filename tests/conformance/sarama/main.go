// Sarama, unmodified, as foreign_client.py drives it.
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
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// A record as the harness writes and reads it; bytes are base64 in JSON.
type record struct {
	Partition *int32   `json:"partition,omitempty"`
	Offset    int64    `json:"offset"`
	Timestamp int64    `json:"timestamp"`
	Key       *[]byte  `json:"key"`
	Value     *[]byte  `json:"value"`
	Headers   []header `json:"headers"`
}

// A pair in JSON.
type header struct {
	name  string
	value []byte
}

func (h *header) UnmarshalJSON(text []byte) error {
	return json.Unmarshal(text, &[]any{&h.name, &h.value})
}

func (h header) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{h.name, h.value})
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

func encoder(bytes *[]byte) sarama.Encoder {
	if bytes == nil {
		return nil
	}
	return sarama.ByteEncoder(*bytes)
}

func pointer(bytes []byte) *[]byte {
	if bytes == nil {
		return nil
	}
	return &bytes
}

var codecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

func config() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	config.Producer.MaxMessageBytes = 3 << 19
	return config
}

// The record's own partition if it names one, else by the hash of its key.
type partitioner struct{ hash sarama.Partitioner }

func (p partitioner) RequiresConsistency() bool { return true }

func (p partitioner) Partition(m *sarama.ProducerMessage, n int32) (int32, error) {
	if wanted, ok := m.Metadata.(int32); ok {
		return wanted, nil
	}
	return p.hash.Partition(m, n)
}

func produce(seed, topic string, config *sarama.Config, end string) error {
	config.Producer.Partitioner = func(topic string) sarama.Partitioner {
		return partitioner{sarama.NewHashPartitioner(topic)}
	}
	producer, err := sarama.NewSyncProducer([]string{seed}, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	var messages []*sarama.ProducerMessage
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var in record
		if err := json.Unmarshal(lines.Bytes(), &in); err != nil {
			return err
		}
		sent := &sarama.ProducerMessage{Topic: topic, Key: encoder(in.Key), Value: encoder(in.Value)}
		if in.Partition != nil {
			sent.Metadata = *in.Partition
		}
		if in.Timestamp > 0 {
			sent.Timestamp = time.UnixMilli(in.Timestamp)
		}
		for _, header := range in.Headers {
			pair := sarama.RecordHeader{Key: []byte(header.name), Value: header.value}
			sent.Headers = append(sent.Headers, pair)
		}
		messages = append(messages, sent)
	}
	if config.Producer.Transaction.ID != "" {
		if err := producer.BeginTxn(); err != nil {
			return err
		}
	}
	if err := producer.SendMessages(messages); err != nil {
		var failed sarama.ProducerErrors
		if errors.As(err, &failed) && len(failed) > 0 {
			return failed[0].Err
		}
		return err
	}
	for _, sent := range messages {
		write(map[string]any{"partition": sent.Partition, "offset": sent.Offset})
	}
	switch end {
	case "commit":
		return producer.CommitTxn()
	case "abort":
		return producer.AbortTxn()
	}
	return nil
}

func show(m *sarama.ConsumerMessage) {
	headers := []header{}
	for _, pair := range m.Headers {
		headers = append(headers, header{string(pair.Key), pair.Value})
	}
	write(record{Partition: &m.Partition, Offset: m.Offset, Timestamp: m.Timestamp.UnixMilli(),
		Key: pointer(m.Key), Value: pointer(m.Value), Headers: headers})
}

// Shows at least count messages, and those that follow at once.
func follow(ctx context.Context, messages <-chan *sarama.ConsumerMessage, count int) error {
	for {
		var rest <-chan time.Time
		if count <= 0 {
			rest = time.After(quiet)
		}
		select {
		case message := <-messages:
			show(message)
			count--
		case <-rest:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func consume(ctx context.Context, seed, topic string, count int, start int64, partitions string, isolation sarama.IsolationLevel) error {
	config := config()
	config.Consumer.IsolationLevel = isolation
	consumer, err := sarama.NewConsumer([]string{seed}, config)
	if err != nil {
		return err
	}
	defer consumer.Close()
	all := make(chan *sarama.ConsumerMessage)
	for _, text := range strings.Split(partitions, ",") {
		partition, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		one, err := consumer.ConsumePartition(topic, int32(partition), start)
		if err != nil {
			return err
		}
		go func() {
			for message := range one.Messages() {
				all <- message
			}
		}()
	}
	return follow(ctx, all, count)
}

// One session of a group member that reads so many messages and commits them.
type member struct {
	count int
	done  sync.Once
	leave context.CancelFunc
	err   error
}

func (m *member) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	m.done.Do(func() {
		passed := make(chan *sarama.ConsumerMessage)
		go func() {
			for message := range claim.Messages() {
				session.MarkMessage(message, "")
				passed <- message
			}
		}()
		m.err = follow(session.Context(), passed, m.count)
		session.Commit()
		m.leave()
	})
	return nil
}

func group(ctx context.Context, seed, topic, name, instance string, count int) error {
	settings := config()
	settings.Consumer.Group.InstanceId = instance
	client, err := sarama.NewConsumerGroup([]string{seed}, name, settings)
	if err != nil {
		return err
	}
	defer client.Close()
	session, leave := context.WithCancel(ctx)
	defer leave()
	member := &member{count: count, leave: leave}
	if err := client.Consume(session, []string{topic}, member); err != nil {
		return err
	}
	return member.err
}

func admin(seed, command, topic string, arguments []string) error {
	client, err := sarama.NewClient([]string{seed}, config())
	if err != nil {
		return err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return err
	}
	defer admin.Close()
	switch command {
	case "create":
		partitions, err := strconv.Atoi(arguments[0])
		if err != nil {
			return err
		}
		return admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: int32(partitions), ReplicationFactor: 1}, false)
	case "delete":
		return admin.DeleteTopic(topic)
	case "list":
		topics, err := admin.ListTopics()
		if err != nil {
			return err
		}
		write(topics[topic].NumPartitions)
		return nil
	case "offset":
		time, err := strconv.ParseInt(arguments[0], 10, 64)
		if err != nil {
			return err
		}
		found, err := client.GetOffset(topic, 0, time)
		write(found)
		return err
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
		config := config()
		config.Producer.Compression = codecs[arguments[0]]
		return produce(seed, topic, config, "")
	case "transact":
		config := config()
		config.Producer.Transaction.ID = arguments[0]
		return produce(seed, topic, config, arguments[1])
	case "consume", "committed":
		isolation := sarama.ReadUncommitted
		if command == "committed" {
			isolation = sarama.ReadCommitted
		}
		count, _ := strconv.Atoi(arguments[0])
		start, _ := strconv.ParseInt(arguments[1], 10, 64)
		return consume(ctx, seed, topic, count, start, arguments[2], isolation)
	case "group":
		count, _ := strconv.Atoi(arguments[1])
		return group(ctx, seed, topic, arguments[0], "", count)
	case "static-group":
		count, _ := strconv.Atoi(arguments[1])
		return group(ctx, seed, topic, arguments[0], "instance", count)
	}
	return admin(seed, command, topic, arguments)
}

func main() {
	err := run()
	out.Flush()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
