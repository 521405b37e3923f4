"""What `--help` says."""

TEXT = """\
An init for containers that run several daemons.

Run the daemons of a bundle file:
  bottle-init [OPTIONS]
    --config FILE    the bundle file (else $BOTTLE_INIT_CONFIG, else /etc/bottle/bundle.toml)
    --policy POLICY  what a daemon's death does, where the daemon has no policy of its own:
                     exit-on-child-death, exit-on-child-failure, restart, restart-on-failure, wait-for-all
    --only A,B       these daemons and jobs alone (else $CLAUDE_BOTTLE_SIDECAR_DAEMONS); oneshots always run
    --report FILE    why it ended, as JSON
    --control ADDR   control socket: a path, @name for an abstract one, "" for none (else
                     $BOTTLE_INIT_CONTROL, else what the bundle file says, else @bottle_init)

Run one program, and be invisible:
  bottle-init [OPTIONS] -- COMMAND [ARGUMENT...]
    --single-child   forward signals to the program alone, not to its process group
    --rewrite A:B    send it signal B for signal A; 0 drops A (repeatable)
    --map-exit CODE  exit with 0 where it exits with CODE (repeatable)
    --parent-death-signal SIG
                     have the kernel send the init SIG when its parent ends
    --report FILE, --control ADDR
                     as above; neither unless asked for

Ask a running init (each takes --control ADDR; else $BOTTLE_INIT_CONTROL, else the bundle file's, else @bottle_init):
  bottle-init health [--strict] [--json]    one word; exits 0 if healthy or degraded (--strict: healthy), else 1
  bottle-init status [--json] [--watch]     a table of the daemons
  bottle-init ctl restart|start NAME        order a restart or a start
  bottle-init ctl stop [NAME]               stop a daemon, or the bundle
  bottle-init ctl signal NAME SIGNAL        send a daemon a signal
  bottle-init ctl events [--follow]         what happens, as JSON lines
  bottle-init ctl renew                     renew the lease

Look at files:
  bottle-init check [FILE]                  validate a bundle file (- is standard input), show the start order;
                                            takes --config, --policy, --only
  bottle-init check --compile [FILE]        also write its compiled form beside it, for a faster start
  bottle-init check --schema                print the JSON Schema of bundle files
  bottle-init explain [FILE]                tell the story of a report or a log (default: standard input)

  bottle-init --help, --version

Every --option VALUE can be written --option=VALUE; the last one counts. Exit codes: the bundle's or the program's own,
2 for a command line that cannot be understood, 78 for an invalid bundle file, 70 for an error of the init itself.
`python -m bottle_init` is the same as `bottle-init`.
"""
