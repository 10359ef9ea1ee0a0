//! Structure made of bytes: each byte is a choice, so that a fuzzer's small change is a small change of the thing made.

/// The choices that are left.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl<'a> Choices<'a> {
    /// The next byte; 0 at the end.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `limit`, which is 1 to 256.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    /// One of them.
    pub(crate) fn of<'c, T: ?Sized>(&mut self, choices: &[&'c T]) -> &'c T {
        choices[self.below(choices.len())]
    }

    /// Up to 15 bytes as they are.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = self.below(16).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    /// A number in the byte order of the network.
    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes([(); 4].map(|()| self.byte()))
    }

    /// Whether any are left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
