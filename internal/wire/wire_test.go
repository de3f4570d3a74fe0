package wire

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The table must agree with the message definitions, for every key and version that exists.
func TestFlexibleTableAgreesWithMessageDefinitions(t *testing.T) {
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		req := kmsg.RequestForKey(key)
		for v := int16(0); v <= req.MaxVersion(); v++ {
			req.SetVersion(v)
			resp := req.ResponseKind()
			resp.SetVersion(v)
			if removed(key) {
				if _, err := ParseRequest(appendRequestHeader(nil, Header{Key: key, Version: v})); err == nil {
					t.Errorf("key %d version %d parses, brokers do not have it", key, v)
				}
				continue
			}
			if got := FlexibleRequest(key, v); got != req.IsFlexible() {
				t.Errorf("%s v%d request: flexible %t, want %t", kmsg.NameForKey(key), v, got, req.IsFlexible())
			}
			want := resp.IsFlexible() && key != keyApiVersions
			if got := FlexibleResponse(key, v); got != want {
				t.Errorf("%s v%d response: flexible %t, want %t", kmsg.NameForKey(key), v, got, want)
			}
		}
	}
}
