package config

import (
	"fmt"
	"strings"

	"github.com/magiconair/properties"
)

// maxFileBytes bounds a configuration file: what is longer is not one.
const maxFileBytes = 1 << 20

// line is one setting of a properties file, with the number of its first line.
type line struct {
	number     int
	key, value string
}

// readProperties reads the format of Java's Properties, in UTF-8, without expanding ${}.
// The library parses one logical line at a time, since it does not tell line numbers.
func readProperties(file string) ([]line, error) {
	if len(file) > maxFileBytes {
		return nil, fmt.Errorf("longer than %d bytes", maxFileBytes)
	}
	loader := properties.Loader{Encoding: properties.UTF8, DisableExpansion: true}
	var lines []line
	number := 0
	next := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(file)
	for next != "" {
		var logical string
		logical, next = cutLogical(next)
		first := number + 1
		number += strings.Count(logical, "\n")
		if blank(logical) {
			continue
		}
		p, err := loader.LoadBytes([]byte(logical))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", first, err)
		}
		for _, k := range p.Keys() {
			v, _ := p.Get(k)
			lines = append(lines, line{first, k, v})
		}
	}
	return lines, nil
}

// cutLogical cuts off the first logical line with its line ends: a natural line, and those
// that follow a backslash at the end, unless it is blank or a comment.
func cutLogical(s string) (logical, rest string) {
	end := 0
	for {
		i := strings.IndexByte(s[end:], '\n')
		if i < 0 {
			return s, ""
		}
		natural := s[end : end+i]
		backslashes := len(natural) - len(strings.TrimRight(natural, `\`))
		whole := backslashes%2 == 0 || end == 0 && blank(natural)
		end += i + 1
		if whole {
			return s[:end], s[end:]
		}
	}
}

// blank reports whether a line sets nothing: it is empty or a comment.
func blank(line string) bool {
	line = strings.TrimLeft(line, " \t\f")
	return line == "" || line[0] == '\n' || line[0] == '#' || line[0] == '!'
}
