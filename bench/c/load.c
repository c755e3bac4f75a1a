// Load generator for CLASP relays and their peers; `python -m bench` compiles and runs it.
//
//   cc -O2 -o load load.c clasp.c nats.c mqtt.c
//   load -P PORT [-m clasp|nats|mqtt] [-s SUBSCRIBERS] [-p PUBLISHERS | -b BOTH] [-w WINDOW | -r RATE] [-t SECONDS] …
//
// With -Q PORT,… the subscribers connect to these ports in turn, and only the publishers to -P.
// Publishers SET with QoS 1 and keep WINDOW messages unacknowledged, or send at a total RATE. With -e they PUBLISH, which has
// no acks: then a message counts as acknowledged when the next member of its room has it. Every message of the server is
// parsed. A value carries the time at which it was due, so a server that falls behind cannot hide it.
// Addresses are templates: {room} {user} {pub} (the publisher), {n} (counts to -d and starts again), {h} ({n} / 100).
// Prints "measuring" when the warm-up is over, and at the end one line of JSON. With -H: "ready", then idles until stdin ends.
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { F64 = 7, MAP = 0x0b, SCRATCH = 1 << 20, MAX_LATENCIES = 8 << 20, STAMP_AT = 9, PER_SOURCE = 20000 };

int opt_port = 7330, opt_events, opt_value_type = F64;
static int subscribers, publishers = 1, both, window = 1, rooms = 1, distinct = 1, value_bytes, concurrency = 64, hold;
static int extra_patterns, subscriber_ports[64], subscriber_port_count;
static long total;
static double seconds = 2, rate, warm = 0.5;
static const char *address_template = "/bench/{room}/a", *pattern_template, *enter_template, *extra_template;
static const protocol *proto = &CLASP;

static conn **conns;
static int conn_count, epoll_fd, ready_count, pong_count, members_per_room;
static long unsent, deliveries, acks, errors;
static int is_measuring;
static uint64_t due_us;  // when the message being made should have been sent
static uint64_t read_us;  // when the data being parsed was read
static uint64_t *latencies;
static size_t latency_count;
static uint8_t value[66000];

void die(const char *what) {
    perror(what);
    exit(2);
}

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

// --- What the protocols call

static void keep(conn *c, const uint8_t *data, size_t size) {
    if (!c->out_len) unsent++;
    if (c->out_len + size > c->out_cap) {
        c->out_cap = (c->out_len + size) * 2;
        c->out = realloc(c->out, c->out_cap);
    }
    memcpy(c->out + c->out_len, data, size);
    c->out_len += size;
}

static int is_collecting;  // a publisher's messages of one turn are sent with one write

void put(conn *c, const void *data, size_t size) {
    if (!is_collecting && !c->out_len) {
        ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN) die("send");
        if (sent == (ssize_t)size) return;
        if (sent > 0) data = (const uint8_t *)data + sent, size -= sent;
    }
    keep(c, data, size);
}

static void flush_out(conn *c) {
    size_t at = 0;
    while (at < c->out_len) {
        ssize_t sent = send(c->fd, c->out + at, c->out_len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EAGAIN) break;
            die("send");
        }
        at += sent;
    }
    memmove(c->out, c->out + at, c->out_len - at);
    c->out_len -= at;
    if (!c->out_len) unsent--;
}

void on_ready(conn *c) {
    c->state = READY;
    ready_count++;
}

void on_pong(conn *c) {
    c->pongs++;
    pong_count++;
}

void on_ack(conn *c) {
    if (c->ignored_acks) {
        c->ignored_acks--;
        return;
    }
    c->acked++;
    if (is_measuring) acks++;
}

void on_error(conn *c, const char *text, size_t size) {
    c->errors++;
    if (++errors < 4) fprintf(stderr, "error: %.*s\n", (int)size, text);
    if (c->state != READY) exit(3);
}

static void read_ports(const char *text) {
    for (; *text && subscriber_port_count < 64; text += strcspn(text, ","), text += *text == ',')
        subscriber_ports[subscriber_port_count++] = atoi(text);
}

static uint64_t hex(const uint8_t *text, int digits) {
    uint64_t number = 0;
    for (int i = 0; i < digits; i++) number = number << 4 | (text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
    return number;
}

static uint64_t stamp_of(const uint8_t *data) {
    if (opt_value_type == MAP) return hex(data + STAMP_AT, 16);
    union { uint64_t bits; double number; } stamp = {0};
    for (int i = 0; i < 8; i++) stamp.bits = stamp.bits << 8 | data[i];
    return stamp.number;
}

void on_delivery(conn *c, const uint8_t *data, size_t size) {
    c->delivered++;
    if (is_measuring) {
        deliveries++;
        if (latencies && size >= 8 && latency_count < MAX_LATENCIES) latencies[latency_count++] = read_us - stamp_of(data);
    }
    if (opt_events && both && size > STAMP_AT + 24) {
        conn *from = conns[hex(data + STAMP_AT + 16, 8)];
        if (from->index / rooms == (c->index / rooms + members_per_room - 1) % members_per_room) on_ack(from);
    }
}

// --- Addresses and values

static void expand(char *to, const char *template, const conn *c, long n) {
    char *end = to + MAX_ADDRESS - 80;
    while (*template && to < end) {
        if (*template != '{') {
            *to++ = *template++;
            continue;
        }
        if (!strncmp(template, "{room}", 6)) to += sprintf(to, "%d", c->room);
        else if (!strncmp(template, "{user}", 6)) to += sprintf(to, "%s", c->user);
        else if (!strncmp(template, "{pub}", 5)) to += sprintf(to, "%d", c->index);
        else if (!strncmp(template, "{n}", 3)) to += sprintf(to, "%ld", n);
        else if (!strncmp(template, "{h}", 3)) to += sprintf(to, "%ld", n / 100);
        else die(template);
        template = strchr(template, '}') + 1;
    }
    *to = 0;
}

static size_t text_field(uint8_t *to, const char *key, const char *text, size_t size) {
    size_t key_size = strlen(key), at = 0;
    to[at++] = key_size >> 8;
    to[at++] = key_size;
    memcpy(to + at, key, key_size);
    at += key_size;
    to[at++] = 8;
    to[at++] = size >> 8;
    to[at++] = size;
    memcpy(to + at, text, size);
    return at + size;
}

// A value of 8 bytes, or a chat message of about -v bytes as a map: id (time, publisher), userId, text.
static size_t make_value(const conn *c) {
    if (opt_value_type == F64) {
        union { uint64_t bits; double number; } stamp = {.number = due_us};
        for (int i = 0; i < 8; i++) value[i] = stamp.bits >> (56 - 8 * i);
        return 8;
    }
    static char filler[65536];
    if (!filler[0]) memset(filler, 'x', sizeof filler - 1);
    char id[32];
    snprintf(id, sizeof id, "%016lx%08x", (unsigned long)due_us, c->index);
    value[0] = 0;
    value[1] = 3;
    size_t at = 2 + text_field(value + 2, "id", id, 24);
    at += text_field(value + at, "userId", c->user, strlen(c->user));
    size_t left = value_bytes > (int)at + 9 ? value_bytes - at - 9 : 0;
    return at + text_field(value + at, "text", filler, left);
}

static void publish(conn *c) {
    char address[MAX_ADDRESS];
    const char *where = c->address;
    if (distinct > 1) {
        expand(address, address_template, c, c->sent % distinct);
        where = address;
    }
    proto->publish(c, where, value, make_value(c));
    c->sent++;
}

// --- Connections

static void dial(conn *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    int port = subscriber_port_count && !c->publishes ? subscriber_ports[c->index % subscriber_port_count] : opt_port;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    // One client address does not have enough ports for all connections.
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + c->index / PER_SOURCE)};
    if (c->index >= PER_SOURCE && bind(c->fd, (void *)&from, sizeof from)) die("bind");
    if (connect(c->fd, (void *)&to, sizeof to) && errno != EINPROGRESS) die("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
}

static void read_from(conn *c) {
    static uint8_t scratch[2 * SCRATCH];
    memcpy(scratch, c->rest, c->rest_len);
    ssize_t got = recv(c->fd, scratch + c->rest_len, SCRATCH, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) die("recv");
    if (!got) {
        fprintf(stderr, "closed by the server\n");
        exit(3);
    }
    if (latencies) read_us = now_us();
    size_t size = c->rest_len + got, used = proto->parse(c, scratch, size);
    c->rest_len = size - used;
    if (c->rest_len > SCRATCH) die("a message without an end");
    if (c->rest_len > c->rest_cap) {
        c->rest_cap = c->rest_len;
        c->rest = realloc(c->rest, c->rest_cap);
    }
    memcpy(c->rest, scratch + used, c->rest_len);
}

static void turn(int timeout_ms) {
    struct epoll_event events[256];
    int count = epoll_wait(epoll_fd, events, 256, timeout_ms);
    for (int i = 0; i < count; i++) {
        conn *c = events[i].data.ptr;
        if (c->state == CONNECTING) {
            int error = 0;
            socklen_t size = sizeof error;
            getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
            if (error) {
                errno = error;
                die("connect");
            }
            c->state = GREETING;
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
            epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
            proto->greet(c);
        }
        if (events[i].events & ~EPOLLOUT) read_from(c);
    }
    for (int i = 0; unsent && i < conn_count; i++)
        if (conns[i]->out_len) flush_out(conns[i]);
}

// Waits until every connection has an answer to a ping: until the server has done all that came before.
static void barrier(void) {
    pong_count = 0;
    uint64_t end = now_us() + 60000000;
    for (int i = 0; i < conn_count; i++) {
        proto->ping(conns[i]);
        if (i % 100 == 99) turn(0);
    }
    while (pong_count < conn_count) {
        turn(100);
        if (now_us() > end) die("no answer to a ping");
    }
}

static void connect_all(const char *token_file) {
    FILE *tokens = token_file ? fopen(token_file, "r") : NULL;
    if (token_file && !tokens) die(token_file);
    char line[512] = "";
    for (int i = 0; i < conn_count; i++) {
        conn *c = conns[i] = calloc(1, sizeof *c);
        c->index = i;
        c->subscribes = both || i < subscribers;
        c->publishes = both || i >= subscribers;
        c->room = (c->subscribes ? i : i - subscribers) % rooms;
        snprintf(c->user, sizeof c->user, "user%d", i);
        // Each line is a token and the subject's id; the last one serves all that are left.
        if (tokens && fgets(line, sizeof line, tokens)) line[strcspn(line, "\n")] = 0;
        if (tokens) sscanf(line, "%255s %79s", c->token, c->user);
        expand(c->address, address_template, c, 0);
        while (i - ready_count >= concurrency) turn(100);
        dial(c);
    }
    while (ready_count < conn_count) turn(100);
}

static void subscribe_all(void) {
    for (int i = 0; i < conn_count; i++) {
        conn *c = conns[i];
        char pattern[MAX_ADDRESS];
        if (enter_template && proto->enter) {
            expand(pattern, enter_template, c, 0);
            proto->enter(c, pattern);
        }
        if (c->subscribes) {
            expand(pattern, pattern_template ? pattern_template : address_template, c, 0);
            proto->subscribe(c, pattern, 1);
        }
        for (int n = 0; n < extra_patterns; n++) {
            expand(pattern, extra_template, c, n);
            proto->subscribe(c, pattern, 2 + n);
            if (n % 100 == 99) turn(0);
        }
        if (i % 100 == 99) turn(0);
    }
    barrier();
}

// --- The work

static void publish_due(uint64_t start_us) {
    static long paced;
    long due = (now_us() - start_us) * rate / 1e6;
    for (; paced < due; paced++) {
        due_us = start_us + paced * 1e6 / rate;
        publish(conns[conn_count - publishers + paced % publishers]);
    }
}

static void fill_windows(void) {
    due_us = now_us();
    for (int i = conn_count - publishers; i < conn_count; i++) {
        conn *c = conns[i];
        long room = window - (c->sent - c->acked - c->errors);
        if (room < (window + 1) / 2) continue;
        if (total && room > total - c->sent) room = total - c->sent;
        is_collecting = 1;
        while (room-- > 0) publish(c);
        is_collecting = 0;
        if (c->out_len) flush_out(c);
    }
}

static int is_all_acked(void) {
    for (int i = conn_count - publishers; i < conn_count; i++)
        if (conns[i]->acked + conns[i]->errors < total) return 0;
    return 1;
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void report(double elapsed_s, long sent, double cpu_s, double connect_s) {
    long least = 0, most = 0;
    for (int i = 0; i < conn_count; i++) {
        if (!conns[i]->subscribes) continue;
        if (!i || conns[i]->delivered < least) least = conns[i]->delivered;
        if (conns[i]->delivered > most) most = conns[i]->delivered;
    }
    printf("{\"elapsed_s\": %.3f, \"sent\": %ld, \"acks\": %ld, \"deliveries\": %ld, \"errors\": %ld, \"least\": %ld, \"most\": %ld, "
           "\"generator_cpu_s\": %.3f, \"connections\": %d, \"connect_s\": %.4f",
           elapsed_s, sent, acks, deliveries, errors, least, most, cpu_s, conn_count, connect_s);
    if (latency_count) {
        qsort(latencies, latency_count, sizeof *latencies, compare);
        printf(", \"latency_us\": {\"p50\": %lu, \"p99\": %lu, \"p99.9\": %lu, \"max\": %lu}", (unsigned long)latencies[latency_count / 2],
               (unsigned long)latencies[(size_t)(latency_count * 0.99)], (unsigned long)latencies[(size_t)(latency_count * 0.999)],
               (unsigned long)latencies[latency_count - 1]);
    }
    printf("}\n");
    fflush(stdout);
}

static void work(double connect_s) {
    uint64_t start = now_us(), begin = start + warm * 1e6, end = begin + seconds * 1e6, measured_from = start;
    long sent = 0;
    double cpu_s = 0;
    if (rate) latencies = malloc(MAX_LATENCIES * sizeof *latencies);
    for (;;) {
        uint64_t now = now_us();
        if (!is_measuring && now >= begin) {
            printf("measuring\n");
            fflush(stdout);
            is_measuring = 1;
            measured_from = now;
            cpu_s = cpu_seconds();
            for (int i = 0; i < conn_count; i++) sent -= conns[i]->sent;
        }
        if (total ? is_all_acked() : now >= end) break;
        if (rate) publish_due(start);
        else fill_windows();
        turn(rate ? 0 : 1);
    }
    double elapsed_s = (now_us() - measured_from) / 1e6;
    for (int i = 0; i < conn_count; i++) sent += conns[i]->sent;
    report(elapsed_s, sent, cpu_seconds() - cpu_s, connect_s);
}

static void idle(void) {
    printf("ready\n");
    fflush(stdout);
    struct pollfd watched[2] = {{.fd = 0, .events = POLLIN}, {.fd = epoll_fd, .events = POLLIN}};
    for (;;) {
        poll(watched, 2, -1);
        if (watched[0].revents) return;
        turn(0);
    }
}

int main(int argc, char **argv) {
    const char *token_file = NULL;
    int option;
    while ((option = getopt(argc, argv, "P:Q:m:s:p:b:w:r:t:W:g:d:v:ea:S:E:x:X:T:k:N:H")) != -1) {
        switch (option) {
            case 'P': opt_port = atoi(optarg); break;
            case 'Q': read_ports(optarg); break;
            case 'm': proto = !strcmp(optarg, "nats") ? &NATS : !strcmp(optarg, "mqtt") ? &MQTT : &CLASP; break;
            case 's': subscribers = atoi(optarg); break;
            case 'p': publishers = atoi(optarg); break;
            case 'b': both = atoi(optarg); break;
            case 'w': window = atoi(optarg); break;
            case 'r': rate = atof(optarg); break;
            case 't': seconds = atof(optarg); break;
            case 'W': warm = atof(optarg); break;
            case 'g': rooms = atoi(optarg); break;
            case 'd': distinct = atoi(optarg); break;
            case 'v': value_bytes = atoi(optarg), opt_value_type = MAP; break;
            case 'e': opt_events = 1; break;
            case 'a': address_template = optarg; break;
            case 'S': pattern_template = optarg; break;
            case 'E': enter_template = optarg; break;
            case 'x': extra_template = optarg; break;
            case 'X': extra_patterns = atoi(optarg); break;
            case 'T': token_file = optarg; break;
            case 'k': concurrency = atoi(optarg); break;
            case 'N': total = atol(optarg); break;
            case 'H': hold = 1; break;
            default: return 2;
        }
    }
    if (both) subscribers = 0, publishers = both;
    conn_count = subscribers + publishers;
    members_per_room = conn_count / rooms;
    conns = calloc(conn_count, sizeof *conns);
    epoll_fd = epoll_create1(0);
    uint64_t start = now_us();
    connect_all(token_file);
    double connect_s = (now_us() - start) / 1e6;
    subscribe_all();
    if (hold) idle();
    else if (seconds || total) work(connect_s);
    else report(0, 0, cpu_seconds(), connect_s);
    return 0;
}
