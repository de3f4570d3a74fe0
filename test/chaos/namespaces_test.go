//go:build chaos

package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tunnelMTU spares packets: each is read and written by this process.
	tunnelMTU = 16 << 10

	// underWayMost bounds the packets that wait on a link with delay; the next is lost, as in a router.
	underWayMost = 8192
)

// namespaces are a network namespace for each node, each with one interface. All packets come to this
// process, which hands them on, later or not at all: real stacks on real addresses, and faults that
// need no kernel module. The namespaces and interfaces have no names in the file system, and are
// gone with the last descriptor.
type namespaces struct {
	links *links
	net   string // the first three numbers of the addresses
	ends  []*tunnelEnd
	done  chan struct{}
	wg    sync.WaitGroup
}

type tunnelEnd struct {
	tunnel    *os.File
	namespace *os.File // nil at the test's end
	later     []chan delayedPacket
}

type delayedPacket struct {
	at    time.Time
	bytes []byte
}

var namespacesMade atomic.Int32

func newNamespaces(nodes int, l *links) (*namespaces, error) {
	n := &namespaces{links: l, done: make(chan struct{})}
	number := int(namespacesMade.Add(1))
	n.net = fmt.Sprintf("10.%d.%d", 200+os.Getpid()/256%50, (os.Getpid()+number)%256)
	for node := range nodes + 1 {
		if err := n.add(node, fmt.Sprintf("chaos%d-%d", os.Getpid(), number)); err != nil {
			n.close()
			return nil, fmt.Errorf("end %d: %w", node, err)
		}
	}
	for from, end := range n.ends {
		for to := range n.ends {
			end.later = append(end.later, make(chan delayedPacket, underWayMost))
			n.wg.Go(func() { n.deliver(end.later[to], n.ends[to].tunnel) })
		}
		n.wg.Go(func() { n.forward(from) })
	}
	return n, nil
}

func (n *namespaces) kind() string {
	return fmt.Sprintf("%d network namespaces on %s.0/24, joined by this process", len(n.ends)-1, n.net)
}

func (n *namespaces) address(end int) string {
	if end == nobody {
		return n.net + ".254"
	}
	return fmt.Sprintf("%s.%d", n.net, end)
}

func (n *namespaces) places(node int) (clients, internal string) {
	return n.address(node) + ":9092", n.address(node) + ":9093"
}

func (n *namespaces) flags(node int) []string {
	clients, _ := n.places(node)
	return []string{"--listen", clients}
}

func (n *namespaces) start(node int, cmd *exec.Cmd) error {
	return inNamespace(n.ends[node].namespace, cmd.Start)
}

// add makes an end: a namespace, but for the test itself, and an interface in it.
func (n *namespaces) add(node int, name string) (err error) {
	end := &tunnelEnd{}
	n.ends = append(n.ends, end)
	if node != nobody {
		if end.namespace, err = newNamespace(); err != nil {
			return err
		}
		name = "wire"
	}
	return inNamespace(end.namespace, func() error {
		if end.tunnel, err = openTunnel(name); err != nil {
			return err
		}
		ip := exec.Command("ip", "-batch", "-")
		ip.Stdin = strings.NewReader(fmt.Sprintf("link set dev lo up\naddress add %s/24 dev %s\nlink set dev %s mtu %d up\n",
			n.address(node), name, name, tunnelMTU))
		if out, err := ip.CombinedOutput(); err != nil {
			return fmt.Errorf("set up %s: %w: %s", name, err, out)
		}
		return nil
	})
}

// openTunnel makes an interface whose packets this process reads and writes. It vanishes when closed.
func openTunnel(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ask, err := unix.NewIfreq(name)
	if err != nil {
		return nil, fmt.Errorf("name %s: %w", name, err)
	}
	ask.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ask); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make interface %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil // only now: the poller takes no tunnel that is not one yet
}

// newNamespace makes a network namespace that lives as long as its file is open, or a process in it.
func newNamespace() (made *os.File, err error) {
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		made, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return made, err
}

// inNamespace does something in a namespace; nil is where this process is.
func inNamespace(namespace *os.File, do func() error) error {
	if namespace == nil {
		return do()
	}
	return onOwnThread(func() error {
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return do()
	})
}

// onOwnThread does something on one thread and takes that home to its namespace afterwards. The thread
// has to live on: processes that are started on it are told to die with it.
func onOwnThread(do func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	err = do()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(fmt.Sprintf("return from a network namespace: %v", back))
	}
	runtime.UnlockOSThread()
	return err
}

// forward hands on what comes out of one end.
func (n *namespaces) forward(from int) {
	end := n.ends[from]
	packet := make([]byte, 64<<10)
	for {
		size, err := end.tunnel.Read(packet)
		if err != nil {
			return // closed
		}
		if size < 20 || packet[0]>>4 != 4 {
			continue // no IPv4: neighbours being looked for
		}
		to := int(packet[19])
		if to == 254 {
			to = nobody
		} else if to == nobody {
			continue
		}
		if to >= len(n.ends) || packet[16] != 10 {
			continue
		}
		switch l := n.links.get(from, to); {
		case l.lost():
		case l.delay == 0 && len(end.later[to]) == 0:
			_, _ = n.ends[to].tunnel.Write(packet[:size]) // lost, if the other end's queue is full
		default:
			select {
			case end.later[to] <- delayedPacket{time.Now().Add(l.delay), append([]byte(nil), packet[:size]...)}:
			default:
			}
		}
	}
}

// deliver writes packets when they are due.
func (n *namespaces) deliver(from <-chan delayedPacket, to *os.File) {
	for {
		var p delayedPacket
		select {
		case p = <-from:
		case <-n.done:
			return
		}
		select {
		case <-time.After(time.Until(p.at)):
			_, _ = to.Write(p.bytes)
		case <-n.done:
			return
		}
	}
}

func (n *namespaces) close() {
	close(n.done)
	for _, end := range n.ends {
		if end.tunnel != nil {
			_ = end.tunnel.Close()
		}
		if end.namespace != nil {
			_ = end.namespace.Close()
		}
	}
	n.wg.Wait()
}
