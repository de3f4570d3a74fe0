//go:build chaos

package chaos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// chunkBytes is what a proxy reads at once, and chunksMost what it keeps under way in one direction of
	// a connection: then the sender has to wait.
	chunkBytes = 64 << 10
	chunksMost = 64

	// lossStall is what a lost piece costs here, where a stream can lose none: about a retransmission.
	lossStall = 200 * time.Millisecond
)

// proxies stand before the nodes' listeners on this machine's loopback interface. A cut direction keeps
// what it was given, and connections made across it wait, as packets sent again would.
type proxies struct {
	links *links
	nodes []proxied // by node - 1
	done  chan struct{}
	wg    sync.WaitGroup

	mu    sync.Mutex
	pids  map[int]int // process to node
	conns map[net.Conn]struct{}
}

// proxied are a node's listeners, for clients and for other nodes.
type proxied struct {
	fronts [2]net.Listener
	backs  [2]string
}

func newProxies(nodes int, l *links) (*proxies, error) {
	p := &proxies{links: l, done: make(chan struct{}), pids: map[int]int{}, conns: map[net.Conn]struct{}{}}
	p.nodes = make([]proxied, nodes)
	for i := range p.nodes {
		for k := range 2 {
			var err error
			if p.nodes[i].fronts[k], err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
				p.close()
				return nil, fmt.Errorf("listen before node %d: %w", i+1, err)
			}
			free, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.%d:0", i+2))
			if err != nil {
				p.close()
				return nil, fmt.Errorf("find a port for node %d: %w", i+1, err)
			}
			p.nodes[i].backs[k] = free.Addr().String()
			_ = free.Close() // nobody else uses these addresses
		}
	}
	for i, node := range p.nodes {
		for k, front := range node.fronts {
			p.wg.Go(func() { p.accept(front, i+1, node.backs[k]) })
		}
	}
	return p, nil
}

func (p *proxies) kind() string { return fmt.Sprintf("%d nodes behind TCP proxies", len(p.nodes)) }

func (p *proxies) places(node int) (clients, internal string) {
	fronts := p.nodes[node-1].fronts
	return fronts[0].Addr().String(), fronts[1].Addr().String()
}

func (p *proxies) flags(node int) []string {
	clients, _ := p.places(node)
	backs := p.nodes[node-1].backs
	return []string{
		"--set", "listeners=PLAINTEXT://" + backs[0] + ",CONTROLLER://" + backs[1],
		"--set", "advertised.listeners=PLAINTEXT://" + clients,
	}
}

func (p *proxies) start(node int, cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pids[cmd.Process.Pid] = node
	return nil
}

func (p *proxies) accept(front net.Listener, to int, back string) {
	for {
		c, err := front.Accept()
		if err != nil {
			return // closed
		}
		p.wg.Go(func() { p.join(c, p.whose(c), to, back) })
	}
}

// keep notes a connection to be closed at the end; without ok it has come already.
func (p *proxies) keep(c net.Conn) (ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		_ = c.Close()
		return false
	default:
		p.conns[c] = struct{}{}
		return true
	}
}

func (p *proxies) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

// join carries one connection to its end.
func (p *proxies) join(front net.Conn, from, to int, back string) {
	if !p.keep(front) {
		return
	}
	defer p.drop(front)
	for _, way := range [][2]int{{from, to}, {to, from}} {
		if _, ok := p.links.open(way[0], way[1], p.done); !ok {
			return
		}
	}
	c, err := net.Dial("tcp4", back)
	if err != nil {
		return // nobody serves there: the front is hung up
	}
	if !p.keep(c) {
		return
	}
	defer p.drop(c)
	var both sync.WaitGroup
	both.Go(func() { p.carry(front, c, from, to) })
	both.Go(func() { p.carry(c, front, to, from) })
	both.Wait()
}

type chunk struct {
	at    time.Time
	bytes []byte
}

// carry hands on what is read from one end until that hangs up, and then hangs up at the other.
func (p *proxies) carry(in, out net.Conn, from, to int) {
	under := make(chan chunk, chunksMost)
	var writer sync.WaitGroup
	writer.Go(func() {
		for c := range under {
			_, ok := p.links.open(from, to, p.done)
			if !ok {
				continue
			}
			select {
			case <-time.After(time.Until(c.at)):
			case <-p.done:
				continue
			}
			if _, err := out.Write(c.bytes); err != nil {
				_ = in.Close()
			}
		}
	})
	for buf := make([]byte, chunkBytes); ; {
		n, err := in.Read(buf)
		if n > 0 {
			how := p.links.get(from, to)
			due := time.Now().Add(how.delay)
			if !how.cut && how.lost() {
				due = due.Add(lossStall)
			}
			under <- chunk{due, append([]byte(nil), buf[:n]...)}
		}
		if err != nil {
			close(under)
			writer.Wait()
			if _, ok := p.links.open(from, to, p.done); ok && errors.Is(err, io.EOF) {
				_ = out.(*net.TCPConn).CloseWrite()
			} else {
				_ = out.Close()
			}
			return
		}
	}
}

// whose finds the node whose process is at the other end of a connection: the kernel's table of sockets
// names its inode, and the process has that among its descriptors.
func (p *proxies) whose(c net.Conn) int {
	at := c.RemoteAddr().(*net.TCPAddr)
	ip := at.IP.To4()
	want := fmt.Sprintf("%08X:%04X", binary.LittleEndian.Uint32(ip), at.Port)
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nobody
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[1] == want {
			return p.holder("socket:[" + f[9] + "]")
		}
	}
	return nobody
}

func (p *proxies) holder(socket string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pid, node := range p.pids {
		open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // none where the process is gone
		for _, fd := range open {
			if what, err := os.Readlink(fd); err == nil && what == socket {
				return node
			}
		}
	}
	return nobody
}

func (p *proxies) close() {
	p.mu.Lock()
	close(p.done)
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	for _, node := range p.nodes {
		for _, front := range node.fronts {
			if front != nil {
				_ = front.Close()
			}
		}
	}
	p.wg.Wait()
}
