package batch

import (
	"fmt"
	"strings"
)

// Codec is how the records of a batch are compressed: together, as one stream after the header.
type Codec int8

// The codecs, with the numbers that they have in a batch's attributes.
const (
	None   Codec = 0
	Gzip   Codec = 1
	Snappy Codec = 2
	Lz4    Codec = 3
	Zstd   Codec = 4

	codecs = 5
)

var codecNames = [codecs]string{"none", "gzip", "snappy", "lz4", "zstd"}

// String returns the name that producers' compression.type has for the codec.
func (c Codec) String() string {
	if !c.Known() {
		return fmt.Sprintf("codec %d", int8(c))
	}
	return codecNames[c]
}

// Known says whether the codec is one of the five.
func (c Codec) Known() bool { return c >= None && c < codecs }

// ParseCodec reads a codec's name as compression.type has it, of producers ("none") or of topics
// ("uncompressed"). The topics' value "producer" is not a codec (see Rules.KeepCodec). Names may be in either case.
func ParseCodec(name string) (Codec, error) {
	lower := strings.ToLower(name)
	if lower == "uncompressed" {
		return None, nil
	}
	for c, known := range codecNames {
		if lower == known {
			return Codec(c), nil
		}
	}
	return 0, fmt.Errorf("%w: %q", ErrUnsupportedCodec, name)
}

// Levels are the compression levels by codec, as compression.gzip.level and its siblings have them (KIP-390).
// Zero is the codec's default. A level out of a codec's range counts as the nearest that it has.
type Levels struct {
	Gzip int // 1 to 9; default -1, which is zlib's 6
	Lz4  int // 1 to 17; default 9, which here as in Kafka's Java code means the fast compressor
	Zstd int // -131072 to 22; default 3. The encoder has four speeds, so neighbouring levels are one.
}
