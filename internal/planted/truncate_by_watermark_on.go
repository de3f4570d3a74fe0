//go:build plant_truncate_by_watermark

package planted

const TruncateByWatermark = true
