// Package barnabas_test holds the rules of ARCHITECTURE.md as tests: which way packages may
// import, what every package must say of itself, how large things may grow, and what no code
// here does. It reads the source text alone, so it needs nothing but Go and no build.
package barnabas_test

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "barnabas"

// The ratchets of ARCHITECTURE.md: what is under stays under.
const (
	maxFunctionLines      = 70   // for all but longFunctionsPerMille of the functions
	longFunctionsPerMille = 30   // 97% keep maxFunctionLines
	maxFileLines          = 800  // tests too
	maxPackageLines       = 6000 // without tests
	maxPackageFiles       = 25   // without tests; api has a file per Kafka API
)

// packageRatchets are packages that are held to less than all, since what they decide has moved into packages of
// their own.
var packageRatchets = map[string]packageSize{
	"client": {lines: 5970, files: 24},
}

type packageSize struct{ lines, files int }

// levels is the picture of ARCHITECTURE.md: an internal package imports strictly lower levels.
// A folder inside one of these belongs to its family and may import within it.
var levels = map[string]int{
	"batch": 0, "wire": 0, "disk": 0, "netx": 0, "config": 0, "metrics": 0, "uuid": 0, "planted": 0,
	"commitlog": 1, "metadata": 1, "peer": 1, "certs": 1,
	"authn": 2, "authz": 2, "quota": 2, "quorum": 2, "tier": 2,
	"replica": 3, "controller": 3, "lifecycle": 3,
	"coordinator": 4, "sharelog": 4,
	"api":      5,
	"server":   6,
	"node":     7,
	"connectd": 8, "registry": 8, "console": 8, "cli": 8,
	"faketime": 8, "clustertest": 9, "sim": 10, // for tests
}

const (
	serviceLevel = 8 // from here on brokers are reached through client: no back door
	nodeLevel    = 7
)

// forTests are the packages that only tests import, and each other.
var forTests = []string{"faketime", "clustertest", "sim"}

// publicMayImport says what the packages for users may import of this module.
var publicMayImport = map[string][]string{
	"client":       {"client", "internal/batch", "internal/wire", "internal/netx", "internal/metrics"},
	"serde":        {"serde"},
	"streams":      {"streams", "client", "serde"},
	"connect":      {"connect", "client", "serde"},
	"barnabastest": {"barnabastest", "client", "internal/node", "internal/config", "internal/disk", "internal/netx", "internal/metrics"},
}

// bytesOnly knows nothing of the protocol's requests, so kmsg must not reach it.
var bytesOnly = []string{"batch", "commitlog", "replica", "disk", "netx", "wire", "peer"}

var vagueNames = []string{"util", "utils", "common", "base", "types", "helper", "helpers", "misc", "shared"}

// Spelt in two halves, so that this file does not find itself.
var (
	laterWords = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b|not imple` + `mented|unimple` + `mented`)
	localPaths = regexp.MustCompile(`(^|[^\w.])/(wo` + `rk|ro` + `ot|ho` + `me/\w+|Us` + `ers/\w+)/`)
	registries = regexp.MustCompile(`proxy\.gol` + `ang\.org|registry\.npm` + `js\.org|py` + `pi\.org|maven\.apa` + `che\.org|repo1\.ma` + `ven\.org|deb\.deb` + `ian\.org`)
)

// file is one parsed Go file of this module.
type file struct {
	path      string // slash-separated, from the root
	src       string
	set       *token.FileSet
	ast       *ast.File
	generated bool
}

func (f *file) dir() string  { return path.Dir(f.path) }
func (f *file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") || inTree(f.path, "test") }
func (f *file) lines() int   { return strings.Count(f.src, "\n") }
func (f *file) line(p token.Pos) int {
	return f.set.Position(p).Line
}

func (f *file) at(p token.Pos, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", f.path, f.line(p), fmt.Sprintf(format, args...))
}

// text is the source from a to b with the rest of b's line, so that a trailing comment counts.
func (f *file) text(a, b token.Pos) string {
	from, to := f.set.Position(a).Offset, f.set.Position(b).Offset
	if end := strings.IndexByte(f.src[to:], '\n'); end >= 0 {
		to += end
	}
	return f.src[from:to]
}

func inTree(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// internalName is "commitlog" for internal/commitlog and every folder below it, "" elsewhere.
func internalName(dir string) string {
	rest, ok := strings.CutPrefix(dir, "internal/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

func parse(name, src string) (*file, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &file{path: name, src: src, set: set, ast: tree, generated: ast.IsGenerated(tree)}, nil
}

// neverBuilt tells files that keep something for tools and are part of no build.
func neverBuilt(f *file) bool {
	for line := range strings.Lines(f.src) {
		if strings.HasPrefix(line, "package ") {
			return false
		}
		if x, err := constraint.Parse(strings.TrimSpace(line)); err == nil {
			return x.String() == "never"
		}
	}
	return false
}

// sources parses every Go file of this module: not those of modules inside it, nor testdata.
func sources(t *testing.T) []*file {
	t.Helper()
	var files []*file
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		slash := filepath.ToSlash(name)
		if d.IsDir() {
			if slash != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules" || isModule(name)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(slash, ".go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parse(slash, string(src))
		if err != nil {
			return err
		}
		if !neverBuilt(f) {
			files = append(files, f)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read the sources: %v", err)
	}
	return files
}

func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// A rule looks at one file and says what is wrong with it.
type rule func(f *file) []string

func TestTidy(t *testing.T) {
	files := sources(t)
	for name, check := range map[string]rule{
		"imports":        imports,
		"banned calls":   bannedCalls,
		"vague names":    vagueName,
		"words":          leftForLater,
		"named limits":   unnamedLimits,
		"no init":        initFunctions,
		"length of file": fileLength,
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range files {
				for _, wrong := range check(f) {
					t.Error(wrong)
				}
			}
		})
	}
	t.Run("package docs", func(t *testing.T) { report(t, packageDocs(files)) })
	t.Run("length of functions", func(t *testing.T) { report(t, functionLengths(files)) })
	t.Run("size of packages", func(t *testing.T) { report(t, packageSizes(files)) })
}

func report(t *testing.T, wrongs []string) {
	t.Helper()
	for _, wrong := range wrongs {
		t.Error(wrong)
	}
}

// imports holds the direction: down the levels, client on four packages only, kmsg not where
// bytes are moved, other people's clients only in tests. Tests may import what they like; the
// compiler keeps them from making cycles.
func imports(f *file) (wrongs []string) {
	if f.isTest() {
		return nil
	}
	for _, spec := range f.ast.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		if why := forbidden(f.dir(), imported); why != "" {
			wrongs = append(wrongs, f.at(spec.Pos(), "%s imports %s: %s", f.dir(), imported, why))
		}
	}
	return wrongs
}

func forbidden(dir, imported string) string {
	name := internalName(dir)
	switch {
	case strings.HasPrefix(imported, "github.com/twmb/franz-go/pkg/kmsg") && slices.Contains(bytesOnly, name):
		return "it moves bytes and knows no requests"
	case strings.HasPrefix(imported, "github.com/twmb/franz-go/pkg/kgo"), strings.HasPrefix(imported, "github.com/twmb/franz-go/pkg/kadm"):
		return "another client is a judge, so it belongs into tests"
	case imported == "testing" || strings.HasPrefix(imported, "testing/"):
		if dir != "barnabastest" && !slices.Contains(forTests, name) {
			return "only tests need it"
		}
	}
	ours, ok := strings.CutPrefix(imported, module+"/")
	if !ok {
		return ""
	}
	root, _, _ := strings.Cut(dir, "/")
	if allowed, public := publicMayImport[root]; public {
		if slices.ContainsFunc(allowed, func(a string) bool { return inTree(ours, a) }) {
			return ""
		}
		return root + " may import of this module only " + strings.Join(allowed, ", ")
	}
	if name == "" {
		return "" // cmd and examples may use everything
	}
	return forbiddenInside(name, ours)
}

// forbiddenInside judges an import of ours by the internal family name.
func forbiddenInside(name, ours string) string {
	level, known := levels[name]
	if !known {
		return fmt.Sprintf("internal/%s has no level: give it one here and in ARCHITECTURE.md", name)
	}
	below := internalName(ours)
	if below == "" { // public packages stand on top of the broker
		if level >= serviceLevel {
			return ""
		}
		return "a broker's package does not import what is made for its users"
	}
	other, known := levels[below]
	switch {
	case !known:
		return fmt.Sprintf("internal/%s has no level: give it one here and in ARCHITECTURE.md", below)
	case slices.Contains(forTests, below) && !slices.Contains(forTests, name):
		return "only tests need it"
	case below == name:
		return ""
	case other >= level:
		return fmt.Sprintf("level %d imports level %d, and data flows down", level, other)
	case level == serviceLevel && other > levels["commitlog"] && other != nodeLevel:
		return "services reach brokers through client: no back door"
	}
	return ""
}

// inBubble tells files whose time is fake: they open a bubble, wait in one, or stand in clustertest's.
func inBubble(f *file) bool {
	return internalName(f.dir()) == "clustertest" || slices.ContainsFunc(f.ast.Imports, func(s *ast.ImportSpec) bool {
		return s.Path.Value == `"testing/synctest"` || s.Path.Value == `"`+module+`/internal/faketime"` || s.Path.Value == `"`+module+`/internal/clustertest"`
	})
}

// bannedCalls finds what no code here does. A sleep in fake time is fine.
func bannedCalls(f *file) (wrongs []string) {
	bubble := inBubble(f)
	name := internalName(f.dir())
	ast.Inspect(f.ast, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		switch called := calledName(call); {
		case called == "time.Sleep" && f.isTest() && !bubble:
			wrongs = append(wrongs, f.at(call.Pos(), "time.Sleep in a test: wait for the condition, or use a bubble's fake time"))
		case called == "synctest.Test" && name != "faketime" && !inTree(f.dir(), "examples"):
			wrongs = append(wrongs, f.at(call.Pos(), "synctest.Test: internal/faketime opens bubbles that the race detector bears"))
		case f.isTest() && isSkip(called):
			wrongs = append(wrongs, f.at(call.Pos(), "%s: a test that is not run proves nothing", called))
		case strings.HasPrefix(called, "fmt.Print") && name != "" && name != "cli" && !f.isTest():
			wrongs = append(wrongs, f.at(call.Pos(), "%s: only cli writes to standard output", called))
		case called == "println" || called == "print":
			wrongs = append(wrongs, f.at(call.Pos(), "the built-in %s is for debugging", called))
		case isLog(called) && !strings.HasPrefix(path.Base(f.path), "example") && !inTree(f.dir(), "examples"): // an example shows a user's main
			wrongs = append(wrongs, f.at(call.Pos(), "%s: return the error, or use the logger passed in", called))
		case called == "os.Exit" && !inTree(f.dir(), "cmd") && !f.isTest():
			wrongs = append(wrongs, f.at(call.Pos(), "os.Exit outside cmd runs no deferred call and asks nobody"))
		case called == "panic" && !f.isTest() && !f.generated && !strings.Contains(f.text(call.Pos(), call.End()), "BUG"):
			wrongs = append(wrongs, f.at(call.Pos(), `a panic is for a programmer's error and says "BUG"`))
		}
		return true
	})
	return wrongs
}

func calledName(call *ast.CallExpr) string {
	switch fun := call.Fun.(type) {
	case *ast.Ident:
		return fun.Name
	case *ast.SelectorExpr:
		if on, ok := fun.X.(*ast.Ident); ok {
			return on.Name + "." + fun.Sel.Name
		}
	}
	return ""
}

func isLog(called string) bool {
	return strings.HasPrefix(called, "log.Fatal") || strings.HasPrefix(called, "log.Panic") || strings.HasPrefix(called, "log.Print")
}

func isSkip(called string) bool {
	on, method, _ := strings.Cut(called, ".")
	return slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, method) && slices.Contains([]string{"t", "b", "f", "tb", "ts", "s"}, on)
}

func vagueName(f *file) (wrongs []string) {
	if name := strings.TrimSuffix(f.ast.Name.Name, "_test"); slices.Contains(vagueNames, name) {
		wrongs = append(wrongs, f.at(f.ast.Name.Pos(), "package %s: such a name attracts everything", name))
	}
	return wrongs
}

func leftForLater(f *file) (wrongs []string) {
	n := 0
	for line := range strings.Lines(f.src) {
		n++
		if word := laterWords.FindString(line); word != "" {
			wrongs = append(wrongs, fmt.Sprintf("%s:%d: %q: finish it, or say so outside the code", f.path, n, word))
		}
	}
	return wrongs
}

// unnamedLimits finds queues whose bound is a bare number.
func unnamedLimits(f *file) (wrongs []string) {
	if f.isTest() || f.generated {
		return nil
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || calledName(call) != "make" || len(call.Args) != 2 {
			return true
		}
		if _, isChan := call.Args[0].(*ast.ChanType); !isChan {
			return true
		}
		if bound, ok := call.Args[1].(*ast.BasicLit); ok && bound.Value != "0" && bound.Value != "1" {
			wrongs = append(wrongs, f.at(call.Pos(), "a queue of %s: give the limit a name that says what happens there", bound.Value))
		}
		return true
	})
	return wrongs
}

func initFunctions(f *file) (wrongs []string) {
	if f.generated {
		return nil
	}
	for _, d := range f.ast.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			wrongs = append(wrongs, f.at(fn.Pos(), "init: what happens at start happens where it is called"))
		}
	}
	return wrongs
}

func fileLength(f *file) (wrongs []string) {
	if n := f.lines(); n > maxFileLines && !f.generated {
		wrongs = append(wrongs, fmt.Sprintf("%s: %d lines, at most %d", f.path, n, maxFileLines))
	}
	return wrongs
}

// packageDocs wants one comment per package that begins with its name. Test packages and mains
// in examples count too.
func packageDocs(files []*file) (wrongs []string) {
	documented := map[string]bool{}
	for _, f := range files {
		if strings.HasSuffix(f.path, "_test.go") {
			continue
		}
		if _, seen := documented[f.dir()]; !seen {
			documented[f.dir()] = false
		}
		want := "Package " + f.ast.Name.Name + " "
		if f.ast.Name.Name == "main" {
			want = "Command "
		}
		if f.ast.Doc != nil && strings.HasPrefix(f.ast.Doc.Text(), want) {
			documented[f.dir()] = true
		}
	}
	for dir, ok := range documented {
		if !ok {
			wrongs = append(wrongs, dir+`: no package comment that begins with "Package NAME " ("Command " for a main) and says what it decides, who may call it and what it refuses to know`)
		}
	}
	slices.Sort(wrongs)
	return wrongs
}

func functionLengths(files []*file) []string {
	total := 0
	var long []string
	for _, f := range files {
		if f.generated {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			total++
			if n := f.line(fn.End()) - f.line(fn.Pos()) + 1; n > maxFunctionLines {
				long = append(long, f.at(fn.Pos(), "%s has %d lines, more than %d", fn.Name.Name, n, maxFunctionLines))
			}
		}
	}
	if len(long)*1000 <= total*longFunctionsPerMille {
		return nil
	}
	return append(long, fmt.Sprintf("%d of %d functions are longer than %d lines; at most %d in a thousand may be", len(long), total, maxFunctionLines, longFunctionsPerMille))
}

func packageSizes(files []*file) (wrongs []string) {
	lines, count := map[string]int{}, map[string]int{}
	for _, f := range files {
		if !strings.HasSuffix(f.path, "_test.go") && !f.generated {
			lines[f.dir()] += f.lines()
			count[f.dir()]++
		}
	}
	for dir := range lines {
		most, own := packageRatchets[dir]
		if !own {
			most = packageSize{maxPackageLines, maxPackageFiles}
		}
		if lines[dir] > most.lines {
			wrongs = append(wrongs, fmt.Sprintf("%s: %d lines without tests, at most %d", dir, lines[dir], most.lines))
		}
		if count[dir] > most.files && dir != "internal/api" {
			wrongs = append(wrongs, fmt.Sprintf("%s: %d files without tests, at most %d", dir, count[dir], most.files))
		}
	}
	slices.Sort(wrongs)
	return wrongs
}

// TestNoTracesOfAMachine reads every text of the repository, not Go alone.
func TestNoTracesOfAMachine(t *testing.T) {
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" || d.Name() == "node_modules" || strings.HasSuffix(d.Name(), "-data") {
				return filepath.SkipDir
			}
			return nil
		}
		if d.Name() == ".git" || !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil || strings.ContainsRune(string(text[:min(len(text), 8000)]), 0) {
			return err // a binary file has no lines
		}
		report(t, traces(filepath.ToSlash(name), string(text)))
		return nil
	})
	if err != nil {
		t.Fatalf("read the repository: %v", err)
	}
}

func traces(name, text string) (wrongs []string) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		if found := localPaths.FindString(line); found != "" {
			wrongs = append(wrongs, fmt.Sprintf("%s:%d: %q is a path of one machine", name, n, found))
		}
		if found := registries.FindString(line); found != "" {
			wrongs = append(wrongs, fmt.Sprintf("%s:%d: %q is the host of a package registry; tools know their own", name, n, found))
		}
	}
	return wrongs
}

// TestRulesFire shows each rule a file that breaks it, and one that is as near as can be and does not.
func TestRulesFire(t *testing.T) {
	for _, c := range []struct {
		rule      string
		check     rule
		path, src string
		want      int
	}{
		{"up the levels", imports, "internal/disk/a.go", `package disk; import _ "barnabas/internal/commitlog"`, 1},
		{"same level", imports, "internal/wire/a.go", `package wire; import _ "barnabas/internal/netx"`, 1},
		{"down", imports, "internal/commitlog/a.go", `package commitlog; import _ "barnabas/internal/disk"`, 0},
		{"within a family", imports, "internal/coordinator/a.go", `package coordinator; import _ "barnabas/internal/coordinator/group"`, 0},
		{"no level", imports, "internal/novel/a.go", `package novel; import _ "barnabas/internal/disk"`, 1},
		{"client and disk", imports, "client/a.go", `package client; import _ "barnabas/internal/disk"`, 1},
		{"client and batch", imports, "client/admin/a.go", `package admin; import _ "barnabas/internal/batch"`, 0},
		{"streams and batch", imports, "streams/a.go", `package streams; import _ "barnabas/internal/batch"`, 1},
		{"broker and client", imports, "internal/replica/a.go", `package replica; import _ "barnabas/client"`, 1},
		{"cli and client", imports, "internal/cli/a.go", `package cli; import _ "barnabas/client"`, 0},
		{"cli and replica", imports, "internal/cli/a.go", `package cli; import _ "barnabas/internal/replica"`, 1},
		{"kmsg in replica", imports, "internal/replica/a.go", `package replica; import _ "github.com/twmb/franz-go/pkg/kmsg"`, 1},
		{"kmsg in its test", imports, "internal/replica/a_test.go", `package replica; import _ "github.com/twmb/franz-go/pkg/kmsg"`, 0},
		{"kmsg in api", imports, "internal/api/a.go", `package api; import _ "github.com/twmb/franz-go/pkg/kmsg"`, 0},
		{"kgo", imports, "client/a.go", `package client; import _ "github.com/twmb/franz-go/pkg/kgo"`, 1},
		{"testing", imports, "internal/disk/a.go", `package disk; import _ "testing"`, 1},
		{"sleep", bannedCalls, "internal/disk/a_test.go", `package disk; func a() { time.Sleep(1) }`, 1},
		{"sleep in a bubble", bannedCalls, "internal/disk/a_test.go", `package disk; import _ "testing/synctest"; func a() { time.Sleep(1) }`, 0},
		{"a bubble of one's own", bannedCalls, "internal/disk/a_test.go", `package disk; func a() { synctest.Test(t, b) }`, 1},
		{"a user's bubble", bannedCalls, "examples/a/a_test.go", `package a; func a() { synctest.Test(t, b) }`, 0},
		{"skip", bannedCalls, "internal/disk/a_test.go", `package disk; func a() { t.Skipf("no") }`, 1},
		{"print", bannedCalls, "internal/disk/a.go", `package disk; func a() { fmt.Println("x") }`, 1},
		{"print in cli", bannedCalls, "internal/cli/a.go", `package cli; func a() { fmt.Println("x") }`, 0},
		{"log", bannedCalls, "client/a.go", `package client; func a() { log.Fatalf("x") }`, 1},
		{"log in an example", bannedCalls, "client/example_test.go", `package client; func a() { log.Fatalf("x") }`, 0},
		{"exit", bannedCalls, "internal/cli/a.go", `package cli; func a() { os.Exit(1) }`, 1},
		{"exit in cmd", bannedCalls, "cmd/barnabas/a.go", `package main; func a() { os.Exit(1) }`, 0},
		{"panic", bannedCalls, "client/a.go", `package client; func a() { panic("no such key") }`, 1},
		{"panic for a bug", bannedCalls, "client/a.go", `package client; func a() { panic("BUG: no such key") }`, 0},
		{"vague", vagueName, "internal/util/a.go", `package util`, 1},
		{"later", leftForLater, "client/a.go", "package client // TO" + "DO: more", 1},
		{"not yet", leftForLater, "client/a.go", "package client // not imple" + "mented", 1},
		{"queue", unnamedLimits, "client/a.go", `package client; var a = make(chan int, 64)`, 1},
		{"named queue", unnamedLimits, "client/a.go", `package client; var a = make(chan int, maxQueued)`, 0},
		{"init", initFunctions, "client/a.go", `package client; func init() {}`, 1},
		{"long file", fileLength, "client/a.go", "package client" + strings.Repeat("\n", maxFileLines+1), 1},
		{"no doc", together(packageDocs), "client/a.go", "// something\npackage client", 1},
		{"doc", together(packageDocs), "client/a.go", "// Package client connects.\npackage client", 0},
		{"long function", together(functionLengths), "client/a.go", "package client; func a() {" + strings.Repeat("\n", maxFunctionLines) + "}", 2},
		{"large package", together(packageSizes), "client/a.go", "package client" + strings.Repeat("\n", maxPackageLines+1), 1},
	} {
		f, err := parse(c.path, c.src)
		if err != nil {
			t.Fatalf("%s: %v", c.rule, err)
		}
		if got := c.check(f); len(got) != c.want {
			t.Errorf("%s: %d findings, want %d: %q", c.rule, len(got), c.want, got)
		}
	}
	for text, want := range map[string]int{
		"cd /wo" + "rk/main": 1, "in /ro" + "ot/x": 1, "a framewo" + "rk/part": 0, "https://proxy.gol" + "ang.org": 1, "npm install": 0,
	} {
		if got := traces("README.md", text); len(got) != want {
			t.Errorf("traces in %q: %q, want %d", text, got, want)
		}
	}
}

func together(check func([]*file) []string) rule {
	return func(f *file) []string { return check([]*file{f}) }
}
