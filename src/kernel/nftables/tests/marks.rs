//! The mark of a packet: written in part, and looked at.

use crate::ruleset::{Chain, Field, Statement, Value};

/// A chain of the golden table inet.
pub(super) fn chain() -> Chain {
    let (mask, value) = (Value::Mark(0xfff0_0000), Value::Mark(0x0640_0000));
    let write = Statement::WriteBits { field: Field::Mark, mask: mask.clone(), value: value.clone() };
    Chain {
        name: "steer".into(),
        hook: None,
        rules: vec![
            [Statement::contained([Field::IifName.into()], "guarded"), write].into(),
            [Statement::equal(Field::Mark.masked(mask), value), Statement::Accept].into(),
            [Statement::not_equal(Field::Mark, Value::Mark(0x64)), Statement::Counter].into(),
            [Statement::equal(Field::DaddrType, Value::FibAddrType(1)), Statement::Counter].into(),
        ],
    }
}
