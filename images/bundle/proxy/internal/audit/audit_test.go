package audit

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func lines(t *testing.T, path string) (list []Entry) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		var entry Entry
		if err := json.Unmarshal(scanner.Bytes(), &entry); err != nil {
			t.Fatalf("%q: %v", scanner.Text(), err)
		}
		list = append(list, entry)
	}
	return list
}

func TestItGrowsAndIsRotatedAndSaysWhatWasDropped(t *testing.T) {
	directory := t.TempDir()
	l := Open("egress", directory)
	l.Limit(files * 1000)
	for range 10 {
		l.Write(Entry{Event: "request", Reason: strings.Repeat("x", 1000)})
		l.Flush()
	}
	names, _ := filepath.Glob(filepath.Join(directory, "*"))
	if len(names) != files {
		t.Errorf("kept %v", names)
	}
	l.Write(Entry{Event: "last"})
	l.Flush()
	last := lines(t, filepath.Join(directory, "audit.jsonl"))
	if len(last) != 2 || last[0].Event != "audit_dropped" || last[1].Event != "last" || last[1].Daemon != "egress" || !strings.HasSuffix(last[1].Timestamp, "Z") {
		t.Errorf("%v", last)
	}
	again := Open("egress", directory)
	again.Write(Entry{Event: "after a restart"})
	again.Flush()
	if list := lines(t, filepath.Join(directory, "audit.jsonl")); len(list) != 3 {
		t.Errorf("%v", list)
	}
}

func TestAPlaceThatCantBeWrittenToStopsNothing(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "missing")
	l := Open("egress", directory)
	l.Write(Entry{Event: "lost"})
	l.Flush()
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	l.Write(Entry{Event: "kept"})
	l.Flush()
	if list := lines(t, filepath.Join(directory, "audit.jsonl")); len(list) != 2 || list[0].Event != "audit_lost" && list[1].Event != "audit_lost" {
		t.Errorf("%v", list)
	}
}
