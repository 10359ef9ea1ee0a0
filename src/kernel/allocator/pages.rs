//! Memory from the kernel for who needs much of it: `status` and `reconcile` of a thousand NICs take some 40 MB, and each page that is
//! touched for the first time takes a microsecond. In huge pages, where the kernel has them, that is a tenth of their time less.
#![expect(unsafe_code, reason = "mmap(2) and a trait that is unsafe")]

use std::ptr;

use nix::libc;

/// Bytes of a huge page, where pages have 4 kB.
const HUGE: usize = 2 * 1024 * 1024;
/// Bytes that are asked for at a time; what is not touched costs nothing.
const CHUNK: usize = 8 * HUGE;

fn map(size: usize) -> Option<*mut u8> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel chooses a place where nothing is.
    let start = unsafe { libc::mmap(ptr::null_mut(), size, access, kind, -1, 0) };
    (start != libc::MAP_FAILED).then_some(start.cast())
}

/// Gives memory, and takes none back: the process ends soon.
pub struct Pages;

// SAFETY: a piece is of a mapping that nobody else knows, as long as it says, and stays until the process ends.
unsafe impl dlmalloc::Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let chunk = size.checked_next_multiple_of(CHUNK).unwrap_or(size);
        if let Some(start) = chunk.checked_add(HUGE).and_then(map) {
            // SAFETY: there are `HUGE` more bytes than `chunk`.
            let aligned = unsafe { start.add(start.addr().next_multiple_of(HUGE) - start.addr()) };
            // Refused, it is only slower.
            // SAFETY: it changes nothing of what is there.
            let _refused = unsafe { libc::madvise(aligned.cast(), chunk, libc::MADV_HUGEPAGE) };
            return (aligned, chunk, 0);
        }
        // Under a limit (ulimit -v) there may be room for as much as is needed.
        map(size).map_or((ptr::null_mut(), 0, 0), |start| (start, size, 0))
    }

    fn remap(&self, _place: *mut u8, _from: usize, _to: usize, _can_move: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, _place: *mut u8, _from: usize, _to: usize) -> bool {
        false
    }

    fn free(&self, _place: *mut u8, _size: usize) -> bool {
        false
    }

    fn can_release_part(&self, _flags: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}
