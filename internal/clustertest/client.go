package clustertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/wire"
)

// Client is one connection to a node, without retries, caches or opinions.
type Client struct {
	*wire.Client
	versions map[int16]int16 // the newest that both ends have
}

// namedVersions are the newest versions that still call topics by their names.
var namedVersions = map[int16]int16{
	kmsg.Produce.Int16(): 12, kmsg.Fetch.Int16(): 12, kmsg.OffsetCommit.Int16(): 9, kmsg.OffsetFetch.Int16(): 9,
}

// Dial connects a host of the world with a node.
func (w *World) Dial(ctx context.Context, host string, to *Node) (*Client, error) {
	conn, err := w.Net.Host(host).Dial(ctx, net.JoinHostPort(to.Name, Port))
	if err != nil {
		return nil, err
	}
	return NewClient(ctx, host, conn)
}

// NewClient speaks to a node over a connection, which it takes over.
func NewClient(ctx context.Context, id string, conn net.Conn) (*Client, error) {
	c := &Client{Client: wire.NewClient(conn, wire.ClientOptions{ClientID: id}), versions: map[int16]int16{}}
	ask := kmsg.NewPtrApiVersionsRequest()
	ask.ClientSoftwareName, ask.ClientSoftwareVersion = "clustertest", "1"
	c.versions[ask.Key()] = 3
	res, err := Call[*kmsg.ApiVersionsResponse](ctx, c, ask)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	for _, k := range res.ApiKeys {
		c.versions[k.ApiKey] = k.MaxVersion
		if named, ok := namedVersions[k.ApiKey]; ok {
			c.versions[k.ApiKey] = min(named, k.MaxVersion)
		}
	}
	return c, nil
}

// MustDial is Dial that ends the test where it fails. The caller closes the client, or leaves it to
// the end of the test.
func (w *World) MustDial(host string, to *Node) *Client {
	w.T.Helper()
	c, err := w.Dial(w.T.Context(), host, to)
	if err != nil {
		w.Fatalf("dial %s: %v", to.Name, err)
	}
	w.T.Cleanup(func() { _ = c.Close() }) // its connection may have ended long ago
	return c
}

// Call sends a request at the newest version that both know and waits for its answer.
func Call[R kmsg.Response](ctx context.Context, c *Client, q kmsg.Request) (R, error) {
	p, err := Start(ctx, c, q)
	if err != nil {
		var none R
		return none, err
	}
	return Wait[R](ctx, p)
}

// Pending is a request under way.
type Pending struct {
	*wire.Pending
	q kmsg.Request
}

// Start sends a request; requests of one client leave in the order of the calls.
func Start(ctx context.Context, c *Client, q kmsg.Request) (*Pending, error) {
	version, ok := c.versions[q.Key()]
	if !ok {
		return nil, fmt.Errorf("%s is not served", kmsg.NameForKey(q.Key()))
	}
	q.SetVersion(min(version, q.MaxVersion()))
	p, err := c.Client.Start(ctx, q.Key(), q.GetVersion(), q.AppendTo)
	if err != nil {
		return nil, err
	}
	return &Pending{p, q}, nil
}

// Wait waits for the answer.
func Wait[R kmsg.Response](ctx context.Context, p *Pending) (R, error) {
	var none R
	body, err := p.Pending.Wait(ctx)
	if err != nil {
		return none, err
	}
	res := p.q.ResponseKind()
	res.SetVersion(p.q.GetVersion())
	if err := res.ReadFrom(body); err != nil {
		return none, fmt.Errorf("decode %s version %d: %w", kmsg.NameForKey(p.q.Key()), p.q.GetVersion(), err)
	}
	return res.(R), nil
}

const timeoutMillis = 30_000

// CreateTopic makes a topic; configs are KEY, VALUE, KEY, VALUE and so on.
func (c *Client) CreateTopic(ctx context.Context, name string, partitions int, configs ...string) (id [16]byte, err error) {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, int32(partitions), -1
	for pair := range slices.Chunk(configs, 2) {
		kv := kmsg.NewCreateTopicsRequestTopicConfig()
		kv.Name, kv.Value = pair[0], &pair[1]
		t.Configs = append(t.Configs, kv)
	}
	q := kmsg.NewPtrCreateTopicsRequest()
	q.TimeoutMillis, q.Topics = timeoutMillis, append(q.Topics, t)
	res, err := Call[*kmsg.CreateTopicsResponse](ctx, c, q)
	if err != nil {
		return id, err
	}
	return res.Topics[0].TopicID, failure(res.Topics[0].ErrorCode, res.Topics[0].ErrorMessage)
}

// PlaceTopic makes a topic whose partitions all have their replicas on the same brokers, the first of which leads.
func (c *Client) PlaceTopic(ctx context.Context, name string, partitions int32, replicas ...int32) error {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, -1, -1
	for n := range partitions {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = n, replicas
		t.ReplicaAssignment = append(t.ReplicaAssignment, a)
	}
	q := kmsg.NewPtrCreateTopicsRequest()
	q.TimeoutMillis, q.Topics = timeoutMillis, append(q.Topics, t)
	res, err := Call[*kmsg.CreateTopicsResponse](ctx, c, q)
	if err != nil {
		return err
	}
	return failure(res.Topics[0].ErrorCode, res.Topics[0].ErrorMessage)
}

// DeleteTopic deletes a topic.
func (c *Client) DeleteTopic(ctx context.Context, name string) error {
	t := kmsg.NewDeleteTopicsRequestTopic()
	t.Topic = &name
	q := kmsg.NewPtrDeleteTopicsRequest()
	q.TimeoutMillis, q.Topics = timeoutMillis, append(q.Topics, t)
	res, err := Call[*kmsg.DeleteTopicsResponse](ctx, c, q)
	if err != nil {
		return err
	}
	return failure(res.Topics[0].ErrorCode, res.Topics[0].ErrorMessage)
}

// failure is a Kafka error code as an error: a *kerr.Error inside, for errors.Is.
func failure(code int16, message *string) error {
	if code == 0 {
		return nil
	}
	err := kerr.ErrorForCode(code)
	if message != nil {
		return fmt.Errorf("%w: %s", err, *message)
	}
	return err
}

// Alter sets one config of a topic, or with kind BROKER of a broker ("" for all); nil deletes it.
func (c *Client) Alter(ctx context.Context, kind kmsg.ConfigResourceType, name, key string, value *string) error {
	kv := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	kv.Name, kv.Value = key, value
	if value == nil {
		kv.Op = kmsg.IncrementalAlterConfigOpDelete
	}
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName, r.Configs = kind, name, append(r.Configs, kv)
	q := kmsg.NewPtrIncrementalAlterConfigsRequest()
	q.Resources = append(q.Resources, r)
	res, err := Call[*kmsg.IncrementalAlterConfigsResponse](ctx, c, q)
	if err != nil {
		return err
	}
	return failure(res.Resources[0].ErrorCode, res.Resources[0].ErrorMessage)
}

// Describe returns the value of one config, with where it comes from.
func (c *Client) Describe(ctx context.Context, kind kmsg.ConfigResourceType, name, key string) (value string, source kmsg.ConfigSource, err error) {
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName, r.ConfigNames = kind, name, []string{key}
	q := kmsg.NewPtrDescribeConfigsRequest()
	q.Resources = append(q.Resources, r)
	res, err := Call[*kmsg.DescribeConfigsResponse](ctx, c, q)
	if err != nil {
		return "", 0, err
	}
	one := res.Resources[0]
	if err := failure(one.ErrorCode, one.ErrorMessage); err != nil {
		return "", 0, err
	}
	if len(one.Configs) != 1 {
		return "", 0, fmt.Errorf("%d configs for %s", len(one.Configs), key)
	}
	if v := one.Configs[0].Value; v != nil {
		value = *v
	}
	return value, one.Configs[0].Source, nil
}

// Topic asks for a topic's metadata, which creates nothing.
func (c *Client) Topic(ctx context.Context, name string) (*kmsg.MetadataResponseTopic, error) {
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &name
	q := kmsg.NewPtrMetadataRequest()
	q.Topics = append(q.Topics, t)
	res, err := Call[*kmsg.MetadataResponse](ctx, c, q)
	if err != nil {
		return nil, err
	}
	return &res.Topics[0], failure(res.Topics[0].ErrorCode, nil)
}

// ProducerID gets an id for an idempotent producer.
func (c *Client) ProducerID(ctx context.Context) (int64, error) {
	q := kmsg.NewPtrInitProducerIDRequest()
	res, err := Call[*kmsg.InitProducerIDResponse](ctx, c, q)
	if err != nil {
		return 0, err
	}
	return res.ProducerID, failure(res.ErrorCode, nil)
}

// ProduceRequest is a request for one batch.
func ProduceRequest(acks int16, topic string, partition int32, b batch.Batch) *kmsg.ProduceRequest {
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, b
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, p)
	q := kmsg.NewPtrProduceRequest()
	q.Acks, q.TimeoutMillis, q.Topics = acks, timeoutMillis, append(q.Topics, t)
	return q
}

// Produced is the answer to such a request.
func Produced(res *kmsg.ProduceResponse) (p kmsg.ProduceResponseTopicPartition, err error) {
	p = res.Topics[0].Partitions[0]
	return p, failure(p.ErrorCode, p.ErrorMessage)
}

// Produce writes one batch and returns the offset of its first record.
func (c *Client) Produce(ctx context.Context, acks int16, topic string, partition int32, b batch.Batch) (offset int64, err error) {
	res, err := Call[*kmsg.ProduceResponse](ctx, c, ProduceRequest(acks, topic, partition, b))
	if err != nil {
		return -1, err
	}
	p, err := Produced(res)
	return p.BaseOffset, err
}

// FetchOptions bound a Fetch.
type FetchOptions struct {
	MaxBytes      int32 // 0: 1 MiB
	MinBytes      int32
	MaxWaitMillis int32
	Rack          string // that the consumer is in; "": none
}

// Fetch reads a partition from an offset.
func (c *Client) Fetch(ctx context.Context, topic string, partition int32, from int64, o FetchOptions) (kmsg.FetchResponseTopicPartition, error) {
	var none kmsg.FetchResponseTopicPartition
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 20
	}
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, from, o.MaxBytes
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, p)
	q := kmsg.NewPtrFetchRequest()
	q.MaxWaitMillis, q.MinBytes, q.MaxBytes, q.SessionEpoch, q.Rack = o.MaxWaitMillis, o.MinBytes, o.MaxBytes, -1, o.Rack
	q.Topics = append(q.Topics, t)
	res, err := Call[*kmsg.FetchResponse](ctx, c, q)
	if err != nil {
		return none, err
	}
	if err := failure(res.ErrorCode, nil); err != nil {
		return none, err
	}
	got := res.Topics[0].Partitions[0]
	return got, failure(got.ErrorCode, nil)
}

// Offset answers ListOffsets: -1 is the end that consumers see, -2 the start, else a time in ms.
func (c *Client) Offset(ctx context.Context, topic string, partition int32, at int64) (int64, error) {
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp = partition, at
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, p)
	q := kmsg.NewPtrListOffsetsRequest()
	q.ReplicaID, q.Topics = -1, append(q.Topics, t)
	res, err := Call[*kmsg.ListOffsetsResponse](ctx, c, q)
	if err != nil {
		return -1, err
	}
	got := res.Topics[0].Partitions[0]
	return got.Offset, failure(got.ErrorCode, nil)
}

// Record is what a consumer sees of one.
type Record struct {
	Offset, TimestampMs int64
	Key, Value          string
}

// Records decodes what a Fetch returned, as a client does: checksums first, and nothing before
// from. A batch cut short at the end is left out.
func Records(data []byte, from int64) (records []Record, next int64, err error) {
	checker := batch.NewChecker()
	next = from
	for len(data) > 0 {
		b, rest, err := batch.Next(data)
		if errors.Is(err, batch.ErrIncomplete) {
			return records, next, nil
		}
		if err == nil {
			err = b.CheckCRC()
		}
		if err != nil {
			return records, next, fmt.Errorf("batch after offset %d: %w", next, err)
		}
		for r, err := range checker.Records(b) {
			if err != nil {
				return records, next, fmt.Errorf("records of the batch at %d: %w", b.BaseOffset(), err)
			}
			if offset := b.OffsetOf(&r); offset >= from && !b.IsControl() {
				records = append(records, Record{offset, b.TimestampOf(&r), string(r.Key), string(r.Value)})
			}
		}
		data, next = rest, max(next, b.NextOffset())
	}
	return records, next, nil
}

// ReadAll fetches a partition from an offset up to the high watermark.
func (c *Client) ReadAll(ctx context.Context, topic string, partition int32, from int64) ([]Record, error) {
	var all []Record
	for {
		got, err := c.Fetch(ctx, topic, partition, from, FetchOptions{})
		if err != nil {
			return all, fmt.Errorf("fetch %s-%d from %d: %w", topic, partition, from, err)
		}
		records, next, err := Records(got.RecordBatches, from)
		all = append(all, records...)
		if err != nil || next >= got.HighWatermark {
			return all, err
		}
		if next == from {
			return all, fmt.Errorf("fetch %s-%d from %d: nothing, and the watermark is %d", topic, partition, from, got.HighWatermark)
		}
		from = next
	}
}

// Batch makes a batch of records with these values, and keys where a value is written KEY=VALUE.
func Batch(timestampMs int64, codec batch.Codec, values ...string) batch.Batch {
	b := batch.NewBuilder(batch.BuilderOptions{Codec: codec})
	for _, v := range values {
		var key []byte
		for i := range v {
			if v[i] == '=' {
				key, v = []byte(v[:i]), v[i+1:]
				break
			}
		}
		b.Append(timestampMs, key, []byte(v), nil)
	}
	built, err := b.Build()
	if err != nil {
		panic(fmt.Sprintf("BUG: build a batch: %v", err))
	}
	return built
}
