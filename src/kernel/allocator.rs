//! Where memory comes from. A run for one NIC needs little and is over in two milliseconds: it is cheaper to hand out one piece after
//! the other, and none twice, than to keep books of what is free. What is more than that is dlmalloc's (musl's own allocator
//! maps and unmaps a page at a time, which was a third of all system calls).
#![expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dlmalloc::Dlmalloc;
use nix::sched::sched_yield;

/// Bytes that are handed out so. An ifup takes some 400 kB, most of it for answers of the kernel; what is not touched costs nothing.
const SIZE: usize = 1024 * 1024;
/// The allocator.
pub struct Allocator {
    memory: Memory,
    /// Bytes of it that are handed out.
    used: AtomicUsize,
}

#[repr(align(4096))]
struct Memory(UnsafeCell<[MaybeUninit<u8>; SIZE]>);

/// dlmalloc behind a lock of one byte: there is hardly ever a second thread, and the pthread mutex of the crate's own takes a fifth of
/// the time of a `status`.
struct Rest {
    taken: AtomicBool,
    heap: UnsafeCell<Dlmalloc>,
}

/// What is not zeros at first, and so must not lie beside the memory: all of it would be in the executable.
static REST: Rest = Rest { taken: AtomicBool::new(false), heap: UnsafeCell::new(Dlmalloc::new()) };

// SAFETY: `with` lets one thread at a time have the heap.
unsafe impl Sync for Rest {}

impl Rest {
    fn with<R>(&self, act: impl FnOnce(&mut Dlmalloc) -> R) -> R {
        while self.taken.swap(true, Ordering::Acquire) {
            // Only EINVAL of another system, which does not have it.
            let _ = sched_yield();
        }
        // SAFETY: nobody else is here until `taken` is false again, and nothing in `act` allocates.
        let done = act(unsafe { &mut *self.heap.get() });
        self.taken.store(false, Ordering::Release);
        done
    }
}

// SAFETY: no byte of it is ever touched here; whoever holds a piece has it alone.
unsafe impl Sync for Memory {}

impl Allocator {
    /// With all its memory free.
    #[expect(clippy::new_without_default, reason = "the memory must not be built on a stack, but in a static")]
    pub const fn new() -> Self {
        Self { memory: Memory(UnsafeCell::new([MaybeUninit::uninit(); SIZE])), used: AtomicUsize::new(0) }
    }

    fn base(&self) -> *mut u8 {
        self.memory.0.get().cast()
    }

    /// Where a piece of ours begins; none for one of dlmalloc's.
    fn place(&self, piece: *mut u8) -> Option<usize> {
        piece.addr().checked_sub(self.base().addr()).filter(|it| *it < SIZE)
    }

    /// Moves the end of what is handed out, if nobody else did. No byte belongs to two threads one after the other, so nothing
    /// else has to be seen in order.
    fn moves(&self, from: usize, to: usize) -> bool {
        self.used.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The next piece, if it fits: zeros, as a static begins, for nobody had these bytes before.
    fn next(&self, layout: Layout) -> Option<*mut u8> {
        if layout.align() > align_of::<Memory>() {
            return None;
        }
        loop {
            let used = self.used.load(Ordering::Relaxed);
            // An alignment is a power of two, of which the compiler does not know.
            let below = layout.align() - 1;
            let start = (used + below) & !below;
            // Does not overflow: a layout is at most isize::MAX bytes.
            let end = start + layout.size();
            if end > SIZE {
                return None;
            }
            if self.moves(used, end) {
                // SAFETY: `start` is within the memory, or at its end for a piece of no size.
                return Some(unsafe { self.base().add(start) });
            }
        }
    }
}

// SAFETY: pieces of ours lie behind each other between the start of the memory and `used`, so no two overlap; each begins at a multiple
// of its alignment, of which the memory's own is one. All others are dlmalloc's, whose layouts are the caller's.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the same.
        let other = || REST.with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) });
        self.next(layout).unwrap_or_else(other)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: likewise.
        let other = || REST.with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) });
        self.next(layout).unwrap_or_else(other)
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if self.place(piece).is_none() {
            // SAFETY: what does not lie in our memory came from dlmalloc, with this layout.
            REST.with(|heap| unsafe { heap.free(piece, layout.size(), layout.align()) });
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(start) = self.place(piece) else {
            // SAFETY: as above.
            return REST.with(|heap| unsafe { heap.realloc(piece, layout.size(), layout.align(), size) });
        };
        // The last piece grows where it is.
        if size <= layout.size() || (start + size <= SIZE && self.moves(start + layout.size(), start + size)) {
            return piece;
        }
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is no more than isize::MAX.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: both are at least as long, and no two pieces overlap.
            unsafe { ptr::copy_nonoverlapping(piece, moved, layout.size()) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static TRIED: Allocator = Allocator::new();

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).expect("a layout")
    }

    #[test]
    fn pieces_are_apart_aligned_and_kept() {
        // SAFETY: each piece is used within its layout, and given back with it once.
        unsafe {
            let first = TRIED.alloc(layout(13));
            let second = TRIED.alloc(layout(16));
            assert!(second.addr() >= first.addr() + 13 && second.addr().is_multiple_of(8));
            first.write_bytes(1, 13);
            second.write_bytes(2, 16);
            // The last grows where it is, another one moves.
            assert_eq!(TRIED.realloc(second, layout(16), 32), second);
            let moved = TRIED.realloc(first, layout(13), 26);
            assert_ne!(moved, first);
            assert!((0..13).all(|at| moved.add(at).read() == 1) && (0..16).all(|at| second.add(at).read() == 2));
            // What is given back is not handed out again, so what is handed out is zeros.
            TRIED.dealloc(second, layout(32));
            let zeros = TRIED.alloc_zeroed(layout(64));
            assert!((0..64).all(|at| zeros.add(at).read() == 0));
            // What is too large, or would be, is dlmalloc's.
            let large = TRIED.alloc(layout(SIZE));
            assert!(!large.is_null() && TRIED.place(large).is_none());
            large.add(SIZE - 1).write(3);
            TRIED.dealloc(large, layout(SIZE));
            let page = TRIED.alloc(Layout::from_size_align(10, 8192).expect("a layout"));
            assert!(page.addr().is_multiple_of(8192) && TRIED.place(page).is_none());
            let grown = TRIED.realloc(moved, layout(26), SIZE);
            assert!(TRIED.place(grown).is_none() && (0..13).all(|at| grown.add(at).read() == 1));
        }
    }
}
