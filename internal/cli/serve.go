package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"

	"barnabas/internal/cli/terminal"
	"barnabas/internal/commitlog"
	"barnabas/internal/config"
	"barnabas/internal/disk"
	"barnabas/internal/netx"
	"barnabas/internal/node"
)

// serveFlags are the flags of serve. Most stand for a key of the configuration.
type serveFlags struct {
	configFile string
	nodeID     string
	voters     string
	secretFile string
	keystore   string
	truststore string
	data       []string
	listen     string
	advertise  string
	admin      string
	set        []string
	insecure   bool
	logLevel   string
}

// fetchSessionsOf is the part of the machine's memory, one in so many, that clients' fetch sessions may take.
const fetchSessionsOf = 16

const serveHelp = `Start a broker, and with it the controller, on this machine.

Without any flag it listens on 127.0.0.1:9092 and keeps its data in ./barnabas-data.
Settings have Apache Kafka's names. Each can come from --set KEY=VALUE, from the
environment (BARNABAS_LOG_RETENTION_MS for log.retention.ms), or from a properties
file; the first of these that has it wins. docs/config.md lists them all.

It prints one line that begins with "ready" when it serves clients. SIGTERM and
SIGINT (Ctrl-C) stop it cleanly.`

func newServe(p *terminal.Program) *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Start a broker",
		Long:  serveHelp,
		Example: `  barnabas serve
  barnabas serve --data /var/lib/barnabas --admin 127.0.0.1:9644
  barnabas serve --config server.properties --set log.retention.hours=48
  barnabas serve --node-id 1 --voters 1@a:9093,2@b:9093,3@c:9093 --secret-file secret --insecure
  barnabas serve --node-id 1 --voters 1@a:9093,2@b:9093,3@c:9093 --keystore a.pem --truststore ca.pem --insecure`,
		Args: terminal.Exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return serve(c.Context(), p, f) },
	}
	flags := c.Flags()
	flags.StringVar(&f.configFile, "config", "", "a properties `FILE`, as Kafka's server.properties")
	flags.StringVar(&f.nodeID, "node-id", "", "this node's `NUMBER` in the cluster (key node.id; default 1)")
	flags.StringVar(&f.voters, "voters", "", "form a cluster with these nodes, `ID@HOST:PORT,...`, one of them this one, the same list on each (key controller.quorum.voters; default this node alone)")
	flags.StringVar(&f.secretFile, "secret-file", "", "the `FILE` with the secret that the cluster's nodes share; this or --keystore is needed as soon as they are on several machines (key cluster.secret.file)")
	flags.StringVar(&f.keystore, "keystore", "", "let the cluster's nodes speak TLS and know each other by certificates: the `FILE` with this node's private key and certificate, in PEM (key ssl.keystore.location)")
	flags.StringVar(&f.truststore, "truststore", "", "the `FILE` with the certificate of the authority that has signed those of the nodes, in PEM (key ssl.truststore.location)")
	flags.StringArrayVar(&f.data, "data", nil, "keep data in `DIR`; repeat for several disks (key log.dirs; default ./barnabas-data)")
	flags.StringVar(&f.listen, "listen", "", "serve clients on `HOST:PORT` (key listeners; default 127.0.0.1:9092, and :9092 in a cluster of several machines)")
	flags.StringVar(&f.advertise, "advertise", "", "tell clients to connect to `HOST:PORT` (key advertised.listeners; default as --listen, and this node's host in --voters in a cluster of several machines)")
	flags.StringVar(&f.admin, "admin", "", "serve /metrics, /live, /ready and pprof on `HOST:PORT` (key admin.listener; default off)")
	flags.StringArrayVar(&f.set, "set", nil, "set `KEY=VALUE`; repeatable")
	flags.BoolVar(&f.insecure, "insecure", false, "allow --listen on addresses that other machines reach, although clients need no password yet")
	flags.StringVar(&f.logLevel, "log-level", "info", "log to standard error from this `LEVEL` on: debug, info, warn or error")
	return c
}

// settings turns the flags into keys: the special flags first, so that --set has the last word.
func (f serveFlags) settings() ([]config.Setting, error) {
	var all []config.Setting
	add := func(key, value, origin string) {
		if value != "" {
			all = append(all, config.Setting{Key: key, Value: value, Origin: origin})
		}
	}
	for _, dir := range f.data {
		if strings.Contains(dir, ",") {
			return nil, terminal.UsageError{Err: fmt.Errorf("--data %q: a comma separates directories in log.dirs, so a name cannot contain one", dir)}
		}
	}
	add("node.id", f.nodeID, "--node-id")
	add("controller.quorum.voters", f.voters, "--voters")
	add("cluster.secret.file", f.secretFile, "--secret-file")
	for _, store := range []struct{ kind, file string }{{"keystore", f.keystore}, {"truststore", f.truststore}} {
		if store.file != "" {
			add("ssl."+store.kind+".location", store.file, "--"+store.kind)
			add("ssl."+store.kind+".type", "PEM", "--"+store.kind)
		}
	}
	add("log.dirs", strings.Join(f.data, ","), "--data")
	if f.listen != "" {
		add("listeners", "PLAINTEXT://"+f.listen, "--listen")
	}
	if f.advertise != "" {
		add("advertised.listeners", "PLAINTEXT://"+f.advertise, "--advertise")
	}
	add("admin.listener", f.admin, "--admin")
	for _, pair := range f.set {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, terminal.UsageError{Err: fmt.Errorf("--set %q: write KEY=VALUE", pair)}
		}
		all = append(all, config.Setting{Key: strings.TrimSpace(key), Value: strings.TrimSpace(value), Origin: "--set"})
	}
	return all, nil
}

func (f serveFlags) load(environ []string) (*config.Set, []string, error) {
	settings, err := f.settings()
	if err != nil {
		return nil, nil, err
	}
	src := config.Sources{Env: environ, Flags: settings}
	if f.configFile != "" {
		text, err := os.ReadFile(f.configFile)
		if err != nil {
			return nil, nil, terminal.UsageError{Err: fmt.Errorf("--config: %w", err)}
		}
		src.File, src.FileName = string(text), f.configFile
	}
	src.Flags = append(f.secure(src), src.Flags...)
	src.Flags = append(f.reach(src), src.Flags...)
	set, warnings, err := config.Load(src)
	if err != nil {
		return nil, warnings, terminal.Hinted{Err: terminal.UsageError{Err: err}, Hint: f.advice(err)}
	}
	return set, warnings, nil
}

// secure lets the internal listener speak TLS where --keystore or --truststore is given and nothing says which protocols listeners
// speak.
func (f serveFlags) secure(src config.Sources) []config.Setting {
	const protocols = "listener.security.protocol.map"
	if f.keystore == "" && f.truststore == "" {
		return nil
	}
	// Only the listener's name counts here. Without voters there is nothing to keep safe yet, which would be refused.
	src.Flags = append(slices.Clone(src.Flags), config.Setting{Key: "controller.quorum.voters"})
	base, _, err := config.Load(src)
	if err != nil || base.IsSet(protocols) {
		return nil // what is wrong is said when all is loaded
	}
	key, _ := config.Lookup(config.Broker, protocols)
	return []config.Setting{{Key: protocols, Value: key.Default + "," + base.List("controller.listener.names")[0] + ":SSL", Origin: "--keystore"}}
}

// reach gives a node of a cluster that is spread over machines the addresses that go without saying: it
// serves clients on every interface, under the host by which the other nodes know it.
func (f serveFlags) reach(src config.Sources) (implied []config.Setting) {
	const listeners, advertised = "listeners", "advertised.listeners"
	src.Flags = slices.DeleteFunc(slices.Clone(src.Flags), func(s config.Setting) bool { return s.Key == listeners || s.Key == advertised })
	base, _, err := config.Load(src) // what is wrong is said when all is loaded
	if err != nil || len(base.Voters()) < 2 {
		return nil
	}
	own, ok := base.OwnVoter()
	if !ok || config.IsLoopback(own.Host) || base.IsSet(listeners) {
		return nil
	}
	host, port := "", "9092"
	if f.listen != "" {
		if host, port, err = net.SplitHostPort(f.listen); err != nil {
			return nil
		}
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		implied = append(implied, config.Setting{Key: advertised, Value: "PLAINTEXT://" + net.JoinHostPort(own.Host, port), Origin: "--voters"})
	}
	return append(implied, config.Setting{Key: listeners, Value: "PLAINTEXT://:" + port, Origin: "--voters"})
}

// advice says all that --listen on every interface, or voters on other machines, need, so that a user is not led there
// in steps.
func (f serveFlags) advice(refusal error) string {
	var needs []string
	host, _, err := net.SplitHostPort(f.listen)
	everywhere := err == nil && net.ParseIP(host) != nil && net.ParseIP(host).IsUnspecified()
	if everywhere && f.advertise == "" {
		needs = append(needs, "give --advertise HOST:PORT, by which clients reach this machine")
	}
	if strings.Contains(refusal.Error(), "cluster.secret.file = ") {
		needs = append(needs, "make a secret once, for all nodes: head -c 32 /dev/urandom | base64 > secret")
	}
	if !f.insecure && len(needs) > 0 {
		needs = append(needs, fmt.Sprintf("--insecure, since %v", node.ErrInsecure))
	}
	return strings.Join(needs, "\nand ")
}

func serve(ctx context.Context, p *terminal.Program, f serveFlags) error {
	started := time.Now()
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return terminal.UsageError{Err: fmt.Errorf("--log-level %q: use debug, info, warn or error", f.logLevel)}
	}
	logger := slog.New(slog.NewTextHandler(p.Err, &slog.HandlerOptions{Level: level}))
	set, warnings, err := f.load(os.Environ())
	for _, w := range warnings {
		logger.Warn(w)
	}
	if err != nil {
		return err
	}
	for _, w := range exposed(set) {
		logger.Warn(w)
	}
	// Where a container limits memory, the collector works harder before the kernel kills.
	memory, err := memlimit.Set(memlimit.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		logger.Debug("no memory limit was found to respect", "err", err)
		if total, err := memlimit.FromSystem(); err == nil {
			memory = int64(min(total, math.MaxInt64))
		}
	}
	n, err := node.Start(ctx, node.Options{
		Config: set, FS: disk.OS, Network: netx.TCP, Logger: logger, Now: time.Now, Random: rand.Reader,
		Version: Version(), OpenFiles: disk.OpenFileLimit(), Insecure: f.insecure,
		FetchSessionBytes: memory / fetchSessionsOf,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // asked to stop while starting
		}
		return asServeFailure(err)
	}
	if err := announce(p.Out, n, set, started); err != nil {
		return errors.Join(err, n.Close(context.WithoutCancel(ctx)))
	}
	select {
	case <-ctx.Done():
		logger.Info("stopping")
	case <-n.Failed():
		logger.Error("stopping after a failure", "err", n.Failure())
	}
	return errors.Join(asServeFailure(n.Failure()), n.Close(context.WithoutCancel(ctx)))
}

// exposed names the files that every user of this machine may read and only this node should.
func exposed(set *config.Set) (warnings []string) {
	files := []string{set.String("cluster.secret.file")}
	if t, err := set.InternalTLS(); err == nil && t != nil {
		files = append(files, t.KeystoreFile)
	}
	for _, file := range files {
		if file == "" {
			continue
		}
		if info, err := os.Stat(file); err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 {
			warnings = append(warnings, fmt.Sprintf("every user of this machine can read %s, and who has it passes for a node of the cluster: chmod 600 %s", file, file))
		}
	}
	return warnings
}

// asServeFailure gives errors their exit code and their advice. A failed disk has a code of its own:
// with a single directory there is no other place to leave a mark.
func asServeFailure(err error) error {
	var locked *disk.LockedError
	switch {
	case errors.Is(err, commitlog.ErrOffline), errors.Is(err, commitlog.ErrMarked):
		return terminal.StorageError{Err: err}
	case errors.Is(err, node.ErrInsecure):
		return terminal.UsageError{Err: err}
	case errors.As(err, &locked):
		return terminal.Hinted{Err: err, Hint: "stop that one first, or give this one a directory of its own with --data"}
	case errors.Is(err, commitlog.ErrNewerFormat):
		return terminal.Hinted{Err: err, Hint: "start the version that wrote it, or a later one"}
	}
	return err
}

// announce prints the one line that scripts wait for.
func announce(w io.Writer, n *node.Node, set *config.Set, started time.Time) error {
	var dirs []string
	for _, d := range set.LogDirs() {
		if abs, err := filepath.Abs(d); err == nil {
			d = abs
		}
		dirs = append(dirs, d)
	}
	admin := ""
	if a := n.AdminAddr(); a != nil {
		admin = ", admin http://" + a.String()
	}
	_, err := fmt.Fprintf(w, "ready on %s%s: node %d of cluster %s, data in %s, started in %d ms\n",
		strings.Join(n.Advertised(), ", "), admin, set.Int("node.id"), n.Image().ClusterID(),
		strings.Join(dirs, ", "), time.Since(started).Milliseconds())
	if err != nil {
		return fmt.Errorf("say that the broker is ready: %w", err)
	}
	return nil
}
