//! Structure made of bytes: each byte is a choice, so that a fuzzer's small change is a small change of the thing made.

use arbitrary::Unstructured;

/// The choices that are left.
pub(crate) struct Choices<'a>(Unstructured<'a>);

impl<'a> Choices<'a> {
    /// All of them.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// The next byte; 0 at the end.
    pub(crate) fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or(0)
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
        self.0.bytes(length).unwrap_or_default()
    }

    /// A number in the byte order of the network.
    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    /// Bytes of a known number, zeros behind the end.
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        self.0.arbitrary().unwrap_or([0; N])
    }

    /// Everything that is left, as it is.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let left = self.0.len();
        self.0.bytes(left).unwrap_or_default()
    }

    /// Whether any are left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
