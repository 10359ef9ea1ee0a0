//! Where memory comes from. A run for one NIC is over in two milliseconds, and of that each page that it touches for the first time
//! takes one microsecond: so what is given back is handed out again first, without any search, and the books are lists by size. What
//! does not fit is dlmalloc's (musl's own allocator maps and unmaps a page at a time, which was a third of all system calls).
#![expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]

mod pages;

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use dlmalloc::Dlmalloc;
use nix::sched::sched_yield;

use self::pages::Pages;

/// Bytes that are handed out so. An ifup takes some 200 kB, most of it for answers of the kernel; what is not touched costs nothing.
const SIZE: usize = 1024 * 1024;
/// Each piece has a multiple of so many bytes, and begins at one.
const UNIT: usize = 16;
/// Bytes of the longest pieces that there are lists of.
const LISTED: usize = 2048;

/// The allocator: all have the same memory.
pub struct Allocator;

#[repr(align(4096))]
struct Memory(UnsafeCell<[MaybeUninit<u8>; SIZE]>);

// SAFETY: no byte of it is touched but by who holds a piece, or under the lock of the heap.
unsafe impl Sync for Memory {}

/// Apart from the heap, which is not zeros at first: all of it would be in the executable.
static MEMORY: Memory = Memory(UnsafeCell::new([MaybeUninit::uninit(); SIZE]));

/// What is handed out.
struct Heap {
    /// Bytes of the memory that are handed out, or in a list.
    used: usize,
    /// What was given back of each number of units: the first piece of a list, which begins with the place of the next.
    free: [*mut u8; LISTED / UNIT + 1],
    rest: Dlmalloc<Pages>,
}

/// A heap behind a lock of one byte: there is hardly ever a second thread, and a pthread mutex takes a fifth of the time of a `status`.
struct Locked {
    taken: AtomicBool,
    heap: UnsafeCell<Heap>,
}

// SAFETY: `with` lets one thread at a time have the heap.
unsafe impl Sync for Locked {}

static HEAP: Locked = Locked {
    taken: AtomicBool::new(false),
    heap: UnsafeCell::new(Heap {
        used: 0,
        free: [ptr::null_mut(); LISTED / UNIT + 1],
        rest: Dlmalloc::new_with_allocator(Pages),
    }),
};

impl Locked {
    fn with<R>(&self, act: impl FnOnce(&mut Heap) -> R) -> R {
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

fn base() -> *mut u8 {
    MEMORY.0.get().cast()
}

/// Where a piece of ours begins; none for one of dlmalloc's.
fn place(piece: *mut u8) -> Option<usize> {
    piece.addr().checked_sub(base().addr()).filter(|it| *it < SIZE)
}

/// Bytes that a piece takes. Does not overflow: a layout is at most isize::MAX bytes.
fn rounded(size: usize) -> usize {
    (size + UNIT - 1) & !(UNIT - 1)
}

impl Heap {
    /// A piece of ours, if one fits.
    fn take(&mut self, layout: Layout) -> Option<*mut u8> {
        if layout.align() > UNIT {
            return None;
        }
        let size = rounded(layout.size());
        if let Some(list) = self.free.get_mut(size / UNIT).filter(|it| !it.is_null()) {
            let piece = *list;
            // SAFETY: nobody holds it, and `give_back` wrote there what comes next.
            *list = unsafe { piece.cast::<*mut u8>().read() };
            return Some(piece);
        }
        let start = self.used;
        if size > SIZE - start {
            return None;
        }
        self.used += size;
        // SAFETY: `start` is within the memory.
        Some(unsafe { base().add(start) })
    }

    /// Takes back a piece of ours. One that is long and not the last is nobody's from now on.
    fn give_back(&mut self, piece: *mut u8, start: usize, size: usize) {
        let size = rounded(size);
        if start + size == self.used {
            self.used = start;
        } else if let Some(list) = self.free.get_mut(size / UNIT) {
            // SAFETY: it was given back, begins at a multiple of UNIT and has room for an address.
            unsafe { piece.cast::<*mut u8>().write(*list) };
            *list = piece;
        }
    }

    /// Whether a piece of ours has, or the last one is given, room for `size` bytes where it is.
    fn resizes(&mut self, start: usize, from: usize, to: usize) -> bool {
        let (from, to) = (rounded(from), rounded(to));
        if start + from == self.used && to <= SIZE - start {
            self.used = start + to;
            return true;
        }
        to <= from
    }
}

// SAFETY: pieces of ours lie behind each other between the start of the memory and `used`, so no two overlap, and begin at multiples
// of UNIT, of which the memory's alignment is one; one that was given back is in one list, until it is taken from there. All others are
// dlmalloc's, whose layouts are the caller's.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.with(|heap| match heap.take(layout) {
            Some(piece) => piece,
            // SAFETY: the caller's promises are the same.
            None => unsafe { heap.rest.malloc(layout.size(), layout.align()) },
        })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match HEAP.with(|heap| heap.take(layout)) {
            Some(piece) => {
                // SAFETY: the piece is that long. Somebody may have had it before.
                unsafe { piece.write_bytes(0, layout.size()) };
                piece
            }
            // SAFETY: as above.
            None => HEAP.with(|heap| unsafe { heap.rest.calloc(layout.size(), layout.align()) }),
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        HEAP.with(|heap| match place(piece) {
            Some(start) => heap.give_back(piece, start, layout.size()),
            // SAFETY: what does not lie in our memory came from dlmalloc, with this layout.
            None => unsafe { heap.rest.free(piece, layout.size(), layout.align()) },
        });
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(start) = place(piece) else {
            // SAFETY: as above.
            return HEAP.with(|heap| unsafe { heap.rest.realloc(piece, layout.size(), layout.align(), size) });
        };
        if HEAP.with(|heap| heap.resizes(start, layout.size(), size)) {
            return piece;
        }
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is no more than isize::MAX.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: `size` is the greater one, as `resizes` says, no two pieces overlap, and the caller gives the old one back.
            unsafe {
                ptr::copy_nonoverlapping(piece, moved, layout.size());
                self.dealloc(piece, layout);
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).expect("a layout")
    }

    #[test]
    fn pieces_are_apart_aligned_and_kept() {
        let all = Allocator;
        // SAFETY: each piece is used within its layout, and given back with it once.
        unsafe {
            let first = all.alloc(layout(13));
            let second = all.alloc(layout(16));
            assert!(second.addr() >= first.addr() + 13 && second.addr().is_multiple_of(UNIT));
            first.write_bytes(1, 13);
            second.write_bytes(2, 16);
            // The last grows and shrinks where it is, another one moves.
            assert_eq!(all.realloc(second, layout(16), 48), second);
            assert_eq!(all.realloc(second, layout(48), 32), second);
            let moved = all.realloc(first, layout(13), 26);
            assert_ne!(moved, first);
            assert!((0..13).all(|at| moved.add(at).read() == 1) && (0..16).all(|at| second.add(at).read() == 2));
            // What was given back comes again to who asks for as much, without what was in it if zeros are wanted.
            let again = all.alloc_zeroed(layout(10));
            assert_eq!(again, first);
            assert!((0..10).all(|at| again.add(at).read() == 0));
            all.dealloc(second, layout(32));
            assert_ne!(all.alloc(layout(16)), second);
            assert_eq!(all.alloc(layout(32)), second);
            // What is too large, or would be, is dlmalloc's.
            let large = all.alloc(layout(SIZE));
            assert!(!large.is_null() && place(large).is_none());
            large.add(SIZE - 1).write(3);
            all.dealloc(large, layout(SIZE));
            let page = all.alloc(Layout::from_size_align(10, 8192).expect("a layout"));
            assert!(page.addr().is_multiple_of(8192) && place(page).is_none());
            let grown = all.realloc(moved, layout(26), SIZE);
            assert!(place(grown).is_none() && (0..13).all(|at| grown.add(at).read() == 1));
            // In huge pages, and grown beyond a piece of them.
            let many: Vec<_> = (0..64).map(|_| all.alloc(layout(SIZE))).collect();
            many.iter().for_each(|piece| piece.write_bytes(4, SIZE));
            assert!(many.iter().all(|piece| piece.read() == 4 && piece.add(SIZE - 1).read() == 4));
            let huge = all.realloc(many[0], layout(SIZE), 64 * SIZE);
            assert!((0..SIZE).step_by(4096).all(|at| huge.add(at).read() == 4));
            all.dealloc(huge, layout(64 * SIZE));
            many[1..].iter().for_each(|piece| all.dealloc(*piece, layout(SIZE)));
            let zeros = all.alloc_zeroed(layout(32 * SIZE));
            assert!((0..32 * SIZE).step_by(64).all(|at| zeros.add(at).read() == 0));
            all.dealloc(zeros, layout(32 * SIZE));
            // A long one that was the last is the next one's place.
            let long = all.alloc(layout(4 * LISTED));
            all.dealloc(long, layout(4 * LISTED));
            assert_eq!(all.alloc(layout(8 * LISTED)), long);
        }
    }
}
