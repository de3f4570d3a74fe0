package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
)

func TestOnlyYesIsYes(t *testing.T) {
	for in, want := range map[string]bool{
		"y\n": true, "yes\n": true, "Y\r\n": true, " YES \n": true,
		"": false, "\n": false, "n\n": false, "yess\n": false, "y": false, "yes please\n": false, strings.Repeat(" ", 5000) + "y\n": false,
	} {
		if got := agrees(strings.NewReader(in)); got != want {
			t.Errorf("%.20q: %v", in, got)
		}
	}
	if agrees(iotest.ErrReader(errors.New("gone"))) {
		t.Error("a terminal that has gone agrees")
	}
}

// Whoever has to stop a group's members is told which they are, of many the first.
func TestBusyGroupsNameTheirMembers(t *testing.T) {
	d := admin.GroupDescription{Group: "g", State: admin.GroupStable}
	for i := range mostNamed + 3 {
		d.Members = append(d.Members, admin.GroupMember{ID: fmt.Sprintf("c%02d-uuid", i), ClientID: "c", Host: "/10.0.0.7"})
	}
	d.Members[1].ID = "static-uuid"
	err := busyGroup(d)
	if terminal.CodeOf(err) != terminal.ExitFailure || !errors.Is(err, client.ErrNonEmptyGroup) || terminal.Said(err) != "group g has 13 members and is Stable (NON_EMPTY_GROUP)" {
		t.Errorf("%d: %s", terminal.CodeOf(err), terminal.Said(err))
	}
	var h terminal.Hinted
	if !errors.As(err, &h) {
		t.Fatal("no advice")
	}
	lines := strings.Split(h.Hint, "\n")
	if len(lines) != mostNamed+2 || lines[1] != "c00-uuid at 10.0.0.7" || lines[2] != "static-uuid at 10.0.0.7, client c" || lines[11] != "and 3 more" {
		t.Errorf("%q", lines)
	}
	d.Members, d.State = nil, admin.GroupPreparingRebalance
	if err := busyGroup(d); !errors.As(err, &h) || !strings.Contains(h.Hint, "wait until") {
		t.Errorf("without members: %v", err)
	}
}

// One reason for many partitions is told once.
func TestSameFailures(t *testing.T) {
	one, other := errors.New("one"), errors.New("other")
	if got := sameFailure([]terminal.FailedItem{{What: "a", Err: one}, {What: "b", Err: one}}, "all"); len(got) != 1 || got[0].What != "all" || !errors.Is(got[0].Err, one) {
		t.Errorf("%v", got)
	}
	if got := sameFailure([]terminal.FailedItem{{What: "a", Err: one}, {What: "b", Err: other}}, "all"); len(got) != 2 {
		t.Errorf("%v", got)
	}
	if got := sameFailure(nil, "all"); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if got := sameFailure([]terminal.FailedItem{{What: "a", Err: one}}, "all"); len(got) != 1 || got[0].What != "a" {
		t.Errorf("%v", got)
	}
}
