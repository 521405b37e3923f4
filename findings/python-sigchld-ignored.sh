#!/bin/sh
# Under an ignored SIGCHLD, Python's subprocess reports that a failed command succeeded.
#
# Expected: an error, or the true status. Where SIGCHLD is ignored, the kernel reaps children and waitpid(2) fails with ECHILD; and
#   signals that are ignored stay so over exec. git then says that it couldn't wait; bash, dash, make, Perl, Go and Node set SIGCHLD
#   anew when they start, and have the true status.
# Seen: one interpreter gives three answers for one failing child. subprocess.run(check=True) says 0 and raises nothing, asyncio
#   says 255 with a warning, os.system says -1. The manual of subprocess doesn't mention it.
# Versions: CPython 3.10 to 3.13; git 2.39.5, bash 5.2.
# Matters: an init or a launcher that ignores SIGCHLD to be rid of zombies, and does not restore the default between fork and
#   exec, turns every failure that its Python children meet in their own children into a success: test runs, migrations,
#   hooks. In a service's own code, signal.signal(SIGCHLD, SIG_DFL) at the start is the cure.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

cat > stated <<'END'
subprocess.run(check=True): 0
asyncio: 255
os.system: -1
bash: 4
git: 128
END

cat > child.py <<'END'
import asyncio
import os
import subprocess


async def wait():
    return await (await asyncio.create_subprocess_exec("false")).wait()


print("subprocess.run(check=True):", subprocess.run(["false"], check=True).returncode)
print("asyncio:", asyncio.run(wait()))
print("os.system:", os.system("false"))
END

cat > try.py <<'END'
import os
import signal
import sys

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execvp(sys.argv[1], sys.argv[1:])
END
{
    python3 try.py python3 child.py 2> warnings
    python3 try.py bash -c 'bash -c "exit 4"; echo "bash: $?"'
    status=0
    python3 try.py git -c alias.fail='!exit 4' fail 2>> warnings || status=$?
    echo "git: $status"
} > seen
diff -u stated seen && echo "OK: as stated"
