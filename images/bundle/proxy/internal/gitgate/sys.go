package gitgate

import (
	"io/fs"
	"net"
	"os"
	"syscall"
)

// allocated is what a file takes on its disk, in bytes.
func allocated(info fs.FileInfo) int64 {
	if status, ok := info.Sys().(*syscall.Stat_t); ok {
		return status.Blocks * 512
	}
	return info.Size()
}

// pair returns two ends of a connection: one for us, one for a child.
func pair() (ours net.Conn, childs *os.File, err error) {
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	file := os.NewFile(uintptr(ends[0]), "hook")
	defer file.Close()
	childs = os.NewFile(uintptr(ends[1]), "hook")
	if ours, err = net.FileConn(file); err != nil {
		childs.Close()
		return nil, nil, err
	}
	return ours, childs, nil
}
