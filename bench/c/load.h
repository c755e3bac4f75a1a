// What the load generator's parts share. See load.c.
#ifndef LOAD_H
#define LOAD_H

#include <stddef.h>
#include <stdint.h>

#define MAX_ADDRESS 512

enum state { CONNECTING, GREETING, READY };

// One connection to the server.
typedef struct conn {
    int fd, index, room;
    int subscribes, publishes;
    enum state state;
    uint8_t *rest;  // the beginning of an incomplete message
    size_t rest_len, rest_cap;
    uint8_t *out;  // bytes that the socket has not accepted yet
    size_t out_len, out_cap;
    long sent, acked, delivered, errors, pongs;
    long ignored_acks;  // answers to something else than a message
    char user[80], token[256];
    char address[MAX_ADDRESS];
} conn;

// One protocol: the functions for what the generator does.
typedef struct protocol {
    const char *name;
    void (*greet)(conn *c);  // called once the TCP connection is made
    size_t (*parse)(conn *c, const uint8_t *data, size_t size);  // returns how much of it was used up
    void (*subscribe)(conn *c, const char *pattern, uint32_t id);
    void (*publish)(conn *c, const char *address, const uint8_t *value, size_t size);
    void (*ping)(conn *c);
    void (*enter)(conn *c, const char *address);  // announces presence; NULL for none
} protocol;

extern const protocol CLASP, NATS, MQTT;

// Options that the protocols read.
extern int opt_port, opt_events, opt_value_type;

void put(conn *c, const void *data, size_t size);  // sends, or queues what the socket does not accept
void on_ready(conn *c);
void on_ack(conn *c);
void on_error(conn *c, const char *text, size_t size);
void on_pong(conn *c);
void on_delivery(conn *c, const uint8_t *value, size_t size);
void die(const char *what);

#endif
