// Package lifecycle is a broker's side of being one of a cluster: it registers the process with the controller,
// says again and again that it lives and, where the metadata does not know it, in which directories its replicas lie, and
// takes leave of it.
//
// It decides when to register, when to speak and what to say. The node builds it, tells it when clients are served
// and when the process shall end, and puts it last in the line of the metadata's publishers, for what it reports
// is how far all others are. What the controller makes of it shows in the metadata, and only there.
//
// It refuses to know where the controller is, what is led or followed here, and what a heartbeat travels on.
package lifecycle
