// Bottle-proxy is the data path of a bundle: `bottle-proxy pipelock` is the agent's proxy, `bottle-proxy egress` the way out.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/egress"
	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/killswitch"
	"bottle/proxy/internal/live"
	"bottle/proxy/internal/mitm"
	"bottle/proxy/internal/notify"
	"bottle/proxy/internal/pipelock"
	"bottle/proxy/internal/policy"
	"bottle/proxy/internal/proxy"
)

// Where things are in a bundle: sidecars/layout.py has the same.
const (
	pipelockPort = 8888
	egressPort   = 9099
	gitPort      = 9098
	redirectPort = 18082 // where the kernel sends what the real pipelock sends

	realNamesPort  = 18053 // and what it asks a nameserver
	realHealthPort = 18889 // where the state of the real pipelock is told

	approvalLag = 10 * time.Second // both daemons read the policy at the same signal

	defaultRun = "/run/bottle"
)

var compiler = []string{"python3", "-I", "-m", "sidecars.policy", "--json"}

func run() string {
	if run := os.Getenv("BOTTLE_RUN"); run != "" {
		return run
	}
	return defaultRun
}

func main() {
	syscall.Umask(0o077)
	// A proxy's garbage is short-lived: less memory is worth a few collections more.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	err := fmt.Errorf("usage: bottle-proxy egress | pipelock | health PORT | ca --name NAME")
	code := 64
	if len(os.Args) > 1 {
		code = 1
		switch os.Args[1] {
		case "egress":
			err = serve("egress")
		case "pipelock":
			if setupChose() == "pipelock" {
				err = serveReal()
			} else {
				err = serve("pipelock")
			}
		case "ca":
			err = ca(os.Args[2:])
		case "health":
			err = health(os.Args[2:])
		default:
			code = 64
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bottle-proxy: %s\n", err)
		os.Exit(code)
	}
}

// setupChose is the engine that fills pipelock's slot.
func setupChose() string {
	text, err := os.ReadFile(filepath.Join(run(), "engine"))
	if err != nil {
		return "portable"
	}
	return strings.TrimSpace(string(text))
}

// ca prints a new authority's key and certificate.
func ca(arguments []string) error {
	if len(arguments) != 2 || arguments[0] != "--name" {
		return fmt.Errorf("usage: bottle-proxy ca --name NAME")
	}
	text, err := mitm.New(arguments[1])
	if err == nil {
		_, err = os.Stdout.Write(text)
	}
	return err
}

// listen takes a port of every address, or of $BOTTLE_LISTEN.
func listen(address string, port int) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort(address, fmt.Sprint(port)))
}

func serve(daemon string) error {
	policyOf, err := policy.Read(filepath.Join(run(), "policy.json"))
	if err != nil {
		return err
	}
	own := filepath.Join(run(), daemon)
	authority, err := mitm.Load(filepath.Join(own, "ca.pem"))
	if err != nil {
		return err
	}
	network, err := internal()
	if err != nil {
		return err
	}
	engine := &proxy.Engine{Daemon: daemon, Authority: authority, Live: live.NewSet(), Audit: audit.Open(daemon, filepath.Join(run(), "state", "audit", daemon)),
		AskSocket: filepath.Join(run(), "ask", "ask.sock")}
	var doors []proxy.Door
	add := func(address string, port int, consumer string, kind proxy.DoorKind) error {
		listener, err := listen(address, port)
		if err == nil {
			doors = append(doors, proxy.Door{Listener: listener, Consumer: consumer, Kind: kind, Internal: network})
		}
		return err
	}
	switch daemon {
	case "egress":
		engine.Port = egressPort
		if setupChose() == "portable" { // The real engine asks nobody.
			engine.Lag = approvalLag
		}
		engine.Role = egress.New(engine.Live, filepath.Join(own, "origins.pem"), filepath.Join(own, "credentials.json"), network)
	case "pipelock":
		engine.Port = pipelockPort
		engine.Role = pipelock.New(engine.Live, fmt.Sprintf("127.0.0.1:%d", egressPort))
	}
	engine.Switch = killswitch.New(filepath.Join(run(), "kill-switch"), func(on bool) {
		engine.Switched(on)
		tellSwitch(on)
	})
	if err := engine.Use(policyOf); err != nil {
		return err
	}
	if daemon == "egress" {
		err = add("127.0.0.1", egressPort, policy.Agent, proxy.ProxyDoor)
		if err == nil {
			err = add("127.0.0.1", gitPort, policy.Git, proxy.ProxyDoor)
		}
		if err == nil && setupChose() == "pipelock" {
			err = add("127.0.0.1", redirectPort, policy.Agent, proxy.Redirected)
		}
	} else {
		err = add(os.Getenv("BOTTLE_LISTEN"), pipelockPort, policy.Agent, proxy.ProxyDoor)
	}
	if err != nil {
		return err
	}
	go engine.Switch.Watch()
	for _, door := range doors {
		go engine.Serve(door)
	}
	if daemon == "pipelock" && policyOf.Transparent && network.IsValid() {
		go serveTransparent(network, engine.Audit, func() *judge.Judge { return engine.State().Judge }, map[uint16]func(net.Listener) error{
			80:  func(l net.Listener) error { return engine.Serve(door(l, proxy.TransparentHTTP, network)) },
			443: func(l net.Listener) error { return engine.Serve(door(l, proxy.TransparentTLS, network)) },
		})
	}
	notify.Send("READY=1")
	reloads := newReloads(func() {
		engine.Reload(func() (*policy.Policy, error) { return policy.Compile(compiler) })
	})
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	for received := range signals {
		switch received {
		case syscall.SIGHUP:
			reloads.ask()
		case syscall.SIGUSR1:
			engine.Switch.Toggle()
		case syscall.SIGUSR2:
		default:
			engine.Live.Close(true, "the bundle stops") // What is cut must not look whole.
			engine.Audit.Flush()
			return nil
		}
	}
	return nil
}

// reloads runs a function whenever it was asked for, one run at a time. What is asked for while one is under way is done
// after it.
type reloads chan struct{}

func newReloads(do func()) reloads {
	asked := make(reloads, 1)
	go func() {
		for range asked {
			do()
		}
	}()
	return asked
}

func (r reloads) ask() {
	select {
	case r <- struct{}{}:
	default:
	}
}

// tellSwitch makes the bundle unhealthy at once while the switch is on.
func tellSwitch(on bool) {
	if on {
		notify.Send("WATCHDOG=trigger", "STATUS=the kill switch is on")
	} else {
		notify.Send("WATCHDOG=1", "STATUS=")
	}
}

// health asks a proxy's /health, and fails unless it is healthy.
func health(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("usage: bottle-proxy health PORT")
	}
	answer, err := http.Get("http://127.0.0.1:" + arguments[0] + "/health")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("port %s: %s", arguments[0], answer.Status)
	}
	return nil
}
