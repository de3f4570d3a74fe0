package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// rule is what a key takes beyond its type. The zero rule takes everything.
type rule struct {
	text  string
	check func(value any) bool
}

var anything rule

func number(v any) float64 {
	if n, ok := v.(int64); ok {
		return float64(n)
	}
	return v.(float64)
}

func atLeast(low int64) rule {
	return rule{fmt.Sprintf("at least %d", low), func(v any) bool { return number(v) >= float64(low) }}
}

func between(low, high float64) rule {
	show := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	return rule{"from " + show(low) + " to " + show(high), func(v any) bool { return number(v) >= low && number(v) <= high }}
}

// unlimitedOr takes -1, which stands for no limit, and what r takes.
func unlimitedOr(r rule) rule {
	return rule{r.text + ", or -1 for no limit", func(v any) bool { return v == int64(-1) || r.check(v) }}
}

// automaticOr takes -1, which leaves the choice to the broker, and what r takes.
func automaticOr(r rule) rule {
	return rule{r.text + ", or -1 for the broker's choice", func(v any) bool { return v == int64(-1) || r.check(v) }}
}

func oneOf(words ...string) rule {
	return rule{"one of " + strings.Join(words, ", "), func(v any) bool { return slices.Contains(words, v.(string)) }}
}

func oneOfFold(words ...string) rule {
	return rule{"one of " + strings.Join(words, ", ") + " (in any case)", func(v any) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, v.(string)) })
	}}
}

var notEmpty = rule{"not empty", func(v any) bool { return v.(string) != "" }}

// gzipLevel is Deflater's range: -1 stands for the default level, 0 would not compress.
var gzipLevel = rule{"from 1 to 9, or -1 for the codec's default", func(v any) bool { n := v.(int64); return n == -1 || n >= 1 && n <= 9 }}

func distinct(list []string) bool {
	seen := make(map[string]bool, len(list))
	for _, s := range list {
		if s == "" || seen[s] {
			return false
		}
		seen[s] = true
	}
	return true
}

// set takes a list of different elements, none of them empty.
var set = rule{"different elements, none empty", func(v any) bool { return distinct(v.([]string)) }}

// someOf takes a set of at least one element.
var someOf = rule{"at least one element, all different, none empty", func(v any) bool { return len(v.([]string)) > 0 && distinct(v.([]string)) }}

// subset takes a list of different words, which may be empty.
func subset(words ...string) rule {
	return rule{"any of " + strings.Join(words, ", "), func(v any) bool {
		return distinct(v.([]string)) && !slices.ContainsFunc(v.([]string), func(s string) bool { return !slices.Contains(words, s) })
	}}
}

// someOfWords takes a subset that is not empty.
func someOfWords(words ...string) rule {
	r := subset(words...)
	return rule{"at least one of " + strings.Join(words, ", "), func(v any) bool { return len(v.([]string)) > 0 && r.check(v) }}
}

// each takes a list whose every element is in the given form.
func each(form string, is func(string) bool) rule {
	return rule{"a list of " + form, func(v any) bool {
		return !slices.ContainsFunc(v.([]string), func(s string) bool { return !is(s) })
	}}
}

var hostPorts = each("HOST:PORT", func(s string) bool { _, _, ok := splitHostPort(s); return ok })

var voters = each("ID@HOST:PORT", func(s string) bool { _, ok := parseVoter(s); return ok })

var endpoints = rule{"a list of NAME://HOST:PORT, all different", func(v any) bool {
	list := v.([]string)
	return len(list) > 0 && distinct(list) && !slices.ContainsFunc(list, func(s string) bool { _, ok := parseEndpoint(s); return !ok })
}}

// protocolMap is LISTENER:PROTOCOL,…
var protocolMap = rule{"a list of LISTENER:PROTOCOL with PROTOCOL one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL", func(v any) bool {
	_, ok := parseProtocolMap(v.(string))
	return ok
}}

// ipLimits is HOST:COUNT,…
var ipLimits = rule{"a list of HOST:COUNT with COUNT at least 0", func(v any) bool {
	_, ok := parseIPLimits(v.(string))
	return ok
}}

var hostPort = rule{"HOST:PORT", func(v any) bool { _, _, ok := splitHostPort(v.(string)); return ok }}

// throttled is * for all replicas, or PARTITION:BROKER,… As in Kafka empty elements do not count, and a number may be
// of a partition or broker that cannot exist.
var throttled = rule{"* or a list of PARTITION:BROKER", func(v any) bool {
	list := slices.DeleteFunc(slices.Clone(v.([]string)), func(s string) bool { return s == "" })
	if slices.Equal(list, []string{"*"}) {
		return true
	}
	return !slices.ContainsFunc(list, func(s string) bool {
		partition, broker, ok := strings.Cut(s, ":")
		return !ok || !isDigits(partition) || !isDigits(broker)
	})
}}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func isNumber(s string) bool {
	n, err := strconv.ParseInt(s, 10, 32)
	return err == nil && n >= 0 && n <= math.MaxInt32
}
