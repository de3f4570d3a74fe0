//go:build plant_accept_stale_isr

package planted

const AcceptStaleISR = true
