//go:build chaos

// Package chaos does to brokers' processes and disks, and to the networks between them, what happens to
// them in real life: they are killed with -9 under load, frozen, cut off, their disks fill up or are lost,
// strangers throw rubbish at them. The tests ask one thing: is what was acknowledged still there, once
// and in order, and does everybody else work on. Which faults come when is a seed's choice (rig.Seed).
//
// Further variables, beside those of package rig:
//
//	BARNABAS_CHAOS_LONGER=N            tests about clusters take N times as long
//	BARNABAS_CHAOS_NETWORK=proxies     no network namespaces
//	BARNABAS_CHAOS_LOG_LEVEL=debug     of the nodes; go test -artifacts keeps their logs
package chaos
