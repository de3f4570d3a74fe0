package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/pierrec/lz4/v4"
)

// lz4Inflater reads one LZ4 frame. The frame is taken apart here and not by the library's reader, because a leader
// must refuse what Kafka's consumers cannot read (blocks that depend on each other, dictionaries, other frame
// versions, a wrong checksum), and because a block is decompressed into the window without a copy.
// As in Kafka a checksum of the whole content is not looked at: the batch has one of its own.
type lz4Inflater struct {
	left           []byte
	begun, done    bool
	maxBlockBytes  int
	blockChecksums bool
	trailerBytes   int // the content's checksum, if there is one
}

const (
	lz4Magic           = 0x184D2204
	lz4VersionMask     = 0xC0
	lz4Version         = 0x40
	lz4Independent     = 0x20
	lz4BlockChecksums  = 0x10
	lz4ContentSize     = 0x08
	lz4ContentChecksum = 0x04
	lz4ReservedFlags   = 0x03 // Kafka counts the flag of a dictionary among them
	lz4ReservedBlock   = 0x8F
	lz4Uncompressed    = 1 << 31
	lz4MinFrameBytes   = 7   // magic, two descriptor bytes, checksum
	lz4MaxRatio        = 256 // a byte of a match's length stands for at most 255
	lz4UsualRatio      = 8
	lz4SmallestMaxCode = 4 // block sizes: 4 is 64 KiB, each further one four times that, 7 is 4 MiB
)

var errLz4Frame = errors.New("not an LZ4 frame that Kafka reads")

func (z *lz4Inflater) begin(src []byte) error {
	*z = lz4Inflater{left: src}
	return nil
}

func (z *lz4Inflater) end() { *z = lz4Inflater{} }

func (z *lz4Inflater) header() error {
	src := z.left
	if len(src) < lz4MinFrameBytes || binary.LittleEndian.Uint32(src) != lz4Magic {
		return fmt.Errorf("%w: no magic", errLz4Frame)
	}
	flags, block := src[4], src[5]
	size := lz4MinFrameBytes
	if flags&lz4ContentSize != 0 {
		size += 8
	}
	switch {
	case flags&lz4VersionMask != lz4Version:
		return fmt.Errorf("%w: its version", errLz4Frame)
	case flags&lz4Independent == 0:
		return fmt.Errorf("%w: blocks depend on each other", errLz4Frame)
	case flags&lz4ReservedFlags != 0, block&lz4ReservedBlock != 0, block>>4 < lz4SmallestMaxCode:
		return fmt.Errorf("%w: its descriptor is %02x %02x", errLz4Frame, flags, block)
	case len(src) < size:
		return io.ErrUnexpectedEOF
	case byte(xxh32(src[4:size-1])>>8) != src[size-1]:
		return fmt.Errorf("%w: the descriptor's checksum", errLz4Frame)
	}
	z.maxBlockBytes = pieceBytes << (2 * (block>>4 - lz4SmallestMaxCode))
	z.blockChecksums = flags&lz4BlockChecksums != 0
	if flags&lz4ContentChecksum != 0 {
		z.trailerBytes = 4
	}
	z.left = src[size:]
	return nil
}

func (z *lz4Inflater) more(dst []byte, _ int64) ([]byte, error) {
	if !z.begun {
		if err := z.header(); err != nil {
			return dst, undecodable(Lz4, err)
		}
		z.begun = true
	}
	for !z.done {
		block, compressed, err := z.next()
		if err != nil {
			return dst, undecodable(Lz4, err)
		}
		had := len(dst)
		if !compressed {
			dst = append(grow(dst, len(block)), block...)
		} else {
			var n int
			if dst, n, err = z.uncompress(dst, block); err != nil {
				return dst, undecodable(Lz4, err)
			}
			dst = dst[:had+n]
		}
		if len(dst) > had {
			return dst, nil
		}
	}
	return dst, io.EOF
}

// uncompress puts a block behind dst. Go's clients make blocks that may hold 4 MiB, and mostly hold little: so
// they get the room that there is, or that a usual ratio asks for, and more only where that was too little.
func (z *lz4Inflater) uncompress(dst, block []byte) ([]byte, int, error) {
	most := min(z.maxBlockBytes, lz4MaxRatio*len(block))
	for want := max(lz4UsualRatio*len(block), pieceBytes); ; want *= 4 {
		dst = grow(dst, min(most, want))
		room := min(most, cap(dst)-len(dst))
		n, err := lz4.UncompressBlock(block, dst[len(dst):len(dst)+room])
		if err == nil || room == most {
			return dst, n, err
		}
	}
}

// next takes the next block off; at the end mark an empty one, and z is done.
func (z *lz4Inflater) next() (block []byte, compressed bool, err error) {
	if len(z.left) < 4 {
		return nil, false, io.ErrUnexpectedEOF
	}
	word := binary.LittleEndian.Uint32(z.left)
	z.left = z.left[4:]
	size := int(word &^ lz4Uncompressed)
	if word == 0 {
		z.done = true
		if len(z.left) != z.trailerBytes {
			err = fmt.Errorf("%d bytes follow its end mark, not %d", len(z.left), z.trailerBytes)
		}
		return nil, false, err
	}
	if size == 0 || size > z.maxBlockBytes { // Kafka takes an uncompressed block of 0 bytes for the end mark, others do not
		return nil, false, fmt.Errorf("block of %d bytes where 1 to %d are allowed", size, z.maxBlockBytes)
	}
	whole := size
	if z.blockChecksums {
		whole += 4
	}
	if whole > len(z.left) {
		return nil, false, io.ErrUnexpectedEOF
	}
	block = z.left[:size]
	if z.blockChecksums && xxh32(block) != binary.LittleEndian.Uint32(z.left[size:]) {
		return nil, false, errors.New("a block's checksum is wrong")
	}
	z.left = z.left[whole:]
	return block, word&lz4Uncompressed == 0, nil
}

const (
	xxPrime1 uint32 = 2654435761
	xxPrime2 uint32 = 2246822519
	xxPrime3 uint32 = 3266489917
	xxPrime4 uint32 = 668265263
	xxPrime5 uint32 = 374761393
)

// xxh32 is the 32-bit xxHash with seed 0, LZ4 frames' checksum. The LZ4 library has it, but keeps it to itself.
func xxh32(p []byte) uint32 {
	h := xxPrime5
	n := uint32(len(p))
	if len(p) >= 16 {
		a, b, c, d := xxPrime1, xxPrime2, uint32(0), uint32(0)
		a, d = a+xxPrime2, d-xxPrime1
		for ; len(p) >= 16; p = p[16:] {
			a = bits.RotateLeft32(a+binary.LittleEndian.Uint32(p)*xxPrime2, 13) * xxPrime1
			b = bits.RotateLeft32(b+binary.LittleEndian.Uint32(p[4:])*xxPrime2, 13) * xxPrime1
			c = bits.RotateLeft32(c+binary.LittleEndian.Uint32(p[8:])*xxPrime2, 13) * xxPrime1
			d = bits.RotateLeft32(d+binary.LittleEndian.Uint32(p[12:])*xxPrime2, 13) * xxPrime1
		}
		h = bits.RotateLeft32(a, 1) + bits.RotateLeft32(b, 7) + bits.RotateLeft32(c, 12) + bits.RotateLeft32(d, 18)
	}
	h += n
	for ; len(p) >= 4; p = p[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(p)*xxPrime3, 17) * xxPrime4
	}
	for _, c := range p {
		h = bits.RotateLeft32(h+uint32(c)*xxPrime5, 11) * xxPrime1
	}
	h = (h ^ h>>15) * xxPrime2
	h = (h ^ h>>13) * xxPrime3
	return h ^ h>>16
}
