//! A filter of system calls as systemd makes it of RestrictSUIDSGID=yes (seccomp_restrict_sxid of its src/shared/seccomp-util.c,
//! versions 252 to 257): openat2(2) has its mode behind a pointer, where a filter cannot look, so it does not exist.
#![expect(unsafe_code, reason = "pre_exec and prctl(2) have no safe form")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::libc::{self, c_long, sock_filter, sock_fprog};

/// Calls with a mode: its argument's number, and that of the flags by which it counts only with O_CREAT.
const WITH_MODE: [(c_long, u32, Option<u32>); 10] = [
    (libc::SYS_chmod, 1, None),
    (libc::SYS_fchmod, 1, None),
    (libc::SYS_fchmodat, 2, None),
    (libc::SYS_mkdir, 1, None),
    (libc::SYS_mkdirat, 2, None),
    (libc::SYS_mknod, 1, None),
    (libc::SYS_mknodat, 2, None),
    (libc::SYS_creat, 1, None),
    (libc::SYS_open, 2, Some(1)),
    (libc::SYS_openat, 3, Some(2)),
];

/// Puts the command under the filter, and all that it starts.
pub fn restrict_suid_sgid(command: &mut Command) {
    let filter = filter();
    // SAFETY: prctl(2) allocates nothing and takes no lock; the filter was made before the fork.
    unsafe { command.pre_exec(move || install(&filter)) };
}

fn filter() -> Vec<sock_filter> {
    let statement = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |offset: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    // Of struct seccomp_data: the number, and the lower half of an argument (x86-64 only, as the harness is).
    let (number, argument) = (load(0), |n: u32| load(16 + 8 * n));
    let unless = |test: u32, k: u32, skipped: u8| sock_filter {
        jt: 0,
        jf: skipped,
        ..statement(libc::BPF_JMP | test | libc::BPF_K, k)
    };
    let is_call = |call: c_long, skipped| unless(libc::BPF_JEQ, u32::try_from(call).unwrap_or(u32::MAX), skipped);
    let refuse = |errno: i32| statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned());
    let mut filter = vec![number, is_call(libc::SYS_openat2, 1), refuse(libc::ENOSYS)];
    for (call, mode, flags) in WITH_MODE {
        let mut test = Vec::new();
        if let Some(flags) = flags {
            test.extend([argument(flags), unless(libc::BPF_JSET, libc::O_CREAT.cast_unsigned(), 3)]);
        }
        test.extend([argument(mode), unless(libc::BPF_JSET, libc::S_ISUID | libc::S_ISGID, 1), refuse(libc::EPERM)]);
        filter.extend([number, is_call(call, test.len() as u8)]);
        filter.extend(test);
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    filter
}

fn install(filter: &[sock_filter]) -> io::Result<()> {
    let program = sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: it copies the filter, which outlives the call.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
