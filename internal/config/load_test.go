package config

import "testing"

func TestDefaultsLoad(t *testing.T) {
	s, warnings, err := Load(Sources{})
	if err != nil || len(warnings) != 0 {
		t.Fatalf("%v %v", warnings, err)
	}
	if got := s.Millis("log.retention.ms").Hours(); got != 168 {
		t.Errorf("log.retention.ms is %v hours", got)
	}
}
