package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/killswitch"
	"bottle/proxy/internal/notify"
	"bottle/proxy/internal/policy"
	"bottle/proxy/internal/proxy"
	"bottle/proxy/internal/real"
	"bottle/proxy/internal/resolver"
)

// serveReal runs the real pipelock, and around it what it lacks: it is replaced where a reload needs that, clients that
// know no proxy are served, and the init is told of the kill switch, which its own health route does not tell.
func serveReal() error {
	compiled, err := policy.Read(filepath.Join(run(), "policy.json"))
	if err != nil {
		return err
	}
	network, err := internal()
	if err != nil {
		return err
	}
	own, switched := filepath.Join(run(), "pipelock"), filepath.Join(run(), "kill-switch")
	engine := &real.Engine{
		Paths:       real.Paths{Certificate: filepath.Join(own, "ca-cert.pem"), Key: filepath.Join(own, "ca-key.pem"), KillSwitch: switched},
		Config:      filepath.Join(own, "pipelock.yaml"),
		Authorities: filepath.Join(run(), "ca", "egress-ca.pem"),
		Ended:       make(chan int, 1),
	}
	if err := serveNames(); err != nil {
		return err
	}
	if err := engine.Start(compiled); err != nil {
		return err
	}
	log := audit.Open("pipelock", filepath.Join(run(), "state", "audit", "pipelock"))
	if compiled.Transparent && network.IsValid() {
		go serveTransparent(network, log, engine.Judge, map[uint16]func(net.Listener) error{80: engine.ServeHTTP, 443: engine.ServeTLS})
	}
	state := &realState{engine: engine, log: log}
	state.generation.Store(compiled.Generation)
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", realHealthPort))
	if err != nil {
		return err
	}
	go http.Serve(listener, state)
	notify.Send("READY=1")
	state.killSwitch = killswitch.New(switched, tellSwitch)
	go state.killSwitch.Watch()
	reloads := newReloads(state.reload)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	for {
		select {
		case code := <-engine.Ended:
			log.Flush()
			os.Exit(code)
		case received := <-signals:
			switch received {
			case syscall.SIGHUP:
				reloads.ask()
			case syscall.SIGUSR1:
				engine.Signal(syscall.SIGUSR1)
			case syscall.SIGUSR2:
			default:
				engine.Stop()
				log.Flush()
				return nil
			}
		}
	}
}

// serveNames answers what the engine asks a nameserver. It looks a name up before it connects, and the kernel sends its
// connections to egress whatever the address: so every name has one that is made up, by which egress knows it again, and
// nobody outside is asked.
func serveNames() error {
	names := &resolver.Resolver{
		Of:      judge.StandIn,
		Allowed: func(string) bool { return true },
		Asked:   func(string, bool) {},
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		address := net.JoinHostPort(host, strconv.Itoa(realNamesPort))
		socket, err := net.ListenPacket("udp", address)
		if err == nil {
			go names.ServeUDP(socket)
			var listener net.Listener
			if listener, err = net.Listen("tcp", address); err == nil {
				go names.ServeTCP(listener)
			}
		}
		if err != nil && host == "127.0.0.1" { // IPv6 may be turned off.
			return err
		}
	}
	return nil
}

// A realState is what the engine's own health route does not tell: which policy it obeys, and how a reload went.
type realState struct {
	engine     *real.Engine
	log        *audit.Log
	killSwitch *killswitch.Switch
	generation atomic.Value // string
	refused    atomic.Value // string; "" where the last reload was good
	reloads    atomic.Int64
}

func (s *realState) reload() {
	defer s.reloads.Add(1)
	fresh, err := policy.Compile(compiler)
	if err == nil {
		err = s.engine.Reload(fresh)
	}
	if err != nil {
		s.refused.Store(judge.Cut(err.Error()))
		audit.Print("pipelock.reload_refused", map[string]any{"faults": strings.Split(err.Error(), "\n")})
		s.log.Write(audit.Entry{Event: "reload", Verdict: "refused", Reason: judge.Cut(err.Error())})
		return
	}
	s.refused.Store("")
	s.generation.Store(fresh.Generation)
	audit.Print("pipelock.reloaded", map[string]any{"generation": fresh.Generation})
	s.log.Write(audit.Entry{Event: "reload", Verdict: "allowed", Reason: fresh.Generation})
}

// ServeHTTP answers /health as the portable engine does.
func (s *realState) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refused, _ := s.refused.Load().(string)
	on := s.killSwitch.On()
	proxy.WriteHealth(w, proxy.Health{Engine: "pipelock", Generation: s.generation.Load().(string), Reloads: s.reloads.Load(), KillSwitch: on, ReloadError: refused})
}
