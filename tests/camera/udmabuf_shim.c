/*
 * Lets libcamera's virtual camera run on a kernel without /dev/udmabuf and /dev/dma_heap.
 *
 * libcamera passes frames about as dma-bufs. On a Pi they come from a DMA heap; on other machines
 * libcamera makes them from memfds with /dev/udmabuf. Both need kernel drivers that containers and
 * virtual machines often lack. To a process that only maps the buffers a memfd is as good as a
 * dma-buf, so this library, loaded with LD_PRELOAD, answers the calls that make them with memfds.
 *
 *     gcc -O2 -Wall -Wextra -shared -fPIC -o udmabuf_shim.so udmabuf_shim.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_PROVIDERS = 64 };

static int (*next_open)(const char *, int, ...);
static int (*next_open64)(const char *, int, ...);
static int (*next_close)(int);
static int (*next_ioctl)(int, unsigned long, ...);

/*
 * Not when they are first needed: dlsym waits for whoever loads a library, and a library that
 * libcamera brings (LTTng) waits, while it is being loaded, for a thread that closes files.
 */
__attribute__((constructor)) static void find_next(void)
{
    next_open = dlsym(RTLD_NEXT, "open");
    next_open64 = dlsym(RTLD_NEXT, "open64");
    next_close = dlsym(RTLD_NEXT, "close");
    next_ioctl = dlsym(RTLD_NEXT, "ioctl");
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int providers[MAX_PROVIDERS];
static int provider_count;

static bool provides_buffers(const char *path)
{
    return path && (!strcmp(path, "/dev/udmabuf") || !strncmp(path, "/dev/dma_heap/", 14));
}

static bool is_provider(int fd)
{
    bool found = false;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < provider_count; i++)
        found = found || providers[i] == fd;
    pthread_mutex_unlock(&lock);
    return found;
}

/* Returns a descriptor that stands for the missing device. */
static int add_provider(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    if (fd < 0)
        return -1;
    pthread_mutex_lock(&lock);
    bool room = provider_count < MAX_PROVIDERS;
    if (room)
        providers[provider_count++] = fd;
    pthread_mutex_unlock(&lock);
    if (room)
        return fd;
    close(fd);
    errno = EMFILE;
    return -1;
}

static void remove_provider(int fd)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < provider_count; i++) {
        if (providers[i] == fd) {
            providers[i] = providers[--provider_count];
            break;
        }
    }
    pthread_mutex_unlock(&lock);
}

static bool has_mode(int flags)
{
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

#define DEFINE_OPEN(name)                                                                      \
    int name(const char *path, int flags, ...)                                                 \
    {                                                                                          \
        mode_t mode = 0;                                                                       \
        if (has_mode(flags)) {                                                                 \
            va_list arguments;                                                                 \
            va_start(arguments, flags);                                                        \
            mode = va_arg(arguments, mode_t);                                                  \
            va_end(arguments);                                                                 \
        }                                                                                      \
        if (provides_buffers(path))                                                            \
            return add_provider();                                                             \
        return next_##name(path, flags, mode);                                                 \
    }

DEFINE_OPEN(open)
DEFINE_OPEN(open64)

int close(int fd)
{
    remove_provider(fd);
    return next_close(fd);
}

/* /dev/udmabuf: the caller brings the memory; it only wants another descriptor for it. */
static int create_udmabuf(const struct udmabuf_create *wanted)
{
    if (wanted->offset != 0) {
        errno = EINVAL;
        return -1;
    }
    return fcntl((int)wanted->memfd, F_DUPFD_CLOEXEC, 0);
}

/* /dev/dma_heap/NAME: the kernel brings the memory. */
static int allocate_from_heap(struct dma_heap_allocation_data *wanted)
{
    int fd = memfd_create("dma-heap", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)wanted->len) < 0) {
        close(fd);
        return -1;
    }
    wanted->fd = (unsigned int)fd;
    return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);

    if (is_provider(fd) && request == UDMABUF_CREATE)
        return create_udmabuf(argument);
    if (is_provider(fd) && request == DMA_HEAP_IOCTL_ALLOC)
        return allocate_from_heap(argument);

    int result = next_ioctl(fd, request, argument);
    /* Memfds know neither cache synchronization nor names, and need neither. */
    bool harmless = request == DMA_BUF_IOCTL_SYNC || request == DMA_BUF_SET_NAME_A ||
                    request == DMA_BUF_SET_NAME_B;
    return result < 0 && harmless && (errno == ENOTTY || errno == EINVAL) ? 0 : result;
}
