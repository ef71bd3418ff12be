/*
 * Traffic with a measure: a TCP stream, and one-byte questions and answers over TCP and UDP.
 *
 *   traffic serve PORT                      until killed
 *   traffic stream|tcp|udp ADDRESS PORT MS  prints: bytes or answers, nanoseconds, CPU nanoseconds of both processes
 *
 * CPU is that of client and server together. In network namespaces the kernel forwards a packet in the context of
 * whoever sent or received it, so both together are nearly all that the path costs.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STREAM = 'S', ECHO = 'E', END = 'Q', BLOCK = 1 << 17, RETRY_MS = 200 };
static char block[BLOCK];

static void check(int failed, const char *what) {
    if (failed) {
        perror(what);
        exit(1);
    }
}

static int64_t now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t cpu(void) { return now(CLOCK_PROCESS_CPUTIME_ID); }

static void set(int fd, int level, int option, int value) {
    check(setsockopt(fd, level, option, &value, sizeof value) < 0, "setsockopt");
}

static int listen_on(int type, uint16_t port) {
    int fd = socket(AF_INET6, type, 0);
    check(fd < 0, "socket");
    set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    check(bind(fd, (struct sockaddr *)&any, sizeof any) < 0, "bind");
    return fd;
}

/* One byte is answered by itself; anything longer by what this process has used of the CPU. */
static void answer_udp(uint16_t port) {
    int fd = listen_on(SOCK_DGRAM, port);
    struct sockaddr_storage from;
    for (;;) {
        char byte[2];
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(fd, byte, sizeof byte, 0, (struct sockaddr *)&from, &size);
        if (n < 0) continue;
        int64_t used = cpu();
        sendto(fd, n == 1 ? (void *)byte : &used, n == 1 ? 1 : sizeof used, 0, (struct sockaddr *)&from, size);
    }
}

static void answer_tcp(int fd) {
    int64_t begin = cpu();
    char kind, byte;
    if (read(fd, &kind, 1) != 1) return;
    if (kind == STREAM)
        while (read(fd, block, BLOCK) > 0) continue;
    else
        while (read(fd, &byte, 1) == 1 && byte != END)
            if (write(fd, &byte, 1) != 1) return;
    int64_t used = cpu() - begin;
    check(write(fd, &used, sizeof used) != sizeof used, "report");
}

static void serve(uint16_t port) {
    int listener = listen_on(SOCK_STREAM, port);
    check(listen(listener, 8) < 0, "listen");
    pid_t child = fork();
    check(child < 0, "fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        answer_udp(port);
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) continue;
        set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        answer_tcp(fd);
        close(fd);
    }
}

static int connect_to(int type, const char *address, const char *port) {
    struct addrinfo hints = {.ai_socktype = type, .ai_flags = AI_NUMERICHOST}, *found;
    check(getaddrinfo(address, port, &hints, &found) != 0, "address");
    int fd = socket(found->ai_family, type, 0);
    check(fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) < 0, "connect");
    freeaddrinfo(found);
    return fd;
}

static int64_t stream(int fd, int64_t end) {
    int64_t total = 0;
    do {
        ssize_t n = write(fd, block, BLOCK);
        check(n < 0, "write");
        total += n;
    } while (now(CLOCK_MONOTONIC) < end);
    check(shutdown(fd, SHUT_WR) < 0, "shutdown");
    return total;
}

static int64_t ask_tcp(int fd, int64_t end) {
    int64_t total = 0;
    char byte = 'x';
    for (; now(CLOCK_MONOTONIC) < end; total++)
        check(write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1, "question");
    byte = END;
    check(write(fd, &byte, 1) != 1, "end");
    return total;
}

static int64_t ask_udp(int fd, int64_t end) {
    int64_t total = 0;
    char byte = 'x';
    while (now(CLOCK_MONOTONIC) < end) {
        check(send(fd, &byte, 1, 0) != 1, "question");
        if (recv(fd, &byte, 1, 0) == 1) total++;
    }
    return total;
}

static int64_t used_by_udp_server(int fd) {
    int64_t used;
    for (int i = 0; i < 20; i++)
        if (send(fd, "??", 2, 0) == 2 && recv(fd, &used, sizeof used, 0) == sizeof used) return used;
    check(1, "the server does not tell its CPU time");
    return 0;
}

static void client(const char *kind, const char *address, const char *port, int64_t ms) {
    int udp = !strcmp(kind, "udp");
    int fd = connect_to(udp ? SOCK_DGRAM : SOCK_STREAM, address, port);
    int64_t total, theirs = 0;
    if (udp) {
        struct timeval patience = {.tv_usec = RETRY_MS * 1000};
        check(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0, "timeout");
        theirs = used_by_udp_server(fd);
    } else {
        set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        char mode = !strcmp(kind, "stream") ? STREAM : ECHO;
        check(write(fd, &mode, 1) != 1, "mode");
    }
    int64_t mine = cpu(), begin = now(CLOCK_MONOTONIC), end = begin + ms * 1000000;
    total = udp ? ask_udp(fd, end) : !strcmp(kind, "stream") ? stream(fd, end) : ask_tcp(fd, end);
    if (udp) {
        theirs = used_by_udp_server(fd) - theirs;
    } else {
        check(recv(fd, &theirs, sizeof theirs, MSG_WAITALL) != sizeof theirs, "report");
    }
    printf("%lld %lld %lld\n", (long long)total, (long long)(now(CLOCK_MONOTONIC) - begin),
           (long long)(cpu() - mine + theirs));
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    setpriority(PRIO_PROCESS, 0, -20); /* as far as we may: the machine's other work shall not decide */
    if (argc == 3 && !strcmp(argv[1], "serve")) serve((uint16_t)atoi(argv[2]));
    if (argc != 5) {
        fputs("usage: traffic serve PORT | traffic stream|tcp|udp ADDRESS PORT MILLISECONDS\n", stderr);
        return 2;
    }
    client(argv[1], argv[2], argv[3], atoll(argv[4]));
    return 0;
}
