//! What ovsdb-server says, or whoever listens in its place.

use std::io::{BufReader, Cursor, Read, Result, Write};

use super::{Refusal, answer, port, results};
use crate::fuzzed::check_error;

/// One who says some bytes and hears whatever he is told.
struct Speaker<'a>(Cursor<&'a [u8]>, Vec<u8>);

impl Read for Speaker<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let length = buffer.len().min(7);
        self.0.read(&mut buffer[..length])
    }
}

impl Write for Speaker<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.1.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The answer to a question for a port and its interface.
pub(crate) fn conversation(bytes: &[u8]) {
    let mut stream = BufReader::new(Speaker(Cursor::new(bytes), Vec::new()));
    let answered = answer(&mut stream, 1);
    let told = String::from_utf8(std::mem::take(&mut stream.get_mut().1)).expect("JSON is UTF-8");
    assert!(told.is_empty() || told.contains("\"result\""), "only an echo is answered: {told}");
    let rows = match answered.and_then(|all| {
        let length = all.len();
        results(all, length)
    }) {
        Err(error) => {
            check_error(&error);
            if let Some(refusal) = error.downcast_ref::<Refusal>() {
                assert!(!refusal.to_string().contains('\n'));
            }
            return;
        }
        Ok(results) => results,
    };
    let row = |result: usize| rows.get(result).map(|it| &it["rows"][0]);
    if let Some(row0) = row(0) {
        match port::port_of(row0, row(1)) {
            Err(error) => check_error(&error),
            Ok(state) => assert!(state.vlans.trunks.is_sorted() && state.bridge.is_empty()),
        }
    }
}
