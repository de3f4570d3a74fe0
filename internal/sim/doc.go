// Package sim runs whole clusters in one process, in a testing/synctest bubble, harms them by a seed, and checks
// what their clients saw. It decides which harms come when, and what must hold in spite of them; it knows the
// broker only through clustertest and the wire. Tests only.
package sim
