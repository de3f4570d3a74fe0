package sim

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// What is claimed of metadata, and why no more.
//
// A change (a topic created, deleted, grown, or its config altered) is one entry of the controller's log: who is told that it is
// done has it, everywhere and for good. So changes that are done are linearisable: each took effect at one moment between
// question and answer, on what those before it had left. Changes whose outcome is unknown may have
// taken effect at any moment from the question on, or not at all. What all nodes tell in the end, when nothing fails
// any more, is a read of the same object. That is checked topic by topic with porcupine.
//
// A broker whose connection to the controller broke asks again by itself, as Kafka's do. So a change that is done may have taken
// effect once before, unheard of, in the same span: made, deleted by somebody else, and made again.
//
// A refusal ("it exists already") is no such moment. It may come from a controller that has been deposed and has not heard
// of it, which Kafka's can do too; and it may speak of what the first asking of the same change did. A refused change therefore counts
// as one that may have taken effect, but not after it was answered: one that is refused for good changes nothing later.
//
// Reads by Metadata and DescribeConfigs come from the image of the node that is asked, which is behind by as much as it
// is cut off. They are not linearisable in Kafka either. What holds of each node:
//
//   - it tells nothing from the future, nor what nobody asked for;
//   - it never goes back: not to a topic that it has seen go, nor to fewer partitions, nor to an earlier value;
//   - a node that has answered that a change is done tells no more of what was before it.

// orderPatience bounds the search for an order of one topic's changes, in real time. One that there is is found at once; that there is
// none is known only when all have been tried.
const orderPatience = 30 * time.Second

// metadata checks changes and sights topic by topic.
func (c *checking) metadata() {
	byTopic := map[string]*topicEvents{}
	of := func(name string) *topicEvents {
		if byTopic[name] == nil {
			byTopic[name] = &topicEvents{name: name, values: map[string]*Change{}, byNode: map[int32][]*Sight{}}
		}
		return byTopic[name]
	}
	for _, m := range c.h.changes {
		t := of(m.Topic)
		t.changes = append(t.changes, m)
		if m.Value != "" {
			t.values[m.Value] = m
		}
	}
	for _, s := range c.h.sights {
		t := of(s.Topic)
		if s.Final {
			t.finals = append(t.finals, s)
		}
		t.byNode[s.Node] = append(t.byNode[s.Node], s)
	}
	for _, name := range slices.Sorted(maps.Keys(byTopic)) {
		t := byTopic[name]
		if len(t.changes) == 0 {
			continue // made before the history began
		}
		c.ordered(t)
		for _, node := range slices.Sorted(maps.Keys(t.byNode)) {
			c.monotonic(t, node)
		}
	}
}

// topicEvents is what a history has of one name.
type topicEvents struct {
	name    string
	changes []*Change
	values  map[string]*Change // that set them
	finals  []*Sight
	byNode  map[int32][]*Sight
}

// topicState is the object: a name, with a topic or without.
type topicState struct {
	exists     bool
	id         [16]byte // zero: not known to anybody who watches
	partitions int32
	value      string
	over       bool // nothing comes to be any more
}

// ending is the event after which nothing comes to be: what has taken no effect by then, and need not have, never does.
type ending struct{}

// after returns what a change makes of a state; false: it cannot have been done to that.
func (t topicState) after(m *Change) (topicState, bool) {
	if t.exists == (m.Kind == CreateTopic) {
		return t, false
	}
	switch m.Kind {
	case CreateTopic:
		return topicState{exists: true, id: m.ID, partitions: m.Partitions, value: m.Value}, true
	case DeleteTopic:
		return topicState{}, true
	case GrowTopic:
		if t.partitions >= m.Partitions {
			return t, false
		}
		t.partitions = m.Partitions
	case AlterTopic:
		t.value = m.Value
	}
	return t, true
}

// shows reports whether a sight is one of this state.
func (t topicState) shows(s *Sight) bool {
	if !s.Exists || !t.exists {
		return s.Exists == t.exists
	}
	none := [16]byte{}
	return (s.ID == none || t.id == none || s.ID == t.id) && (s.Partitions == 0 || s.Partitions == t.partitions) && (s.Value == "" || s.Value == t.value)
}

// steps are the states that an event may lead to from one.
func steps(state, event any) []any {
	t := state.(topicState)
	switch e := event.(type) {
	case *Sight:
		if t.shows(e) {
			return []any{t}
		}
	case *Change:
		next, possible := t.after(e)
		switch {
		case e.Outcome == Unknown && t.over:
			return []any{t}
		case e.Outcome == Refused && possible && next != t:
			return []any{t, next}
		case e.Outcome == Refused:
			return []any{t}
		case possible && (e.Outcome == Done || next != t):
			return []any{next}
		}
	case ending:
		t.over = true
		return []any{t}
	}
	return nil
}

// matters reports whether anybody can see that a change took effect that need not have. Each that may, at any time, doubles the orders
// that there are, so those that nobody can see are left out: a value that is not shown in the end explains nothing, and neither does a number
// of partitions that is not.
func (t *topicEvents) matters(m *Change) bool {
	return slices.ContainsFunc(t.finals, func(s *Sight) bool {
		switch m.Kind {
		case AlterTopic:
			return s.Value == m.Value
		case GrowTopic:
			return s.Partitions == m.Partitions
		}
		return true
	})
}

// ordered looks for an order of what was done to a topic that explains all answers.
func (c *checking) ordered(t *topicEvents) {
	events := []porcupine.Operation{{Input: ending{}, Call: math.MaxInt64 - 2, Return: math.MaxInt64 - 1}}
	for _, m := range t.changes {
		end := int64(math.MaxInt64)
		if m.Outcome != Unknown {
			end = int64(m.Returned)
		}
		if m.Outcome == Done || t.matters(m) {
			events = append(events, porcupine.Operation{Input: m, Call: int64(m.Invoked), Return: end})
		}
		if m.Outcome == Done && t.matters(m) {
			again := *m
			again.Outcome, again.ID = Refused, [16]byte{}
			events = append(events, porcupine.Operation{Input: &again, Call: int64(m.Invoked), Return: end})
		}
	}
	for _, s := range t.finals {
		events = append(events, porcupine.Operation{Input: s, Call: int64(s.Invoked), Return: int64(s.Returned)})
	}
	c.examined(metadataOrdered, len(events))
	model := porcupine.NondeterministicModel{
		Init:  func() []any { return []any{topicState{}} },
		Step:  func(state, event, _ any) []any { return steps(state, event) },
		Equal: func(a, b any) bool { return a == b },
	}
	switch porcupine.CheckOperationsTimeout(model.ToModel(), events, orderPatience) {
	case porcupine.Illegal:
		c.fail(metadataOrdered, "topic %s: no order of these explains all answers:\n%s", t.name, t.story())
	case porcupine.Unknown:
		c.verdict.Undecided++
	case porcupine.Ok:
	}
}

// story is every change and every last sight, a line each.
func (t *topicEvents) story() (text string) {
	for _, m := range t.changes {
		text += fmt.Sprintf("\t%v to %v: %s at node %d: %v partitions %d value %q id %x: %v %v\n",
			m.Since, m.Until, m.Client, m.Node, m.Kind, m.Partitions, m.Value, m.ID[:3], m.Outcome, m.Err)
	}
	for _, s := range t.finals {
		text += fmt.Sprintf("\t%v to %v: node %d shows in the end: %s\n", s.Since, s.Until, s.Node, s)
	}
	return text
}

func (s *Sight) String() string {
	if !s.Exists {
		return "no topic"
	}
	return fmt.Sprintf("partitions %d value %q id %x", s.Partitions, s.Value, s.ID[:3])
}

// monotonic checks what one node has told of a topic.
func (c *checking) monotonic(t *topicEvents, node int32) {
	gone := map[[16]byte]*Sight{} // that this topic was not there any more
	var before []*Sight
	for _, s := range t.byNode[node] {
		c.examined(metadataMonotonic, 1)
		c.notFromTheFuture(t, s)
		c.ownChanges(t, s)
		for _, e := range before {
			if e.before(&s.Span) {
				c.goesOn(t, e, s, gone)
			}
		}
		if before = append(before, s); len(before) > sightsCompared {
			before = before[1:]
		}
	}
}

// sightsCompared is with how many of the sights before it one is compared.
const sightsCompared = 8

// goesOn: the later of two sights at one node is not of an earlier state.
func (c *checking) goesOn(t *topicEvents, e, s *Sight, gone map[[16]byte]*Sight) {
	none := [16]byte{}
	if e.Exists && e.ID != none && gone[e.ID] == nil && (!s.Exists || s.ID != none && s.ID != e.ID) {
		gone[e.ID] = s
	}
	if !s.Exists {
		return
	}
	if left := gone[s.ID]; left != nil && s.ID != none && left.before(&s.Span) {
		c.fail(metadataMonotonic, "topic %s: node %d shows after %v the topic %x that was gone there after %v", t.name, s.Node, s.Until, s.ID[:3], left.Until)
		return
	}
	if !e.Exists || e.ID != s.ID || s.ID == none {
		return
	}
	if s.Partitions != 0 && s.Partitions < e.Partitions {
		c.fail(metadataMonotonic, "topic %s: node %d shows %d partitions after %v, and %d after %v", t.name, s.Node, e.Partitions, e.Until, s.Partitions, s.Until)
	}
	if was, is := t.values[e.Value], t.values[s.Value]; was != nil && is != nil && is.certainlyBefore(was) {
		c.fail(metadataMonotonic, "topic %s: node %d shows %q after %v, and %q, which was set before it, after %v", t.name, s.Node, e.Value, e.Until, s.Value, s.Until)
	}
}

// certainlyBefore: m took effect before o did, if o ever did.
func (c *Change) certainlyBefore(o *Change) bool { return c.Outcome == Done && c.before(&o.Span) }

// notFromTheFuture: all that a sight shows somebody has asked for before it was answered.
func (c *checking) notFromTheFuture(t *topicEvents, s *Sight) {
	if !s.Exists {
		return
	}
	asked := func(what string, is func(*Change) bool) {
		if !slices.ContainsFunc(t.changes, func(m *Change) bool { return m.Invoked < s.Returned && is(m) }) {
			c.fail(metadataMonotonic, "topic %s: node %d shows after %v %s, and nobody has asked for that: %v", t.name, s.Node, s.Until, what, s)
		}
	}
	none := [16]byte{}
	asked("a topic", func(m *Change) bool {
		return m.Kind == CreateTopic && (m.ID == s.ID || m.Outcome != Done || s.ID == none || m.ID == none)
	})
	if s.Partitions != 0 {
		asked("so many partitions", func(m *Change) bool { return m.Partitions == s.Partitions })
	}
	if s.Value != "" {
		asked("a value", func(m *Change) bool { return m.Value == s.Value })
	}
}

// ownChanges: a node that has answered that a change is done shows it, or what came later.
func (c *checking) ownChanges(t *topicEvents, s *Sight) {
	for _, m := range t.changes {
		if m.Outcome != Done || m.Node != s.Node || !m.before(&s.Span) {
			continue
		}
		later := func(kind ChangeKind) bool { // one that may have come after m and before the sight
			return slices.ContainsFunc(t.changes, func(o *Change) bool { return o.Kind == kind && o.Invoked < s.Returned && !o.certainlyBefore(m) })
		}
		stale := false
		switch m.Kind {
		case CreateTopic:
			stale = !s.Exists && !later(DeleteTopic)
		case DeleteTopic:
			stale = s.Exists && !later(CreateTopic)
		case GrowTopic:
			stale = s.Exists && s.Partitions != 0 && s.Partitions < m.Partitions && !later(DeleteTopic)
		case AlterTopic:
			set := t.values[s.Value]
			stale = s.Exists && set != nil && set.certainlyBefore(m) && !later(DeleteTopic)
		}
		if stale {
			c.fail(metadataMonotonic, "topic %s: node %d answered after %v that it was done to %v it (%d partitions, value %q), and shows after %v: %v",
				t.name, s.Node, m.Until, m.Kind, m.Partitions, m.Value, s.Until, s)
		}
	}
}
