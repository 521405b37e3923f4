package main

import (
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/judge"
	"bottle/proxy/internal/killswitch"
	"bottle/proxy/internal/notify"
	"bottle/proxy/internal/policy"
	"bottle/proxy/internal/real"
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
	if err := engine.Start(compiled); err != nil {
		return err
	}
	log := audit.Open("pipelock", auditDirectory("pipelock"))
	if compiled.Transparent && network.IsValid() {
		go serveTransparent(network, log, engine.Judge, map[uint16]func(net.Listener) error{80: engine.ServeHTTP, 443: engine.ServeTLS})
	}
	notify.Send("READY=1")
	go killswitch.New(switched, tellSwitch).Watch()
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
				reloadReal(engine, log)
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

func reloadReal(engine *real.Engine, log *audit.Log) {
	fresh, err := policy.Compile(compiler)
	if err == nil {
		err = engine.Reload(fresh)
	}
	if err != nil {
		audit.Print("pipelock.reload_refused", map[string]any{"faults": strings.Split(err.Error(), "\n")})
		log.Write(audit.Entry{Event: "reload", Verdict: "refused", Reason: judge.Cut(err.Error())})
		return
	}
	audit.Print("pipelock.reloaded", map[string]any{"generation": fresh.Generation})
	log.Write(audit.Entry{Event: "reload", Verdict: "allowed", Reason: fresh.Generation})
}
