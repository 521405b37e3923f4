/*
 * The child that every supervisor under test runs. It says what happens to it and when, in CLOCK_MONOTONIC
 * nanoseconds, by datagrams "NAME EVENT NS PID" to a Unix socket: a slow reader then costs no accuracy.
 *
 *   probe MODE SOCKET NAME [COUNT]
 *
 *   sleep         says "start" and sleeps; a TERM ends it as the kernel does by default
 *   catch         the same, and says "signal" for each USR1, "term" for a TERM, which ends it
 *   lines COUNT   writes so many numbered lines of 100 bytes as stdio would, in blocks of 4 KiB; "done"; sleeps
 *   drip          writes 100 such lines every 10 ms for ever; "term" for a TERM, which ends it
 *   orphans COUNT leaves so many orphans, which end at once; "done"; sleeps
 *
 * probe.py does the same, more slowly, where there is no C compiler.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINE 100
#define BLOCK 4096

static const char *name;
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static int wire;

static long long now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static char *digits(char *end, long long number)
{
	do *--end = '0' + number % 10; while (number /= 10);
	return end;
}

/* Formats by hand, as snprintf may not be called in a signal handler. */
static void tell_at(const char *event, long long ns)
{
	char text[256], figures[32], *p = text, *d;
	p = stpcpy(stpcpy(stpcpy(stpcpy(p, name), " "), event), " ");
	figures[31] = 0;
	d = digits(figures + 31, ns);
	p = stpcpy(stpcpy(p, d), " ");
	d = digits(figures + 31, getpid());
	p = stpcpy(p, d);
	sendto(wire, text, p - text, 0, (struct sockaddr *)&address, sizeof address);
}

static void on_signal(int number)
{
	long long ns = now_ns();
	tell_at(number == SIGTERM ? "term" : "signal", ns);
	if (number == SIGTERM)
		_exit(0);
}

static void catch(int number)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	sigaction(number, &action, NULL);
}

static void sleep_for_ever(void)
{
	for (;;)
		pause();
}

static void write_all(const char *data, size_t left)
{
	while (left) {
		ssize_t written = write(1, data, left);
		if (written < 0)
			_exit(1);
		data += written, left -= written;
	}
}

/* Lines from `first` on, "@NAME:NUMBER xxx…", into `to`. */
static void fill(char *to, long first, long count)
{
	for (long number = first; number < first + count; number++, to += LINE) {
		int head = sprintf(to, "@%s:%ld ", name, number);
		memset(to + head, 'x', LINE - 1 - head);
		to[LINE - 1] = '\n';
	}
}

static void write_lines(long count)
{
	char *text = malloc(count * LINE);
	fill(text, 0, count);
	for (long at = 0, size = count * LINE; at < size; at += BLOCK)
		write_all(text + at, size - at < BLOCK ? size - at : BLOCK);
}

static void drip(void)
{
	char text[100 * LINE];
	struct timespec pause = { .tv_nsec = 10000000 };
	for (long number = 0;; number += 100) {
		fill(text, number, 100);
		write_all(text, sizeof text);
		nanosleep(&pause, NULL);
	}
}

static void leave_orphans(long count)
{
	while (count--) {
		pid_t parent = fork();
		if (parent == 0) {
			fork();
			_exit(0);
		}
		waitpid(parent, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	long long started_ns = now_ns();
	if (argc < 4)
		return 2;
	const char *mode = argv[1];
	long count = argc > 4 ? atol(argv[4]) : 0;
	name = argv[3];
	strncpy(address.sun_path, argv[2], sizeof address.sun_path - 1);
	wire = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (!strcmp(mode, "catch"))
		catch(SIGUSR1);
	if (!strcmp(mode, "catch") || !strcmp(mode, "drip"))
		catch(SIGTERM);
	tell_at("start", started_ns);
	if (!strcmp(mode, "lines"))
		write_lines(count), tell_at("done", now_ns());
	else if (!strcmp(mode, "drip"))
		drip();
	else if (!strcmp(mode, "orphans"))
		leave_orphans(count), tell_at("done", now_ns());
	sleep_for_ever();
}
