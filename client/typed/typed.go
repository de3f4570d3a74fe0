// Package typed sends and reads records whose keys and values are Go values instead of bytes.
//
//	p := typed.NewProducer(producer, typed.String{}, typed.JSON[Order]{})
//	err := p.Send(ctx, typed.ProducerRecord[string, Order]{Topic: "orders", Key: "42", Value: order}, nil)
//
//	c := typed.NewConsumer(group, typed.String{}, typed.JSON[Order]{})
//	records, err := c.Poll(ctx)
//	fmt.Println(records[0].Offset, records[0].Value.Total)
//
// It stands on a client.Producer, and on a client.Consumer or client.GroupConsumer, which stay the
// program's: to flush, commit and close. It decides what happens to a record that cannot be read
// (see OnPoison) and keeps null apart from everything else (see Optional). What bytes mean is
// decided by a Serde: JSON, String, Bytes and Integer are here, Of makes one of two functions, and
// whatever has the methods is one. It refuses to know schemas.
package typed

import (
	"context"
	"errors"
	"fmt"

	"barnabas/client"
)

// Serializer makes the bytes of a key or a value. It is called concurrently. Kafka: Serializer.
type Serializer[T any] interface {
	// Serialize gives the bytes of v for a record of the topic, or nil for null. They may be
	// appended to dst, which is empty and may have room, or stand in any other memory; they are read
	// until Send returns. ctx is Send's.
	Serialize(ctx context.Context, topic string, dst []byte, v T) ([]byte, error)
}

// Deserializer makes a value of a key's or a value's bytes. It is called concurrently where
// several consumers share it. Kafka: Deserializer.
type Deserializer[T any] interface {
	// Deserialize reads the bytes of a record of the topic; nil is null. The value may hold on to
	// data, and must not change it: records of one batch share memory. ctx is Poll's.
	Deserialize(ctx context.Context, topic string, data []byte) (T, error)
}

// Serde goes both ways. Kafka: Serde.
type Serde[T any] interface {
	Serializer[T]
	Deserializer[T]
}

// ErrNull answers null where a value is needed: Optional reads it.
var ErrNull = errors.New("null")

// Part is what of a record a Serde is for.
type Part int8

// The parts of a record.
const (
	Key Part = iota
	Value
)

// String is "key" or "value".
func (p Part) String() string {
	if p == Key {
		return "key"
	}
	return "value"
}

// SerializationError answers Send where the key or the value could not be made bytes of. Nothing
// was sent.
type SerializationError struct {
	Topic string
	Part  Part
	Err   error // the Serializer's
}

// Error names the topic and the part, then what is wrong.
func (e *SerializationError) Error() string {
	return fmt.Sprintf("the %v of a record for topic %q cannot be written: %v", e.Part, e.Topic, e.Err)
}

// Unwrap gives what is wrong.
func (e *SerializationError) Unwrap() error { return e.Err }

// PoisonError is about a record that was read and of which no typed one can be made. See OnPoison.
type PoisonError struct {
	Record *client.Record // as it was read
	Part   Part
	Err    error // the Deserializer's
}

// Error names topic, partition, offset and the part, then what is wrong.
func (e *PoisonError) Error() string {
	return fmt.Sprintf("%v at offset %d: the %v cannot be read: %v", e.Record.TopicPartition(), e.Record.Offset, e.Part, e.Err)
}

// Unwrap gives what is wrong.
func (e *PoisonError) Unwrap() error { return e.Err }
