/* A plugin for qemu-user that counts the guest's instructions, and writes the count down whenever
 * the guest asks for it.
 *
 *     gcc -O2 -shared -fPIC -o insncount.so insncount.c
 *     INSNCOUNT_OUT=counts.txt qemu-aarch64 -plugin ./insncount.so ...
 *
 * The guest asks by closing a file descriptor that cannot exist: close(-1000000 - k) fails
 * harmlessly, and appends the line "k count" to INSNCOUNT_OUT. So a stage of a program is measured
 * within one run, without subtracting runs of different length. One thread only: the counter is
 * not shared safely.
 *
 * The prototypes below are qemu's plugin interface (version 1, qemu 4.2 to 8), which Debian does
 * not package as a header.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))
#define MARK_BASE (-1000000)
#define SYS_CLOSE_AARCH64 57

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info; /* what install() is told about the target; not used */
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

typedef void (*translated_t)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*finished_t)(qemu_plugin_id_t, void *);
typedef void (*syscall_t)(qemu_plugin_id_t, unsigned int vcpu, int64_t number, uint64_t a1,
                          uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6,
                          uint64_t a7, uint64_t a8);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated_t);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_t);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, finished_t, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *,
                                              uint64_t);

EXPORT int qemu_plugin_version = 1;

static uint64_t instructions;
static FILE *out;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    /* One addition per executed block, without a call: the emulation is hardly slower for it. */
    qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &instructions,
                                             qemu_plugin_tb_n_insns(block));
}

static void system_call(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1,
                        uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6,
                        uint64_t a7, uint64_t a8)
{
    (void)id, (void)vcpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == SYS_CLOSE_AARCH64 && (int32_t)a1 <= MARK_BASE) {
        fprintf(out, "%d %" PRIu64 "\n", MARK_BASE - (int32_t)a1, instructions);
        fflush(out);
    }
}

static void finished(qemu_plugin_id_t id, void *unused)
{
    (void)id, (void)unused;
    fprintf(out, "end %" PRIu64 "\n", instructions);
    fclose(out);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc,
                               char **argv)
{
    (void)info, (void)argc, (void)argv;
    const char *path = getenv("INSNCOUNT_OUT");
    out = path ? fopen(path, "w") : NULL;
    if (!out) {
        fputs("insncount: set INSNCOUNT_OUT to a file that can be written\n", stderr);
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
