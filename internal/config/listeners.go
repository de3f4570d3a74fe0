package config

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Endpoint is one listener, or one address to advertise.
type Endpoint struct {
	Listener string // its name, in capitals
	Protocol string // PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
	Host     string // "" for every interface; IPv6 without brackets
	Port     int    // 0: any free one
}

// Address is the endpoint in the form that net.Listen and net.Dial take.
func (e Endpoint) Address() string { return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) }

// Voter is one entry of controller.quorum.voters.
type Voter struct {
	ID   int32
	Host string
	Port int
}

func splitHostPort(s string) (host string, port int, ok bool) {
	host, p, err := net.SplitHostPort(s)
	if err != nil || strings.ContainsAny(host, " /\\@") {
		return "", 0, false
	}
	n, err := strconv.ParseUint(p, 10, 16)
	return host, int(n), err == nil
}

func parseEndpoint(s string) (Endpoint, bool) {
	name, address, ok := strings.Cut(s, "://")
	host, port, ok2 := splitHostPort(address)
	if !ok || !ok2 || !isListenerName(name) {
		return Endpoint{}, false
	}
	return Endpoint{Listener: strings.ToUpper(name), Host: host, Port: port}, true
}

func isListenerName(s string) bool {
	return s != "" && strings.Trim(strings.ToUpper(s), "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == ""
}

func parseVoter(s string) (Voter, bool) {
	id, address, ok := strings.Cut(s, "@")
	host, port, ok2 := splitHostPort(address)
	if !ok || !ok2 || !isNumber(id) {
		return Voter{}, false
	}
	n, _ := strconv.ParseInt(id, 10, 32)
	return Voter{int32(n), host, port}, true
}

var protocols = []string{"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}

func parseProtocolMap(s string) (map[string]string, bool) {
	m := map[string]string{}
	for _, entry := range splitList(trim(s)) {
		name, protocol, ok := strings.Cut(entry, ":")
		name, protocol = strings.ToUpper(trim(name)), strings.ToUpper(trim(protocol))
		if !ok || !isListenerName(name) || !slices.Contains(protocols, protocol) {
			return nil, false
		}
		m[name] = protocol
	}
	return m, true
}

func parseIPLimits(s string) (map[string]int, bool) {
	m := map[string]int{}
	for _, entry := range splitList(trim(s)) {
		at := strings.LastIndexByte(entry, ':')
		if at <= 0 || !isNumber(trim(entry[at+1:])) {
			return nil, false
		}
		m[strings.Trim(trim(entry[:at]), "[]")], _ = strconv.Atoi(trim(entry[at+1:]))
	}
	return m, true
}

// Listeners are the listeners that serve clients: `listeners` without those of the controllers.
func (s *Set) Listeners() []Endpoint {
	return slices.DeleteFunc(s.endpoints("listeners"), func(e Endpoint) bool { return s.isController(e.Listener) })
}

// ControllerListeners are the listeners in `listeners` that controller.listener.names names:
// the nodes of the cluster use them among themselves.
func (s *Set) ControllerListeners() []Endpoint {
	return slices.DeleteFunc(s.endpoints("listeners"), func(e Endpoint) bool { return !s.isController(e.Listener) })
}

// AdvertisedListeners are the addresses that clients are told, one for each listener that
// has one: advertised.listeners, or what is listened on.
func (s *Set) AdvertisedListeners() []Endpoint {
	name := "advertised.listeners"
	if s.Null(name) {
		name = "listeners"
	}
	return slices.DeleteFunc(s.endpoints(name), func(e Endpoint) bool { return s.isController(e.Listener) })
}

// IsControllerListener reports whether controller.listener.names names a listener.
func (s *Set) IsControllerListener(listener string) bool { return s.isController(listener) }

func (s *Set) isController(listener string) bool {
	return slices.ContainsFunc(s.List("controller.listener.names"), func(n string) bool { return strings.EqualFold(n, listener) })
}

// endpoints parses a key; its rule has made sure that every entry can be.
func (s *Set) endpoints(name string) []Endpoint {
	mapped, _ := parseProtocolMap(s.String("listener.security.protocol.map"))
	var list []Endpoint
	for _, text := range s.List(name) {
		e, _ := parseEndpoint(text)
		e.Protocol = mapped[e.Listener]
		if e.Protocol == "" && s.isController(e.Listener) && !s.isSet("listener.security.protocol.map") {
			e.Protocol = "PLAINTEXT" // Kafka maps controllers' listeners so where no map is given
		}
		list = append(list, e)
	}
	return list
}

// Voters is controller.quorum.voters.
func (s *Set) Voters() []Voter {
	var list []Voter
	for _, text := range s.List("controller.quorum.voters") {
		v, _ := parseVoter(text)
		list = append(list, v)
	}
	return list
}

// InternalListener is where the cluster's other nodes reach this one: the listener that
// controller.listener.names names, or where there is none the port of this node's own entry among the
// voters, on every interface unless that is a loopback address. ok is false for a node that is its
// quorum alone.
func (s *Set) InternalListener() (e Endpoint, ok bool) {
	voters := s.Voters()
	if len(voters) < 2 {
		return e, false
	}
	if named := s.ControllerListeners(); len(named) > 0 {
		return named[0], true
	}
	v, ok := s.OwnVoter()
	if !IsLoopback(v.Host) {
		v.Host = ""
	}
	name := strings.ToUpper(s.List("controller.listener.names")[0])
	mapped, _ := parseProtocolMap(s.String("listener.security.protocol.map"))
	return Endpoint{Listener: name, Protocol: cmp.Or(mapped[name], "PLAINTEXT"), Host: v.Host, Port: v.Port}, ok
}

// OwnVoter is this node's entry in controller.quorum.voters.
func (s *Set) OwnVoter() (v Voter, ok bool) {
	for _, v := range s.Voters() {
		if v.ID == int32(s.Int("node.id")) {
			return v, true
		}
	}
	return v, false
}

// IsLoopback says whether only this machine reaches a host. Names are trusted no further than
// "localhost".
func IsLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// MaxConnectionsPerIP is max.connections.per.ip.overrides: limits by host name or address.
func (s *Set) MaxConnectionsPerIP() map[string]int {
	m, _ := parseIPLimits(s.String("max.connections.per.ip.overrides"))
	return m
}

// LogDirs are the data directories: log.dirs, or log.dir.
func (s *Set) LogDirs() []string { return s.List("log.dirs") }

// MetadataLogDir is where the metadata log lies: metadata.log.dir, or the first data directory.
func (s *Set) MetadataLogDir() string {
	if d := s.String("metadata.log.dir"); d != "" {
		return d
	}
	return s.LogDirs()[0]
}
