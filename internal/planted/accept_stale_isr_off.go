//go:build !plant_accept_stale_isr

package planted

// AcceptStaleISR: the controller takes a leader's word on who is in sync without comparing epochs: not the leader's, nor the partition's, nor the members' (KIP-497, KIP-903).
const AcceptStaleISR = false
