// Moves bytes over one TCP connection and prints how many seconds that took.
//
//   flow serve PORT
//   flow send | fetch ADDRESS PORT BYTES    from the first byte until the other side has the last
//   flow turn ADDRESS PORT COUNT            the median of COUNT times one byte there and one back
//
// Static, so that the same program runs in any image and outside of it.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct order {
    char what;
    uint64_t amount;
} __attribute__((packed));

static char buffer[128 << 10];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void put(int fd, const void *from, size_t count) {
    for (ssize_t done; count; from = (const char *)from + done, count -= done)
        if ((done = write(fd, from, count)) <= 0) die("write");
}

static void get(int fd, void *into, size_t count) {
    for (ssize_t done; count; into = (char *)into + done, count -= done)
        if ((done = read(fd, into, count)) <= 0) die("read");
}

static void put_many(int fd, uint64_t count) {
    for (size_t piece; count; count -= piece) put(fd, buffer, piece = count < sizeof buffer ? count : sizeof buffer);
}

static void get_many(int fd, uint64_t count) {
    for (ssize_t done; count; count -= done)
        if ((done = read(fd, buffer, count < sizeof buffer ? count : sizeof buffer)) <= 0) die("read");
}

static int by_value(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static void no_delay(int fd) {
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int))) die("setsockopt");
}

// Receives when the client sends, and the other way round.
static void answer(int fd) {
    struct order order;
    get(fd, &order, sizeof order);
    if (order.what == 's') {
        get_many(fd, order.amount);
        put(fd, "", 1);
    } else if (order.what == 'f') {
        put_many(fd, order.amount);
    } else {
        for (char byte; order.amount--; put(fd, &byte, 1)) get(fd, &byte, 1);
    }
    // The client ends first: a relay may repeat what this side says last.
    while (read(fd, buffer, sizeof buffer) > 0) {}
}

static void serve(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int))) die("setsockopt");
    if (bind(listener, (void *)&at, sizeof at) || listen(listener, 16)) die("listen");
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) continue;
        if (!fork()) {
            close(listener);
            no_delay(fd);
            answer(fd);
            exit(0);
        }
        close(fd);
    }
}

static double turns(int fd, uint64_t count) {
    double *took = calloc(count, sizeof *took);
    char byte = 0;
    for (uint64_t n = 0; n < count; n++) {
        double start = now();
        put(fd, &byte, 1);
        get(fd, &byte, 1);
        took[n] = now() - start;
    }
    qsort(took, count, sizeof *took, by_value);
    return took[count / 2];
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "serve")) serve(atoi(argv[2]));
    struct order order = {.what = argc == 5 ? *argv[1] : 0, .amount = argc == 5 ? strtoull(argv[4], NULL, 10) : 0};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(argc == 5 ? atoi(argv[3]) : 0)};
    if (!order.amount || !memchr("sft", order.what, 3) || !inet_pton(AF_INET, argv[2], &to.sin_addr)) return 2;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (void *)&to, sizeof to)) die("connect");
    no_delay(fd);
    // Nothing takes that long but a connection that stands still.
    alarm(60);
    double start = now();
    put(fd, &order, sizeof order);
    if (order.what == 's') {
        put_many(fd, order.amount);
        get(fd, buffer, 1);
    } else if (order.what == 'f') {
        get_many(fd, order.amount);
    }
    printf("%.9f\n", order.what == 't' ? turns(fd, order.amount) : now() - start);
    return 0;
}
