package judge

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"bottle/proxy/internal/policy"
)

// A Refusal is why a request may not leave, in words for whoever sent it.
type Refusal struct {
	Status int
	Reason string
}

func (r *Refusal) Error() string { return r.Reason }

// Refuse makes a Refusal.
func Refuse(status int, format string, arguments ...any) *Refusal {
	return &Refusal{status, fmt.Sprintf(format, arguments...)}
}

// A Verdict is what a request may do.
type Verdict struct {
	Rule policy.Rule
	// Credentials are those that egress sets, in the order of the policy.
	Credentials []policy.Credential
}

// A Judge judges by one policy. It is immutable.
type Judge struct {
	policy *policy.Policy
	now    func() float64 // Unix time in seconds
}

// New returns a judge by that policy.
func New(p *policy.Policy) *Judge {
	return &Judge{p, func() float64 { return float64(time.Now().UnixMilli()) / 1000 }}
}

// Policy returns what is judged by.
func (j *Judge) Policy() *policy.Policy { return j.policy }

// granted returns the approvals that have not ended.
func (j *Judge) granted() []policy.Approval {
	now := j.now()
	return slices.DeleteFunc(slices.Clone(j.policy.Approvals), func(a policy.Approval) bool { return a.Until <= now })
}

// rules are those that allow the consumer that host: of the rules with the most specific name, those that fit the port.
// The list in the policy begins with the most specific names.
func rules(list []policy.Rule, consumer string, host Host) (found []policy.Rule) {
	name, wildcard := "", false
	for _, r := range list {
		if !slices.Contains(r.For, consumer) || !nameMatches(r, host.Name) {
			continue
		}
		if name == "" {
			name, wildcard = r.Host, r.Wildcard
		}
		if r.Host == name && r.Wildcard == wildcard && portMatches(r.Port, host.Port) {
			found = append(found, r)
		}
	}
	return found
}

// allowed are the rules of the policy, and those of the approvals after them.
func (j *Judge) allowed(consumer string, host Host) []policy.Rule {
	found := rules(j.policy.Egress.Hosts, consumer, host)
	for _, approval := range j.granted() {
		found = append(found, rules(approval.Hosts, consumer, host)...)
	}
	return found
}

// Connect judges a CONNECT: whether some request to that host may follow.
func (j *Judge) Connect(consumer string, host Host) *Refusal {
	if len(j.allowed(consumer, host)) == 0 {
		return j.notAllowed(consumer, host)
	}
	return nil
}

// Tunnel returns the tunnel to that host whose bytes are not looked at, git-gate's to an ssh or git:// upstream.
func (j *Judge) Tunnel(consumer string, host Host) (policy.Tunnel, bool) {
	if consumer != policy.Git {
		return policy.Tunnel{}, false
	}
	all := slices.Clone(j.policy.Egress.Tunnels)
	for _, approval := range j.granted() {
		all = append(all, approval.Tunnels...)
	}
	i := slices.IndexFunc(all, func(t policy.Tunnel) bool { return t.Host == host.Name && t.Port == host.Port })
	if i < 0 {
		return policy.Tunnel{}, false
	}
	return all[i], true
}

// Names reports whether a request to that name may be allowed, by whatever a client would ask without a port: what the
// resolver asks.
func (j *Judge) Names(consumer, name string) bool {
	return len(j.allowed(consumer, Host{name, 443})) > 0 || len(j.allowed(consumer, Host{name, 80})) > 0
}

// Request judges a request by its consumer, host, scheme, method and target (in origin form, as written).
func (j *Judge) Request(consumer string, host Host, method, target string) (*Verdict, *Refusal) {
	switch method {
	case "TRACE":
		return nil, Refuse(405, "TRACE is refused: it would show the agent what has been injected")
	case "CONNECT":
		return nil, Refuse(405, "CONNECT inside of a tunnel is refused")
	}
	raw, query, _ := strings.Cut(target, "?")
	verdict := new(Verdict)
	candidates := j.allowed(consumer, host)
	if len(candidates) == 0 {
		return nil, j.notAllowed(consumer, host)
	}
	found := slices.IndexFunc(candidates, func(r policy.Rule) bool {
		return j.allowsMethod(r.Methods, method) && allowsPath(r.Paths, raw)
	})
	if found < 0 {
		return nil, Refuse(403, "%s %s is not among the methods and paths that egress.hosts allows for %s", method, Cut(raw), host)
	}
	verdict.Rule = candidates[found]
	if consumer == policy.Agent && j.pushes(host, method, raw, query) {
		return nil, Refuse(403, "a push to %s goes through git-gate (git://sidecars/NAME), which scans it", host)
	}
	for _, c := range j.policy.Egress.Credentials {
		if c.Host == host.Name && portMatches(c.Port, host.Port) && slices.Contains(c.For, consumer) &&
			j.allowsMethod(c.Methods, method) && allowsPath(c.Paths, raw) {
			verdict.Credentials = append(verdict.Credentials, c)
		}
	}
	return verdict, nil
}

// HasCredential reports whether a credential goes to that name, by whatever port: its answers may hold one.
func (j *Judge) HasCredential(name string) bool {
	return slices.ContainsFunc(j.policy.Egress.Credentials, func(c policy.Credential) bool { return c.Host == name })
}

// Released reports whether the operator has let the request go, which was asked about under that id.
func (j *Judge) Released(asked policy.Request) bool {
	return slices.ContainsFunc(j.granted(), func(a policy.Approval) bool { return a.Request != nil && *a.Request == asked })
}

func (j *Judge) notAllowed(consumer string, host Host) *Refusal {
	if consumer == policy.Agent && j.isUpstream(host) {
		return Refuse(403, "%s is a repository's upstream, and is reached by git-gate alone (git://sidecars/NAME)", host)
	}
	return Refuse(403, "%s is not allowed by egress.allow", host)
}

func (j *Judge) isUpstream(host Host) bool {
	for _, r := range j.policy.Git.Repos {
		if r.Scheme != "" && r.Host == host.Name {
			return true
		}
	}
	return false
}

// pushes reports whether a request is part of a push to a host that a repository comes from: by the smart protocol, by
// LFS' locks, or by what WebDAV or anyone else would write with.
func (j *Judge) pushes(host Host, method, raw, query string) bool {
	if !j.isUpstream(host) {
		return false
	}
	decoded, err := url.PathUnescape(raw)
	if err != nil {
		return true
	}
	lower := strings.TrimRight(strings.ToLower(path.Clean("/"+strings.ReplaceAll(decoded, "\\", "/"))), "/")
	if strings.HasSuffix(lower, "/git-receive-pack") || strings.Contains(lower+"/", "/info/lfs/locks/") {
		return true
	}
	if strings.HasSuffix(lower, "/info/refs") {
		values, err := url.ParseQuery(query)
		if err != nil {
			return true
		}
		for _, services := range values {
			if slices.ContainsFunc(services, func(s string) bool { return strings.EqualFold(s, "git-receive-pack") }) {
				return true
			}
		}
	}
	if slices.Contains([]string{"GET", "HEAD", "OPTIONS", "POST"}, method) {
		return false
	}
	for _, r := range j.policy.Git.Repos {
		place := strings.ToLower(strings.TrimSuffix(strings.TrimRight(r.Path, "/"), ".git"))
		if r.Host == host.Name && place != "" && (within(lower, place) || within(lower, place+".git")) {
			return true
		}
	}
	return false
}

func nameMatches(r policy.Rule, name string) bool {
	if r.Wildcard {
		return strings.HasSuffix(name, "."+r.Host)
	}
	return name == r.Host
}

func portMatches(rule, port int) bool {
	return port == rule || rule == 0 && (port == 80 || port == 443)
}

func (j *Judge) allowsMethod(methods []string, method string) bool {
	if methods == nil {
		methods = j.policy.Egress.Methods
	}
	return slices.Contains(methods, method)
}

// allowsPath compares a path as it is written. One that origins may read as another one fits no prefix but "/".
func allowsPath(paths []string, raw string) bool {
	if len(paths) == 0 || slices.Contains(paths, "/") {
		return true
	}
	if ambiguous(raw) {
		return false
	}
	return slices.ContainsFunc(paths, func(prefix string) bool {
		if strings.HasSuffix(prefix, "/") {
			return strings.HasPrefix(raw, prefix)
		}
		return within(raw, prefix)
	})
}

// ambiguous reports whether a path has empty or dot segments, or slashes and dots in disguise.
func ambiguous(raw string) bool {
	upper := strings.ToUpper(raw)
	for _, disguise := range []string{"%2F", "%2E", "%5C", "\\", "//", "%00", ";"} {
		if strings.Contains(upper, disguise) {
			return true
		}
	}
	return strings.Contains(raw+"/", "/./") || strings.Contains(raw+"/", "/../")
}

// within reports whether a path is the prefix or below it, segment by segment.
func within(where, prefix string) bool {
	return where == prefix || strings.HasPrefix(where, prefix+"/")
}
