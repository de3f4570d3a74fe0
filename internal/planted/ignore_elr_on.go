//go:build plant_ignore_elr

package planted

const IgnoreELR = true
