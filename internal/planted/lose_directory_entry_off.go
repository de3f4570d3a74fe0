//go:build !plant_lose_directory_entry

package planted

// LoseDirectoryEntry: a new segment is flushed, and its name in the directory is not.
const LoseDirectoryEntry = false
