// The same work on nats-server. Publishers that wait for acks are verbose: +OK is the ack of a PUB.
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// "/a/*/b/**" as "a.*.b.>"
static void subject_of(char *to, const char *address) {
    const char *end = to + MAX_ADDRESS - 1;
    for (const char *from = address + 1; *from && to < end; from++) {
        if (from[0] == '*' && from[1] == '*') {
            *to++ = '>';
            break;
        }
        *to++ = *from == '/' ? '.' : *from;
    }
    *to = 0;
}

static void greet(conn *c) { (void)c; }  // the server speaks first

static void connect_(conn *c) {
    char text[200];
    int is_verbose = c->publishes && !c->subscribes && !opt_events;
    // One +OK answers CONNECT.
    c->ignored_acks = is_verbose;
    put(c, text, snprintf(text, sizeof text, "CONNECT {\"verbose\":%s,\"echo\":false}\r\nPING\r\n", is_verbose ? "true" : "false"));
}

static void subscribe(conn *c, const char *pattern, uint32_t id) {
    char subject[MAX_ADDRESS], text[MAX_ADDRESS + 40];
    subject_of(subject, pattern);
    put(c, text, snprintf(text, sizeof text, "SUB %s %u\r\n", subject, id));
}

static void publish(conn *c, const char *address, const uint8_t *value, size_t size) {
    static char last_address[MAX_ADDRESS], subject[MAX_ADDRESS];
    if (strcmp(last_address, address)) {
        strcpy(last_address, address);
        subject_of(subject, address);
    }
    char text[MAX_ADDRESS + 40 + 65536];
    size_t at = snprintf(text, sizeof text, "PUB %s %zu\r\n", subject, size);
    memcpy(text + at, value, size);
    memcpy(text + at + size, "\r\n", 2);
    put(c, text, at + size + 2);
}

static void ping(conn *c) { put(c, "PING\r\n", 6); }

// "MSG subject id size\r\n": returns where the value starts, or 0 while it is incomplete.
static size_t message(conn *c, const uint8_t *line, size_t head, size_t size) {
    size_t length = 0, unit = 1;
    for (const uint8_t *digit = line + head - 3; *digit != ' '; digit--, unit *= 10) length += (*digit - '0') * unit;
    if (size < head + length + 2) return 0;
    on_delivery(c, line + head, length);
    return head + length + 2;
}

static size_t parse(conn *c, const uint8_t *data, size_t size) {
    size_t at = 0;
    for (;;) {
        const uint8_t *line = data + at, *end = memchr(line, '\n', size - at);
        if (!end) return at;
        size_t used = end + 1 - line;
        switch (line[0]) {
            case '+': on_ack(c); break;
            case 'M':
                used = message(c, line, used, size - at);
                if (!used) return at;
                break;
            case 'I':
                if (c->state == GREETING) connect_(c);
                break;
            case 'P':
                if (line[1] == 'I') put(c, "PONG\r\n", 6);
                else if (c->state == READY) on_pong(c);
                else on_ready(c);
                break;
            default: on_error(c, (const char *)line, used);
        }
        at += used;
    }
}

const protocol NATS = {"nats", greet, parse, subscribe, publish, ping, NULL};
