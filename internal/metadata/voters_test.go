package metadata

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"
)

// kafkasVoters is the value of a KRaftVoters record that Apache Kafka 4.3.1 wrote for one voter.
const kafkasVoters = "00000200000001b08a37a856ba488189b9ec6b9a6c678e020b434f4e54524f4c4c45520a3132372e302e302e314e040000000001000000"

func TestVotersRecordIsKafkas(t *testing.T) {
	value, err := hex.DecodeString(kafkasVoters)
	if err != nil {
		t.Fatal(err)
	}
	voters, _, err := ParseVoters(value)
	want := []Voter{{NodeID: 1, Endpoints: []VoterEndpoint{{"CONTROLLER", "127.0.0.1", 19972}}}}
	copy(want[0].Directory[:], value[7:])
	if err != nil || !reflect.DeepEqual(voters, want) {
		t.Fatalf("%+v, %v", voters, err)
	}
	if got := AppendVoters(nil, want, nil); !bytes.Equal(got, value) {
		t.Fatalf("%x", got)
	}
	if got := hex.EncodeToString(AppendKRaftVersion(nil)); got != "0000000100" {
		t.Fatal(got)
	}
}

func FuzzVoters(f *testing.F) {
	two := []Voter{
		{NodeID: 1, Directory: UUID{1}, Endpoints: []VoterEndpoint{{"CONTROLLER", "h", 9093}, {"", "::1", 0}}},
		{NodeID: 1 << 30, Directory: UUID{15: 9}},
	}
	for _, rest := range [][]byte{nil, {2}, bytes.Repeat([]byte{7}, 300)} {
		value := AppendVoters(nil, two, rest)
		voters, got, err := ParseVoters(value)
		if err != nil || !reflect.DeepEqual(voters, two) || !bytes.Equal(got, rest) {
			f.Fatalf("%+v %x %v", voters, got, err)
		}
		f.Add(value)
	}
	f.Add(AppendVoters(nil, nil, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		voters, rest, err := ParseVoters(data)
		if err != nil {
			return
		}
		again, restAgain, err := ParseVoters(AppendVoters(nil, voters, rest))
		if err != nil || !reflect.DeepEqual(again, voters) || !bytes.Equal(restAgain, rest) {
			t.Fatalf("%+v %x, again %+v %x %v", voters, rest, again, restAgain, err)
		}
	})
}
