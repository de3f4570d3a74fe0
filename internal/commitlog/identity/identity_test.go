package identity

import (
	"testing"
	"time"
)

func TestKafkasOwnMetaPropertiesAreRead(t *testing.T) {
	data := "#\n#Sun Nov 22 16:43:31 UTC 2026\nnode.id=1\ndirectory.id=VsrwrI_ibwXqq8AiRFC-nw\nversion=1\ncluster.id=VHQ23N5GSg-IklrAhp-Bkw\n"
	p, err := Parse([]byte(data))
	if err != nil || p.NodeID != 1 || p.ClusterID != "VHQ23N5GSg-IklrAhp-Bkw" || p.DirectoryID.String() != "VsrwrI_ibwXqq8AiRFC-nw" {
		t.Fatalf("%+v %v", p, err)
	}
	if again := p.Format(time.Date(2026, 11, 22, 16, 43, 31, 0, time.UTC)); string(again) != data {
		t.Fatalf("%q", again)
	}
}

func FuzzMeta(f *testing.F) {
	f.Add([]byte("#\nnode.id=1\ndirectory.id=VsrwrI_ibwXqq8AiRFC-nw\nversion=1\ncluster.id=VHQ23N5GSg-IklrAhp-Bkw\n"))
	f.Add([]byte("version=99\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			return
		}
		again, err := Parse(m.Format(time.UnixMilli(1_700_000_000_000)))
		if err != nil || again.NodeID != m.NodeID || again.DirectoryID != m.DirectoryID {
			t.Fatalf("%+v, again %+v %v", m, again, err)
		}
	})
}

func FuzzCleanStop(f *testing.F) {
	for text, epoch := range map[string]int64{
		`{"version":0,"brokerEpoch":17}`: 17, `{"version":0,"brokerEpoch":-1}`: NoEpoch, ``: NoEpoch, `{}`: NoEpoch, `17`: NoEpoch,
		`{"version":1,"brokerEpoch":17}`: NoEpoch, `{"brokerEpoch":17}`: NoEpoch, `{"version":0,"brokerEpoch":0}`: NoEpoch,
	} {
		if got := ParseCleanStop([]byte(text)); got != epoch {
			f.Errorf("%s: %d", text, got)
		}
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		epoch := ParseCleanStop(data)
		if epoch == 0 || epoch < NoEpoch {
			t.Fatalf("epoch %d", epoch)
		}
		if again := ParseCleanStop(FormatCleanStop(epoch)); again != epoch {
			t.Fatalf("%d, again %d", epoch, again)
		}
	})
}
