package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

const (
	prSetNoNewPrivs   = 38
	prCapAmbient      = 47
	capAmbientClear   = 4
	capabilityVersion = 0x20080522
)

// dropPrivileges makes root the user of that name, with no way back, in every thread; who is not root stays who it is.
// Afterwards it asks the kernel whether that has worked, and tries to undo it.
func dropPrivileges(name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	account, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(account.Uid)
	gid, _ := strconv.Atoi(account.Gid)
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid)); err != nil {
		return err
	}
	// The inheritable set is the one that outlives the change of user. To give up is always allowed.
	header := [2]uint32{capabilityVersion, 0}
	var none [6]uint32
	calls := [][4]uintptr{
		{syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0},
		{syscall.SYS_PRCTL, prCapAmbient, capAmbientClear, 0},
		{syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0},
	}
	for _, call := range calls {
		if _, _, errno := syscall.AllThreadsSyscall6(call[0], call[1], call[2], call[3], 0, 0, 0); errno != 0 {
			return errno
		}
	}
	return verify(uid, gid)
}

func verify(uid, gid int) error {
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(tasks) == 0 {
		return fmt.Errorf("no thread can be looked at: %v", err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // It has ended since.
		}
		if err != nil {
			return err
		}
		if err := verifyStatus(string(text), uid, gid); err != nil {
			return fmt.Errorf("%s: %w", task, err)
		}
	}
	if syscall.Setuid(0) == nil || syscall.Setgid(0) == nil {
		return errors.New("can become root again")
	}
	return nil
}

// verifyStatus judges a thread by its /proc/PID/task/TID/status.
func verifyStatus(status string, uid, gid int) error {
	fields := map[string][]string{}
	for _, line := range strings.Split(status, "\n") {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.Fields(value)
	}
	same := func(name string, id int) bool {
		for _, value := range fields[name] {
			if value != strconv.Itoa(id) {
				return false
			}
		}
		return len(fields[name]) == 4
	}
	if !same("Uid", uid) || !same("Gid", gid) {
		return fmt.Errorf("runs as %v, %v", fields["Uid"], fields["Gid"])
	}
	for _, group := range fields["Groups"] {
		if group != strconv.Itoa(gid) {
			return fmt.Errorf("is in the groups %v", fields["Groups"])
		}
	}
	for _, name := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		if len(fields[name]) != 1 || strings.Trim(fields[name][0], "0") != "" {
			return fmt.Errorf("still has capabilities (%s %v)", name, fields[name])
		}
	}
	if len(fields["NoNewPrivs"]) != 1 || fields["NoNewPrivs"][0] != "1" {
		return errors.New("can gain new privileges")
	}
	return nil
}
