// The same work on an MQTT 5 broker. SETs go out with QoS 1 (PUBACK is the ack), PUBLISHes and deliveries with QoS 0.
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECT = 1, CONNACK, PUBLISH, PUBACK, SUBSCRIBE = 8, SUBACK, PINGREQ = 12, PINGRESP };

// "/a/*/b/**" as "a/+/b/#": not every broker accepts an empty first level
static size_t topic_of(uint8_t *to, const char *address) {
    size_t size = 0;
    for (const char *from = address + (*address == '/'); *from; from++) {
        if (from[0] == '*' && from[1] == '*') {
            to[2 + size++] = '#';
            break;
        }
        to[2 + size++] = *from == '*' ? '+' : *from;
    }
    to[0] = size >> 8;
    to[1] = size;
    return size + 2;
}

static void send_packet(conn *c, int head, const uint8_t *body, size_t size) {
    uint8_t packet[66000];
    size_t at = 0, left = size;
    packet[at++] = head;
    do {
        packet[at] = left & 127;
        left >>= 7;
        if (left) packet[at] |= 128;
        at++;
    } while (left);
    memcpy(packet + at, body, size);
    put(c, packet, at + size);
}

static void greet(conn *c) {
    // Clean start, no keep alive, no properties.
    uint8_t body[64] = {0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0};
    char id[24];
    size_t size = 11, length = snprintf(id, sizeof id, "load%06d", c->index);
    body[size++] = 0;
    body[size++] = length;
    memcpy(body + size, id, length);
    send_packet(c, CONNECT << 4, body, size + length);
}

static void subscribe(conn *c, const char *pattern, uint32_t id) {
    uint8_t body[MAX_ADDRESS + 16] = {id >> 8, id, 0};
    size_t size = 3 + topic_of(body + 3, pattern);
    body[size++] = 4;  // QoS 0, no local
    send_packet(c, SUBSCRIBE << 4 | 2, body, size);
}

static void publish(conn *c, const char *address, const uint8_t *value, size_t value_size) {
    uint8_t body[66000];
    size_t size = topic_of(body, address);
    if (!opt_events) {
        uint16_t id = c->sent % 65535 + 1;
        body[size++] = id >> 8;
        body[size++] = id;
    }
    body[size++] = 0;
    memcpy(body + size, value, value_size);
    send_packet(c, PUBLISH << 4 | (opt_events ? 0 : 2), body, size + value_size);
}

static void ping(conn *c) { send_packet(c, PINGREQ << 4, NULL, 0); }

static void on_packet(conn *c, int head, const uint8_t *body, size_t size) {
    size_t start;
    switch (head >> 4) {
        case CONNACK:
            if (body[1]) die("the server lets nobody in");
            on_ready(c);
            break;
        case PUBLISH:
            start = 2 + ((size_t)body[0] << 8 | body[1]);
            start += 1 + body[start];  // properties of less than 128 bytes
            on_delivery(c, body + start, size - start);
            break;
        case PUBACK:
            if (size > 2 && body[2] >= 0x80) on_error(c, "PUBACK says no", 14);
            else on_ack(c);
            break;
        case PINGRESP: on_pong(c); break;
        case SUBACK: break;
        default: on_error(c, "unexpected packet", 17);
    }
}

static size_t parse(conn *c, const uint8_t *data, size_t size) {
    size_t at = 0;
    while (size - at >= 2) {
        size_t length = 0, start = 1;
        int shift = 0, is_whole = 0;
        while (at + start < size && !is_whole) {
            uint8_t byte = data[at + start++];
            length |= (size_t)(byte & 127) << shift;
            shift += 7;
            is_whole = !(byte & 128);
        }
        if (!is_whole || size - at < start + length) break;
        on_packet(c, data[at], data + at + start, length);
        at += start + length;
    }
    return at;
}

const protocol MQTT = {"mqtt", greet, parse, subscribe, publish, ping, NULL};
