//! Filters of system calls (seccomp(2)), as programs of classic BPF over `struct seccomp_data`.
#![expect(unsafe_code, reason = "prctl(2) takes a pointer to the filter")]

use std::io;

use nix::libc::{self, c_long, sock_filter};

use super::check;

/// Offsets in `struct seccomp_data` (linux/seccomp.h): the call's number, the architecture, the second argument's lower half.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const SECOND: u32 = if cfg!(target_endian = "little") { 24 } else { 28 };
/// AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 of linux/audit.h; none: no filter is made.
const OURS: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};
/// Numbers from here on are those of the x32 ABI on x86_64 (__X32_SYSCALL_BIT), second names of the same calls.
const SECOND_NAMES: u32 = 0x4000_0000;

/// What starts or takes over other programs, and what changes the kernel or the namespaces under us.
const PROGRAMS: [c_long; 20] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_open_by_handle_at,
];

/// What it takes to read files and folders, to talk over sockets, to write a log and a queue, and to end; with what a C library needs
/// for that.
const TALK: [c_long; 60] = [
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
    libc::SYS_ppoll,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_fgetxattr,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The same by older names, which only old architectures have.
#[cfg(target_arch = "x86_64")]
const OLD_NAMES: [c_long; 6] =
    [libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_poll, libc::SYS_readlink, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const OLD_NAMES: [c_long; 0] = [];

/// Forbids what [`PROGRAMS`] lists.
pub(super) fn deny_programs() -> io::Result<()> {
    let deny = verdict(libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs());
    let mut program = vec![jump(libc::BPF_JGE, SECOND_NAMES, (0, 1)), deny];
    for number in PROGRAMS {
        program.extend([jump(libc::BPF_JEQ, call(number), (0, 1)), deny]);
    }
    program.push(verdict(libc::SECCOMP_RET_ALLOW));
    install(program)
}

/// Forbids what [`TALK`] does not list, and every ioctl but that which makes a socket wait for nobody.
pub(super) fn allow_talk() -> io::Result<()> {
    let allow = verdict(libc::SECCOMP_RET_ALLOW);
    let mut program = Vec::new();
    for number in TALK.into_iter().chain(OLD_NAMES) {
        program.extend([jump(libc::BPF_JEQ, call(number), (0, 1)), allow]);
    }
    program.extend([jump(libc::BPF_JEQ, call(libc::SYS_ioctl), (0, 3)), load(SECOND)]);
    program.extend([jump(libc::BPF_JEQ, call(libc::FIONBIO as c_long), (0, 1)), allow]);
    program.push(verdict(libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()));
    install(program)
}

/// Numbers are small and positive.
fn call(number: c_long) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn verdict(value: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, value)
}

/// How many statements to pass over if the comparison holds, and if not.
fn jump(comparison: u32, value: u32, (jt, jf): (u8, u8)) -> sock_filter {
    sock_filter { jt, jf, ..statement(libc::BPF_JMP | comparison | libc::BPF_K, value) }
}

/// Puts the test of the architecture in front, as numbers mean other calls on another one, and installs the filter.
fn install(behind: Vec<sock_filter>) -> io::Result<()> {
    let Some(ours) = OURS else { return Ok(()) };
    let mut program = vec![load(ARCHITECTURE), jump(libc::BPF_JEQ, ours, (1, 0))];
    program.extend([verdict(libc::SECCOMP_RET_KILL_PROCESS), load(NUMBER)]);
    program.extend(behind);
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the filter points to as many statements as it says; both outlive the call, which copies them.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) }.into())
}
