package examples_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"barnabas/barnabastest"
)

// A program in a module of its own is built and run as README.md shows, line by line.
func TestAProgramOfYourOwn(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## A program of your own\n")
	if !found {
		t.Fatal("README.md has no such section")
	}
	commands, rest := block(t, section, "")
	program, _ := block(t, rest, "go")

	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	broker := barnabastest.Start(t, barnabastest.OverTCP())
	const address = "127.0.0.1:9092"
	if !strings.Contains(program, address) || !strings.Contains(commands, "=../barnabas\n") {
		t.Fatalf("README.md names another broker than %s, or another place for the clone than ../barnabas:\n%s%s", address, commands, program)
	}
	commands = strings.ReplaceAll(commands, "=../barnabas\n", "="+root+"\n")
	program = strings.ReplaceAll(program, address, broker.Addr())

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	script := "set -e\n" + commands + "mv ../main.go .\ngo mod tidy\ngo run .\n"
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "written at offset 0\n") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// block gives the first fenced block of a language, and what follows on it.
func block(t *testing.T, text, language string) (inside, after string) {
	t.Helper()
	_, text, found := strings.Cut(text, "\n```"+language+"\n")
	if !found {
		t.Fatalf("README.md has no block of %q there", language)
	}
	inside, after, found = strings.Cut(text, "```\n")
	if !found {
		t.Fatal("README.md does not end a block")
	}
	return inside, after
}
