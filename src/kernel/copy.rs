//! memcpy(3) and memmove(3) of the static program for x86-64, in place of musl's. Those are `rep movsq` and bytes one by one,
//! whatever the length; a run copies some thousand pieces of a few bytes (names, attributes), which took a twentieth of its time.
#![expect(unsafe_code, reason = "that is what copying is")]

use std::arch::naked_asm;

/// Copies `length` bytes, which may overlap; returns `to`. All of a short piece is read before any of it is written.
///
/// # Safety
/// As memmove(3): both have `length` bytes.
// In assembler, as a compiler may make a call of memcpy of whatever copies.
#[unsafe(naked)]
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 16",
        "ja 4f",
        "cmp edx, 8",
        "jb 2f",
        "mov rcx, [rsi]",
        "mov rsi, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], rsi",
        "ret",
        "2:",
        "cmp edx, 4",
        "jb 3f",
        "mov ecx, [rsi]",
        "mov esi, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], esi",
        "ret",
        // The first, the middle and the last byte are all of up to three.
        "3:",
        "test edx, edx",
        "jz 9f",
        "mov r10d, edx",
        "shr r10d",
        "movzx ecx, byte ptr [rsi]",
        "movzx r8d, byte ptr [rsi + r10]",
        "movzx esi, byte ptr [rsi + rdx - 1]",
        "mov [rdi], cl",
        "mov [rdi + r10], r8b",
        "mov [rdi + rdx - 1], sil",
        "9:",
        "ret",
        "4:",
        "cmp rdx, 64",
        "ja 6f",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + rdx - 16]",
        "cmp edx, 32",
        "jbe 5f",
        "movups xmm2, [rsi + 16]",
        "movups xmm3, [rsi + rdx - 32]",
        "movups [rdi + 16], xmm2",
        "movups [rdi + rdx - 32], xmm3",
        "5:",
        "movups [rdi], xmm0",
        "movups [rdi + rdx - 16], xmm1",
        "ret",
        "6:",
        "mov rcx, rdx",
        "mov r8, rdi",
        "sub r8, rsi",
        "cmp r8, rdx",
        "jb 7f",
        "rep movsb",
        "ret",
        // It begins within what is read: from the end, then.
        "7:",
        "lea rdi, [rdi + rdx - 1]",
        "lea rsi, [rsi + rdx - 1]",
        "std",
        "rep movsb",
        "cld",
        "ret",
    )
}

/// As [`memmove`].
///
/// # Safety
/// As memmove(3).
#[unsafe(naked)]
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    naked_asm!("jmp {}", sym memmove)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_overlap() {
        let numbers: Vec<u8> = (0..=255).cycle().take(512).collect();
        for length in (0..100).chain([255, 256]) {
            for to in 100..=156 {
                let mut expected = numbers.clone();
                expected.copy_within(128..128 + length, to);
                let mut copied = numbers.clone();
                let place = &raw mut copied[0];
                // SAFETY: both lie within the 512 bytes.
                let returned = unsafe { memcpy(place.add(to), place.add(128), length) };
                assert_eq!(returned, place.wrapping_add(to));
                assert_eq!(copied, expected, "{length} bytes from 128 to {to}");
            }
        }
    }
}
