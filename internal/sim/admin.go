package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/clustertest"
)

// admin makes, grows, alters and deletes topics of a few names, over and over, and looks at what the nodes say of them.
type admin struct {
	*guest
	serial int // makes each value of the config that is watched another
}

const (
	watchedConfig = "retention.ms"
	leastWatched  = 1_000_000_000 // of its values: more than any world lives
	changingNames = 3
	adminPatience = 3 * time.Second
	betweenTopics = 250 * time.Millisecond
)

func (r *Run) admin(n int) *admin { return &admin{guest: r.guest(fmt.Sprint("admin-", n))} }

func (a *admin) administrate(ctx context.Context) {
	defer a.close()
	for ctx.Err() == nil {
		name := fmt.Sprint("changing-", a.dice.IntN(changingNames))
		node := a.anyone()
		c, err := a.at(ctx, node)
		if err == nil {
			switch a.dice.IntN(12) {
			case 0:
				err = a.move(ctx, c)
			case 1, 2, 3, 4, 5, 6:
				err = a.look(ctx, c, node, name, false)
			default:
				err = a.change(ctx, c, node, name)
			}
			a.broken(node, err)
		}
		a.rest(ctx, betweenTopics)
	}
}

func (a *admin) change(ctx context.Context, c *clustertest.Client, node int32, name string) error {
	ctx, cancel := context.WithTimeout(ctx, adminPatience)
	defer cancel()
	ask := Change{Client: a.host, Node: node, Topic: name}
	kind := a.dice.IntN(10)
	switch {
	case kind < 4:
		ask.Kind, ask.Partitions, ask.Value = CreateTopic, int32(1+a.dice.IntN(2)), a.value()
	case kind < 6:
		ask.Kind = DeleteTopic
	case kind < 7:
		ask.Kind, ask.Partitions = GrowTopic, int32(2+a.dice.IntN(4))
	default:
		ask.Kind, ask.Value = AlterTopic, a.value()
	}
	noted := a.r.history.Change(ask)
	var id [16]byte
	var err error
	switch ask.Kind {
	case CreateTopic:
		id, err = c.CreateTopic(ctx, name, int(ask.Partitions), watchedConfig, ask.Value)
	case DeleteTopic:
		err = c.DeleteTopic(ctx, name)
	case GrowTopic:
		err = grow(ctx, c, name, ask.Partitions)
	case AlterTopic:
		err = c.Alter(ctx, kmsg.ConfigResourceTypeTopic, name, watchedConfig, &ask.Value)
	}
	outcome := noted.End(id, err)
	a.r.Trace(a.host, "%v %s: %v", ask.Kind, name, outcome)
	if outcome == Done {
		a.r.met(topicChange)
	}
	return err
}

// value is another at each call, of all admins.
func (a *admin) value() string {
	a.serial++
	return fmt.Sprint(leastWatched + a.serial*10 + int(a.host[len(a.host)-1]-'0'))
}

func grow(ctx context.Context, c *clustertest.Client, name string, to int32) error {
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = name, to
	q := kmsg.NewPtrCreatePartitionsRequest()
	q.TimeoutMillis, q.Topics = int32(adminPatience.Milliseconds()), append(q.Topics, t)
	res, err := clustertest.Call[*kmsg.CreatePartitionsResponse](ctx, c, q)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(res.Topics[0].ErrorCode)
}

// look asks one node what it knows of a topic: that it exists, or what its config is.
func (a *admin) look(ctx context.Context, c *clustertest.Client, node int32, name string, final bool) error {
	ctx, cancel := context.WithTimeout(ctx, adminPatience)
	defer cancel()
	s := Sight{Client: a.host, Node: node, Topic: name, Final: final}
	asked := a.r.history.Now()
	if final || a.dice.IntN(2) == 0 {
		t, err := c.Topic(ctx, name)
		switch {
		case err == nil:
			s.Exists, s.ID, s.Partitions = true, t.TopicID, int32(len(t.Partitions))
		case !errors.Is(err, kerr.UnknownTopicOrPartition):
			return err
		}
		a.r.history.Sight(asked, s)
	}
	if s.ID == [16]byte{} || final && s.Exists {
		asked := a.r.history.Now()
		value, _, err := c.Describe(ctx, kmsg.ConfigResourceTypeTopic, name, watchedConfig)
		if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return err
		}
		a.r.history.Sight(asked, Sight{Client: a.host, Node: node, Topic: name, Final: final, Exists: err == nil, Value: value})
	}
	return nil
}
