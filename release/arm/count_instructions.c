/* A qemu-user plugin that counts the guest's instructions and writes their number at its end.
 *
 * Declares the handful of qemu's plugin functions it needs by itself (API version 1, stable since
 * qemu 6): distributions do not install the header. Source: qemu docs/devel/tcg-plugins.rst.
 * Argument: out=FILE. One inline addition a block; threads are not counted apart, and two that add
 * at the same instant may lose one block, which is nothing among millions.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

typedef void (*translated)(qemu_plugin_id_t id, struct qemu_plugin_tb *block);
typedef void (*ended)(qemu_plugin_id_t id, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, translated call);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, ended call, void *data);
void qemu_plugin_register_vcpu_tb_exec_inline(
    struct qemu_plugin_tb *block, enum qemu_plugin_op op, void *at, uint64_t add);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);

EXPORTED int qemu_plugin_version = 1;

static uint64_t instructions;
static char out[4096];

static void count(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(
        block, QEMU_PLUGIN_INLINE_ADD_U64, &instructions, qemu_plugin_tb_n_insns(block));
}

static void report(qemu_plugin_id_t id, void *data)
{
    FILE *file = fopen(out, "w");
    (void)id;
    (void)data;
    if (file) {
        fprintf(file, "%llu\n", (unsigned long long)instructions);
        fclose(file);
    }
}

EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            snprintf(out, sizeof out, "%s", argv[i] + 4);
        }
    }
    if (!out[0]) {
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, count);
    qemu_plugin_register_atexit_cb(id, report, NULL);
    return 0;
}
