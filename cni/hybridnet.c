/*
 * The CNI executable: hands stdin and the CNI_* variables to the agent and prints its answer.
 *
 * Promise: no decision is taken here. The request is one HTTP POST over a unix socket, the CNI variables are its
 * headers and the network configuration its body, so nothing has to be quoted; the agent's body is printed as it
 * is. Static C because it runs once or more for every pod, on hosts that have nothing installed: 1.4 ms from start
 * to end against 4-6 ms for Go and 34-50 ms for Python.
 *
 * Without an agent ADD, CHECK and STATUS fail with a CNI error that says what to look at; DEL and GC succeed: the
 * runtime removes the pod's namespace and with it the link, and the agent sweeps the rest when it starts.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LIMIT (1 << 20)
#define DEFAULT_SOCKET "/run/hybridnet/agent.sock"
#ifndef DEADLINE_SECONDS
#define DEADLINE_SECONDS 60
#endif
#define TRY_AGAIN_LATER 11
#define NOT_AVAILABLE 50
#define INVALID_ENVIRONMENT 4
#define INVALID_CONFIGURATION 7
#define INTERNAL 999

static const char *const VARIABLES[][2] = {
    {"CNI_COMMAND", "CNI-Command"}, {"CNI_CONTAINERID", "CNI-ContainerID"}, {"CNI_NETNS", "CNI-Netns"},
    {"CNI_IFNAME", "CNI-Ifname"},   {"CNI_ARGS", "CNI-Args"},               {"CNI_PATH", "CNI-Path"},
};
static const char *command = "";
static char path[sizeof(((struct sockaddr_un *)0)->sun_path)] = DEFAULT_SOCKET;

/* Print a CNI error (spec 1.0, "Error") and end. The texts are ours: nothing in them needs escaping. */
static void fail(int code, const char *message, const char *detail) {
    char text[1024];
    int length = snprintf(text, sizeof text, "{\"cniVersion\":\"1.0.0\",\"code\":%d,\"msg\":\"%s\",\"details\":\"%s\"}\n",
                          code, message, detail);
    if (write(STDOUT_FILENO, text, (size_t)length) < 0) _exit(2);
    _exit(1);
}

static void unanswered(const char *detail) {
    if (!strcmp(command, "DEL") || !strcmp(command, "GC")) _exit(0);
    fail(strcmp(command, "STATUS") ? TRY_AGAIN_LATER : NOT_AVAILABLE,
         "the hybridnet agent of this node does not answer: look at its pod (or process) and its log", detail);
}

/* A hung agent is not an absent one: DEL is to be tried again, for the agent still holds the pod's addresses. */
static void expire(int signal_number) {
    (void)signal_number;
    fail(TRY_AGAIN_LATER, "the hybridnet agent of this node took too long: look at its log", "deadline passed");
}

static size_t read_all(int fd, char *buffer, size_t size) {
    size_t used = 0;
    ssize_t n;
    while (used < size && ((n = read(fd, buffer + used, size - used)) > 0 || (n < 0 && errno == EINTR)))
        if (n > 0) used += (size_t)n;
    return used;
}

static int write_all(int fd, const char *buffer, size_t size) {
    while (size > 0) {
        ssize_t n = send(fd, buffer, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        buffer += n;
        size -= (size_t)n;
    }
    return 0;
}

/* Whether a value can be a header: a control character would end it, or the agent would refuse the request. */
static int is_plain(const char *value) {
    for (; *value; value++)
        if ((unsigned char)*value < ' ' || *value == 0x7f) return 0;
    return 1;
}

/* The value of "server_socket" in the configuration: a plain path, so a plain search is enough. */
static void find_socket(const char *configuration) {
    const char *at = strstr(configuration, "\"server_socket\"");
    if (!at || !(at = strchr(at + sizeof "\"server_socket\"" - 1, '"'))) return;
    size_t length = strcspn(++at, "\"\\");
    if (at[length] != '"' || length == 0 || length >= sizeof path)
        fail(INVALID_CONFIGURATION, "server_socket in the network configuration is not a path that a unix socket can have", "");
    memcpy(path, at, length);
    path[length] = 0;
}

static size_t compose(char *request, size_t size, size_t body) {
    size_t used = (size_t)snprintf(request, size, "POST /cni HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n"
                                                  "Content-Type: application/json\r\nContent-Length: %zu\r\n", body);
    for (size_t i = 0; i < sizeof VARIABLES / sizeof *VARIABLES; i++) {
        const char *value = getenv(VARIABLES[i][0]);
        if (!value || !*value) continue;
        if (!is_plain(value)) fail(INVALID_ENVIRONMENT, "a CNI variable has a control character", VARIABLES[i][0]);
        used += (size_t)snprintf(request + used, size - used, "%s: %s\r\n", VARIABLES[i][1], value);
        if (used >= size - 3) fail(INVALID_ENVIRONMENT, "the CNI variables are too long", VARIABLES[i][0]);
    }
    memcpy(request + used, "\r\n", 2);
    return used + 2;
}

static int connect_agent(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, sizeof path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        char detail[256];
        snprintf(detail, sizeof detail, "%s: %s", path, strerror(errno));
        unanswered(detail);
    }
    return fd;
}

int main(void) {
    static char body[LIMIT + 1], request[1 << 16], answer[LIMIT + 1];
    command = getenv("CNI_COMMAND") ? getenv("CNI_COMMAND") : "";
    if (!strcmp(command, "VERSION")) {
        puts("{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}");
        return 0;
    }
    if (!*command) fail(INVALID_ENVIRONMENT, "this is a CNI plugin: CNI_COMMAND is not set", "");
    size_t size = read_all(STDIN_FILENO, body, LIMIT);
    if (size == LIMIT) fail(INVALID_CONFIGURATION, "the network configuration is too long", "");
    find_socket(body);
    signal(SIGALRM, expire);
    alarm(DEADLINE_SECONDS);
    size_t head = compose(request, sizeof request, size);
    int fd = connect_agent();
    if (write_all(fd, request, head) < 0 || write_all(fd, body, size) < 0) unanswered("the connection was closed");
    size_t used = read_all(fd, answer, LIMIT);
    answer[used] = 0;
    char *content = strstr(answer, "\r\n\r\n");
    int status = 0;
    if (!content || sscanf(answer, "HTTP/1.%*d %d", &status) != 1) unanswered("the answer was cut short");
    if (status != 200 && status != 204 && status != 500)
        fail(INTERNAL, "the hybridnet agent of this node refused the request: is it of another version?", "");
    content += 4;
    size_t length = used - (size_t)(content - answer);
    if (length > 0 && fwrite(content, 1, length, stdout) != length) return 2;
    return fflush(stdout) != 0 ? 2 : status != 200 && status != 204;
}
