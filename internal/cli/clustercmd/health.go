package clustercmd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
)

// The kinds of findings, the worst first.
const (
	noLeader       = "partitions without a leader"
	quorumLost     = "quorum without a leader"
	belowMinISR    = "partitions below min.insync.replicas"
	dirFailed      = "data directories failed"
	diskFull       = "disks full"
	brokerAway     = "brokers away"
	voterAway      = "voters behind"
	underRepaired  = "partitions with replicas out of sync"
	silentBroker   = "brokers that do not answer"
	mostNamed      = 5                // items that a finding names
	voterPatience  = 10 * time.Second // a voter that was not caught up for so long counts as lost
	minISR         = "min.insync.replicas"
	severityBroken = "broken"  // somebody is refused now
	severityAtRisk = "at risk" // nobody is, but the next failure may change that
)

// finding is one thing that is wrong.
type finding struct {
	Kind       string     `json:"kind"`
	Severity   string     `json:"severity"` // broken or at risk
	What       string     `json:"what"`
	Means      string     `json:"means"`                // for those who use the cluster
	Since      *time.Time `json:"since,omitempty"`      // where it is known
	Partitions []string   `json:"partitions,omitempty"` // TOPIC-NUMBER
	Nodes      []int32    `json:"nodes,omitempty"`
}

func (f *finding) text(now time.Time) string {
	since := ""
	if f.Since != nil {
		since = fmt.Sprintf(" since %s (%s)", f.Since.Local().Format(time.DateTime), now.Sub(*f.Since).Truncate(time.Second))
	}
	return f.What + since + ": " + f.Means
}

// health is what cluster health shows.
type health struct {
	Healthy    bool      `json:"healthy"`
	Summary    string    `json:"summary"` // one line
	Brokers    int       `json:"brokers"`
	Partitions int       `json:"partitions"`
	Findings   []finding `json:"findings"` // the worst first
}

// observed is what the cluster says of itself, as far as it answers.
type observed struct {
	now       time.Time
	cluster   admin.Cluster // with fenced brokers
	quorum    admin.Quorum
	quorumErr error
	topics    []admin.TopicDescription
	minISR    map[string]int // of topics with replicas out of sync
	dirs      []admin.LogDir
}

const healthHelp = `Say in one line whether the cluster is healthy, and if not, what is wrong, since when
(where that is known), and what it means for those who use it.

The exit code is 0 for a healthy cluster and 1 for one that is not.`

func newHealth(p *terminal.Program, t *terminal.Target) *cobra.Command {
	var out terminal.Format
	c := &cobra.Command{
		Use:   "health",
		Short: "Say in one line what is wrong, and what it means",
		Long:  healthHelp,
		Args:  terminal.Exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return t.Admin(c.Context(), func(ctx context.Context, a *admin.Admin) error {
				o, err := observe(ctx, a)
				if err != nil {
					return err
				}
				h := o.judge()
				if err := p.Show(out, h, func() error { return p.Write([]byte(h.Summary + "\n")) }); err != nil || h.Healthy {
					return err
				}
				return terminal.ErrReported{Err: fmt.Errorf("the cluster is not healthy: %s", h.Summary)}
			})
		},
	}
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}

func observe(ctx context.Context, a *admin.Admin) (o *observed, err error) {
	o = &observed{now: time.Now(), minISR: map[string]int{}}
	if o.cluster, err = a.DescribeCluster(ctx, admin.WithFencedBrokers()); err != nil {
		return nil, err
	}
	o.quorum, o.quorumErr = askQuorum(ctx, a)
	if o.topics, err = allTopics(ctx, a); err != nil {
		return nil, err
	}
	var resources []admin.Resource
	for _, t := range o.topics {
		if slices.ContainsFunc(t.Partitions, func(d admin.PartitionDescription) bool { return len(d.InSync) < len(d.Replicas) }) {
			resources = append(resources, admin.Topic(t.Name))
		}
	}
	if len(resources) > 0 {
		found, err := a.DescribeConfigs(ctx, resources)
		if err != nil {
			return nil, err
		}
		for _, d := range found {
			for _, e := range d.Entries {
				if n, err := strconv.Atoi(e.Value); e.Name == minISR && err == nil {
					o.minISR[d.Resource.Name] = n
				}
			}
		}
	}
	asking, cancel := context.WithTimeout(ctx, quorumPatience) // a broker that hangs is a finding
	defer cancel()
	o.dirs, err = a.DescribeLogDirs(asking)
	return o, err
}

// judge finds what is wrong. It decides alone from what was observed.
func (o *observed) judge() *health {
	h := &health{Brokers: len(o.cluster.Brokers), Findings: []finding{}}
	for _, t := range o.topics {
		h.Partitions += len(t.Partitions)
	}
	h.Findings = append(h.Findings, slices.Concat(o.judgePartitions(h.Partitions), o.judgeQuorum(), o.judgeDirs(), o.judgeBrokers())...)
	slices.SortStableFunc(h.Findings, func(a, b finding) int { return cmp.Compare(a.rank(), b.rank()) })
	if h.Healthy = len(h.Findings) == 0; h.Healthy {
		h.Summary = fmt.Sprintf("healthy: %s, %s with all replicas in sync, %s led by node %d",
			terminal.Plural(h.Brokers, "broker"), terminal.Plural(h.Partitions, "partition"), terminal.Plural(len(o.quorum.Voters), "voter"), o.quorum.Leader)
		return h
	}
	var texts []string
	for i := range h.Findings {
		texts = append(texts, h.Findings[i].text(o.now))
	}
	h.Summary = strings.Join(texts, "; ")
	return h
}

func (f *finding) rank() int {
	return slices.Index([]string{noLeader, quorumLost, belowMinISR, dirFailed, diskFull, brokerAway, voterAway, silentBroker, underRepaired}, f.Kind)
}

// judgePartitions counts each partition once, as the worst that it is.
func (o *observed) judgePartitions(all int) (found []finding) {
	var leaderless, refused, behind []string
	for _, t := range o.topics {
		for _, p := range t.Partitions {
			name := fmt.Sprintf("%s-%d", t.Name, p.Partition)
			switch {
			case p.Leader < 0:
				leaderless = append(leaderless, name)
			case len(p.InSync) < min(o.minISR[t.Name], len(p.Replicas)):
				refused = append(refused, name)
			case len(p.InSync) < len(p.Replicas):
				behind = append(behind, name)
			}
		}
	}
	add := func(kind, severity, one, many, means string, which []string) {
		if len(which) > 0 {
			what := fmt.Sprintf("%d of %s %s", len(which), terminal.Plural(all, "partition"), map[bool]string{true: one, false: many}[len(which) == 1])
			found = append(found, finding{Kind: kind, Severity: severity, What: what, Means: means + " " + some(which), Partitions: which})
		}
	}
	add(noLeader, severityBroken, "has no leader", "have no leader", "there are neither reads nor writes on", leaderless)
	add(belowMinISR, severityBroken, "has fewer in-sync replicas than "+minISR, "have fewer in-sync replicas than "+minISR,
		"producers with acks=all are refused on", refused)
	add(underRepaired, severityAtRisk, "has replicas that are not in sync", "have replicas that are not in sync",
		"everything is served, but fewer failures can be borne on", behind)
	return found
}

// isAway tells whether a voter is not up to date. One of which nothing is known is not accused.
func isAway(quorum *admin.Quorum, v *admin.QuorumReplica, now time.Time) bool {
	unknown := v.LastCaughtUp.IsZero() && v.LogEnd < 0 && v.LastFetch.IsZero()
	return v.Node != quorum.Leader && !unknown && now.Sub(v.LastCaughtUp) >= voterPatience
}

func (o *observed) judgeQuorum() (found []finding) {
	if o.quorumErr != nil || o.quorum.Leader < 0 {
		why := "no leader"
		if o.quorumErr != nil {
			why = terminal.Said(o.quorumErr)
		}
		return []finding{{
			Kind: quorumLost, Severity: severityBroken, What: "the metadata quorum does not answer (" + why + ")",
			Means: "records flow where leaders live, but topics, settings, groups' coordinators and leaders cannot change",
		}}
	}
	var away []int32
	var since *time.Time
	for i := range o.quorum.Voters {
		v := &o.quorum.Voters[i]
		if !isAway(&o.quorum, v, o.now) {
			continue
		}
		away = append(away, v.Node)
		if !v.LastCaughtUp.IsZero() && (since == nil || v.LastCaughtUp.Before(*since)) {
			since = &v.LastCaughtUp
		}
	}
	if len(away) == 0 {
		return nil
	}
	spare := (len(o.quorum.Voters)-1)/2 - len(away)
	means := "the quorum can bear the loss of " + terminal.Plural(spare, "more voter")
	if spare <= 0 {
		means = "one more lost voter stops every change of topics, settings and leaders"
	}
	return []finding{{
		Kind: voterAway, Severity: severityAtRisk, What: nodes("voter", away, " of the quorum") + " not up to date", Means: means, Since: since, Nodes: away,
	}}
}

// nodes words a list: voter 3 is, voters 2 and 3 are.
func nodes(what string, ids []int32, of string) string {
	if len(ids) == 1 {
		return fmt.Sprintf("%s %d%s is", what, ids[0], of)
	}
	var texts []string
	for _, id := range ids {
		texts = append(texts, fmt.Sprint(id))
	}
	return what + "s " + strings.Join(texts[:len(texts)-1], ", ") + " and " + texts[len(texts)-1] + of + " are"
}

func (o *observed) judgeDirs() (found []finding) {
	for _, d := range o.dirs {
		if d.Err == nil {
			if isFull(&d) {
				found = append(found, finding{
					Kind: diskFull, Severity: severityAtRisk, Nodes: []int32{d.Node},
					What:  fmt.Sprintf("the disk of data directory %s of broker %d is full (%s of %s left)", d.Path, d.Node, terminal.HumanBytes(d.UsableBytes), terminal.HumanBytes(d.TotalBytes)),
					Means: "what it leads takes no records, and what it follows falls out of sync, until there is room (shorter retention, topics deleted, a larger disk)",
				})
			}
			continue
		}
		f := finding{Kind: dirFailed, Severity: severityAtRisk, Nodes: []int32{d.Node}}
		if d.Path == "" {
			f.Kind, f.What = silentBroker, fmt.Sprintf("broker %d does not say how its data directories are (%s)", d.Node, terminal.Said(d.Err))
			f.Means = "its replicas may not be served"
		} else {
			f.What = fmt.Sprintf("data directory %s of broker %d has failed", d.Path, d.Node)
			f.Means = "its replicas are offline until the disk is replaced and the broker restarted"
		}
		found = append(found, f)
	}
	return found
}

// A disk counts as full with so few bytes left, where that is also no more than one part in so many.
const (
	fullBytes = 64 << 20
	fullPart  = 20
)

func isFull(d *admin.LogDir) bool {
	return d.TotalBytes > 0 && d.UsableBytes >= 0 && d.UsableBytes < fullBytes && d.UsableBytes <= d.TotalBytes/fullPart
}

func (o *observed) judgeBrokers() (found []finding) {
	var away []int32
	var since *time.Time
	for _, b := range o.cluster.Brokers {
		if !b.Fenced {
			continue
		}
		away = append(away, b.Node)
		for _, r := range slices.Concat(o.quorum.Voters, o.quorum.Observers) {
			heard := r.LastFetch
			if r.Node == b.Node && !heard.IsZero() && o.now.Sub(heard) > time.Second && (since == nil || heard.Before(*since)) {
				since = &heard
			}
		}
	}
	if len(away) == 0 {
		return nil
	}
	return []finding{{
		Kind: brokerAway, Severity: severityAtRisk, What: nodes("broker", away, "") + " fenced (stopped, cut off or starting)",
		Means: "others serve its partitions where they have replicas in sync", Since: since, Nodes: away,
	}}
}

// some names the first of many.
func some(names []string) string {
	if len(names) > mostNamed {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:mostNamed], ", "), len(names)-mostNamed)
	}
	return strings.Join(names, ", ")
}

// has is a count with what that many of something have.
func has(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return terminal.HumanCount(int64(n)) + " " + many
}
