# fish completion for bottle-init. Made by `make docs` from bottle_init/cli/options.py.

complete -c bottle-init -f
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -a health -d 'print one word, and how each daemon is'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -a status -d 'print a table of the children'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -a ctl -d 'give an order'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -a check -d 'say all that is wrong with a bundle file, or print its start order'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -a explain -d 'tell the story of an exit report, or of a log with one in it'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -a convert -d 'make a bundle file of a supervisord.conf, a Procfile, a compose file, a Pebble layer or an s6-rc source directory, with a comment at all that differs'
complete -c bottle-init -n '__fish_seen_subcommand_from ctl; and not __fish_seen_subcommand_from restart start stop signal events renew' -a restart -d 'restart children'
complete -c bottle-init -n '__fish_seen_subcommand_from ctl; and not __fish_seen_subcommand_from restart start stop signal events renew' -a start -d 'start children'
complete -c bottle-init -n '__fish_seen_subcommand_from ctl; and not __fish_seen_subcommand_from restart start stop signal events renew' -a stop -d 'stop children'
complete -c bottle-init -n '__fish_seen_subcommand_from ctl; and not __fish_seen_subcommand_from restart start stop signal events renew' -a signal -d 'send a child a signal'
complete -c bottle-init -n '__fish_seen_subcommand_from ctl; and not __fish_seen_subcommand_from restart start stop signal events renew' -a events -d 'print what happens'
complete -c bottle-init -n '__fish_seen_subcommand_from ctl; and not __fish_seen_subcommand_from restart start stop signal events renew' -a renew -d 'renew the lease'
complete -c bottle-init -n '__fish_seen_subcommand_from check' -F
complete -c bottle-init -n '__fish_seen_subcommand_from explain' -F
complete -c bottle-init -n '__fish_seen_subcommand_from convert' -F
complete -c bottle-init -n '__fish_seen_subcommand_from ctl; and __fish_seen_subcommand_from restart' -a "(bottle-init status 2>/dev/null | awk 'NR > 2 { print \$1 }')"
complete -c bottle-init -n '__fish_seen_subcommand_from ctl; and __fish_seen_subcommand_from start' -a "(bottle-init status 2>/dev/null | awk 'NR > 2 { print \$1 }')"
complete -c bottle-init -n '__fish_seen_subcommand_from ctl; and __fish_seen_subcommand_from stop' -a "(bottle-init status 2>/dev/null | awk 'NR > 2 { print \$1 }')"
complete -c bottle-init -n '__fish_seen_subcommand_from ctl; and __fish_seen_subcommand_from signal' -a "(bottle-init status 2>/dev/null | awk 'NR > 2 { print \$1 }')"
complete -c bottle-init -n '__fish_seen_subcommand_from ctl; and __fish_seen_subcommand_from signal' -a "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -l config -r -F -d 'the bundle file'
complete -c bottle-init -n '__fish_seen_subcommand_from check' -l config -r -F -d 'the bundle file'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -l policy -x -a "exit-on-child-death exit-on-child-failure restart restart-on-failure restart-on-crash wait-for-all" -d 'what a daemon’s death does, where the daemon has no policy of its own'
complete -c bottle-init -n '__fish_seen_subcommand_from check' -l policy -x -a "exit-on-child-death exit-on-child-failure restart restart-on-failure restart-on-crash wait-for-all" -d 'what a daemon’s death does, where the daemon has no policy of its own'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -l only -x -d 'these daemons and jobs alone'
complete -c bottle-init -n '__fish_seen_subcommand_from check' -l only -x -d 'these daemons and jobs alone'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -l report -r -F -d 'the exit report as JSON'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -l control -r -F -d 'the control socket'
complete -c bottle-init -n '__fish_seen_subcommand_from health status ctl' -l control -r -F -d 'the control socket'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -l single-child -d 'forward signals to the program alone, not to its process group'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -l rewrite -x -d 'send the program TO where FROM comes, nothing where TO is 0'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -l map-exit -x -d 'exit with 0 where the program exits with CODE, such as 143 for one that does not handle TERM'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -l parent-death-signal -x -a "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS" -d 'have the kernel send the init SIG when its own parent ends'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -l lease -x -d 'stop the program, or the bundle, when this peer goes'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -l stop-timeout -x -d 'the deadline of a stop'
complete -c bottle-init -n '__fish_seen_subcommand_from check' -l stop-timeout -x -d 'the deadline of a stop'
complete -c bottle-init -n '__fish_seen_subcommand_from check' -l compile -d 'also write its compiled form beside it, for a faster start'
complete -c bottle-init -n '__fish_seen_subcommand_from check' -l schema -d 'print the JSON Schema of bundle files instead'
complete -c bottle-init -n '__fish_seen_subcommand_from health' -l strict -d '0 for healthy alone'
complete -c bottle-init -n '__fish_seen_subcommand_from health status' -l json -d 'print JSON'
complete -c bottle-init -n '__fish_seen_subcommand_from status' -l watch -d 'again and again, until Ctrl-C'
complete -c bottle-init -n '__fish_seen_subcommand_from explain' -l svg -d 'draw the timeline, as SVG'
complete -c bottle-init -n '__fish_seen_subcommand_from convert' -l output -r -F -d 'write there and not to standard output'
complete -c bottle-init -n '__fish_seen_subcommand_from convert' -l kind -x -a "supervisord procfile compose pebble s6-rc" -d 'what FILE is, where that cannot be told'
complete -c bottle-init -n '__fish_seen_subcommand_from ctl' -l follow -d 'until the init ends, or Ctrl-C'
complete -c bottle-init -n '__fish_seen_subcommand_from ctl' -l all -d 'every daemon and every job'
complete -c bottle-init -n '__fish_seen_subcommand_from ctl' -l wait -d 'return when each is ready, or gone, and with 1 if that is not so in time'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -s h -l help -d 'print the command line'
complete -c bottle-init -n 'not __fish_seen_subcommand_from health status ctl check explain convert' -s V -l version -d 'print the version'
