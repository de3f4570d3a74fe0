package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/config.md anew")

const docsIntro = `# Configuration

<!-- Written by "go test ./internal/config -run TestDocs -update" from the table in internal/config. -->

One vocabulary, Apache Kafka's: a server.properties that a Kafka 4.3.1 KRaft broker accepts works here unchanged. This page lists
every broker and topic key of Kafka 4.3.1, and our own.

- **Where values come from**, strongest first: flags and ` + "`--set key=value`" + `, environment, file, default. Above them all stand the settings
  that AlterConfigs stores in the cluster: those of one broker over those of all brokers; and those of a topic, over everything.
- **Environment**: ` + "`BARNABAS_`" + ` and the key in capitals with underscores: ` + "`BARNABAS_LOG_RETENTION_MS`" + ` sets ` + "`log.retention.ms`" + `.
  ` + "`BARNABAS_BROKERS`" + ` is no key: client commands read it.
- **File**: Java's properties format, in UTF-8; ` + "`${…}`" + ` is not filled in. A key set twice has its last value.
- **A wrong value** is refused before anything starts, with key, value, what is allowed, and where it was found. An unknown key in the
  file is named in a warning, as in Kafka; an unknown flag or variable is refused.
- **Here**: *effective* means that the key does what is written beside it. *Fixed*: it has one value here. *Meaningless*: it is accepted, stored and
  shown, and changes nothing; if it is set, a warning says so. Each reason is given below the table.
- **Changes**: *at start* only; *running*, by AlterConfigs for one broker or for all; *per broker*, by AlterConfigs for one broker at a time.
  Every topic key changes while running.
- ` + "`listener.name.controller.ssl.…`" + ` (the internal listener's name in small letters) stands over ` + "`ssl.…`" + ` for that listener. Settings of ` + "`ssl.`" + ` count
  for the internal listener alone, where ` + "`listener.security.protocol.map`" + ` says SSL for it on a node of a cluster; [cli.md](cli.md) shows how.
- Values of type password are never shown.

Defaults that differ from Kafka's are marked with † and explained in [deviations.md](deviations.md).
`

func TestDocsAreTheTable(t *testing.T) {
	const path = "../../docs/config.md"
	want := writeDocs()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/config.md is stale: go test ./internal/config -run TestDocs -update")
	}
}

func writeDocs() string {
	var b strings.Builder
	b.WriteString(docsIntro)
	count := map[Status]int{}
	for _, scope := range []Scope{Topics, Broker} {
		for k := range Keys(scope) {
			count[k.Status]++
		}
	}
	fmt.Fprintf(&b, "\n%d keys are effective, %d fixed, %d meaningless.\n\n## Our own\n\n", count[Effective], count[Fixed], count[Meaningless])
	b.WriteString("These are not Kafka's; Kafka would warn of them and go on.\n\n")
	writeTable(&b, func(k *Key) bool { return k.Own }, true)
	for _, a := range areas {
		fmt.Fprintf(&b, "\n## %s\n\n", a.name)
		writeTable(&b, func(k *Key) bool { return k.Area == a.name && !k.Own }, a.scope == Topics)
	}
	return b.String()
}

// writeTable writes the keys that are admitted, and below them the reasons that they give.
func writeTable(b *strings.Builder, admit func(*Key) bool, topics bool) {
	b.WriteString("| Key | Type | Default | Takes | Changes | Here | Meaning |\n|---|---|---|---|---|---|---|\n")
	var reasons []string
	for _, scope := range []Scope{Topics, Broker} {
		for k := range Keys(scope) {
			if !admit(k) {
				continue
			}
			here := k.Status.String()
			if k.Reason != "" {
				at := 0
				for ; at < len(reasons) && reasons[at] != k.Reason; at++ {
				}
				if at == len(reasons) {
					reasons = append(reasons, k.Reason)
				}
				here = fmt.Sprintf("%s (%d)", here, at+1)
			}
			fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s |\n", docName(k), k.Type, docDefault(k), cell(k.Allowed), docUpdate(k), here, cell(k.Doc))
		}
	}
	if len(reasons) > 0 {
		b.WriteString("\n")
	}
	for i, r := range reasons {
		fmt.Fprintf(b, "%d. %s.\n", i+1, r)
	}
}

func docName(k *Key) string {
	name := "`" + k.Name + "`"
	if b, ok := topicSynonyms[k.Name]; ok && k.Scope == Topics && b != k.Name {
		name += " (broker: `" + b + "`)"
	}
	if k.Own && k.Scope == Topics {
		name += ", of a topic"
	}
	return name
}

func docDefault(k *Key) string {
	s := "`" + k.Default + "`"
	switch {
	case !k.HasDefault:
		s = "none"
	case k.Default == "":
		s = "empty"
	case k.Default == "9223372036854775807" || k.Default == "2147483647" || k.Default == "1.7976931348623157E308":
		s = "no limit (" + s + ")"
	}
	if k.Deviation != "" {
		s += " †"
	}
	return cell(s)
}

func docUpdate(k *Key) string {
	if k.Scope == Topics {
		return "running"
	}
	return [...]string{"at start", "per broker", "running"}[k.Update]
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

// TestDeviationsAreDocumented demands a row in docs/deviations.md for every default that is
// not Kafka's, with both values.
func TestDeviationsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/deviations.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range deviations {
		row := fmt.Sprintf("| `%s` | `%s` | `%s` | %s |", name, table.broker[name].Default, d.kafka, d.why)
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/deviations.md lacks the row\n%s", row)
		}
	}
	for name := range updateHere {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/deviations.md does not name %s", name)
		}
	}
}
