package typed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Bytes passes bytes on as they are; nil is null. What is read shares memory with the record.
// Kafka: ByteArraySerializer and ByteArrayDeserializer.
type Bytes struct{}

// Serialize gives v itself.
func (Bytes) Serialize(_ context.Context, _ string, _ []byte, v []byte) ([]byte, error) {
	return v, nil
}

// Deserialize gives data itself.
func (Bytes) Deserialize(_ context.Context, _ string, data []byte) ([]byte, error) { return data, nil }

// String is text as it is, UTF-8 or not. Errors: ErrNull. Kafka: StringSerializer and
// StringDeserializer.
type String struct{}

// Serialize gives the bytes of v.
func (String) Serialize(_ context.Context, _ string, dst []byte, v string) ([]byte, error) {
	return present(append(dst, v...)), nil
}

// Deserialize gives data as text.
func (String) Deserialize(_ context.Context, _ string, data []byte) (string, error) {
	if data == nil {
		return "", ErrNull
	}
	return string(data), nil
}

// Integer is a number in two, four or eight bytes, the highest first. Errors: ErrNull, and for any
// other number of bytes. Kafka: ShortSerializer, IntegerSerializer, LongSerializer and their
// deserializers.
type Integer[T int16 | int32 | int64] struct{}

// Serialize gives the bytes of v.
func (Integer[T]) Serialize(_ context.Context, _ string, dst []byte, v T) ([]byte, error) {
	for shift := 8 * (integerBytes[T]() - 1); shift >= 0; shift -= 8 {
		dst = append(dst, byte(v>>shift))
	}
	return dst, nil
}

// Deserialize reads the number.
func (Integer[T]) Deserialize(_ context.Context, _ string, data []byte) (v T, err error) {
	if data == nil {
		return 0, ErrNull
	}
	if want := integerBytes[T](); len(data) != want {
		return 0, fmt.Errorf("a number of %d bytes is in %d", want, len(data))
	}
	for _, b := range data {
		v = v<<8 | T(b)
	}
	return v, nil
}

func integerBytes[T int16 | int32 | int64]() int {
	switch any(T(0)).(type) {
	case int16:
		return 2
	case int32:
		return 4
	default:
		return 8
	}
}

// JSON is a value in JSON, as encoding/json has it. Errors: ErrNull, and encoding/json's.
type JSON[T any] struct {
	// Strict refuses to read an object with a field that T does not have. Default: it is passed over.
	Strict bool
}

// Serialize gives the JSON of v.
func (JSON[T]) Serialize(_ context.Context, _ string, _ []byte, v T) ([]byte, error) {
	return json.Marshal(v)
}

// Deserialize reads JSON.
func (j JSON[T]) Deserialize(_ context.Context, _ string, data []byte) (v T, err error) {
	if data == nil {
		return v, ErrNull
	}
	if !j.Strict {
		err = json.Unmarshal(data, &v)
		return v, err
	}
	from := json.NewDecoder(bytes.NewReader(data))
	from.DisallowUnknownFields()
	if err = from.Decode(&v); err != nil {
		return v, err
	}
	if _, err = from.Token(); !errors.Is(err, io.EOF) {
		return v, errors.New("something follows the JSON")
	}
	return v, nil
}

// None stands where there is nothing, as in records without a key: it writes null, and passes over
// whatever it reads. Kafka: VoidSerializer.
type None struct{}

// Serialize gives null.
func (None) Serialize(context.Context, string, []byte, None) ([]byte, error) { return nil, nil }

// Deserialize reads nothing.
func (None) Deserialize(context.Context, string, []byte) (None, error) { return None{}, nil }

// Optional reads and writes null as a nil pointer: a tombstone where the topic is compacted, a
// record without a key. Everything else is of's.
func Optional[T any](of Serde[T]) Serde[*T] { return optional[T]{of} }

type optional[T any] struct{ of Serde[T] }

func (o optional[T]) Serialize(ctx context.Context, topic string, dst []byte, v *T) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	return o.of.Serialize(ctx, topic, dst, *v)
}

func (o optional[T]) Deserialize(ctx context.Context, topic string, data []byte) (*T, error) {
	if data == nil {
		return nil, nil
	}
	v, err := o.of.Deserialize(ctx, topic, data)
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// Of makes a Serde of two functions, of which whoever only writes or only reads may leave out the
// other (nil). They never see null: whatever encode returns is a value, though it be nil or empty,
// and decode is not asked about null, which is ErrNull.
func Of[T any](encode func(T) ([]byte, error), decode func([]byte) (T, error)) Serde[T] {
	return functions[T]{encode, decode}
}

type functions[T any] struct {
	encode func(T) ([]byte, error)
	decode func([]byte) (T, error)
}

var errNoFunction = errors.New("Of was given no function for it")

func (f functions[T]) Serialize(_ context.Context, _ string, _ []byte, v T) ([]byte, error) {
	if f.encode == nil {
		return nil, errNoFunction
	}
	data, err := f.encode(v)
	if err != nil {
		return nil, err
	}
	return present(data), nil
}

func (f functions[T]) Deserialize(_ context.Context, _ string, data []byte) (v T, err error) {
	switch {
	case data == nil:
		return v, ErrNull
	case f.decode == nil:
		return v, errNoFunction
	}
	return f.decode(data)
}

// present keeps an empty value from being taken for null.
func present(data []byte) []byte {
	if data == nil {
		return []byte{}
	}
	return data
}
