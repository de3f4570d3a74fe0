// Package node is the composition root: it builds a broker from the packages below, in the order
// of their levels, and takes it down in reverse. It decides nothing that a package below could
// decide; what it knows alone is who is told of what.
//
// Start is called by the command line's serve and by barnabastest. The world (files, network,
// clock, chance) comes in through Options, so that whole nodes run in memory.
package node
