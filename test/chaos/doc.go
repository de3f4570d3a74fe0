//go:build chaos

// Package chaos does to a broker's process and disk what happens to them in real life: it is killed
// with -9 under load, its disk fills up, strangers throw rubbish at it. The tests ask one thing:
// is what was acknowledged still there, once and in order, and does everybody else work on.
// Times of faults come from a seed that failures print.
package chaos
