package cli

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"barnabas/client"
	"barnabas/internal/cli/terminal"
)

// printer appends a record as it is to be shown.
type printer func(dst []byte, r *client.Record) []byte

func (o *consume) printer() (printer, error) {
	if o.template != "" {
		return parseTemplate(o.template, o.nullMarker)
	}
	orNull := func(dst, b []byte) []byte {
		if b == nil {
			return append(dst, o.nullMarker...)
		}
		return append(dst, b...)
	}
	switch o.shape {
	case "value":
		return func(dst []byte, r *client.Record) []byte { return append(orNull(dst, r.Value), '\n') }, nil
	case "key+value":
		separator, err := unescape(o.separator)
		if err != nil {
			return nil, terminal.Usagef("--key-separator: %w", err)
		}
		return func(dst []byte, r *client.Record) []byte {
			dst = append(orNull(dst, r.Key), separator...)
			return append(orNull(dst, r.Value), '\n')
		}, nil
	case "json":
		return func(dst []byte, r *client.Record) []byte { return append(appendJSON(dst, r), '\n') }, nil
	}
	return nil, terminal.Usagef("--output %q: value, key+value or json; --format takes a template", o.shape)
}

// appendJSON appends a record as a JSON object.
func appendJSON(dst []byte, r *client.Record) []byte {
	dst = append(dst, `{"topic":`...)
	dst = appendText(dst, r.Topic)
	dst = append(dst, `,"partition":`...)
	dst = strconv.AppendInt(dst, int64(r.Partition), 10)
	dst = append(dst, `,"offset":`...)
	dst = strconv.AppendInt(dst, r.Offset, 10)
	dst = append(dst, `,"timestamp":"`...)
	dst = r.Timestamp.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	dst = append(dst, `","timestamp_ms":`...)
	dst = strconv.AppendInt(dst, r.Timestamp.UnixMilli(), 10)
	dst = append(dst, ',')
	dst = appendBytes(dst, "key", r.Key)
	dst = append(dst, ',')
	dst = appendBytes(dst, "value", r.Value)
	if len(r.Headers) > 0 {
		dst = append(dst, `,"headers":[`...)
		for i, h := range r.Headers {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"key":`...)
			dst = append(appendText(dst, h.Key), ',')
			dst = append(appendBytes(dst, "value", h.Value), '}')
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

// appendBytes appends "name":text, or "name_base64":text where the bytes are no text.
func appendBytes(dst []byte, name string, b []byte) []byte {
	dst = append(append(dst, '"'), name...)
	switch {
	case b == nil:
		return append(dst, `":null`...)
	case utf8.Valid(b):
		return appendText(append(dst, `":`...), b)
	}
	dst = append(dst, `_base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}

// appendText appends a JSON string. What is not UTF-8 becomes U+FFFD.
func appendText[T string | []byte](dst []byte, s T) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[from:i]...), "\ufffd"...)
				from = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}

// tokens are what a template's letters stand for, after kcat's.
func tokens(nullMarker string) map[byte]printer {
	orNull := func(dst, b []byte) []byte {
		if b == nil {
			return append(dst, nullMarker...)
		}
		return append(dst, b...)
	}
	length := func(dst, b []byte) []byte {
		if b == nil {
			return append(dst, "-1"...)
		}
		return strconv.AppendInt(dst, int64(len(b)), 10)
	}
	return map[byte]printer{
		's': func(dst []byte, r *client.Record) []byte { return orNull(dst, r.Value) },
		'S': func(dst []byte, r *client.Record) []byte { return length(dst, r.Value) },
		'k': func(dst []byte, r *client.Record) []byte { return orNull(dst, r.Key) },
		'K': func(dst []byte, r *client.Record) []byte { return length(dst, r.Key) },
		't': func(dst []byte, r *client.Record) []byte { return append(dst, r.Topic...) },
		'p': func(dst []byte, r *client.Record) []byte { return strconv.AppendInt(dst, int64(r.Partition), 10) },
		'o': func(dst []byte, r *client.Record) []byte { return strconv.AppendInt(dst, r.Offset, 10) },
		'T': func(dst []byte, r *client.Record) []byte { return strconv.AppendInt(dst, r.Timestamp.UnixMilli(), 10) },
		'd': func(dst []byte, r *client.Record) []byte { return append(dst, formatTime(r.Timestamp)...) },
		'%': func(dst []byte, _ *client.Record) []byte { return append(dst, '%') },
		'h': func(dst []byte, r *client.Record) []byte {
			for i, h := range r.Headers {
				if i > 0 {
					dst = append(dst, ',')
				}
				dst = append(append(dst, h.Key...), '=')
				dst = orNull(dst, h.Value)
			}
			return dst
		},
	}
}

// parseTemplate makes a printer of a template.
func parseTemplate(text, nullMarker string) (printer, error) {
	text, err := unescape(text)
	if err != nil {
		return nil, terminal.Usagef("--format: %w", err)
	}
	known := tokens(nullMarker)
	var parts []printer
	for i := 0; i < len(text); {
		if text[i] == '%' {
			if i+1 == len(text) {
				return nil, terminal.Usagef("--format ends with a %%; write %%%% for a per cent sign")
			}
			part, ok := known[text[i+1]]
			if !ok {
				return nil, terminal.Hinted{Err: terminal.Usagef("--format: %%%c means nothing", text[i+1]), Hint: "'barnabas consume --help' lists what there is"}
			}
			parts = append(parts, part)
			i += 2
			continue
		}
		end := i
		for end < len(text) && text[end] != '%' {
			end++
		}
		literal := text[i:end]
		parts = append(parts, func(dst []byte, _ *client.Record) []byte { return append(dst, literal...) })
		i = end
	}
	return func(dst []byte, r *client.Record) []byte {
		for _, part := range parts {
			dst = part(dst, r)
		}
		return dst
	}, nil
}
