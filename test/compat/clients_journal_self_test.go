//go:build compat

package compat

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestJournalNotices shows the journal each way in which a group may break its promises, and one
// history that keeps them: a judge that nods at everything is worth nothing.
func TestJournalNotices(t *testing.T) {
	const fine = `a {"assigned":[0,1]}
a {"record":{"partition":0,"offset":0}}
a {"record":{"partition":0,"offset":1}}
a {"committed":{"0":2}}
a {"record":{"partition":0,"offset":2}}
a {"revoked":[0]}
b {"assigned":[0]}
`
	const inHand = `b {"assigned":[0,1]}` + "\n" + `exact {"committed":{"0":2,"1":0}}` + "\n" + "b leaves\n" + `b {"assigned":[0,1]}` + "\n"
	for _, c := range []struct{ name, more, want string }{
		{"again from what is committed", `b {"record":{"partition":0,"offset":2}}`, ""},
		{"behind what is committed", `b {"record":{"partition":0,"offset":1}}`, "2 is committed"},
		{"a gap", `b {"record":{"partition":0,"offset":2}}` + "\n" + `b {"record":{"partition":0,"offset":4}}`, "3 has its turn"},
		{"twice", `b {"record":{"partition":0,"offset":2}}` + "\n" + `b {"record":{"partition":0,"offset":2}}`, "3 has its turn"},
		{"not its own", `b {"record":{"partition":1,"offset":0}}`, "does not have"},
		{"no longer its own", `a {"record":{"partition":0,"offset":3}}`, "does not have"},
		{"another place than where the group stands", `exact {"committed":{"0":2}}` + "\n" + `b {"record":{"partition":0,"offset":3}}`, "stands at 2"},
		{"the record in the hand of one that left", inHand + `b {"record":{"partition":0,"offset":3}}`, ""},
		{"two records in the hand", inHand + `b {"record":{"partition":0,"offset":4}}`, "stands at 2"},
		{"records in the hand of two partitions", inHand + `b {"record":{"partition":0,"offset":3}}` + "\n" + `b {"record":{"partition":1,"offset":1}}`, "stands at 0"},
		{"in the hand twice", inHand + `b {"record":{"partition":0,"offset":3}}` + "\n" + `b {"assigned":[0]}` + "\n" + `exact {"committed":{"0":4}}` + "\n" +
			`b {"record":{"partition":0,"offset":5}}`, "stands at 4"},
	} {
		j := newJournal(t, "", "topic", "group")
		members := map[string]*groupMember{}
		for _, line := range strings.Split(fine+c.more, "\n") {
			name, text, _ := strings.Cut(line, " ")
			if text == "leaves" {
				members[name].library = &library{about: about{Lacks: []string{"in-hand"}}}
				j.mayHaveInHand(members[name])
				continue
			}
			var p printed
			if err := json.Unmarshal([]byte(text), &p); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if name == "exact" {
				j.resumes = p.Committed
				continue
			}
			if members[name] == nil {
				members[name] = &groupMember{holds: map[int32]bool{}, next: map[int32]int64{}}
			}
			j.note(members[name], name, p)
		}
		wrongs := strings.Join(j.wrongs, "; ")
		if c.want == "" && wrongs != "" || c.want != "" && !strings.Contains(wrongs, c.want) {
			t.Errorf("%s: the journal says %q, and should say %q", c.name, wrongs, c.want)
		}
	}
}
