package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// InvalidError refuses a value. Callers answer INVALID_CONFIG with it (INVALID_REQUEST for
// a broker's keys, as Kafka does).
type InvalidError struct {
	Key     string
	Value   string // "[hidden]" where the key is sensitive
	Allowed string // what would be taken, in words
	Origin  string // "server.properties:12", "environment BARNABAS_…", "--set"; "" for a request
}

func (e *InvalidError) Error() string {
	s := fmt.Sprintf("%s = %q is not allowed: %s", e.Key, clip(e.Value), e.Allowed)
	if e.Origin != "" {
		s += " (" + e.Origin + ")"
	}
	return s
}

// UnknownError refuses a name.
type UnknownError struct {
	Key     string
	Nearest string // a key of the table with a similar name, or ""
	Origin  string
}

func (e *UnknownError) Error() string {
	s := "unknown key " + clip(e.Key)
	if e.Nearest != "" {
		s += ": did you mean " + e.Nearest + "?"
	}
	if e.Origin != "" {
		s += " (" + e.Origin + ")"
	}
	return s
}

// clip keeps messages short whatever the user wrote.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// maxValueBytes bounds a value; a longer one is refused. It is far above every use, PEM
// chains included, and keeps hostile requests from costing more than they carry.
const maxValueBytes = 1 << 16

// maxReported is how many wrong settings one error names; the others wait for the next try.
const maxReported = 20

// trim removes what Java's String.trim removes.
func trim(s string) string { return strings.TrimFunc(s, func(r rune) bool { return r <= ' ' }) }

// parse reads text as a value of k: bool, string, int64, float64 or []string.
func (k *Key) parse(text string) (any, error) {
	if len(text) > maxValueBytes {
		return nil, &InvalidError{Key: k.Name, Value: "[too long]", Allowed: fmt.Sprintf("takes at most %d bytes", maxValueBytes)}
	}
	v, ok := k.Type.parse(trim(text))
	if ok && (k.check == nil || k.check(v)) {
		return v, nil
	}
	e := &InvalidError{Key: k.Name, Value: text, Allowed: k.allowedText()}
	if k.Sensitive {
		e.Value = "[hidden]"
	}
	return nil, e
}

func (k *Key) allowedText() string {
	s := "takes " + k.Type.kind()
	if k.Allowed != "" {
		s += ", " + k.Allowed
	}
	return s
}

func (t Type) kind() string {
	switch t {
	case Bool:
		return "true or false"
	case Int, Short, Long:
		return fmt.Sprintf("a whole number of %d bits", t.bits())
	case Double:
		return "a number"
	case List:
		return "a list separated by commas"
	default:
		return "text"
	}
}

func (t Type) bits() int {
	switch t {
	case Short:
		return 16
	case Int:
		return 32
	default:
		return 64
	}
}

func (t Type) parse(s string) (any, bool) {
	switch t {
	case Bool:
		switch strings.ToLower(s) {
		case "true":
			return true, true
		case "false":
			return false, true
		}
		return nil, false
	case Int, Short, Long:
		n, err := strconv.ParseInt(s, 10, t.bits())
		return n, err == nil
	case Double:
		return parseDouble(s)
	case List:
		return splitList(s), true
	default:
		return s, true
	}
}

// parseDouble takes plain decimal numbers: Java's hexadecimal, suffixed and NaN forms have
// no use in a configuration.
func parseDouble(s string) (any, bool) {
	if strings.Trim(s, "0123456789+-.eE") != "" {
		return nil, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

// splitList cuts at commas and trims; the empty text is the empty list. Empty elements are
// kept, for the key's check to refuse.
func splitList(s string) []string {
	if s == "" {
		return []string{}
	}
	parts := strings.Split(s, ",")
	for i, p := range parts {
		parts[i] = trim(p)
	}
	return parts
}

// text writes a value in the form that DescribeConfigs shows.
func text(v any) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return javaDouble(v)
	case []string:
		return strings.Join(v, ",")
	case string:
		return v
	}
	panic(fmt.Sprintf("BUG: config: a value of type %T", v))
}

// javaDouble writes f as Java's Double.toString does, so that our answers equal Kafka's:
// 0.5, 100.0, 1.0E7, 1.0E-4.
func javaDouble(f float64) string {
	if f == 0 || math.Abs(f) >= 1e-3 && math.Abs(f) < 1e7 {
		s := strconv.FormatFloat(f, 'f', -1, 64)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return s
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	n, _ := strconv.Atoi(exponent)
	return mantissa + "E" + strconv.Itoa(n)
}
