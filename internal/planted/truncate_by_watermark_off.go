//go:build !plant_truncate_by_watermark

package planted

// TruncateByWatermark: a follower cuts its log to its own high watermark before it follows a new leader, as Kafka did before KIP-101.
const TruncateByWatermark = false
