//go:build !plant_ignore_elr

package planted

// IgnoreELR: when nobody is in sync any more, who was eligible to lead is passed over, and the last leader waited for (KIP-966).
const IgnoreELR = false
