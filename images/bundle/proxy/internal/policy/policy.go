// Package policy reads the compiled policy: JSON that `python3 -I -m sidecars.policy --json` prints.
package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// The consumers of hosts and credentials.
const (
	Agent = "agent"
	Git   = "git"
)

// What is done about a secret in a request.
const (
	Block  = "block"
	Redact = "redact"
	Ask    = "ask"
	Pass   = "pass"
)

// A Rule allows requests to a host.
type Rule struct {
	Host     string   `json:"host"` // normalized; for a wildcard, the domain without "*."
	Wildcard bool     `json:"wildcard"`
	Port     int      `json:"port"`    // 0: 80 and 443
	For      []string `json:"for"`     // consumers
	Methods  []string `json:"methods"` // none: those of egress.methods
	Paths    []string `json:"paths"`   // prefixes, segment by segment; none: every path
	Private  bool     `json:"private"`
	OnSecret string   `json:"on_secret"`
	IdleMs   int64    `json:"idle_ms"`
	Name     string   `json:"rule"` // where it stands in the file
}

// A Tunnel is where git-gate may have a connection to whose bytes are not looked at.
type Tunnel struct {
	Host    string `json:"host"`
	Port    int    `json:"port"`
	Private bool   `json:"private"`
}

// A Credential is a header that egress sets.
type Credential struct {
	Name        string   `json:"name"`
	Host        string   `json:"host"`
	Port        int      `json:"port"` // 0: 80 and 443
	Header      string   `json:"header"`
	ValueFile   string   `json:"value_file"`
	For         []string `json:"for"`
	Methods     []string `json:"methods"`
	Paths       []string `json:"paths"`
	Plaintext   bool     `json:"plaintext"`
	Placeholder string   `json:"placeholder"`
}

// A Pattern is one kind of secret, as an RE2 expression.
type Pattern struct {
	Name  string `json:"name"`
	Regex string `json:"regex"`
}

// A Repository is one that git-gate serves.
type Repository struct {
	Upstream string `json:"upstream"` // "" where it lives in the bundle alone
	Scheme   string `json:"scheme"`
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Path     string `json:"path"`
	Push     Push   `json:"push"`
}

// A Push is what the agent may push. The lists hold names, with * for any characters.
type Push struct {
	Branches []string `json:"branches"`
	Tags     []string `json:"tags"`
	Force    []string `json:"force"` // branches; nil: every one but the upstream's default one
	Delete   bool     `json:"delete"`
}

// A ReleasedPush is one that was refused, and that the operator has let go.
type ReleasedPush struct {
	ID         string `json:"push"`
	Repository string `json:"repository"`
}

// A Request is one that the operator has let go.
type Request struct {
	ID      string `json:"request"`
	Host    string `json:"host"`
	Port    int    `json:"port"`
	Method  string `json:"method"`
	Path    string `json:"path"`
	Pattern string `json:"pattern"`
}

// An Approval is what the operator has granted for a time.
type Approval struct {
	ID      string   `json:"id"`
	Kind    string   `json:"kind"`
	Until   float64  `json:"until"` // Unix time in seconds
	Hosts   []Rule   `json:"hosts"`
	Tunnels []Tunnel `json:"tunnels"`
	Request *Request `json:"request"`

	Repos map[string]Repository `json:"repos"`
	Push  *ReleasedPush         `json:"push"`
}

// A Policy is valid as a whole; the Python side has checked it.
type Policy struct {
	Generation  string `json:"generation"`
	Source      string `json:"source"`
	Transparent bool   `json:"transparent"`
	Egress      struct {
		Methods     []string     `json:"methods"`
		Hosts       []Rule       `json:"hosts"`
		Tunnels     []Tunnel     `json:"tunnels"`
		Credentials []Credential `json:"credentials"`
		ScanLimit   int          `json:"scan_limit"` // bytes
	} `json:"egress"`
	Pipelock struct {
		Engine   string    `json:"engine"`
		Inspect  bool      `json:"inspect"` // whether the real engine opens TLS
		Patterns []Pattern `json:"patterns"`
	} `json:"pipelock"`
	Git struct {
		Directory string                `json:"directory"`
		Quota     int64                 `json:"quota"` // bytes
		Repos     map[string]Repository `json:"repos"`
	} `json:"git"`
	Limits struct {
		Header           int   `json:"header"` // bytes of a request's head
		Connections      int   `json:"connections"`
		WebsocketMessage int   `json:"websocket_message"` // bytes
		Push             int64 `json:"push"`              // bytes
		GitConnections   int   `json:"git_connections"`
		GitIdleMs        int64 `json:"git_idle_ms"`
		Audit            int64 `json:"audit"` // bytes
	} `json:"limits"`
	Approvals []Approval `json:"approvals"`
}

const (
	defaultIdleMs      = 600_000
	defaultScanLimit   = 8 << 20
	defaultHeader      = 64 << 10
	defaultConnections = 512
	defaultMessage     = 16 << 20
)

// Parse reads a compiled policy.
func Parse(text []byte) (*Policy, error) {
	p := new(Policy)
	if err := json.Unmarshal(text, p); err != nil {
		return nil, fmt.Errorf("the compiled policy can't be read: %w", err)
	}
	for i := range p.Egress.Hosts {
		p.Egress.Hosts[i].fill()
	}
	for i := range p.Approvals {
		for j := range p.Approvals[i].Hosts {
			p.Approvals[i].Hosts[j].fill()
		}
	}
	if p.Egress.ScanLimit == 0 {
		p.Egress.ScanLimit = defaultScanLimit
	}
	if p.Limits.Header == 0 {
		p.Limits.Header = defaultHeader
	}
	if p.Limits.Connections == 0 {
		p.Limits.Connections = defaultConnections
	}
	if p.Limits.WebsocketMessage == 0 {
		p.Limits.WebsocketMessage = defaultMessage
	}
	return p, nil
}

func (r *Rule) fill() {
	if r.OnSecret == "" {
		r.OnSecret = Block
	}
	if r.IdleMs == 0 {
		r.IdleMs = defaultIdleMs
	}
}

// Read parses the file that the oneshot setup has written.
func Read(path string) (*Policy, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(text)
}

// compileTimeout is how long the compiler may take.
const compileTimeout = 60 * time.Second

// Compile has the policy file read again. The error holds the faults, one a line.
func Compile(command []string) (*Policy, error) {
	cmd := exec.Command(command[0], command[1:]...)
	var faults strings.Builder
	cmd.Stderr = &faults
	timer := time.AfterFunc(compileTimeout, func() { cmd.Process.Kill() })
	defer timer.Stop()
	text, err := cmd.Output()
	if err != nil {
		if said := strings.TrimSpace(faults.String()); said != "" {
			return nil, errors.New(said)
		}
		return nil, fmt.Errorf("%s: %w", strings.Join(command, " "), err)
	}
	return Parse(text)
}
