//go:build plant_fetch_any_epoch

package planted

const FetchAnyEpoch = true
