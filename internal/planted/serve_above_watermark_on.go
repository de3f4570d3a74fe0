//go:build plant_serve_above_watermark

package planted

const ServeAboveWatermark = true
