package disk

import "slices"

const (
	pageBytes    = 4096    // the unit of space of a Mem, as of most real disks
	maxFileBytes = 1 << 36 // of a file in a Mem; writing past it is answered with EFBIG
)

type page [pageBytes]byte

// reserved stands for a page that has its space on the disk and reads as zeros. Nobody writes
// to it: the first write puts a page of its own in its place.
var reserved = new(page)

// image is the content of a file. A nil page is a hole: zeros without space. Bytes of a page past
// the size are zero, so growing needs no clearing.
type image struct {
	size  int64
	pages []*page
}

func (im *image) readAt(p []byte, off int64) int {
	if off >= im.size {
		return 0
	}
	p = p[:min(int64(len(p)), im.size-off)]
	for at := 0; at < len(p); {
		i, in := (off+int64(at))/pageBytes, (off+int64(at))%pageBytes
		end := min(len(p), at+pageBytes-int(in))
		if i < int64(len(im.pages)) && im.pages[i] != nil {
			copy(p[at:end], im.pages[i][in:])
		} else {
			clear(p[at:end])
		}
		at = end
	}
	return len(p)
}

// writeAt writes p and returns how many pages that took from the disk.
func (im *image) writeAt(p []byte, off int64) (taken int) {
	end := off + int64(len(p))
	im.cover(end)
	for at := 0; at < len(p); {
		i, in := (off+int64(at))/pageBytes, (off+int64(at))%pageBytes
		switch im.pages[i] {
		case nil:
			taken++
			im.pages[i] = new(page)
		case reserved:
			im.pages[i] = new(page)
		}
		at += copy(im.pages[i][in:], p[at:])
	}
	im.size = max(im.size, end)
	return taken
}

// fits returns how many of n bytes at off can be written with free pages to take.
func (im *image) fits(off, n, free int64) int64 {
	for i := off / pageBytes; i*pageBytes < off+n; i++ {
		if i < int64(len(im.pages)) && im.pages[i] != nil {
			continue
		}
		if free == 0 {
			return max(0, i*pageBytes-off)
		}
		free--
	}
	return n
}

// reserve takes space for n bytes at off and returns how many pages that took.
func (im *image) reserve(off, n int64) (taken int) {
	im.cover(off + n)
	for i := off / pageBytes; i*pageBytes < off+n; i++ {
		if im.pages[i] == nil {
			im.pages[i] = reserved
			taken++
		}
	}
	return taken
}

// truncate cuts or grows to size and returns how many pages that gave back.
func (im *image) truncate(size int64) (given int) {
	keep := (size + pageBytes - 1) / pageBytes
	if keep < int64(len(im.pages)) {
		for _, p := range im.pages[keep:] {
			if p != nil {
				given++
			}
		}
		clear(im.pages[keep:])
		im.pages = im.pages[:keep]
	}
	if in := size % pageBytes; in != 0 && keep <= int64(len(im.pages)) {
		if last := im.pages[keep-1]; last != nil && last != reserved {
			clear(last[in:])
		}
	}
	im.size = size
	return given
}

// cover makes room for the pages of size bytes.
func (im *image) cover(size int64) {
	if n := int((size + pageBytes - 1) / pageBytes); n > len(im.pages) {
		im.pages = append(im.pages, make([]*page, n-len(im.pages))...)
	}
}

func (im *image) taken() (pages int) {
	for _, p := range im.pages {
		if p != nil {
			pages++
		}
	}
	return pages
}

func (im *image) clone() image {
	c := image{im.size, slices.Clone(im.pages)}
	for i, p := range c.pages {
		if p != nil && p != reserved {
			own := *p
			c.pages[i] = &own
		}
	}
	return c
}
