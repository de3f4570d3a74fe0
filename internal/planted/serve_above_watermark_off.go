//go:build !plant_serve_above_watermark

package planted

// ServeAboveWatermark: consumers are given all that the log has.
const ServeAboveWatermark = false
