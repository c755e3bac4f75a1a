// CLASP over WebSocket, as its clients speak it: one binary masked message per frame.
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HELLO = 0x01, WELCOME = 0x02, SUBSCRIBE = 0x10, PUBLISH = 0x20, SET = 0x21, PING = 0x41, PONG = 0x42, ACK = 0x50, ERROR = 0x51 };

static const uint8_t MASK[4] = {0x12, 0x34, 0x56, 0x78};

static size_t put_u16(uint8_t *to, size_t value) {
    to[0] = value >> 8;
    to[1] = value;
    return 2;
}

static size_t put_text(uint8_t *to, const char *text) {
    size_t size = strlen(text);
    put_u16(to, size);
    memcpy(to + 2, text, size);
    return size + 2;
}

// Sends a payload as a frame in a masked WebSocket message.
static void send_frame(conn *c, const uint8_t *payload, size_t size, int flags) {
    uint8_t wire[66000];
    size_t at = 0, length = size + 4;
    wire[at++] = 0x82;
    if (length < 126) {
        wire[at++] = 0x80 | length;
    } else {
        wire[at++] = 0xfe;
        at += put_u16(wire + at, length);
    }
    memcpy(wire + at, MASK, 4);
    at += 4;
    uint8_t *frame = wire + at;
    frame[0] = 0x53;
    frame[1] = flags;
    put_u16(frame + 2, size);
    memcpy(frame + 4, payload, size);
    for (size_t i = 0; i < length; i++) frame[i] ^= MASK[i & 3];
    put(c, wire, at + length);
}

static void greet(conn *c) {
    char request[512];
    int size = snprintf(request, sizeof request,
                        "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Protocol: clasp\r\n\r\n",
                        opt_port);
    put(c, request, size);
}

static void hello(conn *c) {
    uint8_t payload[600] = {HELLO, 1, 0xf8};
    size_t size = 3;
    size += put_text(payload + size, "load");
    size += put_text(payload + size, c->token);
    send_frame(c, payload, size, 1);
}

static void subscribe(conn *c, const char *pattern, uint32_t id) {
    uint8_t payload[MAX_ADDRESS + 16] = {SUBSCRIBE, id >> 24, id >> 16, id >> 8, id};
    size_t size = 5 + put_text(payload + 5, pattern);
    payload[size++] = 0xff;
    payload[size++] = 0;
    send_frame(c, payload, size, 1);
}

static void publish(conn *c, const char *address, const uint8_t *value, size_t value_size) {
    uint8_t payload[65536] = {opt_events ? PUBLISH : SET, opt_events ? 1 << 5 : opt_value_type};
    size_t size = 2 + put_text(payload + 2, address);
    if (opt_events) {
        payload[size++] = 1;
        payload[size++] = opt_value_type;
    }
    memcpy(payload + size, value, value_size);
    send_frame(c, payload, size + value_size, 0x41);
}

static void ping(conn *c) {
    uint8_t payload[1] = {PING};
    send_frame(c, payload, 1, 1);
}

static void enter(conn *c, const char *address) {
    static const uint8_t online[] = {0, 1, 0, 6, 's', 't', 'a', 't', 'u', 's', 8, 0, 6, 'o', 'n', 'l', 'i', 'n', 'e'};
    uint8_t payload[MAX_ADDRESS + 32] = {SET, 0x0b};
    size_t size = 2 + put_text(payload + 2, address);
    memcpy(payload + size, online, sizeof online);
    send_frame(c, payload, size + sizeof online, 1);
}

static void on_frame(conn *c, const uint8_t *frame, size_t size) {
    size_t start = size > 1 && frame[1] & 0x20 ? 12 : 4;
    if (size <= start || frame[0] != 0x53) die("a frame that is none");
    const uint8_t *payload = frame + start, *value;
    size_t address = size >= start + 4 ? (size_t)payload[2] << 8 | payload[3] : 0;
    switch (payload[0]) {
        case SET:
            value = payload + 4 + address;
            on_delivery(c, value, frame + size - value);
            break;
        case PUBLISH:
            value = payload + 6 + address;  // behind the indicator and the type
            on_delivery(c, value, frame + size - value);
            break;
        case ACK: on_ack(c); break;
        case PONG: on_pong(c); break;
        case WELCOME: on_ready(c); break;
        case ERROR: on_error(c, (const char *)payload + 5, (size_t)payload[3] << 8 | payload[4]); break;
        default: break;  // SNAPSHOT
    }
}

static void on_control(conn *c, int opcode, const uint8_t *data, size_t size) {
    if (opcode == 9) {
        uint8_t pong[140] = {0x8a, 0x80 | size};
        memcpy(pong + 6, data, size);
        put(c, pong, 6 + size);
    } else if (opcode == 8) {
        fprintf(stderr, "closed by the server: %.*s\n", size > 2 ? (int)size - 2 : 0, data + 2);
        exit(3);
    }
}

static size_t parse(conn *c, const uint8_t *data, size_t size) {
    size_t at = 0;
    if (c->state == GREETING && size && data[0] == 'H') {
        const uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
        if (!end) return 0;
        if (size < 12 || memcmp(data + 9, "101", 3)) die("the upgrade was refused");
        at = end + 4 - data;
        hello(c);
    }
    while (size - at >= 2) {
        const uint8_t *head = data + at;
        size_t length = head[1] & 0x7f, start = 2;
        if (length == 126) {
            if (size - at < 4) break;
            length = (size_t)head[2] << 8 | head[3];
            start = 4;
        } else if (length == 127) {
            if (size - at < 10) break;
            // The longest frame has four bytes more than a 16-bit length allows.
            length = (size_t)head[7] << 16 | (size_t)head[8] << 8 | head[9];
            start = 10;
        }
        if (size - at < start + length) break;
        if ((head[0] & 15) == 2) on_frame(c, head + start, length);
        else on_control(c, head[0] & 15, head + start, length);
        at += start + length;
    }
    return at;
}

const protocol CLASP = {"clasp", greet, parse, subscribe, publish, ping, enter};
