/* What Debian's xenstored asks of the hypervisor, answered as if there were one that never has anything to say. It stands for the
   libraries of these functions (xenctrl.h, xenevtchn.h, xengnttab.h of Xen). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int handle;
static int event = -1;
void *xc_interface_open(void *l, void *d, unsigned f) { return &handle; }
int xc_interface_close(void *x) { return 0; }
int xc_domain_getinfo(void *x, unsigned d, unsigned n, void *i) { return 0; }
void *xenevtchn_open(void *l, unsigned f) { return &handle; }
void *xenevtchn_fdopen(void *l, int fd, unsigned f) { return &handle; }
int xenevtchn_fd(void *x) { if (event < 0) event = eventfd(0, 0); return event; }
int xenevtchn_bind_interdomain(void *x, unsigned d, unsigned p) { return 1; }
int xenevtchn_bind_virq(void *x, unsigned v) { return 1; }
int xenevtchn_notify(void *x, unsigned p) { return 0; }
int xenevtchn_pending(void *x) { return -1; }
int xenevtchn_unbind(void *x, unsigned p) { return 0; }
int xenevtchn_unmask(void *x, unsigned p) { return 0; }
void *xengnttab_open(void *l, unsigned f) { return &handle; }
int xengnttab_close(void *x) { return 0; }
int xengnttab_set_max_grants(void *x, unsigned n) { return 0; }
void *xengnttab_map_grant_ref(void *x, unsigned d, unsigned r, int p) { return 0; }
int xengnttab_unmap(void *x, void *p, unsigned n) { return 0; }

/* Domain 0's port and page, which the kernel of a Xen host has below /proc/xen. */
static int opened(const char *path, int flags, mode_t mode)
{
	int file;
	if (strcmp(path, "/proc/xen/xsd_port") && strcmp(path, "/proc/xen/xsd_kva"))
		return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	file = memfd_create("xen", 0);
	if (!strcmp(path, "/proc/xen/xsd_kva"))
		return ftruncate(file, 4096) ? -1 : file;
	return write(file, "1\n", 2) == 2 && lseek(file, 0, SEEK_SET) == 0 ? file : -1;
}
int open(const char *path, int flags, ...)
{
	va_list rest;
	mode_t mode;
	va_start(rest, flags);
	mode = va_arg(rest, mode_t);
	va_end(rest);
	return opened(path, flags, mode);
}
int open64(const char *path, int flags, ...) __attribute__((alias("open")));
