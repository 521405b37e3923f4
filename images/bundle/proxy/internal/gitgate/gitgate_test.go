package gitgate

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRequests(t *testing.T) {
	for packet, want := range map[string]request{
		"0032git-upload-pack /demo\x00host=sidecars\x00":                {"upload-pack", "/demo", ""},
		"0033git-receive-pack /demo\x00host=sidecars\x00":               {"receive-pack", "/demo", ""},
		"0033git-upload-pack /demo\x00host=x\x00\x00version=2\x00":      {"upload-pack", "/demo", "version=2"},
		"0033git-upload-pack /demo\x00host=x\x00\x00version=2;x":        {"upload-pack", "/demo", ""},
		"0036git-upload-archive /demo.git/\x00host=127.0.0.1:9\x00":     {"upload-archive", "/demo.git/", ""},
		"0020git-upload-pack /no/host at all":                           {"upload-pack", "/no/host at ", ""},
		"0019git-upload-pack /demo\n":                                   {"upload-pack", "/demo", ""},
		"0038git-upload-pack /demo\x00version=1\x00host=sidecars\x00..": {"upload-pack", "/demo", "version=1"},
	} {
		got, err := readRequest(bufio.NewReader(strings.NewReader(packet + strings.Repeat("\x00", 40))))
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", packet, got, err)
		}
	}
	for _, packet := range []string{"0000", "0004", "zzzz", "fffffgit-", "000agit-up", "0009hello", "0010upload-pack /"} {
		if got, err := readRequest(bufio.NewReader(strings.NewReader(packet))); err == nil {
			t.Errorf("%q was taken for %+v", packet, got)
		}
	}
}

func TestRepositoryNames(t *testing.T) {
	for path, want := range map[string]string{"/demo": "demo", "/demo.git": "demo", "/demo/": "demo", "/demo.git/": "demo", "/a.b-c_d": "a.b-c_d"} {
		if got, ok := (request{path: path}).name(); !ok || got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	for _, path := range []string{"demo", "/", "//demo", "/../demo", "/demo/../x", "/a..b", "/.hidden", "/-x", "/demo//", "/demo\n", "/d/x", "/~/demo"} {
		if got, ok := (request{path: path}).name(); ok {
			t.Errorf("%q was taken for %q", path, got)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, each := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "main", true}, {"*", "", true}, {"main", "main", true}, {"main", "main2", false}, {"agent/*", "agent/x/y", true},
		{"agent/*", "agent", false}, {"*-fix", "a-fix", true}, {"*-fix", "a-fix2", false}, {"a*b*c", "axxbyyc", true}, {"a*b*c", "abc", true},
		{"a*b*c", "acb", false}, {"a*a", "a", false}, {"*x*", "y", false}, {"*x*", "axb", true}, {"a*bc*c", "abc", false},
	} {
		if matches(each.pattern, each.name) != each.want {
			t.Errorf("%s, %s: not %v", each.pattern, each.name, each.want)
		}
	}
}

// An approval names one push: another commit, another base, another repository or a branch more is another one.
func TestAPushHasAnIDOfItsOwn(t *testing.T) {
	one := update{"0", "1", "refs/heads/a"}
	two := update{"0", "2", "refs/heads/b"}
	id := pushID("demo", []update{one, two})
	if id != pushID("demo", []update{two, one}) {
		t.Error("the order of refs counts")
	}
	for _, other := range []string{
		pushID("other", []update{one, two}), pushID("demo", []update{one}),
		pushID("demo", []update{{"3", "1", "refs/heads/a"}, two}), pushID("demo", []update{{"0", "3", "refs/heads/a"}, two}),
		pushID("demo", []update{{"0", "1", "refs/heads/c"}, two}),
	} {
		if other == id || len(other) != 16 {
			t.Errorf("%s, %s", other, id)
		}
	}
}

func TestWordsOfAGit(t *testing.T) {
	said := "remote: Enumerating objects: 5, done.\nremote: Counting objects:  20% (1/5)\rReceiving objects: 100% (5/5)\r\n" +
		"Resolving deltas: 100% (1/1), done.\nremote: the ticket is missing\n\nhint: try this\nfatal: no\n"
	if got := words(said); got != "remote: the ticket is missing; fatal: no" {
		t.Error(got)
	}
	if got := rejections("To x\n \tabc:refs/heads/a\tdone\n!\tdef:refs/heads/b\t[rejected] (stale info)\nDone\n"); got != "refs/heads/b [rejected] (stale info)" {
		t.Error(got)
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB", 1536: "1.5 KiB", 256 << 20: "256 MiB", 1 << 30: "1 GiB", 5 << 40: "5 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

func TestPathsInATree(t *testing.T) {
	id := strings.Repeat("\x00 ", 10)
	tree := "100644 a b\x00" + id + "40000 dir\x00" + id
	for directory, want := range map[string]string{"": "a b\ndir\n", "x/y": "x/y/a b\nx/y/dir\n"} {
		if paths, err := pathsIn(directory, strings.NewReader(tree), 20); err != nil || string(paths) != want {
			t.Errorf("%q, %v", paths, err)
		}
	}
	for _, raw := range []string{"100644", "100644 a", "100644 a\x00short"} {
		if paths, err := pathsIn("", strings.NewReader(raw), 20); err == nil {
			t.Errorf("%q: %q", raw, paths)
		}
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What a git that was killed leaves behind is removed once nothing is writing, and nothing else is.
func TestLeftoversAreSwept(t *testing.T) {
	s := newStore(t.TempDir(), func() int64 { return 1 << 30 })
	r := s.repository("demo")
	stay := []string{"HEAD", "objects/pack/pack-1.pack", "objects/ab/cdef", "refs/heads/tmp_pack_x", "packed-refs"}
	leave := []string{
		"objects/pack/tmp_pack_a", "objects/pack/tmp_idx_b", "objects/ab/tmp_obj_c", "objects/tmp_objdir-incoming-d/pack/pack-2.pack",
		"refs/heads/main.lock", "packed-refs.lock", "HEAD.lock", "objects/pack/.tmp-1-pack-3.pack",
	}
	for _, name := range append(stay, leave...) {
		write(t, filepath.Join(r.directory, name))
	}
	first, second := r.writing(), r.writing()
	first()
	for _, name := range leave {
		if _, err := os.Stat(filepath.Join(r.directory, name)); err != nil {
			t.Errorf("%s was taken from under a git at work", name)
		}
	}
	second()
	for _, name := range leave {
		if _, err := os.Stat(filepath.Join(r.directory, name)); err == nil {
			t.Errorf("%s was left", name)
		}
	}
	for _, name := range stay {
		if _, err := os.Stat(filepath.Join(r.directory, name)); err != nil {
			t.Errorf("%s is gone", name)
		}
	}
}

func TestTheQuotaIsTheStores(t *testing.T) {
	quota := int64(4 << 20)
	s := newStore(t.TempDir(), func() int64 { return quota })
	if left, err := s.left(); err != nil || left > quota || left < quota-64<<10 {
		t.Error(left, err)
	}
	for i := range 512 {
		write(t, filepath.Join(s.directory, "a.git", "objects", string(rune('a'+i%26)), strings.Repeat("x", i+1)[:i%200+1]+string(rune('a'+i/200))))
	}
	quota = 2 << 20
	if left, err := s.left(); err == nil || !isFull(err) || !strings.Contains(err.Error(), "of 2 MiB are taken (git.quota)") {
		t.Error(left, err)
	}
	exceeded := make(chan error)
	stop := s.guard(func(err error) { exceeded <- err })
	defer stop()
	quota = 1 << 20
	if err := <-exceeded; !isFull(err) {
		t.Error(err)
	}
}

func TestRefsAreCompared(t *testing.T) {
	listed := refsOf([]byte("1\trefs/heads/a\n2\trefs/tags/t\n3\trefs/tags/t^{}\n"))
	if !same(listed, map[string]string{"refs/heads/a": "1", "refs/tags/t": "2"}) || same(listed, map[string]string{"refs/heads/a": "1"}) ||
		same(listed, map[string]string{"refs/heads/a": "1", "refs/tags/t": "3"}) {
		t.Error(listed)
	}
	if hashOf(listed) != "sha1" || hashOf(map[string]string{"x": strings.Repeat("a", 64)}) != "sha256" {
		t.Error("the hash function")
	}
	if got := branchOf([]byte("ref: refs/heads/trunk\tHEAD\n1\tHEAD\n")); got != "refs/heads/trunk" {
		t.Error(got)
	}
}

// A group that is ended is gone, grandchildren and all, also where it does not listen to TERM.
func TestAGroupEndsAsAWhole(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	directory := t.TempDir()
	script := "trap '' TERM; (trap '' TERM; echo $BASHPID > pid; while :; do sleep 0.01; done) & wait"
	cmd := command(ctx, 1<<20, environment([2]string{"alias.deaf", "!cd " + directory + "; exec bash -c \"" + strings.ReplaceAll(script, "$", `\$`) + "\""}), "deaf")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	var pid string
	for pid == "" && time.Now().Before(deadline) {
		content, _ := os.ReadFile(filepath.Join(directory, "pid"))
		pid = strings.TrimSpace(string(content))
		time.Sleep(10 * time.Millisecond)
	}
	cancel(errKilled)
	cmd.Wait()
	for time.Now().Before(deadline) {
		status, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(status), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the grandchild lives on")
}

// A git that runs into the limit of a file's size says so, and is not killed by a signal without a word.
func TestTheLimitOfAFileHasWords(t *testing.T) {
	if _, err := exec.LookPath("prlimit"); err != nil {
		t.Skip(err)
	}
	ignoreFileLimit()
	ctx := context.Background()
	repository := filepath.Join(t.TempDir(), "r.git")
	if _, err := output(ctx, command(ctx, 1<<20, environment(), "init", "--quiet", "--bare", repository), 0); err != nil {
		t.Fatal(err)
	}
	cmd := command(ctx, 64<<10, environment(), "-C", repository, "hash-object", "-w", "--stdin")
	cmd.Stdin = strings.NewReader(randomText(1 << 20))
	_, err := output(ctx, cmd, 0)
	if !isFull(err) {
		t.Error(err)
	}
}

func randomText(size int) string {
	var b strings.Builder
	state := uint64(1)
	for b.Len() < size {
		state = state*6364136223846793005 + 1442695040888963407
		b.WriteByte(byte(state >> 56))
	}
	return b.String()
}

func TestPointers(t *testing.T) {
	id := strings.Repeat("0a", 32)
	for content, want := range map[string]lfsObject{
		"version https://git-lfs.github.com/spec/v1\noid sha256:" + id + "\nsize 12\n":                              {ID: id, Size: 12},
		"version https://hawser.github.com/spec/v1\nx-ext 1\noid sha256:" + id + "\nsize 0\n":                       {ID: id},
		"version https://git-lfs.github.com/spec/v1\next-0-a sha256:" + id + "\noid sha256:" + id + "\nsize 3\nx 1": {ID: id, Size: 3},
	} {
		if got, ok := parsePointer([]byte(content)); !ok || got.ID != want.ID || got.Size != want.Size {
			t.Errorf("%q: %+v, %v", content, got, ok)
		}
	}
	for _, content := range []string{
		"", "oid sha256:" + id + "\n", "version https://git-lfs.github.com/spec/v1\n", "version https://git-lfs.github.com/spec/v1\noid sha256:../x\n",
		"version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.ToUpper(id) + "\n",
	} {
		if got, ok := parsePointer([]byte(content)); ok {
			t.Errorf("%q was taken for %+v", content, got)
		}
	}
}

// Uploads that run at the same time are counted before they have written anything.
func TestReserving(t *testing.T) {
	s := newStore(t.TempDir(), func() int64 { return 4 * reserve })
	release, err := s.reserve(2 * reserve)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.reserve(2 * reserve); !isFull(err) {
		t.Errorf("twice as much as there is: %v", err)
	}
	release()
	if _, err := s.reserve(2 * reserve); err != nil {
		t.Error(err)
	}
}
