package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/reassign"
	"barnabas/internal/cli/terminal"
)

const reassignHelp = `Move partitions to other brokers.

What is to live where comes from a file in the format of Kafka's
kafka-reassign-partitions (--file), or is planned here: the named topics, or all, are
spread over the brokers of --to so that as little as possible moves. --dry-run shows the
plan; with -o json it is such a file, and so is what was before.

A move goes on by itself: new replicas copy the partition, and the old ones go once those
are in sync. --list shows what is under way, --verify whether a plan has come true (and
then takes the throttle away), --cancel goes back to what was. With --wait the command ends
when the move does, and takes the throttle away as --verify does.`

type topicReassign struct {
	p            *terminal.Program
	t            *terminal.Target
	out          terminal.Format
	file         string
	to           []int32
	all          bool
	factor       int
	throttle     int64
	keepFactor   bool
	keepThrottle bool
	dryRun       bool
	wait         bool
	list         bool
	verify       bool
	cancel       bool
}

func newTopicReassign(p *terminal.Program, t *terminal.Target) *cobra.Command {
	o := &topicReassign{p: p, t: t}
	c := &cobra.Command{
		Use:   "reassign [NAME...]",
		Short: "Move partitions to other brokers",
		Long:  reassignHelp,
		Example: `  barnabas topic reassign flights --to 1,2,4 --dry-run -o json > plan.json
  barnabas topic reassign --file plan.json --throttle 50000000 --wait
  barnabas topic reassign --file plan.json --verify`,
		RunE:              func(c *cobra.Command, names []string) error { return o.run(c, names) },
		ValidArgsFunction: t.TopicNames(0),
	}
	flags := c.Flags()
	flags.StringVar(&o.file, "file", "", "the plan, a JSON `FILE` as kafka-reassign-partitions has it; - is standard input")
	flags.Int32SliceVar(&o.to, "to", nil, "plan: spread the topics over these brokers, `ID,...`")
	flags.BoolVar(&o.all, "all", false, "all topics")
	flags.IntVar(&o.factor, "replication-factor", 0, "plan: this many replicas `N` of each partition (default: as many as it has)")
	flags.Int64Var(&o.throttle, "throttle", 0, "copy at most `BYTES` per second from and to each broker (default: no limit)")
	flags.BoolVar(&o.keepFactor, "disallow-replication-factor-change", false, "refuse what gives a partition more or fewer replicas")
	flags.BoolVar(&o.keepThrottle, "preserve-throttles", false, "with --verify, --wait and --cancel: leave the throttle where it is")
	flags.BoolVar(&o.wait, "wait", false, "end when everything is where it should be")
	flags.BoolVar(&o.dryRun, "dry-run", false, "show the plan, and change nothing")
	flags.BoolVar(&o.list, "list", false, "show what is under way")
	flags.BoolVar(&o.verify, "verify", false, "say whether the plan of --file has come true")
	flags.BoolVar(&o.cancel, "cancel", false, "stop the moves of --file, of the named topics or of all, and go back")
	terminal.RegisterFormat(c, flags, &o.out)
	return c
}

// check refuses what cannot be meant.
func (o *topicReassign) check(names []string) error {
	scoped := len(names) > 0 || o.all
	verbs := 0
	for _, given := range []bool{o.list, o.verify, o.cancel, o.dryRun} {
		if given {
			verbs++
		}
	}
	switch {
	case verbs > 1:
		return terminal.Usagef("--list, --verify, --cancel and --dry-run: give one of them")
	case verbs > 0 && o.wait:
		return terminal.Usagef("--wait is for moving: leave --list, --verify, --cancel and --dry-run out")
	case o.file != "" && len(o.to) > 0:
		return terminal.Usagef("--file and --to: give one or the other")
	case o.all && len(names) > 0:
		return terminal.Usagef("--all and names of topics: give one or the other")
	case o.file != "" && scoped:
		return terminal.Usagef("--file says which partitions: leave the topics out")
	case o.verify && o.file == "":
		return terminal.Usagef("--verify needs --file")
	case o.list:
		return nil
	case o.cancel && o.file == "" && !scoped:
		return terminal.Usagef("--cancel what? Give --file, topics or --all")
	case o.cancel || o.file != "":
		return nil
	case !scoped:
		return terminal.Hinted{Err: terminal.Usagef("nothing to move: give --file, or topics and --to"), Hint: "--list shows what is under way"}
	case len(o.to) == 0:
		return terminal.Usagef("where to? Give --to ID,...")
	case o.factor < 0, o.throttle < 0:
		return terminal.Usagef("--replication-factor and --throttle cannot be negative")
	}
	return nil
}

func (o *topicReassign) run(c *cobra.Command, names []string) error {
	if err := o.check(names); err != nil {
		return err
	}
	var plan reassign.Plan
	if o.file != "" {
		var err error
		if plan, err = o.read(); err != nil {
			return err
		}
	}
	return o.t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
		switch {
		case o.list:
			return o.showMoves(ctx, a, names)
		case o.verify:
			return o.showVerified(ctx, a, plan)
		case o.cancel:
			return o.stop(ctx, a, plan, names)
		}
		return o.move(ctx, a, plan, names)
	})
}

func (o *topicReassign) read() (reassign.Plan, error) {
	var text []byte
	var err error
	if o.file == "-" {
		text, err = readAll(o.p.In)
	} else {
		text, err = os.ReadFile(o.file)
	}
	if err != nil {
		return nil, fmt.Errorf("--file: %w", err)
	}
	plan, dirs, err := reassign.Parse(text)
	if err != nil {
		return nil, terminal.UsageError{Err: fmt.Errorf("--file %s: %w", o.file, err)}
	}
	if dirs {
		o.p.Note("note: the data directories that the plan names are not asked for: each broker chooses")
	}
	return plan, nil
}

// assigned are the replicas that partitions have now, leaving out those that a move under way adds.
func assigned(ctx context.Context, a *admin.Admin, names []string) (reassign.Plan, error) {
	now := reassign.Plan{}
	if len(names) == 0 {
		return now, nil
	}
	found, err := a.DescribeTopics(ctx, names...)
	if err != nil {
		return nil, err
	}
	for _, t := range found {
		if t.Err != nil {
			return nil, unknownTopicOf(ctx, a, t)
		}
		for _, part := range t.Partitions {
			now[client.TopicPartition{Topic: t.Name, Partition: part.Partition}] = part.Replicas
		}
	}
	moves, err := a.ListPartitionReassignments(ctx, now.Partitions()...)
	if err != nil {
		return nil, err
	}
	for _, m := range moves {
		now[m.TopicPartition] = slices.DeleteFunc(slices.Clone(m.Replicas), func(id int32) bool { return slices.Contains(m.Adding, id) })
	}
	return now, nil
}

func unknownTopicOf(ctx context.Context, a *admin.Admin, t admin.TopicDescription) error {
	return terminal.UnknownTopic(ctx, a, t.Name, fmt.Errorf("topic %q: %w", t.Name, t.Err))
}

func topicsOf(plan reassign.Plan) (names []string) {
	for _, tp := range plan.Partitions() {
		if len(names) == 0 || names[len(names)-1] != tp.Topic {
			names = append(names, tp.Topic)
		}
	}
	return names
}

// scope are the topics that the command is about.
func (o *topicReassign) scope(ctx context.Context, a *admin.Admin, names []string) ([]string, error) {
	if !o.all {
		return slices.Compact(slices.Sorted(slices.Values(names))), nil
	}
	listed, err := a.ListTopics(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range listed {
		names = append(names, l.Name)
	}
	return names, nil
}

// plan spreads topics over the brokers of --to.
func (o *topicReassign) plan(ctx context.Context, a *admin.Admin, now reassign.Plan) (reassign.Plan, error) {
	cluster, err := a.DescribeCluster(ctx)
	if err != nil {
		return nil, err
	}
	var brokers []reassign.Broker
	for _, id := range o.to {
		at := slices.IndexFunc(cluster.Brokers, func(b admin.BrokerDescription) bool { return b.Node == id })
		if at < 0 {
			return nil, terminal.Hinted{
				Err:  terminal.NotFoundError{Text: fmt.Sprintf("there is no broker %d, or it is not in use", id), Cause: client.ErrUnknownBroker},
				Hint: "'barnabas cluster describe' shows the brokers",
			}
		}
		brokers = append(brokers, reassign.Broker{Node: id, Rack: cluster.Brokers[at].Rack})
	}
	plan, err := reassign.Spread(now, o.factor, brokers)
	if err != nil {
		return nil, terminal.UsageError{Err: fmt.Errorf("--to: %w", err)}
	}
	return plan, nil
}

// movedPartition is what topic reassign shows of a partition.
type movedPartition struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	From      []int32 `json:"from,omitempty"`
	To        []int32 `json:"to,omitempty"`
	State     string  `json:"state"` // planned, moving, moved, cancelled, failed, elsewhere
	Error     string  `json:"error,omitempty"`
}

// moved is what topic reassign shows.
type moved struct {
	Partitions []movedPartition `json:"partitions"`
	Before     reassign.Plan    `json:"before,omitempty"` // what brings back what was
}

func (o *topicReassign) move(ctx context.Context, a *admin.Admin, plan reassign.Plan, names []string) error {
	names, err := o.scope(ctx, a, names)
	if err != nil {
		return err
	}
	if plan != nil {
		names = topicsOf(plan)
	}
	now, err := assigned(ctx, a, names)
	if err != nil {
		return err
	}
	if plan == nil {
		if plan, err = o.plan(ctx, a, now); err != nil {
			return err
		}
		for tp := range plan {
			if slices.Equal(plan[tp], now[tp]) {
				delete(plan, tp)
			}
		}
	}
	shown := moved{Partitions: []movedPartition{}, Before: reassign.Plan{}}
	for _, tp := range plan.Partitions() {
		shown.Before[tp] = now[tp]
		shown.Partitions = append(shown.Partitions, movedPartition{Topic: tp.Topic, Partition: tp.Partition, From: now[tp], To: plan[tp], State: "planned"})
	}
	if o.dryRun {
		return o.p.Show(o.out, plan, func() error { return o.table(shown.Partitions, "everything is where it should be") })
	}
	if len(plan) == 0 {
		return o.p.Show(o.out, shown, func() error { return o.table(nil, "everything is where it should be") })
	}
	if err := o.limit(ctx, a, now, plan); err != nil {
		return err
	}
	return o.alter(ctx, a, plan, &shown)
}

// alter begins the moves, and shows what became of each.
func (o *topicReassign) alter(ctx context.Context, a *admin.Admin, plan reassign.Plan, shown *moved) error {
	var options []admin.ReassignOption
	if o.keepFactor {
		options = append(options, admin.KeepReplicationFactor())
	}
	results, err := a.AlterPartitionReassignments(ctx, plan, options...)
	if err != nil {
		return err
	}
	var failed []terminal.FailedItem
	for i, r := range results { // both in the order of the partitions
		m := &shown.Partitions[i]
		if m.State = "moving"; slices.Equal(m.From, m.To) {
			m.State = "moved"
		}
		if r.Err != nil {
			m.State, m.Error = "failed", terminal.Said(r.Err)
			failed = append(failed, terminal.FailedItem{What: fmt.Sprintf("move %s-%d", m.Topic, m.Partition), Err: r.Err})
		}
	}
	if o.wait && len(failed) == 0 {
		if err := awaitMoves(ctx, a, plan); err != nil {
			return err
		}
		return o.showVerified(ctx, a, plan)
	}
	if err := o.p.Show(o.out, shown, func() error { return o.table(shown.Partitions, "") }); err != nil {
		return err
	}
	return o.p.EachFailed(failed)
}

// moveEvery is how often --wait looks whether a move has come to its end.
const moveEvery = 200 * time.Millisecond

// awaitMoves waits until nothing of a plan is under way.
func awaitMoves(ctx context.Context, a *admin.Admin, plan reassign.Plan) error {
	partitions := plan.Partitions()
	for {
		moves, err := a.ListPartitionReassignments(ctx, partitions...)
		if err != nil || len(moves) == 0 {
			return err
		}
		select {
		case <-time.After(moveEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (o *topicReassign) table(all []movedPartition, ifEmpty string) error {
	t := terminal.NewTable("TOPIC", "PARTITION", "FROM", "TO", "STATE")
	for _, m := range all {
		t.Add(m.Topic, m.Partition, m.From, m.To, m.State)
	}
	return o.p.ShowTable(t, ifEmpty)
}

// showMoves shows what is under way.
func (o *topicReassign) showMoves(ctx context.Context, a *admin.Admin, names []string) error {
	moves, err := a.ListPartitionReassignments(ctx)
	if err != nil {
		return err
	}
	type shownMove struct {
		Topic     string  `json:"topic"`
		Partition int32   `json:"partition"`
		Replicas  []int32 `json:"replicas"`
		Adding    []int32 `json:"adding"`
		Removing  []int32 `json:"removing"`
	}
	shown := []shownMove{}
	t := terminal.NewTable("TOPIC", "PARTITION", "REPLICAS", "ADDING", "REMOVING")
	for _, m := range moves {
		if len(names) > 0 && !slices.Contains(names, m.TopicPartition.Topic) {
			continue
		}
		shown = append(shown, shownMove{m.TopicPartition.Topic, m.TopicPartition.Partition, m.Replicas, m.Adding, m.Removing})
		t.Add(m.TopicPartition.Topic, m.TopicPartition.Partition, m.Replicas, m.Adding, m.Removing)
	}
	return o.p.Show(o.out, shown, func() error { return o.p.ShowTable(t, "nothing is being moved") })
}

// stop cancels moves that are under way.
func (o *topicReassign) stop(ctx context.Context, a *admin.Admin, plan reassign.Plan, names []string) error {
	moves, err := a.ListPartitionReassignments(ctx)
	if err != nil {
		return err
	}
	stopping := map[client.TopicPartition][]int32{}
	shown := moved{Partitions: []movedPartition{}}
	for _, m := range moves {
		_, planned := plan[m.TopicPartition]
		if planned || plan == nil && (o.all || slices.Contains(names, m.TopicPartition.Topic)) {
			stopping[m.TopicPartition] = nil
			back := slices.DeleteFunc(slices.Clone(m.Replicas), func(id int32) bool { return slices.Contains(m.Adding, id) })
			shown.Partitions = append(shown.Partitions, movedPartition{
				Topic: m.TopicPartition.Topic, Partition: m.TopicPartition.Partition, From: m.Replicas, To: back, State: "cancelled",
			})
		}
	}
	var failed []terminal.FailedItem
	if len(stopping) > 0 {
		results, err := a.AlterPartitionReassignments(ctx, stopping)
		if err != nil {
			return err
		}
		for i, r := range results {
			if r.Err != nil && !errors.Is(r.Err, client.ErrNoReassignmentInProgress) { // it came to its end meanwhile
				m := &shown.Partitions[i]
				m.State, m.Error = "failed", terminal.Said(r.Err)
				failed = append(failed, terminal.FailedItem{What: fmt.Sprintf("stop the move of %s-%d", m.Topic, m.Partition), Err: r.Err})
			}
		}
	}
	if err := o.p.Show(o.out, shown, func() error { return o.table(shown.Partitions, "nothing is being moved") }); err != nil {
		return err
	}
	if err := o.p.EachFailed(failed); err != nil {
		return err
	}
	return o.unlimit(ctx, a, len(moves) == len(stopping))
}

// errNotYet: a plan has not come true.
var errNotYet = errors.New("not everything is where it should be yet")

// showVerified compares a plan with what is.
func (o *topicReassign) showVerified(ctx context.Context, a *admin.Admin, plan reassign.Plan) error {
	found, err := a.DescribeTopics(ctx, topicsOf(plan)...)
	if err != nil {
		return err
	}
	moves, err := a.ListPartitionReassignments(ctx)
	if err != nil {
		return err
	}
	now := reassign.Plan{}
	for _, t := range found {
		for _, part := range t.Partitions {
			now[client.TopicPartition{Topic: t.Name, Partition: part.Partition}] = part.Replicas
		}
	}
	var shown moved
	done := true
	for _, tp := range plan.Partitions() {
		m := movedPartition{Topic: tp.Topic, Partition: tp.Partition, From: now[tp], To: plan[tp], State: "elsewhere"}
		switch {
		case slices.ContainsFunc(moves, func(r admin.Reassignment) bool { return r.TopicPartition == tp }):
			m.State = "moving"
		case slices.Equal(now[tp], plan[tp]):
			m.State = "moved"
		case now[tp] == nil:
			m.State, m.Error = "failed", "there is no such partition"
		}
		done = done && m.State == "moved"
		shown.Partitions = append(shown.Partitions, m)
	}
	if err := o.p.Show(o.out, shown, func() error { return o.table(shown.Partitions, "") }); err != nil {
		return err
	}
	if !done {
		return errNotYet
	}
	return o.unlimit(ctx, a, len(moves) == 0)
}

// The settings of Kafka's replication throttle (KIP-73): rates of brokers, and the replicas of topics that they are for.
var (
	throttleRates    = []string{"leader.replication.throttled.rate", "follower.replication.throttled.rate"}
	throttleReplicas = []string{"leader.replication.throttled.replicas", "follower.replication.throttled.replicas"}
)

// limit sets the throttle of --throttle: where partitions are read, and where they are copied to.
func (o *topicReassign) limit(ctx context.Context, a *admin.Admin, now, plan reassign.Plan) error {
	if o.throttle == 0 {
		return nil
	}
	brokers := map[int32]bool{}
	leaders, followers := map[string][]string{}, map[string][]string{}
	throttle := func(tp client.TopicPartition, from, to []int32) {
		for _, id := range from {
			brokers[id] = true
			leaders[tp.Topic] = append(leaders[tp.Topic], fmt.Sprintf("%d:%d", tp.Partition, id))
		}
		for _, id := range to {
			brokers[id] = true
			if !slices.Contains(from, id) {
				followers[tp.Topic] = append(followers[tp.Topic], fmt.Sprintf("%d:%d", tp.Partition, id))
			}
		}
	}
	// The lists of a topic are set whole: what is under way already stays throttled with it, as with Kafka's tool.
	moves, err := a.ListPartitionReassignments(ctx)
	if err != nil {
		return err
	}
	for _, m := range moves {
		if _, again := plan[m.TopicPartition]; !again {
			from := slices.DeleteFunc(slices.Clone(m.Replicas), func(id int32) bool { return slices.Contains(m.Adding, id) })
			throttle(m.TopicPartition, from, m.Adding)
		}
	}
	for _, tp := range plan.Partitions() {
		throttle(tp, now[tp], plan[tp])
	}
	var changes []admin.ConfigChange
	for id := range brokers {
		set := map[string]string{}
		for _, key := range throttleRates {
			set[key] = fmt.Sprint(o.throttle)
		}
		changes = append(changes, admin.ConfigChange{Resource: admin.Broker(id), Set: set})
	}
	for topic := range leaders {
		set := map[string]string{throttleReplicas[0]: strings.Join(leaders[topic], ",")}
		if len(followers[topic]) > 0 {
			set[throttleReplicas[1]] = strings.Join(followers[topic], ",")
		}
		changes = append(changes, admin.ConfigChange{Resource: admin.Topic(topic), Set: set})
	}
	return o.changeAll(ctx, a, "limit the rate of copying", changes)
}

// unlimit takes the throttle away from all brokers and topics, where nothing is under way that it may be for.
func (o *topicReassign) unlimit(ctx context.Context, a *admin.Admin, nothingElse bool) error {
	if o.keepThrottle || !nothingElse {
		return nil
	}
	cluster, err := a.DescribeCluster(ctx)
	if err != nil {
		return err
	}
	topics, err := a.ListTopics(ctx)
	if err != nil {
		return err
	}
	var resources []admin.Resource
	for _, b := range cluster.Brokers {
		resources = append(resources, admin.Broker(b.Node))
	}
	for _, t := range topics {
		resources = append(resources, admin.Topic(t.Name))
	}
	found, err := a.DescribeConfigs(ctx, resources)
	if err != nil {
		return err
	}
	var changes []admin.ConfigChange
	for _, d := range found {
		var limits []string
		for _, e := range d.Entries {
			mine := e.Source == admin.DynamicBrokerConfig && slices.Contains(throttleRates, e.Name) ||
				e.Source == admin.DynamicTopicConfig && slices.Contains(throttleReplicas, e.Name)
			if mine {
				limits = append(limits, e.Name)
			}
		}
		if len(limits) > 0 {
			changes = append(changes, admin.ConfigChange{Resource: d.Resource, Delete: limits})
		}
	}
	return o.changeAll(ctx, a, "take the limit of copying away", changes)
}

func (o *topicReassign) changeAll(ctx context.Context, a *admin.Admin, what string, changes []admin.ConfigChange) error {
	if len(changes) == 0 {
		return nil
	}
	results, err := a.AlterConfigs(ctx, changes)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	var failed []terminal.FailedItem
	for _, r := range results {
		failed = append(failed, terminal.FailedItem{What: fmt.Sprintf("%s: %v", what, r.Resource), Err: r.Err})
	}
	return o.p.EachFailed(failed)
}
