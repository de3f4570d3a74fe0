package hooks_test

import (
	"reflect"
	"testing"

	"barnabas/client/hooks"
)

// Every hook of every one that is joined is called, in turn, and none is made where there was none:
// a hook that is nil costs nothing.
func TestJoinKeepsEveryHook(t *testing.T) {
	kind := reflect.TypeFor[hooks.Hooks]()
	for i := range kind.NumField() {
		name := kind.Field(i).Name
		called := ""
		watching := func(who string) (h hooks.Hooks) {
			f := reflect.MakeFunc(kind.Field(i).Type, func([]reflect.Value) []reflect.Value { called += who; return nil })
			reflect.ValueOf(&h).Elem().Field(i).Set(f)
			return h
		}
		joined := reflect.ValueOf(hooks.Join(hooks.Hooks{}, watching("a"), hooks.Hooks{}, watching("b"), watching("c")))
		for j := range kind.NumField() {
			if got := !joined.Field(j).IsNil(); got != (j == i) {
				t.Errorf("joined %s: %s is set: %v", name, kind.Field(j).Name, got)
			}
		}
		joined.Field(i).Call([]reflect.Value{reflect.Zero(kind.Field(i).Type.In(0))})
		if called != "abc" {
			t.Errorf("%s called %q", name, called)
		}
	}
}

func TestAPIHasAName(t *testing.T) {
	if got := (hooks.Request{Key: 1}).API(); got != "Fetch" {
		t.Errorf("key 1 is %q", got)
	}
}
