package config

// nearest finds the name that is most like the given one, or "" where none is close: at most
// a third of the letters may differ.
func nearest(name string, names []string) string {
	best, distance := "", max(2, len(name)/3)+1
	for _, n := range names {
		if d := editDistance(name, n, distance); d < distance {
			best, distance = n, d
		}
	}
	return best
}

// editDistance counts the insertions, removals and changes that make b of a; it gives up at
// limit, so that a hostile name of any length costs little.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal, low := row[0], i+1
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
			low = min(low, row[j+1])
		}
		if low >= limit {
			return limit
		}
	}
	return row[len(b)]
}
