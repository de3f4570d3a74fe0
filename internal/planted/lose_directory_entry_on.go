//go:build plant_lose_directory_entry

package planted

const LoseDirectoryEntry = true
