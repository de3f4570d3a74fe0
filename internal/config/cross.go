package config

import (
	"fmt"
	"slices"
	"strings"
)

// checkTogether refuses values that are right by themselves and wrong beside each other.
func checkTogether(s *Set) error {
	var errs []error
	refuse := func(key, allowed string) {
		errs = append(errs, s.invalid(key, allowed))
	}
	checkListeners(s, refuse)
	checkOrder(s, refuse)
	checkQuorum(s, refuse)
	errs = append(errs, checkTLS(s)...)
	if s.RequestMemoryBytes() < s.Int64("socket.request.max.bytes") {
		refuse("queued.max.request.bytes", "at least socket.request.max.bytes, or no request of that size could ever be read")
	}
	if s.Int("max.connections.per.ip") == 0 && len(s.MaxConnectionsPerIP()) == 0 {
		refuse("max.connections.per.ip", "0 only together with max.connections.per.ip.overrides")
	}
	return joined(errs...)
}

func checkListeners(s *Set, refuse func(key, allowed string)) {
	all := s.endpoints("listeners")
	seen := map[string]bool{}
	for i, e := range all {
		if seen[e.Listener] {
			refuse("listeners", "each listener's name once; "+e.Listener+" is there twice")
		}
		seen[e.Listener] = true
		for _, o := range all[:i] {
			if e.Port != 0 && e.Port == o.Port && (e.Host == o.Host || e.Host == "" || o.Host == "") {
				refuse("listeners", fmt.Sprintf("each port once on one host; %d is there twice", e.Port))
			}
		}
		switch {
		case e.Protocol == "":
			refuse("listener.security.protocol.map", "an entry for every listener; "+e.Listener+" has none")
		case s.isController(e.Listener) && (e.Protocol == "PLAINTEXT" || e.Protocol == "SSL"):
		case s.isController(e.Listener):
			refuse("listener.security.protocol.map", "SSL or PLAINTEXT for the listener of the cluster's own nodes, "+e.Listener+": they know each other by certificates or by a secret")
		case e.Protocol != "PLAINTEXT":
			// Serving such a listener in the clear would betray whoever trusts its name.
			refuse("listener.security.protocol.map", "PLAINTEXT for every listener that serves clients: "+noTLS+" ("+e.Listener+" is "+e.Protocol+")")
		}
	}
	if len(s.Listeners()) == 0 {
		refuse("listeners", "at least one listener that controller.listener.names does not name")
	}
	for _, e := range s.AdvertisedListeners() {
		if !seen[e.Listener] {
			refuse("advertised.listeners", "listeners that are in listeners; "+e.Listener+" is not")
		}
		if e.Host == "0.0.0.0" || e.Host == "::" {
			key := "advertised.listeners"
			if s.Null(key) {
				key = "listeners"
			}
			refuse(key, "addresses that a client can connect to; set advertised.listeners, since "+e.Host+" is none")
		}
	}
	if name := strings.ToUpper(s.String("inter.broker.listener.name")); name != "" {
		if s.isSet("security.inter.broker.protocol") {
			refuse("inter.broker.listener.name", "only one of it and security.inter.broker.protocol")
		}
		if !seen[name] || s.isController(name) {
			refuse("inter.broker.listener.name", "a listener in listeners that controller.listener.names does not name")
		}
	}
}

func checkQuorum(s *Set, refuse func(key, allowed string)) {
	voters := s.Voters()
	own, names := false, map[int32]bool{}
	for _, v := range voters {
		own = own || v.ID == int32(s.Int("node.id"))
		names[v.ID] = true
	}
	switch {
	case len(voters) == 0:
	case len(names) != len(voters) || !slices.Contains(quorumSizes, len(voters)):
		refuse("controller.quorum.voters", "one, three or five different nodes")
	case !own && (len(voters) == 1 || len(s.ControllerListeners()) == 0):
		refuse("controller.quorum.voters", fmt.Sprintf("a list with this node in it (node.id %d), or, for a node of a cluster of several that has no vote, "+
			"a listener in listeners that controller.listener.names names: the other nodes reach it there", s.Int("node.id")))
	}
	if internal, ok := s.InternalListener(); ok && internal.Protocol != "SSL" && s.String("cluster.secret.file") == "" {
		for _, v := range voters {
			if !IsLoopback(v.Host) {
				refuse("cluster.secret.file", fmt.Sprintf("a file with the cluster's secret (--secret-file), or certificates (--keystore and --truststore), since voter %d at %s may be on another machine", v.ID, v.Host))
				break
			}
		}
	}
	if internal, ok := s.InternalListener(); ok && len(s.ControllerListeners()) == 0 {
		for _, l := range s.Listeners() {
			if l.Port != 0 && l.Port == internal.Port && (l.Host == internal.Host || l.Host == "" || internal.Host == "") {
				refuse("listeners", fmt.Sprintf("ports that the cluster's nodes do not use among themselves; %d is this node's in controller.quorum.voters", l.Port))
			}
		}
	}
	if len(s.ControllerListeners()) > 1 {
		refuse("listeners", "at most one listener that controller.listener.names names")
	}
	if dirs := s.List("cordoned.log.dirs"); !slices.Contains(dirs, "*") {
		for _, d := range dirs {
			if !slices.Contains(s.LogDirs(), d) {
				refuse("cordoned.log.dirs", "* or directories of log.dirs; "+d+" is not one")
			}
		}
	}
}

// quorumSizes are the numbers of voters that a failure leaves with a majority, or that cannot fail.
var quorumSizes = []int{1, 3, 5}

// ordered lists pairs of keys whose first must not exceed the second.
var ordered = [][2]string{
	{"log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"},
	{"replica.fetch.wait.max.ms", "replica.socket.timeout.ms"},
	{"replica.fetch.wait.max.ms", "replica.lag.time.max.ms"},
	{"broker.heartbeat.interval.ms", "broker.session.timeout.ms"},
	{"group.min.session.timeout.ms", "group.max.session.timeout.ms"},
	{"group.streams.num.standby.replicas", "group.streams.max.standby.replicas"},
	{"group.share.min.delivery.count.limit", "group.share.delivery.count.limit"},
	{"group.share.delivery.count.limit", "group.share.max.delivery.count.limit"},
	{"group.share.min.partition.max.record.locks", "group.share.partition.max.record.locks"},
	{"group.share.partition.max.record.locks", "group.share.max.partition.max.record.locks"},
	{"group.share.min.record.lock.duration.ms", "group.share.record.lock.duration.ms"},
	{"group.share.record.lock.duration.ms", "group.share.max.record.lock.duration.ms"},
}

func checkOrder(s *Set, refuse func(key, allowed string)) {
	pairs := slices.Clone(ordered)
	for _, kind := range []string{"consumer", "share", "streams"} {
		for _, what := range []string{"assignment.interval.ms", "heartbeat.interval.ms", "session.timeout.ms"} {
			g := "group." + kind + "."
			pairs = append(pairs, [2]string{g + "min." + what, g + what}, [2]string{g + what, g + "max." + what})
		}
	}
	for _, p := range pairs {
		if s.Int64(p[0]) > s.Int64(p[1]) {
			refuse(p[0], fmt.Sprintf("at most %s, which is %d", p[1], s.Int64(p[1])))
		}
	}
}
