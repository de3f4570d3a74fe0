package client

import (
	"slices"
	"testing"
	"time"
)

// A topic that is deleted and made again while it is produced to gets what comes after, once and in order, although
// nobody there knows the numbers that went before; and its records wait no longer than until the metadata tells.
func TestTrap26ProducersGoOnInTheTopicMadeAgain(t *testing.T) {
	for _, inFlight := range []int{1, 5} {
		bubble(t, 1, func(t *testing.T, f *fakeCluster) {
			f.topic("t", 2)
			c, p := newTestProducer(t, f, MaxInFlight(inFlight), Linger(0))
			defer c.Close()
			defer closeProducer(t, p)
			send := func(from, to int) {
				for _, v := range values(from, to) {
					for n := range int32(2) {
						err := p.Send(t.Context(), ProducerRecord{Topic: "t", Partition: ToPartition(n), Value: []byte(v)}, func(_ RecordMetadata, err error) {
							if err != nil {
								t.Errorf("%s: %v", v, err)
							}
						})
						if err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			send(0, 10)
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.topic("t", 2)
			began := time.Now()
			send(10, 20)
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
			for n := range int32(2) {
				if got := f.values(TopicPartition{"t", n}); !slices.Equal(got, values(10, 20)) {
					t.Errorf("%d in flight: the new topic's partition %d has %s\n%s", inFlight, n, difference(got, values(10, 20)), f.dump(TopicPartition{"t", n}))
				}
			}
		})
	}
}
